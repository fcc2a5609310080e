"""Images that belong together do not vouch for each other: the detectors, and a field of a real database."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import demo_samples, read_demo
from PIL import Image
from scipy.spatial.distance import cdist
from scipy.stats import binom

from diffpath import (
    AnomalyDetector,
    DiffPathV2,
    FusedDetector,
    Reference,
    compute_diffpath,
    continue_diffpath,
    get_diffpath_info,
    load_reference,
    update_diffpath,
)
from diffpath.dataset import iterate_diffpath
from diffpath.dataset.groups import group_fields, read_groups

LENGTH = 8
FAST = dict(num_timesteps=3, num_workers=2, dtype="float32", progress=False)
SELF = dict(density="mahalanobis", trim=0.3)


def clusters(rng, count, size, width=4 + LENGTH):
    """Samples of ``count`` groups of ``size`` near duplicates each, and their groups."""
    centres = rng.normal(size=(count, width))
    centres[:, 4:] += 3  # embeddings around one direction
    samples = np.repeat(centres, size, axis=0) + 0.05 * rng.normal(size=(count * size, width))
    return samples, np.repeat(np.arange(count), size)


@pytest.mark.parametrize("make", [AnomalyDetector, lambda: FusedDetector(LENGTH)], ids=["density", "fused"])
def test_p_values_hold_for_new_groups_and_without_groups_far_too_many_are_small(make):
    """One query of a group of its own for each reference, so that the queries' ranks are independent."""
    rng = np.random.default_rng(0)
    repetitions, p_values = 200, {True: [], False: []}
    for _ in range(repetitions):
        X, groups = clusters(rng, 41, 4)
        for known in p_values:
            detector = make().fit(X[:-4], groups=groups[:-4] if known else None)
            p_values[known].append(detector.p_values(X[-1:])[0])
    for alpha in (0.05, 0.2, 0.5):
        # each fit sees four fifths of the groups, but a query is judged by all five: a little on the safe side
        assert np.sum(np.array(p_values[True]) <= alpha) <= binom.ppf(0.999, repetitions, alpha), alpha
    assert np.mean(np.array(p_values[True]) <= 0.5) > 0.25
    assert np.mean(np.array(p_values[False]) <= 0.05) > 0.5


@pytest.mark.parametrize("options, size", [({}, 4), ({"calibration": "split"}, 4), (SELF, 3)])
def test_no_group_is_judged_by_a_fit_that_saw_it(options, size):
    X, groups = clusters(np.random.default_rng(1), 30, size, width=4)
    X[groups == 7] += 50
    known = AnomalyDetector(**options).fit(X, groups=groups)
    assert set(groups[np.argsort(known.reference_scores_)[-size:]]) == {7}
    outside = AnomalyDetector(**options).fit(X[groups != 7], groups=groups[groups != 7])
    assert known.reference_scores_[groups == 7].min() > outside.reference_scores_.max()


def test_a_part_held_out_consists_of_whole_groups_and_few_groups_are_divided_into_folds():
    X, groups = clusters(np.random.default_rng(2), 1100, 2, width=3)
    detector = AnomalyDetector().fit(X, groups=groups)
    held_out = set(groups[detector.held_out_])
    assert len(detector.held_out_) == 660 and not held_out & set(np.delete(groups, detector.held_out_))
    few = AnomalyDetector().fit(X, groups=groups // 10)
    assert len(few.held_out_) == len(X)


def test_groups_may_be_words():
    X, groups = clusters(np.random.default_rng(3), 20, 3, width=4)
    numbered, named = (AnomalyDetector().fit(X, groups=g) for g in (groups, [f"video {g:02}" for g in groups]))
    np.testing.assert_array_equal(numbered.reference_scores_, named.reference_scores_)
    assert not np.array_equal(numbered.reference_scores_, AnomalyDetector().fit(X).reference_scores_)


def test_nearest_neighbours_are_of_other_groups():
    X, groups = clusters(np.random.default_rng(4), 12, 5)
    detector = FusedDetector(LENGTH, num_neighbours=3).fit(X, groups=groups)
    units = X[:, -LENGTH:] / np.linalg.norm(X[:, -LENGTH:], axis=1, keepdims=True)
    distances = cdist(units, units)
    distances[groups[:, None] == groups] = np.inf
    np.testing.assert_allclose(
        detector.reference_parts_[:, 1], np.sort(distances, axis=1)[:, :3].mean(axis=1), rtol=1e-4
    )
    alone = AnomalyDetector().fit(X[:, :-LENGTH], groups=groups)
    np.testing.assert_array_equal(detector.reference_parts_[:, 0], alone.reference_scores_)


def test_an_embedding_that_two_groups_share_is_a_neighbour_of_both():
    X, groups = clusters(np.random.default_rng(5), 12, 2)
    X[0, -LENGTH:] = X[2, -LENGTH:]
    detector = FusedDetector(LENGTH, num_neighbours=1).fit(X, groups=groups)
    np.testing.assert_allclose(detector.reference_parts_[[0, 2], 1], 0, atol=1e-6)


@pytest.mark.parametrize("sizes", [(20, 3), (6, 5, 4), (40, 2)])
@pytest.mark.parametrize("options", [{}, SELF])
def test_few_and_unequal_groups_give_finite_scores_that_a_file_keeps(tmp_path, sizes, options):
    rng = np.random.default_rng(6)
    X, groups = rng.normal(size=(sum(sizes), 3 + LENGTH)), np.repeat(np.arange(len(sizes)), sizes)
    made_by = {"model_fingerprint": "a", "options": {}, "embedding_length": LENGTH}
    reference = Reference.of(X, made_by, groups=groups, **options)
    reference.save(tmp_path / "r.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "r.safetensors"]
    again, queries = load_reference(tmp_path / "r.safetensors").detector, rng.normal(size=(5, 3 + LENGTH))
    assert np.isfinite(reference.detector.reference_scores_).all()
    np.testing.assert_array_equal(again.score_samples(queries), reference.detector.score_samples(queries))
    np.testing.assert_array_equal(again.p_values(queries), reference.detector.p_values(queries))


@pytest.mark.parametrize("make", [AnomalyDetector, lambda **options: FusedDetector(LENGTH, detector_options=options)])
def test_too_few_groups_and_another_number_of_them_are_refused_with_the_way_out(make):
    X = np.random.default_rng(7).normal(size=(20, 3 + LENGTH))
    with pytest.raises(
        ValueError, match="at least 2 groups, got 1, .*; add images of other groups, or leave groups out"
    ):
        make().fit(X, groups=np.zeros(20))
    with pytest.raises(ValueError, match="all but 1 of the reference images are of one group"):
        make().fit(X, groups=np.arange(20) == 3)
    with pytest.raises(ValueError, match="at least 3 groups"):
        make(calibration="split").fit(X, groups=np.arange(20) % 2)
    with pytest.raises(ValueError, match="one value for each of 20 samples"):
        make().fit(X, groups=np.arange(19))


def write_shots(folder, count=30, times=4):
    """Pictures of clothing, each ``times`` over with a little noise of the camera, and others once."""
    rng, samples = np.random.default_rng(8), []

    def shoot(kind, k, n, image, **fields):
        path = Path(folder, f"{kind}-{k}-{n}.png")
        Image.fromarray((image + rng.normal(0, 2, image.shape)).clip(0, 255).astype(np.uint8)).save(path)
        samples.append(fo.Sample(filepath=str(path), tags=[kind], **fields))

    for k, image in enumerate(read_demo("reference", count)):
        for n in range(times):
            named = dict(picture=f"picture {k}", number=k, scene=fo.Classification(label=str(k)))
            shoot("r", k, n, image, **named)
    for k, image in enumerate(read_demo("clean", 60)):
        shoot("new", k, 0, image)
    return samples


@pytest.fixture
def dataset(tmp_path, make_dataset):
    return make_dataset(write_shots(tmp_path))


def test_images_of_new_groups_are_flagged_as_often_as_the_level_says(dataset):
    runs = {
        groups: compute_diffpath(
            dataset, reference="r", groups=groups, run_key=str(groups).partition(".")[0], level=0.1, **FAST
        )
        for groups in (None, "picture", "scene.label")
    }
    new = dataset.match_tags("new")
    flagged = {groups: np.mean(new.values(run.fields["is_ood"])) for groups, run in runs.items()}
    assert flagged[None] > 0.5
    assert flagged["picture"] < 0.25 and flagged["scene.label"] == flagged["picture"]
    rows = dict(get_diffpath_info(dataset, "picture")["made_by"]["reference"])
    assert rows == {"kind": "tag", "tag": "r", "groups": "picture"}


def test_the_field_counts_in_every_kind_of_reference_and_without_one(dataset):
    reference = dataset.match_tags("r")
    compute_diffpath(dataset, reference="r", groups="picture", run_key="tag", **FAST)
    compute_diffpath(dataset, reference=reference, groups="picture", run_key="view", **FAST)
    compute_diffpath(dataset.match_tags("new"), reference=reference.clone(), groups="picture", run_key="other", **FAST)
    np.testing.assert_allclose(dataset.values("view_score"), dataset.values("tag_score"))
    new = dataset.match_tags("new")
    np.testing.assert_allclose(new.values("other_score"), new.values("tag_score"), rtol=1e-3)
    alone = compute_diffpath(reference, groups="picture", run_key="alone", **FAST)
    scores = np.array(reference.values("alone_score"))
    detector = AnomalyDetector(**SELF).fit(
        np.hstack([reference.values(alone.fields[kind]) for kind in ("features", "profile", "statistics")]),
        groups=reference.values("number"),
    )
    np.testing.assert_allclose(scores, detector.reference_scores_, rtol=1e-4)


def test_an_interrupted_run_goes_on_with_its_groups_and_an_update_uses_its_reference(dataset):
    options = dict(reference="r", num_timesteps=3, dtype="float32")
    steps = iterate_diffpath(dataset, groups="picture", run_key="k", batch_size=4, **options)
    for step in steps:
        if step.done >= 12:
            break
    steps.close()
    with pytest.raises(ValueError, match="other options"):
        compute_diffpath(dataset, run_key="k", **options)
    continue_diffpath(dataset, "k", progress=False)
    compute_diffpath(dataset, groups="picture", run_key="whole", progress=False, **options)
    np.testing.assert_allclose(dataset.values("k_score"), dataset.values("whole_score"), rtol=5e-3)
    dataset.add_samples(demo_samples("clean", 2, skip=60), progress=False)
    assert update_diffpath(dataset, "k", progress=False).num_scored == len(dataset)


def test_a_field_of_no_use_is_refused_before_anything_is_written(dataset, make_dataset):
    before = set(dataset.get_field_schema())
    for groups, message in {
        "nothing": "'nothing'.* is not there; its fields of single values are 'picture', 'number', 'scene.label'",
        "tags": "'tags'.* holds lists, no single values",
        "scene": "'scene'.* holds Classification, no single values",
    }.items():
        with pytest.raises(ValueError, match=message):
            compute_diffpath(dataset, reference="r", groups=groups, **FAST)
    dataset.set_values("same", ["x"] * len(dataset))
    with pytest.raises(ValueError, match="at least 2 groups.*got 1"):
        compute_diffpath(dataset, reference="r", groups="same", **FAST)
    other = make_dataset(demo_samples("reference", 5))
    with pytest.raises(ValueError, match="'picture'.* is not there; its fields of single values are 'kind'"):
        compute_diffpath(dataset, reference=other, groups="picture", **FAST)
    method = DiffPathV2(num_timesteps=3)
    saved = Reference.fit(method, list(read_demo("reference", 6)), groups=[0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="fitted with its own groups; leave groups out"):
        compute_diffpath(dataset, reference=saved, groups="picture", **FAST)
    assert set(dataset.get_field_schema()) - {"same"} == before and not dataset.list_runs()


def test_an_image_without_a_value_is_a_group_of_its_own(dataset):
    groups = read_groups(dataset, "picture")
    values = dict(zip(*dataset.values(["id", "picture"])))
    assert len(set(groups.values())) == 30 + 60
    for sample_id, value in values.items():
        same = {other for other, group in groups.items() if group == groups[sample_id]}
        assert same == ({sample_id} if value is None else {i for i, v in values.items() if v == value})


def test_the_fields_that_can_say_it_are_those_of_single_values(make_dataset):
    dataset = make_dataset(
        demo_samples("reference", 2, video="a", number=1, weight=0.5, several=["a"], embedding=[0.5])
    )
    dataset.add_group_field("slice", default="left")
    assert set(group_fields(dataset)) == {"kind", "video", "number", "slice.id"}

"""Embeddings that a dataset already has count beside the diffusion model's score, in a real database."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import demo_samples
from fiftyone import ViewField as F
from PIL import Image
from skimage.feature import hog
from sklearn.metrics import roc_auc_score

from diffpath import (
    DiffPathV2,
    ReferenceSetError,
    compute_diffpath,
    continue_diffpath,
    delete_diffpath,
    evaluate_diffpath,
    get_diffpath_info,
    load_diffpath_view,
    load_reference,
    rename_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.dataset import ScoringRequest, iterate_scoring, preview_threshold
from diffpath.dataset.embeddings import embedding_fields
from diffpath.operators.panel.data import export_csv

FAST = dict(num_timesteps=3, num_workers=2, dtype="float32", progress=False)
PARTS = ("k_diffusion_score", "k_embedding_score")


def embed(path):
    """Histograms of oriented gradients: a real embedding that needs no network, float64 ``(144,)``."""
    with Image.open(path) as image:
        return hog(np.asarray(image.convert("L")), orientations=9, pixels_per_cell=(7, 7), cells_per_block=(1, 1))


def add_embeddings(samples, field="hog"):
    paths = samples.values("filepath")
    samples.set_values(field, [embed(path) if Path(path).exists() else None for path in paths])


def fill(dataset):
    dataset.add_samples(
        demo_samples("reference", 40, tags=["r"]) + demo_samples("clean", 15) + demo_samples("photos", 10),
        progress=False,
    )
    add_embeddings(dataset)
    return dataset


@pytest.fixture(scope="module")
def scored():
    """A dataset with a finished run of fused scores; tests change its threshold only."""
    dataset = fill(fo.Dataset())
    run = compute_diffpath(dataset, reference="r", embeddings="hog", run_key="k", **FAST)
    yield dataset, run
    dataset.delete()


@pytest.fixture
def dataset():
    dataset = fill(fo.Dataset())
    yield dataset
    dataset.delete()


def test_the_parts_stand_beside_the_fused_score_that_everything_ranks_and_flags_by(scored):
    dataset, run = scored
    set_diffpath_threshold(dataset, "k", "false_positive_rate", 0.05)
    names = ["k_score", *PARTS, "k_p_value", "k_is_ood"]
    scores, diffusion, embedding, _p_values, flags = map(np.array, dataset.values(names))
    detector = run.reference().detector
    np.testing.assert_allclose(scores, detector.fuse(np.column_stack([diffusion, embedding])))
    new = dataset.match_tags("r", bool=False)
    np.testing.assert_allclose(new.values("k_p_value"), detector.calibration_.p_values(new.values("k_score")))
    np.testing.assert_array_equal(flags, scores >= run.threshold)
    ranked = load_diffpath_view(dataset, "k").values("k_score")
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == 65
    assert "fused" in dataset.get_field("k_score").description
    assert f"{run.threshold:.4g}" in dataset.get_field("k_score").description
    for name in PARTS:
        assert "higher = more anomalous" in dataset.get_field(name).description
    assert {"diffusion_score", "embedding_score"} <= set(run.fields)


def test_the_diffusion_score_is_that_of_a_run_without_embeddings_which_has_no_parts(scored):
    dataset, _ = scored
    plain = compute_diffpath(dataset, reference="r", run_key="plain", **FAST)
    np.testing.assert_allclose(dataset.values("k_diffusion_score"), dataset.values("plain_score"), rtol=1e-3)
    assert not {"diffusion_score", "embedding_score"} & set(plain.fields)
    assert "embeddings" not in plain.config["made_by"]
    delete_diffpath(dataset, "plain")


def test_the_embedding_score_is_the_distance_of_the_samples_own_vector(scored):
    dataset, _run = scored
    units = {}
    for tagged in (True, False):
        vectors = np.stack(dataset.match_tags("r", bool=tagged).values("hog"))
        units[tagged] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.sort(np.linalg.norm(units[False][:, None] - units[True], axis=2), axis=1)[:, :10].mean(axis=1)
    stored = dataset.match_tags("r", bool=False).values("k_embedding_score")
    np.testing.assert_allclose(stored, distances, rtol=1e-3)


def test_intruders_rank_above_images_of_the_references_kind_and_evaluation_measures_the_fused_score(scored):
    dataset, _ = scored
    queries = dataset.match_tags("r", bool=False)
    kinds, scores = queries.values(["kind", "k_score"])
    result = evaluate_diffpath(queries, "k", "kind", ood="photos", num_bootstrap=20)
    assert result.auroc == pytest.approx(roc_auc_score(np.array(kinds) == "photos", scores)) and result.auroc > 0.9


def test_thresholds_follow_the_fused_score_and_the_exported_list_has_the_parts(scored):
    dataset, _ = scored
    run = set_diffpath_threshold(dataset, "k", "count", 4)
    assert preview_threshold(dataset, "k", "count", 4) == (run.threshold, 4)
    flagged = load_diffpath_view(dataset, "k", "ood")
    assert sorted(flagged.values("k_score")) == sorted(dataset.values("k_score"))[-4:]
    header = export_csv(flagged, run).splitlines()[0]
    assert header.startswith("id,filepath,tags,k_score,k_diffusion_score,k_embedding_score,k_p_value")


@pytest.mark.parametrize("kind", ["view", "dataset", "saved", "file", "reference object"])
def test_every_kind_of_reference_gives_the_same_fused_scores(scored, kind, make_dataset):
    dataset, run = scored
    if kind == "dataset":
        reference = make_dataset(demo_samples("reference", 40))
        add_embeddings(reference)
    elif kind == "view":
        reference = dataset.match_tags("r")
    else:
        reference = Path(run.reference_path)
        reference = load_reference(reference) if kind == "reference object" else reference
    queries = make_dataset(demo_samples("clean", 15), demo_samples("photos", 10))
    add_embeddings(queries)
    again = compute_diffpath(queries, reference=reference, embeddings="hog", run_key="k", **FAST)
    for name in ("k_score", "k_p_value", *PARTS):
        expected = dict(zip(*dataset.values(["filepath", name])))
        for path, value in zip(*queries.values(["filepath", name])):
            assert value == pytest.approx(expected[path], rel=2e-3, abs=1e-6), name
    assert again.threshold == pytest.approx(compute_threshold(run), rel=2e-3)


def compute_threshold(run):
    return run.reference().detector.calibration_.threshold(0.05)


def test_without_a_reference_contaminants_of_one_kind_are_found(make_dataset):
    dataset = make_dataset(demo_samples("reference", 80), demo_samples("textures", 8))
    add_embeddings(dataset)
    run = compute_diffpath(dataset, embeddings="hog", **FAST)
    assert run.smallest_p_value == 0 and run.num_scored == 88
    kinds, scores = dataset.values(["kind", "diffpath_score"])
    assert roc_auc_score(np.array(kinds) == "textures", scores) > 0.9
    assert run.view(dataset, "ood").match(F("kind") == "reference").count() <= 8


def test_images_without_a_fitting_embedding_get_no_score_say_why_and_cost_no_other_its_score(dataset, tmp_path):
    dataset.add_sample_field("vector", fo.ListField, subfield=fo.FloatField)
    dataset.set_values("vector", [vector.tolist() for vector in dataset.values("hog")])
    bad = {0: None, 20: [1.0, 2.0], 41: [float("nan")] * 144, 60: []}
    ids = dataset.values("id")
    dataset.set_values("vector", {ids[k]: value for k, value in bad.items()}, key_field="id")
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "no.png")))
    run = compute_diffpath(dataset, reference="r", embeddings="vector", **FAST)
    assert run.num_scored == 61 and run.num_unreadable == 5 == len(run.view(dataset, "unreadable"))
    assert run.config["num_reference"] == 38
    errors = dict(zip(*dataset.values(["id", "diffpath_error"])))
    for k, said in {0: "no embedding", 20: "has 2 numbers", 41: "not finite", 60: "not a vector"}.items():
        assert said in errors[ids[k]] and "'vector'" in errors[ids[k]], k
    assert "No such file" in errors[dataset.last().id] or "no.png" in errors[dataset.last().id]
    assert all(errors[i] is None for k, i in enumerate(ids) if k not in bad)
    assert dataset.exists("diffpath_error").count("diffpath_score") == 0
    assert dataset.count("diffpath_features") == 65  # to be scored once there is an embedding


def test_a_later_embedding_and_new_images_are_scored_by_an_update_against_the_same_reference(dataset, monkeypatch):
    late = dataset.match(F("kind") == "photos").limit(1)
    vector = late.values("hog")
    late.set_values("hog", [None])
    run = compute_diffpath(dataset, reference="r", embeddings="hog", run_key="k", **FAST)
    before = dict(zip(*dataset.exists("k_score").values(["id", "k_score"])))
    late.set_values("hog", vector)
    dataset.add_samples(demo_samples("digits", 4), progress=False)
    dataset.add_samples(demo_samples("clean", 1, skip=20), progress=False)
    add_embeddings(dataset.match(F("kind") == "digits"))

    counted, real = [], DiffPathV2._score_piece
    monkeypatch.setattr(
        DiffPathV2, "_score_piece", lambda self, on, piece: counted.append(len(piece.images)) or real(self, on, piece)
    )
    updated = update_diffpath(dataset, "k", num_workers=2, progress=False)
    assert sum(counted) == 5  # the late one has its features already
    assert updated.num_scored == 69 and updated.num_unreadable == 1
    assert "no embedding" in dataset.last().k_error and dataset[late.first().id].k_error is None
    scores = dict(zip(*dataset.values(["id", "k_score"])))
    assert {i: scores[i] for i in before} == before
    sample = dataset[late.first().id]
    detector = run.reference().detector
    descriptor = np.concatenate([sample.k_features, sample.k_profile, sample.k_statistics, sample.hog])
    assert sample.k_score == pytest.approx(detector.score_samples(descriptor[None])[0], rel=1e-4)


@pytest.mark.parametrize("reference", ["tag", "self"])
def test_an_interrupted_run_is_continued_with_its_embeddings(dataset, reference):
    options = dict(reference="r" if reference == "tag" else None, embeddings="hog", num_timesteps=3, dtype="float32")
    steps = iterate_scoring(ScoringRequest.of(dataset, run_key="k", batch_size=4, **options))
    for step in steps:
        if step.done >= 12:
            break
    steps.close()
    assert get_diffpath_info(dataset, "k")["status"] == "interrupted"
    with pytest.raises(ValueError, match="other options"):
        compute_diffpath(dataset, run_key="k", **{**options, "embeddings": None})
    continue_diffpath(dataset, "k", progress=False)
    compute_diffpath(dataset, run_key="whole", progress=False, **options)
    for part in ("diffusion", "embedding"):
        parts = [dataset.values(f"{run_key}_{part}_score") for run_key in ("k", "whole")]
        np.testing.assert_allclose(*parts, rtol=5e-3)
    # Below the median a tail probability is a rank, which may differ by one
    np.testing.assert_allclose(dataset.values("k_score"), dataset.values("whole_score"), atol=0.05)


def test_a_run_with_embeddings_is_renamed_described_and_deleted_with_its_parts_and_without_the_users_field(dataset):
    schema = set(dataset.get_field_schema())
    compute_diffpath(dataset, reference="r", embeddings="hog", run_key="old", **FAST)
    rename_diffpath(dataset, "old", "new")
    assert dataset.count("new_embedding_score") == dataset.count("new_diffusion_score") == 65
    made_by = get_diffpath_info(dataset, "new")["made_by"]
    assert (made_by["embeddings"], made_by["embedding_length"]) == ("hog", 144)
    assert update_diffpath(dataset, "new", progress=False).num_scored == 65
    delete_diffpath(dataset, "new")
    assert set(dataset.get_field_schema()) == schema and dataset.count("hog") == 65


def test_vectors_arrays_and_lists_of_numbers_can_be_embeddings_and_nothing_else(make_dataset):
    (sample,) = demo_samples("clean", 1, vector=np.ones(4), array=np.ones((2, 2)), text="a", words=["a"], number=1.0)
    dataset = make_dataset([sample])
    dataset.add_sample_field("numbers", fo.ListField, subfield=fo.FloatField)
    assert sorted(embedding_fields(dataset)) == ["array", "numbers", "vector"]


@pytest.mark.parametrize(
    "field, message",
    [
        ("nothing", "is not there; its fields of vectors are 'hog'"),
        ("kind", "holds no vectors; its fields of vectors are 'hog'"),
        ("empty", "no sample .* has an embedding in 'empty'"),
        ("few", "at least 3 images with an embedding in 'few', got 2"),
        ("elsewhere", "no sample to be scored has an embedding of 4 numbers"),
    ],
)
def test_a_field_of_no_use_is_refused_before_anything_is_written(dataset, field, message):
    for name in ("empty", "few", "elsewhere"):
        dataset.add_sample_field(name, fo.VectorField)
    dataset.match_tags("r").limit(2).set_values("few", [np.ones(4)] * 2)
    dataset.match_tags("r").set_values("elsewhere", [np.ones(4)] * 40)
    with pytest.raises(ValueError, match=message):
        compute_diffpath(dataset.match_tags("r", bool=False), reference="r", embeddings=field, **FAST)
    assert dataset.list_runs() == [] and dataset.list_saved_views() == []


def test_a_reference_with_embeddings_and_one_without_are_not_mistaken_for_each_other(scored, make_dataset):
    _dataset, run = scored
    queries = make_dataset(demo_samples("clean", 5))
    add_embeddings(queries)
    queries.set_values("short", [np.ones(7)] * 5)
    plain = compute_diffpath(queries, run_key="plain", **FAST)
    for reference, embeddings, said in (
        (run.reference(), None, "its embedding_length is 144, here it is None"),
        (run.reference(), "short", "its embedding_length is 144, here it is 7"),
        (plain.reference(), "hog", "its embedding_length is None, here it is 144"),
    ):
        with pytest.raises(ReferenceSetError, match=said):
            compute_diffpath(queries, reference=reference, embeddings=embeddings, run_key="no", **FAST)
    assert queries.list_runs() == ["plain"]

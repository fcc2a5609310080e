"""Scoring FiftyOne datasets in a real database: fields, views, runs, and what must survive."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from bad_files import SCORABLE, UNREADABLE
from conftest import demo_samples
from fiftyone import ViewField as F
from PIL import Image
from sklearn.metrics import roc_auc_score

import diffpath
from diffpath import DiffPathV2, compute_diffpath, delete_diffpath
from diffpath.dataset.internals import patch_run, read_runs
from diffpath.images import load_image

FAST = dict(num_timesteps=3, num_workers=2)


@pytest.fixture(scope="module")
def scored():
    """A dataset with a finished run that tests only read."""
    dataset = fo.Dataset()
    dataset.add_samples(
        demo_samples("reference", 60, tags=["reference"])
        + demo_samples("clean", 20)
        + demo_samples("photos", 15)
        + [fo.Sample(filepath="/no/such/image.png", kind="missing")]
    )
    run = compute_diffpath(dataset, reference="reference", run_key="k", progress=False, **FAST)
    yield dataset, run
    dataset.delete()


def test_every_promised_field_is_there_with_its_type(scored):
    dataset, run = scored
    types = {
        "k_score": fo.FloatField,
        "k_p_value": fo.FloatField,
        "k_is_ood": fo.BooleanField,
        "k_explanation": fo.StringField,
        "k_features": fo.VectorField,
        "k_profile": fo.VectorField,
        "k_statistics": fo.VectorField,
        "k_error": fo.StringField,
    }
    for name, field_type in types.items():
        assert isinstance(dataset.get_field(name), field_type), name
    maps = ["k_anomaly_map", "k_heatmap", "k_error_map"]
    assert all(dataset.get_field(name).document_type is fo.Heatmap for name in maps)
    assert sorted(run.fields.values()) == sorted([*types, *maps])


def test_the_score_is_described_and_indexed(scored):
    dataset, run = scored
    description = dataset.get_field("k_score").description
    assert "higher = more anomalous" in description
    assert f"{run.threshold:.4g}" in description
    assert "k_score" in dataset.list_indexes()
    for name in run.fields.values():
        assert dataset.get_field(name).description


def test_intruders_rank_above_clean_images_of_the_kind_of_the_reference(scored):
    dataset, _run = scored
    queries = dataset.match(F("kind").is_in(["clean", "photos"]))
    kinds, scores = queries.values(["kind", "k_score"])
    assert roc_auc_score(np.array(kinds) == "photos", scores) > 0.9


def test_features_in_the_database_are_those_of_the_method(scored):
    dataset, _run = scored
    sample = dataset.match(F("kind") == "photos").first()
    with Image.open(sample.filepath) as image:
        expected = DiffPathV2(num_timesteps=3).score_images([image])
    size = np.sqrt(expected.features[0, [1, 1, 1, 4, 4, 4]]) ** [1, 2, 3, 1, 2, 3]
    assert (np.abs(sample.k_features - expected.features[0]) < 0.02 * size).all()
    np.testing.assert_allclose(sample.k_profile, expected.profile[0], atol=0.01)
    np.testing.assert_allclose(sample.k_statistics, expected.statistics[0], atol=0.02)


def test_the_counts_of_the_run_are_those_of_the_dataset(scored):
    dataset, run = scored
    assert run.num_scored == 95 == dataset.count("k_score")
    assert run.num_unreadable == 1 == dataset.count("k_error")
    assert run.num_likely_ood == dataset.match(F("k_score") >= run.threshold).count()
    assert run.seconds > 0


def test_every_scored_image_has_a_p_value_a_flag_and_an_explanation(scored):
    dataset, run = scored
    columns = ["k_score", "k_p_value", "k_is_ood", "k_explanation"]
    scores, p_values, flags, explanations = map(np.array, dataset.exists("k_score").values(columns))
    np.testing.assert_array_equal(flags, scores >= run.threshold)
    assert (np.diff(p_values[np.argsort(scores, kind="stable")]) <= 1 / 61 + 1e-9).all()
    assert run.smallest_p_value == pytest.approx(1 / 61) and p_values.min() >= 1 / 61 and p_values.max() <= 1
    assert "0.016 is the smallest" in dataset.get_field("k_p_value").description
    explained = [" sd" in text or "stands out" in text for text in explanations]
    assert explained == (p_values <= 0.1).tolist() and set(explanations[p_values > 0.1]) == {""}
    assert dataset.match(F("kind") == "missing").first().k_p_value is None


def test_p_values_of_reference_samples_are_ranks_among_each_other(scored):
    dataset, _run = scored
    p_values = dataset.match_tags("reference").values("k_p_value")
    np.testing.assert_allclose(np.sort(p_values), np.arange(1, 61) / 60)


def test_the_run_records_what_made_it(scored):
    dataset, run = scored
    config = dataset.get_run_info("k").config.serialize()
    assert config["method"] == "diffpath" and config["status"] == "complete"
    assert config["made_by"]["model"] == "bundled"
    assert config["made_by"]["options"]["num_timesteps"] == 3
    assert config["made_by"]["reference"] == {"kind": "tag", "tag": "reference"}
    assert config["versions"]["fiftyone"] == fo.__version__
    assert config["fields"] == run.fields and config["views"] == run.views
    assert (run.rule, run.level, run.tag) == ("false_positive_rate", 0.05, None)
    assert len(config["feature_centre"]) == len(config["feature_scale"]) == 6
    assert Path(run.heatmap_dir).is_dir()


def test_the_four_views_hold_what_their_names_say(scored):
    dataset, run = scored
    ranked = dataset.load_saved_view("k: most anomalous first").values("k_score")
    assert len(ranked) == 95 and ranked == sorted(ranked, reverse=True)
    typical = dataset.load_saved_view("k: most typical").values("k_score")
    assert typical == ranked[::-1]
    likely = dataset.load_saved_view("k: likely OOD").values("k_score")
    assert likely == [score for score in ranked if score >= run.threshold]
    assert dataset.load_saved_view("k: unreadable").values("kind") == ["missing"]
    for name in run.views.values():
        assert dataset.get_saved_view_info(name)["description"]


@pytest.mark.parametrize("kind_of_map, source", [("heatmap", "heatmaps"), ("error_map", "error_maps")])
def test_maps_are_pngs_on_one_fixed_scale(scored, kind_of_map, source):
    dataset, run = scored
    method = DiffPathV2(num_timesteps=3)
    for kind in ("clean", "photos"):
        sample = dataset.match(F("kind") == kind).first()
        path = Path(sample[f"k_{kind_of_map}"].map_path)
        assert path.parent.parent == Path(run.heatmap_dir).parent and path.stem == sample.id
        stored = np.asarray(Image.open(path))
        with Image.open(sample.filepath) as image:
            expected = getattr(method.score_images([image]), source)[0]
        assert stored.dtype == np.uint8 and stored.shape == expected.shape
        low, high = run.config[f"{kind_of_map}_scale"]
        expected = np.clip((expected - low) / (high - low), 0, 1) * 255
        assert np.abs(stored - expected).mean() < 5
        assert stored.min() >= 1  # the App leaves level 0 out


def test_saved_views_stay_live(make_dataset):
    dataset = make_dataset(demo_samples("reference", 12))
    run = compute_diffpath(dataset, progress=False, **FAST)
    sample = dataset.first()
    sample[run.fields["score"]] = run.threshold + 1e6
    sample.save()
    assert dataset.load_saved_view("diffpath: likely OOD").first().id == sample.id
    assert dataset.load_saved_view("diffpath: most anomalous first").first().id == sample.id


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own word for it
def test_awkward_files_are_scored_and_unreadable_ones_never_cost_another_its_score(make_dataset, tmp_path):
    good = [fo.Sample(filepath=str(build(tmp_path)[0]), kind=kind) for kind, build in SCORABLE.items()]
    bad = [fo.Sample(filepath=str(build(tmp_path)), kind=kind) for kind, build in UNREADABLE.items()]
    mixed = [sample for pair in zip(good, bad) for sample in pair] + good[len(bad) :]
    dataset = make_dataset(mixed, demo_samples("reference", 20, tags=["reference"]))
    run = compute_diffpath(dataset, reference="reference", batch_size=4, progress=False, **FAST)
    scores = dict(zip(*dataset.values(["filepath", "diffpath_score"])))
    errors = dict(zip(*dataset.values(["filepath", "diffpath_error"])))
    assert run.num_unreadable == len(UNREADABLE) and run.num_scored == len(SCORABLE) + 20
    for sample in good:
        assert np.isfinite(scores[sample.filepath]) and errors[sample.filepath] is None, sample.kind
    for sample in bad:
        assert scores[sample.filepath] is None and sample.filepath in errors[sample.filepath], sample.kind
    known = [score for score in scores.values() if score is not None]
    assert dataset.bounds("diffpath_score") == pytest.approx((min(known), max(known)))


def test_a_score_does_not_depend_on_bad_files_beside_it(make_dataset, tmp_path):
    bad = [fo.Sample(filepath=str(build(tmp_path))) for build in UNREADABLE.values()]
    photos = demo_samples("photos", 4)
    reference = make_dataset(demo_samples("reference", 20))
    with_bad, without = make_dataset(bad, photos), make_dataset(demo_samples("photos", 4))
    for dataset in (with_bad, without):
        compute_diffpath(dataset, reference=reference, progress=False, dtype="float32", **FAST)
    beside_bad = dict(zip(*with_bad.values(["filepath", "diffpath_score"])))
    for path, score in zip(*without.values(["filepath", "diffpath_score"])):
        assert beside_bad[path] == pytest.approx(score, rel=1e-3)


def test_a_tag_a_view_and_a_dataset_as_reference_give_the_same_scores(make_dataset):
    reference = demo_samples("reference", 20, tags=["normal"])
    dataset = make_dataset(reference, demo_samples("photos", 5))
    elsewhere = make_dataset(demo_samples("reference", 20))
    references = {"tag": "normal", "view": dataset.match_tags("normal"), "data": elsewhere}
    for key, value in references.items():
        compute_diffpath(dataset, reference=value, run_key=key, progress=False, dtype="float32", **FAST)
    photos = dataset.match(F("kind") == "photos")
    scores = {key: photos.values(f"{key}_score") for key in references}
    np.testing.assert_allclose(scores["view"], scores["tag"], rtol=1e-3)
    np.testing.assert_allclose(scores["data"], scores["tag"], rtol=1e-3)


def test_scoring_a_view_leaves_the_other_samples_and_the_reference_untouched(make_dataset):
    dataset = make_dataset(demo_samples("clean", 6), demo_samples("photos", 4))
    elsewhere = make_dataset(demo_samples("reference", 15))
    run = compute_diffpath(dataset.match(F("kind") == "photos"), reference=elsewhere, progress=False, **FAST)
    assert run.num_scored == 4
    assert dataset.match(F("kind") == "clean").count("diffpath_score") == 0
    assert "diffpath_features" not in elsewhere.get_field_schema() and elsewhere.list_runs() == []


def test_without_a_reference_intruders_among_many_alike_are_found(make_dataset):
    dataset = make_dataset(demo_samples("reference", 60), demo_samples("photos", 6))
    compute_diffpath(dataset, progress=False, **FAST)
    kinds, scores = dataset.values(["kind", "diffpath_score"])
    assert roc_auc_score(np.array(kinds) == "photos", scores) > 0.9


def test_an_existing_run_is_only_replaced_when_asked(make_dataset):
    dataset = make_dataset(demo_samples("reference", 8))
    compute_diffpath(dataset, progress=False, **FAST)
    before = dataset.values("diffpath_score")
    with pytest.raises(ValueError, match="overwrite=True"):
        compute_diffpath(dataset, progress=False, **FAST)
    assert dataset.values("diffpath_score") == before
    run = compute_diffpath(dataset, overwrite=True, heatmaps=False, progress=False, seed=1, **FAST)
    assert run.config["made_by"]["options"]["seed"] == 1
    assert dataset.values("diffpath_score") != before
    assert not dataset.has_field("diffpath_heatmap") and run.heatmap_dir is None
    assert not dataset.has_field("diffpath_error_map") and not list(Path(run.config["folder"]).rglob("*.png"))


def test_overwriting_from_a_view_over_the_old_scores_scores_the_same_images(make_dataset):
    dataset = make_dataset(demo_samples("reference", 8))
    first = compute_diffpath(dataset, progress=False, **FAST)
    half = first.view(dataset).limit(5)  # the App's current view after a run
    ids = half.values("id")
    second = compute_diffpath(half, overwrite=True, progress=False, **FAST)
    assert second.num_scored == 5
    assert set(dataset.exists("diffpath_score").values("id")) == set(ids)


def test_a_users_own_field_or_view_is_never_overwritten(make_dataset):
    dataset = make_dataset(demo_samples("reference", 5))
    dataset.set_values("mine_score", [1.0] * 5)
    dataset.save_view("yours: likely OOD", dataset.limit(1))
    for key, name in (("mine", "mine_score"), ("yours", "yours: likely OOD")):
        with pytest.raises(ValueError, match=name):
            compute_diffpath(dataset, run_key=key, overwrite=True, progress=False, **FAST)
    assert dataset.values("mine_score") == [1.0] * 5
    assert len(dataset.load_saved_view("yours: likely OOD")) == 1
    assert dataset.list_runs() == []


def test_two_runs_stand_side_by_side_and_one_is_deleted_without_trace(make_dataset):
    dataset = make_dataset(demo_samples("reference", 6))
    before = set(dataset.get_field_schema())
    keep = compute_diffpath(dataset, run_key="keep", progress=False, **FAST)
    gone = compute_diffpath(dataset, run_key="gone", preset="paper", progress=False, **FAST)
    dataset.save_view("gone by hand", dataset.limit(2))
    delete_diffpath(dataset, "gone")
    assert set(dataset.get_field_schema()) == before | set(keep.fields.values())
    assert set(dataset.list_saved_views()) == {*keep.views.values(), "gone by hand"}
    assert dataset.list_runs() == ["keep"]
    assert not Path(gone.heatmap_dir).exists() and len(list(Path(keep.heatmap_dir).glob("*.png"))) == 6


def test_the_paper_preset_has_no_profile_field(make_dataset):
    dataset = make_dataset(demo_samples("reference", 6))
    run = compute_diffpath(dataset, preset="paper", progress=False, **FAST)
    for kind in ("profile", "statistics"):
        assert kind not in run.fields and not dataset.has_field(f"diffpath_{kind}")
    assert all(len(vector) == 6 for vector in dataset.values("diffpath_features"))


def test_zoom_is_stored_beside_the_rest_and_scored_with_it(make_dataset):
    dataset = make_dataset(demo_samples("photos", 6))
    run = compute_diffpath(dataset, zoom=2, dtype="float32", progress=False, **FAST)
    method = DiffPathV2(zoom=2, num_timesteps=3, dtype="float32")
    expected = method.score_images([load_image(path, method.sides) for path in dataset.values("filepath")])
    zoomed = np.array(dataset.values("diffpath_zoomed"))
    np.testing.assert_allclose(zoomed, expected.zoomed, rtol=1e-3, atol=1e-4)
    assert "larger, in tiles" in dataset.get_field("diffpath_zoomed").description
    with Image.open(dataset.first().diffpath_heatmap.map_path) as heatmap:
        assert heatmap.size == (64, 64)
    assert "zoomed" not in compute_diffpath(dataset, run_key="plain", progress=False, **FAST).fields
    own = run.reference().detector
    assert own.n_features_in_ == expected.descriptor.shape[1]


@pytest.mark.parametrize("zoom", [1, 2])
def test_an_interrupted_run_goes_on_where_it_stopped(zoom, make_dataset, monkeypatch):
    dataset = make_dataset(demo_samples("reference", 10), demo_samples("photos", 2))
    elsewhere = make_dataset(demo_samples("clean", 8))
    arguments = dict(reference=elsewhere, batch_size=4, progress=False, dtype="float32", zoom=zoom, **FAST)
    plain = compute_diffpath(dataset, run_key="plain", **arguments)

    real, seen = DiffPathV2._score_piece, []

    def stop_after_two_batches(self, predictor, piece):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(piece.images))
        return real(self, predictor, piece)

    monkeypatch.setattr(DiffPathV2, "_score_piece", stop_after_two_batches)
    with pytest.raises(KeyboardInterrupt):
        compute_diffpath(dataset, run_key="cut", **arguments)
    assert dataset.count("cut_features") == 8
    assert dataset.get_run_info("cut").config.serialize()["status"] == "incomplete"

    counted = []
    monkeypatch.setattr(
        DiffPathV2, "_score_piece", lambda self, on, piece: counted.append(len(piece.images)) or real(self, on, piece)
    )
    run = compute_diffpath(dataset, run_key="cut", **arguments)
    assert sum(counted) == 4 + 8  # the rest of the target, and the reference
    assert run.num_scored == plain.num_scored == 12
    np.testing.assert_allclose(dataset.values("cut_score"), dataset.values("plain_score"), rtol=1e-3)


def test_an_interrupted_run_is_not_continued_with_other_options(make_dataset, monkeypatch):
    dataset = make_dataset(demo_samples("reference", 6))

    def fail(self, predictor, piece):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(DiffPathV2, "_score_piece", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            compute_diffpath(dataset, progress=False, **FAST)
    with pytest.raises(ValueError, match="other options"):
        compute_diffpath(dataset, progress=False, seed=5, **FAST)
    made_by = read_runs(dataset)["diffpath"].config["made_by"]
    assert made_by["options"].pop("zoom") == 1  # as in a run that is older than the option
    patch_run(dataset, "diffpath", {"made_by": made_by})
    with pytest.raises(ValueError, match="other options"):
        compute_diffpath(dataset, progress=False, zoom=2, **FAST)
    assert compute_diffpath(dataset, progress=False, **FAST).num_scored == 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(reference="nothing has this tag"), "no sample .* has the reference tag"),
        (dict(reference=5), "view, a dataset, a tag, a saved reference or None"),
        (dict(reference=Path("/no/such.safetensors")), "no reference can be read"),
        (dict(rule="median"), "rule must be one of"),
        (dict(level=7), "level of the rule"),
        (dict(run_key="not a key"), "run_key"),
        (dict(batch_size=0), "batch_size"),
        (dict(num_timesteps=1), "num_timesteps"),
        (dict(no_such_option=1), "no_such_option"),
        (dict(model="/no/such/folder"), "folder"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(arguments, message, make_dataset):
    dataset = make_dataset(demo_samples("reference", 4))
    schema = set(dataset.get_field_schema())
    with pytest.raises(ValueError, match=message):
        compute_diffpath(dataset, progress=False, **arguments)
    assert set(dataset.get_field_schema()) == schema
    assert dataset.list_runs() == [] and dataset.list_saved_views() == []


def test_samples_that_are_no_images_are_refused(make_dataset):
    with pytest.raises(ValueError, match="dataset or view"):
        compute_diffpath([1, 2, 3])
    dataset = make_dataset(demo_samples("reference", 3))
    with pytest.raises(ValueError, match="no images"):
        compute_diffpath(dataset.match(F("kind") == "nothing"))
    for sample in dataset:
        sample["boxes"] = fo.Detections(detections=[fo.Detection(label="a", bounding_box=[0, 0, 1, 1])])
        sample.save()
    with pytest.raises(ValueError, match="patches"):
        compute_diffpath(dataset.to_patches("boxes"))


def test_too_few_readable_reference_images_are_an_error_that_says_so(make_dataset, tmp_path):
    broken = [fo.Sample(filepath=str(build(tmp_path)), tags=["r"]) for build in UNREADABLE.values()]
    dataset = make_dataset(broken, demo_samples("reference", 2, tags=["r"]))
    with pytest.raises(ValueError, match="at least 3 readable images, got 2"):
        compute_diffpath(dataset, reference="r", progress=False, **FAST)
    assert dataset.list_runs() == []


def test_a_run_that_cannot_succeed_does_not_cost_the_one_it_was_to_replace(make_dataset, tmp_path):
    broken = [fo.Sample(filepath=str(build(tmp_path)), tags=["r"]) for build in UNREADABLE.values()]
    dataset = make_dataset(broken, demo_samples("reference", 6))
    compute_diffpath(dataset, progress=False, **FAST)
    before = dataset.values("diffpath_score")
    with pytest.raises(ValueError, match="readable"):
        compute_diffpath(dataset, reference="r", overwrite=True, progress=False, **FAST)
    assert dataset.values("diffpath_score") == before and dataset.list_runs() == ["diffpath"]


def test_all_unreadable_images_still_give_a_finished_run(make_dataset, tmp_path):
    dataset = make_dataset([fo.Sample(filepath=str(build(tmp_path))) for build in UNREADABLE.values()])
    elsewhere = make_dataset(demo_samples("reference", 6))
    run = compute_diffpath(dataset, reference=elsewhere, progress=False, **FAST)
    assert (run.num_scored, run.num_likely_ood, run.num_unreadable) == (0, 0, len(UNREADABLE))
    assert len(dataset.load_saved_view("diffpath: unreadable")) == len(UNREADABLE)


def test_a_duplicate_file_gets_the_same_features_as_its_twin(make_dataset):
    (sample,) = demo_samples("photos", 1)
    dataset = make_dataset([sample, fo.Sample(filepath=sample.filepath)], demo_samples("reference", 6, tags=["r"]))
    compute_diffpath(dataset, reference="r", progress=False, **FAST)
    first, second = dataset.match(F("filepath") == sample.filepath).values("diffpath_features")
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)


def test_progress_is_reported_up_to_the_last_image(make_dataset):
    dataset = make_dataset(demo_samples("reference", 9))
    fractions = []
    compute_diffpath(dataset, batch_size=3, progress=lambda bar: fractions.append(bar.iteration), **FAST)
    assert fractions[-1] == 9 and fractions == sorted(fractions)


def test_the_run_survives_a_reload_of_the_dataset(scored):
    dataset, run = scored
    loaded = diffpath.DiffPathRun.load(fo.load_dataset(dataset.name), "k")
    assert loaded == run

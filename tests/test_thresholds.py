"""Thresholds after the fact, saved references, new images and evaluation, in a real database."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import demo_samples
from fiftyone import ViewField as F
from PIL import Image
from sklearn.metrics import roc_auc_score

from diffpath import (
    DiffPathV2,
    ReferenceSetError,
    compute_diffpath,
    delete_diffpath,
    evaluate_diffpath,
    load_reference,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.dataset import preview_threshold

FAST = dict(num_timesteps=3, num_workers=2, dtype="float32", progress=False)


@pytest.fixture(scope="module")
def scored():
    """A run whose threshold tests change; scores stay."""
    dataset = fo.Dataset()
    dataset.add_samples(
        demo_samples("reference", 60, tags=["reference"]) + demo_samples("clean", 20) + demo_samples("photos", 15),
        progress=False,
    )
    compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    yield dataset
    dataset.delete()


@pytest.fixture
def no_network(monkeypatch):
    def fail(self, predictor, piece):
        raise AssertionError("the network was run")

    monkeypatch.setattr(DiffPathV2, "_score_piece", fail)


@pytest.mark.parametrize(
    "rule, level, expected",
    [
        ("count", 7, lambda scores, p: np.argsort(np.argsort(-scores)) < 7),
        ("score", 3.5, lambda scores, p: scores >= 3.5),
        ("false_positive_rate", 0.1, lambda scores, p: None),
        ("percentile", 80, lambda scores, p: scores >= np.percentile(scores, 80, method="higher")),
    ],
)
def test_a_new_threshold_changes_flags_views_and_record_but_no_score(scored, no_network, rule, level, expected):
    before = scored.values("k_score")
    run = set_diffpath_threshold(scored, "k", rule, level)
    scores, p_values, flags = map(np.array, scored.values(["k_score", "k_p_value", "k_is_ood"]))
    wanted = expected(scores, p_values)
    np.testing.assert_array_equal(flags, scores >= run.threshold if wanted is None else wanted)
    assert scored.values("k_score") == before
    assert run.num_likely_ood == flags.sum() == len(scored.load_saved_view("k: likely OOD"))
    assert (run.rule, run.level) == (rule, level)
    assert f"{run.threshold:.4g}" in scored.get_field("k_score").description
    assert preview_threshold(scored, "k", rule, level) == (run.threshold, run.num_likely_ood)


def test_the_false_positive_rate_is_the_share_of_new_images_with_a_p_value_that_small(scored):
    run = set_diffpath_threshold(scored, "k", "false_positive_rate", 0.1)
    new = scored.match_tags("reference", bool=False)
    scores, p_values = map(np.array, new.values(["k_score", "k_p_value"]))
    np.testing.assert_array_equal(scores >= run.threshold, p_values <= 0.1)


def test_a_stricter_false_discovery_rate_flags_no_more(scored):
    counts = [preview_threshold(scored, "k", "false_discovery_rate", level)[1] for level in (0.02, 0.05, 0.2, 0.5)]
    assert counts == sorted(counts) and counts[-1] > 0


def test_a_preview_writes_nothing(scored):
    flags, run = scored.values("k_is_ood"), scored.get_run_info("k").config.serialize()
    preview_threshold(scored, "k", "count", 50)
    assert scored.values("k_is_ood") == flags and scored.get_run_info("k").config.serialize() == run


def test_the_tag_follows_the_flags_and_spares_other_images(scored):
    set_diffpath_threshold(scored, "k", "count", 9, tag="odd")
    ranked = scored.load_saved_view("k: most anomalous first").values("id")
    assert set(scored.match_tags("odd").values("id")) == set(ranked[:9])
    set_diffpath_threshold(scored, "k", "count", 4)
    assert set(scored.match_tags("odd").values("id")) == set(ranked[:4])
    set_diffpath_threshold(scored, "k", "count", 5, tag="review")
    assert len(scored.match_tags("odd")) == 0 and len(scored.match_tags("review")) == 5
    assert len(scored.match_tags("reference")) == 60


@pytest.mark.parametrize("run_key, rule, level", [("none", "count", 1), ("k", "median", 1), ("k", "count", -3)])
def test_an_unknown_run_rule_or_level_is_refused(scored, run_key, rule, level):
    with pytest.raises(ValueError, match="run|rule|level"):
        set_diffpath_threshold(scored, run_key, rule, level)


def test_a_run_can_be_asked_for_a_rule_and_a_tag_at_once_and_deleting_it_takes_the_tag_along(make_dataset):
    dataset = make_dataset(demo_samples("reference", 20), demo_samples("photos", 4))
    run = compute_diffpath(dataset, rule="count", level=4, tag="review", **FAST)
    assert run.num_likely_ood == 4 == len(dataset.match_tags("review"))
    delete_diffpath(dataset, "diffpath")
    assert dataset.distinct("tags") == []


def test_without_a_reference_intruders_are_flagged_and_p_values_say_that_they_are_approximate(make_dataset):
    dataset = make_dataset(demo_samples("reference", 80), demo_samples("photos", 8))
    run = compute_diffpath(dataset, **FAST)
    assert run.smallest_p_value == 0 and "approximate" in dataset.get_field("diffpath_p_value").description
    flagged = dataset.match(F("diffpath_is_ood") == True)  # noqa: E712
    assert flagged.match(F("kind") == "photos").count() >= 7
    assert flagged.match(F("kind") == "reference").count() <= 16


def test_a_saved_reference_scores_another_dataset_as_the_images_themselves_would(make_dataset):
    first = make_dataset(demo_samples("reference", 40, tags=["r"]), demo_samples("photos", 2))
    run = compute_diffpath(first, reference="r", **FAST)
    queries = demo_samples("photos", 6), demo_samples("clean", 6)
    by_file, by_images = make_dataset(*queries), make_dataset(demo_samples("photos", 6), demo_samples("clean", 6))
    saved = compute_diffpath(by_file, reference=Path(run.reference_path), **FAST)
    compute_diffpath(by_images, reference=first.match_tags("r"), **FAST)
    for field in ("diffpath_score", "diffpath_p_value"):
        np.testing.assert_allclose(by_file.values(field), by_images.values(field), rtol=1e-3)
    assert saved.config["made_by"]["reference"]["kind"] == "saved"
    assert saved.config["num_reference"] == 40
    again = load_reference(saved.reference_path)
    np.testing.assert_array_equal(again.detector.calibration_scores_, run.reference().detector.calibration_scores_)


def test_a_reference_made_with_other_options_is_refused_before_anything_is_written(make_dataset):
    dataset = make_dataset(demo_samples("reference", 10))
    reference = compute_diffpath(dataset, **FAST).reference()
    other = make_dataset(demo_samples("clean", 5))
    with pytest.raises(ReferenceSetError, match="num_timesteps is 3, here it is 4"):
        compute_diffpath(other, reference=reference, **{**FAST, "num_timesteps": 4})
    assert other.list_runs() == [] and "diffpath_score" not in other.get_field_schema()


def test_only_new_and_failed_images_are_scored_later_and_the_others_keep_their_scores(
    make_dataset, tmp_path, monkeypatch
):
    failed = tmp_path / "late.png"
    dataset = make_dataset(
        demo_samples("reference", 30, tags=["r"]), demo_samples("photos", 3), [fo.Sample(filepath=str(failed))]
    )
    run = compute_diffpath(dataset, reference="r", **FAST)
    before = dict(zip(*dataset.exists("diffpath_score").values(["id", "diffpath_score"])))
    assert run.num_unreadable == 1
    dataset.add_samples(demo_samples("digits", 5) + demo_samples("clean", 5), progress=False)
    Image.open(demo_samples("clean", 1, skip=9)[0].filepath).save(failed)

    counted, real = [], DiffPathV2._score_piece
    monkeypatch.setattr(
        DiffPathV2, "_score_piece", lambda self, on, piece: counted.append(len(piece.images)) or real(self, on, piece)
    )
    run = update_diffpath(dataset, "diffpath", num_workers=2, progress=False)
    assert sum(counted) == 11
    assert run.num_scored == 44 == dataset.count("diffpath_score") and run.num_unreadable == 0
    scores = dict(zip(*dataset.values(["id", "diffpath_score"])))
    assert {i: scores[i] for i in before} == before
    assert dataset.count("diffpath_heatmap") == dataset.count("diffpath_is_ood") == 44
    assert dataset.count("diffpath_error_map") == 44
    expected = run.reference().detector.score_samples(
        DiffPathV2(num_timesteps=3, dtype="float32").score_images([Image.open(failed)]).descriptor
    )
    assert scores[dataset.match(F("filepath") == str(failed)).first().id] == pytest.approx(expected[0], rel=1e-3)
    counted.clear()
    update_diffpath(dataset, "diffpath", progress=False)
    assert counted == [] or sum(counted) == 0


def test_an_update_with_a_rule_over_all_scores_judges_old_and_new_images_together(make_dataset):
    dataset = make_dataset(demo_samples("reference", 30, tags=["r"]))
    compute_diffpath(dataset, reference="r", rule="count", level=3, **FAST)
    dataset.add_samples(demo_samples("photos", 5), progress=False)
    run = update_diffpath(dataset, "diffpath", progress=False)
    assert run.num_likely_ood == 3
    assert set(dataset.load_saved_view("diffpath: likely OOD").values("kind")) == {"photos"}


@pytest.mark.parametrize(
    "field, arguments",
    [
        ("kind", dict(ood="photos")),
        ("kind", dict(in_distribution=["clean"])),
        ("kind", dict(ood=["photos"], in_distribution=["clean"])),
        ("truth", {}),
        ("label", dict(ood="photos")),
        ("tags", dict(ood="intruder")),
    ],
)
def test_evaluation_agrees_with_scikit_learn_for_every_kind_of_ground_truth(scored, field, arguments):
    queries = scored.match(F("kind").is_in(["photos", "clean"]))
    kinds, scores = queries.values(["kind", "k_score"])
    truth = np.array(kinds) == "photos"
    queries.set_values("truth", truth.tolist())
    queries.set_values("label", [fo.Classification(label=kind) for kind in kinds])
    queries.match(F("kind") == "photos").tag_samples("intruder")
    result = evaluate_diffpath(queries, "k", field, num_bootstrap=50, **arguments)
    assert result.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert (result.num_positive, result.num_negative) == (15, 20)
    low, high = result.intervals["auroc"]
    assert low <= result.auroc <= high
    with Image.open(result.histogram) as picture:
        assert picture.size[0] > 600 and len(picture.convert("RGB").resize((60, 40)).getcolors(60 * 40)) > 20
    recorded = scored.get_run_info("k").config.serialize()["evaluations"][field]
    assert recorded["auroc"] == result.auroc
    if arguments.get("ood") == "photos":
        assert result.positive_class == "photos"


@pytest.mark.parametrize(
    "field, arguments, message",
    [
        ("kind", {}, "say which labels .* 'clean', 'photos', 'reference'"),
        ("no_such_field", {}, "no field 'no_such_field'"),
        ("k_score", {}, "booleans"),
        ("kind", dict(ood="cats"), "no scored images of the class 'cats'"),
    ],
)
def test_a_ground_truth_that_says_nothing_is_refused(scored, field, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_diffpath(scored, "k", field, **arguments)

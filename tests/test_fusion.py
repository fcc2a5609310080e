"""The descriptor's density and nearest neighbours of embeddings as one score: what is promised of it."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist
from scipy.stats import binom, combine_pvalues
from sklearn.metrics import roc_auc_score

from diffpath import AnomalyDetector, FusedDetector, Reference, load_reference
from diffpath.detection.explanation import NOTHING_STANDS_OUT, explain
from diffpath.errors import ReferenceSetError

LENGTH = 16


def samples(rng, count, shift=0.0, turn=0.0):
    """Descriptors with heavy tails, and embeddings around one direction that depend on them a little."""
    descriptors = rng.standard_t(4, (count, 4)) + shift
    directions = np.r_[np.ones(LENGTH // 2), np.zeros(LENGTH // 2)] * (1 - turn) + turn * np.eye(LENGTH)[-1] * 4
    embeddings = directions + 0.2 * rng.normal(size=(count, LENGTH)) + 0.05 * descriptors[:, :1]
    return np.hstack([descriptors, embeddings * rng.uniform(1, 50, (count, 1))])


def test_p_values_of_the_fused_score_are_uniform_on_images_of_the_references_kind():
    """One query for each reference, so that the queries' ranks are independent."""
    rng = np.random.default_rng(0)
    size, repetitions = 60, 300
    p_values = np.empty(repetitions)
    for k in range(repetitions):
        X = samples(rng, size + 1)
        p_values[k] = FusedDetector(LENGTH).fit(X[:size]).p_values(X[size:])[0]
    for alpha in (0.02, 0.05, 0.1, 0.3, 0.6):
        low, high = binom.interval(0.999, repetitions, np.floor(alpha * (size + 1)) / (size + 1))
        assert low <= (p_values <= alpha).sum() <= high, alpha
    assert p_values.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * repetitions))


def test_a_part_held_out_calibrates_a_large_reference():
    rng = np.random.default_rng(1)
    detector = FusedDetector(LENGTH).fit(samples(rng, 1500))
    assert len(detector.calibration_scores_) == 450 and detector.smallest_p_value_ == 1 / 451
    flagged = (detector.predict(samples(rng, 4000)) == -1).mean()
    assert 0.02 < flagged < 0.09  # 5 %, and four deviations of 450 calibration scores


def test_the_fused_score_rises_with_each_part_and_its_p_value_falls():
    rng = np.random.default_rng(2)
    detector = FusedDetector(LENGTH).fit(samples(rng, 100))
    scores, distances = (np.linspace(0.5 * part.min(), 3 * part.max(), 200) for part in detector.reference_parts_.T)
    typical = np.median(detector.reference_parts_, axis=0)
    rising = {
        0: np.column_stack([scores, np.full(200, typical[1])]),
        1: np.column_stack([np.full(200, typical[0]), distances]),
    }
    for part, parts in rising.items():
        fused = detector.fuse(parts)
        assert (np.diff(fused) >= 0).all() and fused[-1] > fused[0] + 1, part
        beyond = parts[:, part] > detector.reference_parts_[:, part].max()
        assert (np.diff(fused[beyond]) > 0).all(), part  # where ranks could not tell any more
        assert (np.diff(detector.calibration_.p_values(fused)) <= 0).all(), part


def test_the_fused_score_is_fishers_p_value_of_the_parts():
    detector = FusedDetector(LENGTH).fit(samples(np.random.default_rng(3), 80))
    parts = detector.part_scores(samples(np.random.default_rng(4), 20))
    p_values = detector.part_p_values(parts)
    assert ((0 < p_values) & (p_values <= 1)).all()
    combined = [combine_pvalues(pair, method="fisher").pvalue for pair in p_values]
    np.testing.assert_allclose(detector.fuse(parts), -np.log(combined), rtol=1e-6)


def test_what_only_one_part_sees_is_found_and_what_both_see_a_little_is_found_better():
    rng = np.random.default_rng(5)
    detector = FusedDetector(LENGTH).fit(samples(rng, 300))
    typical = samples(rng, 300)
    for unusual in (samples(rng, 100, shift=12), samples(rng, 100, turn=0.9)):
        assert (detector.predict(unusual) == -1).mean() > 0.9
    queries = np.vstack([typical, samples(rng, 300, shift=0.9, turn=0.1)])
    truth = np.repeat([0, 1], 300)
    parts = detector.part_scores(queries)
    alone = [roc_auc_score(truth, part) for part in parts.T]
    assert 0.6 < min(alone) and max(alone) + 0.01 < roc_auc_score(truth, detector.score_samples(queries))


def test_distances_are_those_of_unit_vectors_to_their_nearest_other_ones():
    rng = np.random.default_rng(6)
    X, queries = samples(rng, 50), samples(rng, 7)
    detector = FusedDetector(LENGTH, num_neighbours=3).fit(X)
    units, asked = (
        vectors[:, -LENGTH:] / np.linalg.norm(vectors[:, -LENGTH:], axis=1, keepdims=True) for vectors in (X, queries)
    )
    among = np.sort(cdist(units, units), axis=1)[:, 1:4].mean(axis=1)
    np.testing.assert_allclose(detector.reference_parts_[:, 1], among, rtol=1e-4)
    np.testing.assert_allclose(
        detector.part_scores(queries)[:, 1], np.sort(cdist(asked, units), axis=1)[:, :3].mean(axis=1), rtol=1e-4
    )
    alone = AnomalyDetector().fit(X[:, :4])
    np.testing.assert_array_equal(detector.reference_parts_[:, 0], alone.reference_scores_)
    np.testing.assert_array_equal(detector.part_scores(queries)[:, 0], alone.score_samples(queries[:, :4]))


def test_identical_embeddings_do_not_vouch_for_each_other():
    X = samples(np.random.default_rng(7), 60)
    X[:12, -LENGTH:] = -X[0, -LENGTH:]  # twelve copies, more than are asked for
    detector = FusedDetector(LENGTH).fit(X)
    assert set(np.argsort(detector.reference_parts_[:, 1])[-12:]) == set(range(12))


def test_the_length_of_an_embedding_does_not_count():
    rng = np.random.default_rng(8)
    X, queries = samples(rng, 50), samples(rng, 10)
    stretched = queries.copy()
    stretched[:, -LENGTH:] *= 1000
    detector = FusedDetector(LENGTH).fit(X)
    np.testing.assert_allclose(detector.score_samples(stretched), detector.score_samples(queries), rtol=1e-4)


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_contaminants_whose_embeddings_are_alike_do_not_hide(share):
    rng = np.random.default_rng(9)
    count = int(300 * share)
    mixed = np.vstack([samples(rng, 300 - count), samples(rng, count, turn=0.9)])
    options = dict(density="mahalanobis", trim=0.3)
    detector = FusedDetector(LENGTH, detector_options=options).fit(mixed)
    flagged = detector.reference_scores_ >= detector.threshold_
    assert flagged[-count:].mean() > 0.9 and flagged[:-count].mean() < 0.1
    assert detector.smallest_p_value_ == 0


@pytest.mark.parametrize("size", [3, 12])
def test_equal_and_empty_embeddings_and_few_samples_give_finite_scores(size):
    X = samples(np.random.default_rng(10), size)
    for embedding in (X[:, -LENGTH:], 1.0, 0.0):
        X[:, -LENGTH:] = embedding
        for options in ({}, dict(density="mahalanobis", trim=0.3)):
            detector = FusedDetector(LENGTH, detector_options=options).fit(X)
            queries = np.vstack([X, -X])
            assert np.isfinite(detector.score_samples(queries)).all()
            assert np.isfinite(detector.p_values(queries)).all() and np.isfinite(detector.threshold_)


@pytest.mark.parametrize("options", [{}, dict(density="mahalanobis", trim=0.3), dict(calibration="split")])
def test_a_saved_reference_with_embeddings_gives_identical_scores(tmp_path, options):
    rng = np.random.default_rng(11)
    made_by = {"model_fingerprint": "0", "options": {}, "embedding_length": LENGTH}
    reference = Reference.of(samples(rng, 80), made_by, {"note": "x"}, **options)
    reference.save(tmp_path / "r.safetensors")
    loaded, queries = load_reference(tmp_path / "r.safetensors"), samples(rng, 30)
    assert isinstance(loaded.detector, FusedDetector) and loaded.description == {"note": "x"}
    for name in ("score_samples", "p_values", "part_scores", "z_scores"):
        np.testing.assert_array_equal(
            getattr(loaded.detector, name)(queries), getattr(reference.detector, name)(queries), name
        )
    for name in ("reference_scores_", "reference_p_values_", "reference_parts_", "calibration_scores_"):
        np.testing.assert_array_equal(getattr(loaded.detector, name), getattr(reference.detector, name), name)
    assert loaded.detector.threshold_ == reference.detector.threshold_
    with pytest.raises(ReferenceSetError, match="its embedding_length is 16, here it is None"):
        loaded.checked({"model_fingerprint": "0", "options": {}})


def test_a_file_of_an_older_fused_score_is_refused_with_the_way_out(tmp_path):
    made_by = {"model_fingerprint": "0", "options": {}, "embedding_length": LENGTH}
    Reference.of(samples(np.random.default_rng(12), 20), made_by).save(tmp_path / "r.safetensors")
    with safe_open(tmp_path / "r.safetensors", framework="numpy") as file:
        arrays, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    save_file(arrays, tmp_path / "r.safetensors", {**metadata, "format": "diffpath reference 1, fused"})
    with pytest.raises(ReferenceSetError, match="of another version of diffpath; make the reference again"):
        load_reference(tmp_path / "r.safetensors")


def test_samples_that_cannot_be_fitted_are_refused_with_their_reason():
    X = samples(np.random.default_rng(12), 20)
    with pytest.raises(ValueError, match="num_neighbours"):
        FusedDetector(LENGTH, num_neighbours=0).fit(X)
    with pytest.raises(ValueError, match="minimum of"):
        FusedDetector(X.shape[1]).fit(X)  # no descriptor left
    with pytest.raises(ValueError, match="NaN"):
        FusedDetector(LENGTH).fit(np.where(X > X.max() - 1e-9, np.nan, X))


def test_an_explanation_names_an_embedding_that_lies_far_out():
    still, moved = np.zeros(6), np.array([0, 4.1, 0, 0, 0, 0])
    texts = explain([still, still, moved], [0.01] * 3, {"embedding": [0.5, 0.003, 0.05]})
    assert texts == [NOTHING_STANDS_OUT, "embedding far out (p 0.003)", "embedding far out (p 0.05), error² +4.1 sd"]

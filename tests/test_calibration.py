"""p-values, thresholds and false discoveries: what is promised of them, by simulation."""

import numpy as np
import pytest
from scipy.stats import binom, genpareto

from diffpath import AnomalyDetector
from diffpath.detection.calibration import TAIL_SHAPE, ConformalCalibration, EmpiricalNull
from diffpath.detection.rules import RULES, check_rule, choose_threshold

LEVELS = (0.01, 0.05, 0.1)


def heavy_tailed(rng, count, dimensions=3):
    return rng.standard_t(3, (count, dimensions)) @ np.array([[1, 0.8, 0], [0, 1, 0], [0, 0, 5.0]])


def share_at_most(alpha, p_values):
    return np.mean(np.concatenate(p_values) <= alpha)


def assert_in_binomial_interval(share, rate, count, confidence=0.999):
    low, high = binom.interval(confidence, count, rate)
    assert low / count <= share <= high / count, (share, rate)


def test_conformal_p_values_cover_exactly():
    rng = np.random.default_rng(0)
    scores = rng.standard_t(3, (20_000, 200))
    p_values = [ConformalCalibration(row[1:]).p_values(row[:1]) for row in scores]
    for alpha in LEVELS:
        assert_in_binomial_interval(share_at_most(alpha, p_values), alpha, 20_000)


@pytest.mark.parametrize("density", ["kde", "mahalanobis"])
def test_a_detector_with_a_part_held_out_covers(density):
    """One query for each reference, so that the queries' ranks are independent."""
    assert_covers(AnomalyDetector(density=density, calibration="split", n_splits=2), size=330)


@pytest.mark.parametrize("size", [30, 99])
def test_a_cross_fitted_detector_covers(size):
    assert_covers(AnomalyDetector(calibration="cross"), size)


def assert_covers(detector, size, repetitions=200):
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(repetitions):
        X = heavy_tailed(rng, size + 1)
        p_values.append(detector.fit(X[:size]).p_values(X[size:]))
    count = len(detector.calibration_scores_) + 1
    for alpha in LEVELS:
        exact = np.floor(alpha * count) / count
        assert_in_binomial_interval(share_at_most(alpha, p_values), exact, repetitions)
    assert np.mean(np.concatenate(p_values)) == pytest.approx(0.5, abs=4 / np.sqrt(12 * repetitions))


def test_p_values_of_reference_samples_are_uniform_ranks():
    reference = heavy_tailed(np.random.default_rng(2), 400)
    p_values = AnomalyDetector().fit(reference).reference_p_values_
    np.testing.assert_allclose(np.sort(p_values), np.arange(1, 401) / 400)


def test_p_values_are_the_rank_formula():
    calibration = ConformalCalibration([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(calibration.p_values([0, 1, 1.5, 2, 3, 9]), np.array([5, 5, 4, 4, 2, 1]) / 5)
    assert calibration.smallest_p_value == 1 / 5


@pytest.mark.parametrize("seed", range(20))
def test_an_image_is_flagged_exactly_if_its_p_value_is_at_most_the_false_positive_rate(seed):
    rng = np.random.default_rng(seed)
    calibration = ConformalCalibration(rng.integers(0, 30, 59).astype(float))  # with ties
    scores = rng.integers(-5, 40, 200).astype(float)
    for level in (1 / 60, 0.05, 0.1, 0.5, 0.9):
        flagged = scores >= choose_threshold("false_positive_rate", level, scores, calibration)
        np.testing.assert_array_equal(flagged, calibration.p_values(scores) <= level + 1e-12)


def test_a_rate_below_the_smallest_p_value_flags_what_exceeds_all_of_the_reference():
    calibration = ConformalCalibration(np.arange(10.0))
    threshold = choose_threshold("false_positive_rate", 0.01, [1.0], calibration)
    assert 9 < threshold < 9.0001


def test_benjamini_hochberg_controls_the_false_discovery_rate_and_has_power():
    rng = np.random.default_rng(3)
    level, proportions, found = 0.1, [], []
    for _ in range(400):
        calibration = ConformalCalibration(rng.normal(size=500))
        scores = np.concatenate([rng.normal(size=180), rng.normal(4, 1, 20)])
        flagged = scores >= choose_threshold("false_discovery_rate", level, scores, calibration)
        proportions.append(flagged[:180].sum() / max(flagged.sum(), 1))
        found.append(flagged[180:].mean())
    error = np.std(proportions) / np.sqrt(len(proportions))
    assert np.mean(proportions) <= level * 180 / 200 + 3 * error
    assert np.mean(found) > 0.7


def test_benjamini_hochberg_flags_what_the_textbook_procedure_flags():
    rng = np.random.default_rng(4)
    calibration = ConformalCalibration(rng.normal(size=300))
    scores = np.concatenate([rng.normal(size=80), rng.normal(3, 1, 20)])
    p_values = calibration.p_values(scores)
    ordered = np.sort(p_values)
    below = np.flatnonzero(ordered <= 0.1 * np.arange(1, 101) / 100)
    expected = p_values <= ordered[below[-1]]
    flagged = scores >= choose_threshold("false_discovery_rate", 0.1, scores, calibration)
    np.testing.assert_array_equal(flagged, expected)
    assert 5 < flagged.sum() < 40


def test_nothing_is_flagged_where_no_discovery_is_possible():
    calibration = ConformalCalibration(np.arange(20.0))
    scores = np.arange(5.0)
    assert not (scores >= choose_threshold("false_discovery_rate", 0.05, scores, calibration)).any()


@pytest.mark.parametrize(
    "rule, level, flagged",
    [("count", 7, 7), ("count", 0, 0), ("count", 999, 100), ("percentile", 90, 10), ("score", 95, 5)],
)
def test_count_percentile_and_score_flag_as_many_as_they_say(rule, level, flagged):
    scores = np.random.default_rng(0).permutation(100).astype(float)
    threshold = choose_threshold(rule, level, scores, ConformalCalibration([0.0]))
    assert (scores >= threshold).sum() == flagged and np.isfinite(threshold)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_without_any_scores_still_gives_a_finite_threshold(rule):
    assert np.isfinite(choose_threshold(rule, 0.05 if "rate" in rule else 5, [], ConformalCalibration([1.0, 2.0])))


@pytest.mark.parametrize(
    "rule, level",
    [
        ("false_positive_rate", 0),
        ("false_positive_rate", 5),
        ("false_discovery_rate", 1),
        ("percentile", 101),
        ("count", -1),
        ("count", 2.5),
        ("score", float("nan")),
        ("score", "3"),
        ("count", True),
        ("median", 1),
    ],
)
def test_an_impossible_rule_or_level_is_refused_by_name(rule, level):
    with pytest.raises(ValueError, match="level of the rule" if rule in RULES else "rule must be one of"):
        check_rule(rule, level)


def test_the_empirical_null_recovers_its_tail_and_contaminants_only_make_it_careful():
    rng = np.random.default_rng(5)
    clean = genpareto(TAIL_SHAPE, scale=2).rvs(9_000, random_state=rng)
    # beyond its median, a generalised Pareto variable is one again, with a larger scale
    rate = 1 / (2 + TAIL_SHAPE * genpareto(TAIL_SHAPE, scale=2).median())
    null = EmpiricalNull(clean, trim=0.3)
    assert null.rate == pytest.approx(rate, rel=0.05)
    for alpha in LEVELS:
        assert np.mean(clean >= null.threshold(alpha)) == pytest.approx(alpha, rel=0.15)

    mixed = np.concatenate([clean, rng.normal(1e4, 50, 1_000)])
    careful = EmpiricalNull(mixed, trim=0.3)
    assert 0.5 * rate < careful.rate < null.rate
    for alpha in LEVELS:
        assert np.mean(clean >= careful.threshold(alpha)) <= alpha
        assert careful.p_values([careful.threshold(alpha)])[0] == pytest.approx(alpha)
    assert (careful.p_values(mixed[9_000:]) < 1e-4).all()


def test_the_empirical_null_falls_with_the_score():
    scores = np.random.default_rng(6).normal(size=200)
    p_values = EmpiricalNull(scores, trim=0.3).p_values(np.linspace(-5, 9, 500))
    assert (np.diff(p_values) <= 1e-12).all() and p_values[0] == 1 and p_values.min() > 0


def test_the_empirical_null_of_equal_scores_flags_only_what_lies_above():
    null = EmpiricalNull(np.ones(10), trim=0.3)
    np.testing.assert_allclose(null.p_values([0.0, 1.0, 1.1]), [1, 1, 0], atol=1e-9)
    assert 1 < null.threshold(0.05) < 1.0001


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2])
def test_contaminants_of_a_self_reference_do_not_hide(share):
    rng = np.random.default_rng(7)
    count = int(400 * share)
    mixed = np.vstack([rng.normal(size=(400 - count, 8)), rng.normal(5, 1, (count, 8))])
    detector = AnomalyDetector(density="mahalanobis", trim=0.3).fit(mixed)
    flagged = detector.reference_scores_ >= detector.threshold_
    assert flagged[-count:].mean() > 0.9
    assert flagged[:-count].mean() < 0.1
    assert detector.reference_p_values_[-count:].max() < 0.05

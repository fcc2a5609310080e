"""The measures against closed forms, and intervals that cover."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from diffpath.detection.evaluation import evaluate


def two_normals(count, shift, seed):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(size=count), rng.normal(shift, 1, count)])
    return scores, np.repeat([False, True], count)


def test_measures_of_two_normals_are_those_of_theory():
    scores, is_ood = two_normals(20_000, 2.0, 0)
    result = evaluate(scores, is_ood, threshold=1.0, num_bootstrap=20)
    assert result.auroc == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.005)
    assert result.fpr95 == pytest.approx(norm.sf(2 - norm.ppf(0.95)), abs=0.01)
    assert result.true_positive_rate == pytest.approx(norm.sf(-1), abs=0.01)
    assert result.false_positive_rate == pytest.approx(norm.sf(1), abs=0.01)
    # the two classes are mirror images of each other
    assert result.aupr_ood == pytest.approx(result.aupr_in, abs=0.005)


@pytest.mark.parametrize("levels", [5, 40, 10**6])
def test_measures_are_those_of_scikit_learn_with_and_without_ties(levels):
    rng = np.random.default_rng(levels)
    is_ood = rng.random(300) < 0.2
    scores = np.floor((rng.normal(size=300) + is_ood) * levels / 5)
    result = evaluate(scores, is_ood, threshold=0, num_bootstrap=5)
    assert result.auroc == pytest.approx(roc_auc_score(is_ood, scores))
    assert result.aupr_ood == pytest.approx(average_precision_score(is_ood, scores))
    assert result.aupr_in == pytest.approx(average_precision_score(~is_ood, -scores))
    false_positive_rate, true_positive_rate, _ = roc_curve(is_ood, scores, drop_intermediate=False)
    assert result.fpr95 == pytest.approx(false_positive_rate[true_positive_rate >= 0.95].min())


def test_the_rarer_class_has_the_lower_average_precision():
    scores, is_ood = two_normals(5_000, 1.5, 0)
    kept = np.concatenate([np.arange(5_000), 5_000 + np.arange(250)])
    result = evaluate(scores[kept], is_ood[kept], threshold=0, num_bootstrap=10)
    assert result.aupr_ood < 0.75 < 0.98 < result.aupr_in
    assert (result.num_positive, result.num_negative) == (250, 5_000)


def test_scores_without_a_difference_are_at_chance_and_a_perfect_split_is_perfect():
    scores, is_ood = two_normals(4_000, 0.0, 1)
    chance = evaluate(scores, is_ood, threshold=0, num_bootstrap=200)
    assert chance.intervals["auroc"][0] < 0.5 < chance.intervals["auroc"][1]
    assert chance.fpr95 == pytest.approx(0.95, abs=0.02)
    perfect = evaluate([0, 1, 2, 8, 9], [False, False, False, True, True], threshold=5, num_bootstrap=10)
    assert (perfect.auroc, perfect.aupr_ood, perfect.aupr_in, perfect.fpr95) == (1, 1, 1, 0)
    assert (perfect.true_positive_rate, perfect.false_positive_rate) == (1, 0)


def test_bootstrap_intervals_cover_the_true_area_as_often_as_they_say():
    truth, covered = norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(100):
        scores, is_ood = two_normals(150, 1.0, seed)
        low, high = evaluate(scores, is_ood, threshold=0, num_bootstrap=200, confidence=0.9).intervals["auroc"]
        covered += low <= truth <= high
    assert 80 <= covered <= 98  # 90 expected


def test_the_same_seed_gives_the_same_intervals_and_the_summary_names_the_classes():
    scores, is_ood = two_normals(50, 1.0, 0)
    arguments = dict(threshold=0, positive_class="digits", negative_class="clothing", num_bootstrap=50)
    first, second = (evaluate(scores, is_ood, **arguments) for _ in range(2))
    assert first == second
    assert "Positive class: digits (50 images)" in str(first) and "Negative class: clothing" in str(first)
    assert f"{first.auroc:.3f}" in str(first)


def test_an_empty_class_or_a_missing_score_is_refused():
    with pytest.raises(ValueError, match="no scored images of the class 'out-of-distribution'"):
        evaluate([1, 2], [False, False], threshold=0)
    with pytest.raises(ValueError, match="finite"):
        evaluate([1, np.nan], [False, True], threshold=0)

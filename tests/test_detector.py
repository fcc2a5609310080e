"""The density: higher = more anomalous, repeatable, clear about what it cannot do."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity as PlainKernelDensity
from sklearn.utils.estimator_checks import estimator_checks_generator

from diffpath import AnomalyDetector
from diffpath.detection.densities import DENSITIES, KernelDensity, Mixture, RobustGaussian
from diffpath.detection.density import MAX_KERNELS


def gaussian(count, seed, dimensions=6):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions))
    return rng.normal(size=(count, dimensions)) @ mixing + 5


# They demand scikit-learn's sign (higher = more typical), where ours is the opposite on
# purpose; test_predict_is_the_sign_of_the_decision_function stands in for them
OPPOSITE_SIGN = ("check_outliers_train", "check_outliers_fit_predict")
NEEDS_AN_OPT_IN = ("check_array_api_input",)


def applicable_checks():
    for density in DENSITIES:
        for estimator, check in estimator_checks_generator(AnomalyDetector(density=density), mark=None):
            name = getattr(check, "func", check).__name__
            if name not in OPPOSITE_SIGN + NEEDS_AN_OPT_IN:
                yield pytest.param(estimator, check, id=f"{density}-{name}")


@pytest.mark.parametrize("estimator, check", list(applicable_checks()))
def test_is_an_ordinary_scikit_learn_estimator(estimator, check):
    check(estimator)


def test_predict_is_the_sign_of_the_decision_function():
    detector = AnomalyDetector().fit(gaussian(200, 0))
    query = np.vstack([gaussian(50, 1), gaussian(50, 2) + 12])
    scores, decision = detector.score_samples(query), detector.decision_function(query)
    np.testing.assert_allclose(decision, scores - detector.threshold_)
    np.testing.assert_array_equal(detector.predict(query), np.where(decision >= 0, -1, 1))
    assert set(detector.predict(query)) == {-1, 1}


@pytest.mark.parametrize("density", DENSITIES)
def test_intruders_are_ranked_above_typical_samples(density):
    detector = AnomalyDetector(density=density).fit(gaussian(400, 0))
    typical, intruders = gaussian(200, 1), gaussian(50, 2) + 12
    scores = detector.score_samples(np.vstack([typical, intruders]))
    labels = np.repeat([0, 1], [200, 50])
    assert roc_auc_score(labels, scores) > 0.99
    assert (detector.predict(intruders) == -1).mean() > 0.95
    assert (detector.predict(typical) == 1).mean() > 0.85


def test_the_kernel_density_is_the_plain_one_in_white_axes():
    reference, query = np.random.default_rng(0).normal(size=(2, 400, 3))
    ours = KernelDensity.fit(reference, bandwidth=0.7)
    plain = PlainKernelDensity(bandwidth=ours.width).fit(ours.whiten(reference))
    expected = plain.score_samples(ours.whiten(query)) + np.linalg.slogdet(ours.whiten.matrix)[1]
    np.testing.assert_allclose(ours.log_density(query), expected, rtol=1e-9)
    assert ours.width == pytest.approx(0.7 * 400 ** (-1 / 7))


def test_the_kernel_density_of_a_gaussian_is_near_the_truth():
    covariance = np.array([[2.0, 0.9], [0.9, 0.5]])
    reference, query = (np.random.default_rng(k).multivariate_normal([3, -1], covariance, 3000) for k in (0, 1))
    truth = multivariate_normal([3, -1], covariance).logpdf(query)
    central = truth > np.quantile(truth, 0.3)
    assert np.abs(KernelDensity.fit(reference, bandwidth=0.8).log_density(query) - truth)[central].max() < 0.35


def test_a_large_reference_is_thinned_to_a_fixed_number_of_kernels():
    reference = gaussian(MAX_KERNELS + 1000, 0)
    density = KernelDensity.fit(reference, random_state=3)
    assert density.kernels.shape == (MAX_KERNELS, 6)
    np.testing.assert_array_equal(density.kernels, KernelDensity.fit(reference, random_state=3).kernels)


def test_the_robust_gaussian_is_normalised_and_not_moved_by_a_tenth_of_intruders():
    clean = np.random.default_rng(0).normal(size=(900, 2))
    density = RobustGaussian.fit(np.vstack([clean, clean[:100] + 30]))
    assert np.abs(density.whiten.centre).max() < 0.15
    grid = np.stack(np.meshgrid(*[np.linspace(-6, 6, 121)] * 2), axis=-1).reshape(-1, 2)
    assert np.exp(density.log_density(grid)).sum() * 0.1**2 == pytest.approx(1, abs=0.01)


def test_scores_rank_a_gaussian_by_its_mahalanobis_distance():
    reference, query = gaussian(3000, 0), gaussian(300, 1)
    offset = query - reference.mean(axis=0)
    distance = np.einsum("ij,jk,ik->i", offset, np.linalg.inv(np.cov(reference.T)), offset)
    scores = AnomalyDetector(density="gmm", max_components=1).fit(reference).score_samples(query)
    ranks = [np.argsort(np.argsort(values)) for values in (scores, distance)]
    assert np.corrcoef(ranks)[0, 1] > 0.9


def test_an_intruder_correlated_against_the_reference_is_found_where_each_axis_looks_typical():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 1))
    reference = np.hstack([shared, shared + 0.05 * rng.normal(size=(500, 1))])
    detector = AnomalyDetector().fit(reference)
    assert detector.predict([[1.0, -1.0]]) == -1 and detector.predict([[1.0, 1.0]]) == 1


def test_a_shift_or_scale_of_a_feature_changes_no_ranking():
    reference, query = gaussian(300, 0), gaussian(100, 1)
    scale, shift = np.array([1e-4, 1, 1e4, 3, 7, 0.2]), np.array([5, -3, 0, 1e3, 2, 0])
    plain = AnomalyDetector().fit(reference).score_samples(query)
    moved = AnomalyDetector().fit(reference * scale + shift).score_samples(query * scale + shift)
    np.testing.assert_allclose(moved, plain, rtol=1e-4, atol=1e-4)


def test_two_fits_give_the_same_scores():
    reference, query = gaussian(300, 0), gaussian(100, 1)
    first, second = (AnomalyDetector().fit(reference) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(query), second.score_samples(query))
    np.testing.assert_array_equal(first.reference_scores_, second.reference_scores_)
    assert first.threshold_ == second.threshold_


def test_the_threshold_keeps_the_false_positive_rate_on_fresh_samples():
    detector = AnomalyDetector(false_positive_rate=0.1).fit(gaussian(2000, 0))
    share = (detector.predict(gaussian(2000, 1)) == -1).mean()
    # binomial deviation of both samples together is about 0.01
    assert abs(share - 0.1) < 0.04


def test_a_reference_sample_is_scored_by_a_fit_that_did_not_see_it():
    reference = gaussian(60, 0)
    reference[7] += 1000
    detector = AnomalyDetector().fit(reference)
    assert detector.reference_scores_.argmax() == 7
    assert detector.reference_scores_.mean() > detector.score_samples(reference).mean()


@pytest.mark.parametrize("calibration, size", [("cross", 60), ("split", 200)])
def test_identical_reference_samples_do_not_vouch_for_each_other(calibration, size):
    """A pair that lies far out would look typical if one of it stayed in the fit that judges the other."""
    reference = gaussian(size, 0)
    reference[:2] = reference[0] + 1000
    detector = AnomalyDetector(calibration=calibration).fit(reference)
    assert set(np.argsort(detector.reference_scores_)[-2:]) == {0, 1}


@pytest.mark.parametrize("dimensions", [1, 6])
@pytest.mark.parametrize("density", DENSITIES)
def test_one_and_six_dimensions_are_as_the_predecessor_has_them(density, dimensions):
    detector = AnomalyDetector(density=density).fit(gaussian(200, 0, dimensions))
    typical, intruders = gaussian(100, 1, dimensions), gaussian(100, 2, dimensions) + 25
    assert detector.score_samples(typical).max() < detector.score_samples(intruders).min()


def test_the_mixture_finds_the_number_and_the_shape_of_its_components():
    rng = np.random.default_rng(0)
    round_ones = np.vstack([rng.normal(centre, 1, (200, 2)) for centre in (-8, 0, 8)])
    chosen = Mixture.fit(round_ones).mixture
    assert chosen.n_components == 3 and chosen.covariance_type in ("tied", "diag")
    slanted = rng.normal(size=(400, 2)) @ [[3, 2.9], [0, 0.3]]
    assert Mixture.fit(slanted).mixture.covariance_type == "full" and Mixture.fit(slanted).mixture.n_components == 1


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("size", [50, 50_000])
def test_fifty_and_fifty_thousand_samples_are_both_a_reference(density, size):
    detector = AnomalyDetector(density=density).fit(gaussian(size, 0, 20))
    judged = detector.predict(gaussian(500, 1, 20))
    assert np.isfinite(detector.score_samples(gaussian(10, 2, 20))).all()
    assert (judged == -1).mean() < 0.15
    assert (detector.predict(gaussian(50, 3, 20) + 30) == -1).all()


def test_heavy_tails_and_extreme_values_stay_finite_and_ranked():
    reference = np.random.default_rng(0).standard_t(1, (500, 6))  # no mean, no variance
    query = np.array([[0.0] * 6, [1e3] * 6, [1e12] * 6])
    scores = AnomalyDetector().fit(reference).score_samples(query)
    assert np.isfinite(scores).all() and (np.diff(scores) > 0).all()


def test_z_scores_are_in_standard_deviations_of_a_normal_reference():
    reference = np.random.default_rng(0).normal([5, -3], [2, 0.1], (20_000, 2))
    z_scores = AnomalyDetector(density="mahalanobis").fit(reference).z_scores([[7, -3], [5, -3.3]])
    np.testing.assert_allclose(z_scores, [[1, 0], [0, -3]], atol=0.07)


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_trimming_finds_intruders_hidden_in_the_reference(share):
    count = int(300 * share)
    mixed = np.vstack([gaussian(300 - count, 0), gaussian(count, 1) + 12])
    judged = AnomalyDetector(trim=0.2).fit_predict(mixed)
    assert (judged[-count:] == -1).mean() > 0.9
    assert (judged[:-count] == -1).mean() < 0.1


@pytest.mark.parametrize("density", DENSITIES)
def test_constant_repeated_and_few_samples_give_finite_scores(density):
    constant = gaussian(100, 0)
    constant[:, 2] = 4
    for reference in (constant, np.repeat(gaussian(5, 0), 20, axis=0), np.ones((10, 6)), gaussian(3, 0, 6)):
        detector = AnomalyDetector(density=density).fit(reference)
        assert np.isfinite(detector.score_samples(reference)).all() and np.isfinite(detector.threshold_)


@pytest.mark.parametrize(
    "reference, message",
    [
        (np.full((10, 6), np.nan), "NaN"),
        (np.full((10, 6), np.inf), "infinity"),
        (np.zeros((2, 6)), "minimum of 3"),
        (np.zeros(6), "2D array"),
    ],
)
def test_a_reference_that_cannot_be_fitted_is_refused_with_its_reason(reference, message):
    with pytest.raises(ValueError, match=message):
        AnomalyDetector().fit(reference)


@pytest.mark.parametrize(
    "options",
    [
        dict(density="svm"),
        dict(bandwidth=0),
        dict(trim=0.5),
        dict(false_positive_rate=0),
        dict(max_components=0),
        dict(n_splits=1),
    ],
)
def test_an_impossible_option_is_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AnomalyDetector(**options).fit(gaussian(20, 0))


def test_a_descriptor_of_another_length_is_refused():
    with pytest.raises(ValueError, match="features"):
        AnomalyDetector().fit(gaussian(20, 0)).score_samples(np.zeros((3, 16)))

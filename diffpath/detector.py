"""Turns descriptors into anomaly scores with a density fitted on reference images."""

import numbers

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from .densities import KernelDensity, Mixture, RobustGaussian, central_part
from .options import MIN_REFERENCE_SIZE

_IQR_OF_STANDARD_NORMAL = 1.349
_LINEAR_RANGE = 3.0

DENSITIES = {
    "kde": lambda Z, options: KernelDensity(Z, bandwidth=options.bandwidth, random_state=options.random_state),
    "gmm": lambda Z, options: Mixture(
        Z,
        max_components=options.max_components,
        covariance_floor=options.covariance_floor,
        random_state=options.random_state,
    ),
    "mahalanobis": lambda Z, options: RobustGaussian(Z),
}


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Density of reference descriptors; a low density is an anomaly.

    Descriptors are heavy-tailed, so each component is centred on its median, divided by
    its interquartile range, compressed by an inverse hyperbolic sine (linear within three
    robust standard deviations, logarithmic beyond) and standardised.

    Args:
        density: ``"kde"``: Gaussian kernels in the axes of a shrunk covariance;
            ``"gmm"``: a Gaussian mixture whose size has the least Bayesian information
            criterion; ``"mahalanobis"``: one Gaussian of the central three quarters
        bandwidth: of ``"kde"``, as a multiple of Scott's
        max_components: of ``"gmm"``, the largest number of components that is tried
        covariance_floor: of ``"gmm"``, added to the diagonal of each component's
            covariance of the standardised descriptor, in [0, ∞)
        trim: share of the reference, in [0, 0.5), that is taken for contamination and
            left out of the fit; 0 where the reference is known to be clean
        false_positive_rate: share of clean reference images above ``threshold_`` where
            ``trim`` is 0. With ``trim``, the threshold is Tukey's upper fence instead
        n_splits: folds for ``reference_scores_``
        random_state: seed of folds and fits

    Attributes:
        reference_scores_: float64 ``(n_samples,)``: the score of each reference image
            by a fit that did not see it
        threshold_: a score from which an image counts as likely out-of-distribution

    Note:
        ``score_samples`` and ``decision_function`` are **higher for anomalies**, the
        opposite of scikit-learn's sign; ``predict`` follows scikit-learn.

    Example::

        import numpy as np
        from diffpath import AnomalyDetector

        rng = np.random.default_rng(0)
        detector = AnomalyDetector().fit(rng.normal(size=(300, 6)))
        detector.predict(rng.normal(loc=9, size=(2, 6)))  # array([-1, -1])
    """

    def __init__(
        self,
        *,
        density="kde",
        bandwidth=1.0,
        max_components=5,
        covariance_floor=0.01,
        trim=0.0,
        false_positive_rate=0.05,
        n_splits=5,
        random_state=0,
    ):
        self.density = density
        self.bandwidth = bandwidth
        self.max_components = max_components
        self.covariance_floor = covariance_floor
        self.trim = trim
        self.false_positive_rate = false_positive_rate
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X, y=None):
        """Fits the density on reference descriptors.

        Args:
            X: ``(n_samples, n_features)``, at least ``MIN_REFERENCE_SIZE`` samples
            y: ignored

        Returns:
            the fitted detector

        Raises:
            ValueError: if X has NaN or infinity or too few samples, or an option is not valid
        """
        self._check_options()
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=MIN_REFERENCE_SIZE)
        self._fit = _Fit(self, X)

        self.reference_scores_ = np.empty(len(X))
        folds = KFold(min(self.n_splits, len(X)), shuffle=True, random_state=self.random_state)
        for seen, unseen in folds.split(X):
            self.reference_scores_[unseen] = _Fit(self, X[seen]).score(X[unseen])
        self.threshold_ = self._choose_threshold(self.reference_scores_)
        return self

    def score_samples(self, X):
        """Anomaly scores: negative log-likelihoods, **higher = more anomalous**.

        Args:
            X: ``(n_samples, n_features)``

        Returns:
            float64 ``(n_samples,)``
        """
        check_is_fitted(self)
        return self._fit.score(validate_data(self, X, dtype=np.float64, reset=False))

    def decision_function(self, X):
        """``score_samples`` minus ``threshold_``: at least 0 for likely outliers, ``(n_samples,)``."""
        return self.score_samples(X) - self.threshold_

    def predict(self, X):
        """−1 for likely outliers (a score of at least ``threshold_``), 1 for inliers, ``(n_samples,)``."""
        return np.where(self.decision_function(X) >= 0, -1, 1)

    def _choose_threshold(self, scores):
        if self.trim == 0:
            return float(np.quantile(scores, 1 - self.false_positive_rate))
        lower, upper = np.quantile(scores, [0.25, 0.75])
        return float(upper + 1.5 * (upper - lower))

    def _check_options(self):
        if self.density not in DENSITIES:
            raise ValueError(f"density must be one of {', '.join(DENSITIES)}, got {self.density!r}")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth must be positive, got {self.bandwidth}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim must be in [0, 0.5), got {self.trim}")
        if not 0 < self.false_positive_rate < 1:
            raise ValueError(f"false_positive_rate must be in (0, 1), got {self.false_positive_rate}")
        for name in ("max_components", "n_splits"):
            least = 2 if name == "n_splits" else 1
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


class _Fit:
    """One fit of the transform and the density."""

    def __init__(self, options, X):
        self.centre = np.median(X, axis=0)
        self.scale = _LINEAR_RANGE * _robust_scale(X)
        Z = self._compress(X)
        Z = Z[central_part(Z, options.trim)]
        self.scaler = StandardScaler().fit(Z)
        self.density = DENSITIES[options.density](self.scaler.transform(Z), options)

    def score(self, X):
        return -self.density.log_density(self.scaler.transform(self._compress(X)))

    def _compress(self, X):
        return np.arcsinh((X - self.centre) / self.scale)


def _robust_scale(X):
    lower, upper = np.quantile(X, [0.25, 0.75], axis=0)
    scale = (upper - lower) / _IQR_OF_STANDARD_NORMAL
    scale = np.where(scale > 0, scale, X.std(axis=0))
    return np.where(scale > 0, scale, 1.0)

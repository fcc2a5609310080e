"""Densities of standardised reference descriptors: one interface, three models.

A density is fitted on ``Z (n, d)``, a standardised descriptor, and
``log_density(Z)`` gives float64 ``(n,)``, lower for what is less typical.
"""

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.mixture import GaussianMixture

# A larger reference is thinned to this many kernels, to bound the time of scoring
MAX_KERNELS = 5000
_CHUNK_ENTRIES = 2**22
_TRIM_STEPS = 3
_ROBUST_TRIM = 0.25
_TINY_VARIANCE = 1e-6


class Whitening:
    """The affine map after which a sample has mean zero and the identity as its shrunk covariance."""

    def __init__(self, Z):
        covariance, _ = ledoit_wolf(Z)
        variances, axes = np.linalg.eigh(covariance)
        floor = _TINY_VARIANCE * max(variances[-1], 1e-6)
        self.centre, self.matrix = Z.mean(axis=0), axes / np.sqrt(np.maximum(variances, floor))
        self.log_det = np.linalg.slogdet(self.matrix)[1]

    def __call__(self, Z):
        return (Z - self.centre) @ self.matrix

    def squared_distance(self, Z):
        """Squared Mahalanobis distances, ``(n,)``."""
        return np.square(self(Z)).sum(axis=1)


class KernelDensity:
    """Gaussian kernels around the reference, in the axes of its shrunk covariance.

    The descriptor is whitened with the covariance of Ledoit and Wolf, which is well
    conditioned with fewer samples than dimensions. The bandwidth is Scott's,
    ``n ** (-1 / (d + 4))``, times ``bandwidth``.
    """

    def __init__(self, Z, *, bandwidth=1.0, random_state=0):
        self.whiten = Whitening(Z)
        kernels = self.whiten(Z)
        if len(kernels) > MAX_KERNELS:
            chosen = np.random.default_rng(random_state).choice(len(kernels), MAX_KERNELS, replace=False)
            kernels = kernels[np.sort(chosen)]
        self.kernels = kernels
        count, dimensions = kernels.shape
        self.width = bandwidth * count ** (-1 / (dimensions + 4))
        self._log_norm = np.log(count) + dimensions * np.log(self.width * np.sqrt(2 * np.pi)) - self.whiten.log_det

    def log_density(self, Z):
        white = self.whiten(Z)
        size = max(1, _CHUNK_ENTRIES // len(self.kernels))
        parts = [self._log_kernel_mean(white[k : k + size]) for k in range(0, len(white), size)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _log_kernel_mean(self, white):
        exponent = euclidean_distances(white, self.kernels, squared=True) / (-2 * self.width**2)
        return logsumexp(exponent, axis=1) - self._log_norm


class Mixture:
    """A Gaussian mixture; the number of components has the least Bayesian information criterion.

    At most one component per ten samples and, beyond the first, per ten times d samples,
    so that small references stay with a single Gaussian.
    """

    def __init__(self, Z, *, max_components=5, covariance_floor=0.01, random_state=0):
        most = max(1, min(max_components, len(Z) // (10 * Z.shape[1]) + 1, len(Z) // 10))
        fits = [
            GaussianMixture(count, reg_covar=covariance_floor, random_state=random_state, max_iter=200).fit(Z)
            for count in range(1, most + 1)
        ]
        self.mixture = min(fits, key=lambda mixture: mixture.bic(Z))

    def log_density(self, Z):
        return self.mixture.score_samples(Z)


class RobustGaussian:
    """One Gaussian of the central three quarters: half the squared Mahalanobis distance, and a constant."""

    def __init__(self, Z):
        self.whiten = Whitening(Z[central_part(Z, _ROBUST_TRIM)])

    def log_density(self, Z):
        log_norm = Z.shape[1] / 2 * np.log(2 * np.pi) - self.whiten.log_det
        return -0.5 * self.whiten.squared_distance(Z) - log_norm


def central_part(Z, trim):
    """Indices of the 1 − trim share with the least Mahalanobis distance, by concentration steps."""
    kept = np.arange(len(Z))
    size = max(2, int(np.ceil((1 - trim) * len(Z))))
    if size == len(Z):
        return kept
    distance = np.square(Z).sum(axis=1)
    for _ in range(_TRIM_STEPS):
        kept = np.argsort(distance, kind="stable")[:size]
        distance = Whitening(Z[kept]).squared_distance(Z)
    return np.sort(kept)

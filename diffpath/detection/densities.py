"""The densities of standardised reference descriptors, by name; ``density.py`` says what one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.mixture import GaussianMixture

from .density import Arrays, Densities, Density, Descriptors, Whitening, central_part, thin

COVARIANCE_TYPES = ("full", "tied", "diag")
_CHUNK_ENTRIES = 2**20  # about the size of a processor's cache


class KernelDensity:
    """Gaussian kernels around the reference, in the axes of its shrunk covariance.

    The bandwidth is Scott's, ``n ** (-1 / (d + 4))``, times ``bandwidth``. SciPy's ``gaussian_kde`` has
    neither shrinkage, without which fewer samples than dimensions are singular, nor arrays to be saved.
    """

    def __init__(self, whiten: Whitening, kernels: Float[np.ndarray, "k d"], width: float | np.ndarray) -> None:
        self.whiten, self.kernels, self.width = whiten, kernels, float(width)
        count, dimensions = kernels.shape
        self._log_norm = np.log(count) + dimensions * np.log(self.width * np.sqrt(2 * np.pi)) - whiten.log_det
        # −½ |z − k|² = z·k − ½ |k|² − ½ |z|², of which the first two terms are one product
        scaled = kernels / self.width
        self._factors = np.vstack([scaled.T, -0.5 * np.square(scaled).sum(axis=1)])

    @classmethod
    def fit(cls, Z: Descriptors, *, bandwidth: float = 1.0, random_state: int = 0, **_: Any) -> KernelDensity:
        whiten = Whitening.fit(Z)
        kernels = whiten(thin(Z, random_state))
        count, dimensions = kernels.shape
        return cls(whiten, kernels, bandwidth * count ** (-1 / (dimensions + 4)))

    def log_density(self, Z: Descriptors) -> Densities:
        log_sums = np.empty(len(Z))
        size = max(1, _CHUNK_ENTRIES // len(self.kernels))
        for start in range(0, len(Z), size):
            part = slice(start, start + size)
            scaled = self.whiten(Z[part]) / self.width
            exponents = np.column_stack([scaled, np.ones(len(scaled))]) @ self._factors
            highest = exponents.max(axis=1)
            exponents -= highest[:, None]
            np.exp(exponents, out=exponents)
            log_sums[part] = np.log(exponents.sum(axis=1)) + highest - 0.5 * np.square(scaled).sum(axis=1)
        return log_sums - self._log_norm

    def arrays(self) -> Arrays:
        return {**self.whiten.arrays(), "kernels": self.kernels, "width": np.array(self.width)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> KernelDensity:
        return cls(Whitening(arrays["centre"], arrays["matrix"]), arrays["kernels"], arrays["width"])


_OF_MIXTURE = ("weights_", "means_", "covariances_", "precisions_cholesky_")


class Mixture:
    """A Gaussian mixture; number and shape of its components have the least Bayesian information criterion.

    At most one component per ten samples; more are tried as long as the criterion falls.
    """

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture

    @classmethod
    def fit(
        cls,
        Z: Descriptors,
        *,
        max_components: int = 5,
        covariance_floor: float = 0.01,
        random_state: int = 0,
        **_: Any,
    ) -> Mixture:
        Z = thin(Z, random_state)
        most = min(max_components, len(Z) // 10, len(np.unique(Z, axis=0)))  # repeated rows are no cluster more
        options = {"reg_covar": covariance_floor, "random_state": random_state, "max_iter": 200}
        best: list[tuple[float, GaussianMixture]] = []
        for shape in COVARIANCE_TYPES:
            fits: list[tuple[float, GaussianMixture]] = []
            for count in range(1, max(1, most) + 1):
                mixture = GaussianMixture(count, covariance_type=shape, **options).fit(Z)
                fits.append((mixture.bic(Z), mixture))
                if count > 1 and fits[-1][0] > fits[-2][0]:
                    break
            best.append(min(fits, key=lambda fit: fit[0]))
        return cls(min(best, key=lambda fit: fit[0])[1])

    def log_density(self, Z: Descriptors) -> Densities:
        return self.mixture.score_samples(Z)

    def arrays(self) -> Arrays:
        return {
            "covariance_type": np.array(COVARIANCE_TYPES.index(self.mixture.covariance_type)),
            **{name: getattr(self.mixture, name) for name in _OF_MIXTURE},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Mixture:
        shape = COVARIANCE_TYPES[int(arrays["covariance_type"])]
        mixture = GaussianMixture(len(arrays["weights_"]), covariance_type=shape)
        for name in _OF_MIXTURE:
            setattr(mixture, name, arrays[name])
        return cls(mixture)


class RobustGaussian:
    """One Gaussian of the central three quarters: half the squared Mahalanobis distance, and a constant."""

    def __init__(self, whiten: Whitening) -> None:
        self.whiten = whiten

    @classmethod
    def fit(cls, Z: Descriptors, *, trim: float = 0.0, **_: Any) -> RobustGaussian:
        # A reference that the detector has trimmed is not trimmed again
        return cls(Whitening.fit(Z if trim else Z[central_part(Z)]))

    def log_density(self, Z: Descriptors) -> Densities:
        log_norm = Z.shape[1] / 2 * np.log(2 * np.pi) - self.whiten.log_det
        return -0.5 * self.whiten.squared_distance(Z) - log_norm

    def arrays(self) -> Arrays:
        return self.whiten.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RobustGaussian:
        return cls(Whitening(arrays["centre"], arrays["matrix"]))


DENSITIES: dict[str, type[Density]] = {"kde": KernelDensity, "gmm": Mixture, "mahalanobis": RobustGaussian}

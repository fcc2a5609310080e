"""What a density of standardised reference descriptors is, and what several have in common.

A density is fitted on ``Z (n, d)``, a standardised descriptor, by its ``fit``.
``log_density(Z)`` gives float64 ``(n,)``, lower for what is less typical; ``arrays()`` gives
all that it needs for that, by name, and ``from_arrays`` takes it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf

# A larger reference is thinned to this many samples, to bound the time of fitting and scoring
MAX_KERNELS = 2000
_CONCENTRATION_STEPS = 3
_ROBUST_TRIM = 0.25
_TINY_VARIANCE = 1e-6

Descriptors: TypeAlias = Float[np.ndarray, "n d"]  # standardised
Densities: TypeAlias = Float[np.ndarray, " n"]  # logarithms
Arrays: TypeAlias = dict[str, np.ndarray]


class Density(Protocol):
    """What a detector needs of a density; a new one is a class of its own and a line in ``DENSITIES``."""

    @classmethod
    def fit(cls, Z: Descriptors, **options: Any) -> Density:
        """Fits it on standardised descriptors; of the detector's parameters it takes its own."""

    def log_density(self, Z: Descriptors) -> Densities:
        """Lower for what is less typical."""

    def arrays(self) -> Arrays:
        """All that ``log_density`` needs, by name."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Density:
        """The density whose ``arrays()`` these are."""


class Whitening:
    """An affine map; :meth:`fit` gives the one to mean zero and the identity as shrunk covariance.

    The covariance is shrunk as by Ledoit and Wolf (2004): well conditioned with fewer
    samples than dimensions.
    """

    def __init__(self, centre: np.ndarray, matrix: np.ndarray) -> None:
        self.centre, self.matrix = centre, matrix
        self.log_det = np.linalg.slogdet(matrix)[1]

    @classmethod
    def fit(cls, Z: Descriptors) -> Whitening:
        covariance, _ = ledoit_wolf(Z)
        variances, axes = np.linalg.eigh(covariance)
        floor = _TINY_VARIANCE * max(variances[-1], 1e-6)
        return cls(Z.mean(axis=0), axes / np.sqrt(np.maximum(variances, floor)))

    def __call__(self, Z: Descriptors) -> Descriptors:
        return (Z - self.centre) @ self.matrix

    def squared_distance(self, Z: Descriptors) -> Float[np.ndarray, " n"]:
        """Squared Mahalanobis distances, ``(n,)``."""
        return np.square(self(Z)).sum(axis=1)

    def arrays(self) -> Arrays:
        return {"centre": self.centre, "matrix": self.matrix}


def central_part(Z: Descriptors) -> Int[np.ndarray, " central"]:
    """Indices of the three quarters with the least Mahalanobis distance, by concentration steps."""
    size = max(2, int(np.ceil((1 - _ROBUST_TRIM) * len(Z))))
    distance = np.square(Z).sum(axis=1)
    for _ in range(_CONCENTRATION_STEPS):
        kept = np.argsort(distance, kind="stable")[:size]
        distance = Whitening.fit(Z[kept]).squared_distance(Z)
    return np.sort(kept)


def thin(Z: Descriptors, random_state: int) -> Descriptors:
    """At most ``MAX_KERNELS`` of the descriptors, chosen by chance, in their order."""
    if len(Z) <= MAX_KERNELS:
        return Z
    chosen = np.random.default_rng(random_state).choice(len(Z), MAX_KERNELS, replace=False)
    return Z[np.sort(chosen)]

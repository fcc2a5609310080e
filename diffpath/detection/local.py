"""How unusual each place of an image is: a density of local evidence for each place of the reference's images.

    d      Mahalanobis distance of a place's numbers from the mean that the reference has there, in its
           deviation there, with one covariance for all places: two-sided, as what is too smooth is as
           unusual as what is too rough
    a      the size of the error, averaged over the path: what the model finds hard
    a − ã  the same less its median over the image: what stands out within it

Each is turned into a tail probability under the reference's own places, d by fits that did not see the
image, and what they say together once more, by the same tails:

    s = −2 log p_d − log p_a − log p_(a − ã)

The first sees whole images of another kind, typical only of themselves; the others point at small parts.
On four development sets pasted drawings are found at a pixel AUROC of .91 by d alone and .955 by s
(``python -m benchmarks.accuracy localisation``; docs/accuracy.md has what else was tried).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32, Int
from PIL import Image
from sklearn.covariance import ledoit_wolf

from ..method.descriptor import LOCAL_KINDS, LOCAL_STRIDE
from .density import Arrays

MAX_IMAGES = 1000  # of a reference are fitted on, at most
_FOLDS = 5
_PRIOR = 20  # images for which the spread of all places stands beside that of one
_RIDGE = 0.05  # added to the covariance, as a share of its mean variance
_WEIGHTS = (2.0, 1.0, 1.0)  # of −log p of d, a and a − ã
_QUANTILES = 2000  # kept of the reference's places
_TAIL = 0.02  # share at the top beyond which a tail is exponential
_NEVER_ZERO = 1e-12

Evidence = Float[np.ndarray, "n k y x"]


class Tail:
    """−log₁₀ of the share of the reference's places that are at least this far out.

    Args:
        quantiles: float64 ``(q,)``, ascending: of the reference's values at equally spaced shares
        scale: of the exponential tail beyond the last but ``_TAIL`` of them
    """

    def __init__(self, quantiles: np.ndarray, scale: float) -> None:
        self.quantiles, self.scale = quantiles, scale
        self._shares = 1 - np.linspace(0, 1, len(quantiles))
        self._from = float(np.interp(1 - _TAIL, 1 - self._shares, quantiles))

    @classmethod
    def fit(cls, values: np.ndarray) -> Tail:
        values = np.asarray(values, np.float64).ravel()
        quantiles = np.quantile(values, np.linspace(0, 1, min(_QUANTILES, len(values))))
        start = np.quantile(values, 1 - _TAIL)
        excess = values[values > start] - start
        return cls(quantiles, max(float(excess.mean()) if len(excess) else 0.0, _NEVER_ZERO))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        within = np.interp(values, self.quantiles, self._shares)
        beyond = -np.log10(_TAIL) + np.maximum(values - self._from, 0) / self.scale / np.log(10)
        return np.where(values > self._from, beyond, -np.log10(np.maximum(within, _TAIL)))


class LocalReference:
    """What places of the reference's images look like to the model.

    Attributes:
        centre, spread: float64 ``(K, y, x)``: mean and deviation at each place
        precision: float64 ``(K, K)``: inverse of the covariance of deviations
        tails: of d, a, a − ã and s
    """

    def __init__(self, centre: np.ndarray, spread: np.ndarray, precision: np.ndarray, tails: list[Tail]) -> None:
        self.centre, self.spread, self.precision, self.tails = centre, spread, precision, tails

    @classmethod
    def fit(cls, evidence: Evidence, labels: Int[np.ndarray, " n"] | None = None) -> LocalReference:
        """Fits a reference.

        Args:
            evidence: float ``(n, K, y, x)`` of n ≥ 3 images
            labels: ``(n,)``, equal for images that belong together; they are left out of fits together
        """
        evidence = np.asarray(evidence, np.float64)
        labels = np.arange(len(evidence)) if labels is None else np.unique(labels, return_inverse=True)[1]
        fold = labels % min(_FOLDS, labels.max() + 1) if labels.max() else np.arange(len(evidence)) % _FOLDS
        distances = np.empty((len(evidence), *evidence.shape[2:]))
        for number in np.unique(fold):
            left_out = fold == number
            distances[left_out] = _distances(evidence[left_out], *_fit(evidence[~left_out]))
        size = _size(evidence)
        tails = [Tail.fit(values) for values in (distances, size, _standing_out(size))]
        tails.append(Tail.fit(_together(tails, distances, size)))
        return cls(*_fit(evidence), tails)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's evidence, ``(K, y, x)``."""
        return self.centre.shape

    def surprise(self, evidence: Evidence) -> Float[np.ndarray, "n y x"]:
        """−log₁₀ of the probability that a place of the reference's images is as unusual, float64 ``(n, y, x)``."""
        evidence = np.asarray(evidence, np.float64)
        distances = _distances(evidence, self.centre, self.spread, self.precision)
        return self.tails[3](_together(self.tails[:3], distances, _size(evidence)))

    def maps(self, evidence: Evidence) -> Float32[np.ndarray, "n h w"]:
        """:meth:`surprise` as maps of the image, smooth between places, float32 ``(n, 2 y, 2 x)``, at least 0."""
        surprise = self.surprise(evidence).astype(np.float32)
        height, width = (LOCAL_STRIDE * length for length in surprise.shape[1:])
        smooth = Image.Resampling.BILINEAR
        return np.stack([np.asarray(Image.fromarray(each).resize((width, height), smooth)) for each in surprise])

    def arrays(self) -> Arrays:
        """All that :meth:`surprise` needs, as named arrays; :meth:`from_arrays` takes them back."""
        return {
            "centre": self.centre,
            "spread": self.spread,
            "precision": self.precision,
            "quantiles": np.stack([tail.quantiles for tail in self.tails]),
            "scales": np.array([tail.scale for tail in self.tails]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> LocalReference:
        """The reference whose ``arrays()`` these are."""
        tails = [Tail(*pair) for pair in zip(arrays["quantiles"], arrays["scales"].tolist())]
        return cls(arrays["centre"], arrays["spread"], arrays["precision"], tails)


def _fit(evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and spread at each place, the latter drawn towards that of all places, and the precision."""
    centre = evidence.mean(axis=0)
    apart = evidence - centre
    variance = apart.var(axis=0)
    of_all = variance.mean(axis=(1, 2), keepdims=True)
    share = _PRIOR / (_PRIOR + len(evidence))
    spread = np.sqrt(np.maximum((1 - share) * variance + share * of_all, _NEVER_ZERO))
    deviations = (apart / spread).transpose(0, 2, 3, 1).reshape(-1, len(centre))
    covariance, _ = ledoit_wolf(deviations)
    strength = _RIDGE * np.trace(covariance) / len(covariance) + _NEVER_ZERO
    return centre, spread, np.linalg.inv(covariance + strength * np.eye(len(covariance)))


def _distances(evidence: np.ndarray, centre: np.ndarray, spread: np.ndarray, precision: np.ndarray) -> np.ndarray:
    deviations = ((evidence - centre) / spread).transpose(0, 2, 3, 1)
    return np.sqrt(np.einsum("nyxi,ij,nyxj->nyx", deviations, precision, deviations, optimize=True))


def _size(evidence: np.ndarray) -> np.ndarray:
    return evidence[:, : evidence.shape[1] // LOCAL_KINDS].mean(axis=1)


def _standing_out(values: np.ndarray) -> np.ndarray:
    """What of a map's places ``(..., y, x)`` stands out within it."""
    return values - np.median(values, axis=(-2, -1), keepdims=True)


def _together(tails: list[Tail], distances: np.ndarray, size: np.ndarray) -> np.ndarray:
    parts = (distances, size, _standing_out(size))
    return np.sum([weight * tail(part) for weight, tail, part in zip(_WEIGHTS, tails, parts)], axis=0)

"""The descriptor's density together with nearest neighbours among embeddings of another network.

    s_d      the density's score, −log-likelihood                       diffusion score
    s_e      mean distance from z / |z| to its k nearest in the reference  embedding score
    p_d, p_e their tail probabilities under the reference, as by ``EmpiricalNull``
    f        −log p_d − log p_e                                         Fisher's statistic
    s        f − log(1 + f)                                             fused score

s is −log of Fisher's p-value of two independent tests, e⁻ᶠ (1 + f): exponential where they
are. Here they depend on each other, so that no distribution is assumed: s is calibrated
like any score, by the reference images' own, each by a fit that did not see it. Only
without a clean reference is its tail taken for nearly exponential, at a rate of its own.
Tail probabilities are smooth beyond the farthest reference image, where ranks would all be
1 / (n + 1), so that an image that only one part finds, but clearly, ranks above one that
both find a little odd.

Distances between normalised embeddings: Sun, Ming, Zhu & Li 2022, "Out-of-distribution
detection with deep nearest neighbors". What was tried beside all this, and how accurate it
is: ``docs/scores.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Float32
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import check_is_fitted, validate_data

from ..options import MIN_REFERENCE_SIZE
from .calibration import EmpiricalNull
from .density import Arrays
from .detector import AnomalyDetector, CalibratedDetector
from .looks import CENSORED, LIGHT_TAIL, LooksDetector, descriptor_detector

MAX_POINTS = 10_000  # a larger reference is thinned to this many neighbours
_TRIM_ROUNDS = 2
_NEVER_ZERO = 1e-300


class FusedDetector(CalibratedDetector):
    """A density of descriptors and nearest neighbours of embeddings, as one calibrated score.

    A sample is a descriptor followed by an embedding. Parts, folds and held-out samples are
    those of :class:`diffpath.AnomalyDetector`; no embedding is its own neighbour, nor is
    one of its group or, without groups, one that is identical to it.

    Args:
        embedding_length: how many of a sample's numbers, at its end, are the embedding
        num_neighbours: k
        detector_options: those of :class:`diffpath.AnomalyDetector`, a dict
        detail_length: how many numbers, before the embedding, are the detail look's

    Attributes:
        detector_: the descriptors' fitted :class:`diffpath.AnomalyDetector`, or a ``LooksDetector``
            where they have a detail look
        reference_parts_: float64 ``(n_samples, 2)``: diffusion score and embedding score
            of each reference image, by fits that did not see it
        reference_scores_, reference_p_values_, calibration_scores_, smallest_p_value_,
            threshold_: as those of :class:`diffpath.AnomalyDetector`, of the fused score

    Example::

        import numpy as np
        from diffpath import FusedDetector

        rng = np.random.default_rng(0)
        descriptors, embeddings = rng.normal(size=(300, 6)), rng.normal(1, 0.1, size=(300, 64))
        detector = FusedDetector(64).fit(np.hstack([descriptors, embeddings]))
        detector.predict(np.hstack([descriptors[:1], -embeddings[:1]]))  # array([-1])
    """

    detector_: AnomalyDetector | LooksDetector
    reference_parts_: Float[np.ndarray, "n 2"]
    _null_shape: float = LIGHT_TAIL
    _neighbours: _Neighbours
    _tail_parts: Float[np.ndarray, "c 2"]
    _tails: list[EmpiricalNull]

    def __init__(
        self,
        embedding_length: int,
        *,
        num_neighbours: int = 10,
        detector_options: dict[str, Any] | None = None,
        detail_length: int = 0,
    ) -> None:
        self.embedding_length = embedding_length
        self.num_neighbours = num_neighbours
        self.detector_options = detector_options
        self.detail_length = detail_length

    def fit(self, X: Any, y: object = None, groups: npt.ArrayLike | None = None) -> FusedDetector:
        """Fits both parts on reference samples and calibrates their sum.

        Args:
            X: ``(n_samples, D + embedding_length)``, at least ``MIN_REFERENCE_SIZE`` samples
            y: ignored
            groups: ``(n_samples,)``, as in :meth:`diffpath.AnomalyDetector.fit`

        Returns:
            the fitted detector

        Raises:
            ValueError: if X has NaN or infinity or too few samples or groups, or an option is not valid
        """
        if self.num_neighbours < 1:
            raise ValueError(f"num_neighbours must be at least 1, got {self.num_neighbours}")
        X = validate_data(self, X, ensure_min_samples=MIN_REFERENCE_SIZE, ensure_min_features=self.embedding_length + 1)
        descriptors, embeddings = self._split(X)
        self.detector_ = descriptor_detector(self.detail_length, self.detector_options)
        self.detector_.fit(descriptors, groups=groups)
        among, trim = _Embeddings(_normalised(embeddings), groups), self.detector_.trim
        seen = np.ones(len(X), np.bool_)
        if trim:
            seen = _central(among, trim, self.num_neighbours)
        elif len(self.detector_.held_out_) < len(X):
            seen[self.detector_.held_out_] = False
        self._neighbours, distances = among.neighbours(seen, self.num_neighbours)
        self.reference_parts_ = np.column_stack([self.detector_.reference_scores_, distances])
        self._tail_parts = self.reference_parts_[self.detector_.held_out_]
        self._fit_tails()
        self.reference_scores_ = self.fuse(self.reference_parts_)
        self._calibrate_on(self.detector_.held_out_, trim, self.detector_.false_positive_rate)
        return self

    def part_scores(self, X: npt.ArrayLike) -> Float[np.ndarray, "n 2"]:
        """Diffusion score and embedding score of new samples, float64 ``(n_samples, 2)``.

        The former is a negative log-likelihood, the latter a distance in [0, 2].
        """
        check_is_fitted(self)
        descriptors, embeddings = self._split(validate_data(self, X, reset=False))
        return np.column_stack(
            [self.detector_.score_samples(descriptors), self._neighbours.distances(_normalised(embeddings))]
        )

    @property
    def trim(self) -> float:
        return self.detector_.trim

    def part_p_values(self, parts: npt.ArrayLike) -> Float[np.ndarray, "n 2"]:
        """Tail probabilities of ``part_scores``, float64 ``(n_samples, 2)`` in (0, 1], each falling with its part."""
        columns = [tail.p_values(column) for tail, column in zip(self._tails, np.asarray(parts, np.float64).T)]
        return np.maximum(np.column_stack(columns), _NEVER_ZERO)

    def fuse(self, parts: npt.ArrayLike) -> Float[np.ndarray, " n"]:
        """Fused scores of ``part_scores``, float64 ``(n_samples,)``, at least 0, rising with each part."""
        fisher = -np.log(self.part_p_values(parts)).sum(axis=1)
        return fisher - np.log1p(fisher)

    def score_samples(self, X: npt.ArrayLike) -> Float[np.ndarray, " n"]:
        """Fused scores, **higher = more anomalous**, float64 ``(n_samples,)``.

        Args:
            X: ``(n_samples, D + embedding_length)``
        """
        return self.fuse(self.part_scores(X))

    def z_scores(self, X: npt.ArrayLike) -> Float[np.ndarray, "n d"]:
        """Those of the descriptor, as ``AnomalyDetector.z_scores`` gives them, float64 ``(n_samples, D)``."""
        return self.detector_.z_scores(self._split(np.asarray(X))[0])

    @property
    def feature_centre_(self) -> Float[np.ndarray, " d"]:
        return self.detector_.feature_centre_

    @property
    def feature_scale_(self) -> Float[np.ndarray, " d"]:
        return self.detector_.feature_scale_

    def arrays(self) -> Arrays:
        """All that scoring needs, as named arrays; :meth:`from_arrays` takes them back."""
        check_is_fitted(self)
        own = ("reference_scores_", "reference_p_values_", "calibration_scores_", "reference_parts_")
        return {
            **{name: getattr(self, name) for name in own},
            "tail_parts": self._tail_parts,
            "points": self._neighbours.points,
            "num_neighbours": np.array(self._neighbours.count),
            **{f"detector.{name}": array for name, array in self.detector_.arrays().items()},
        }

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> FusedDetector:
        """The fitted detector whose ``get_params()`` and ``arrays()`` these are."""
        detector = cls(**params)
        parts = {name.removeprefix("detector."): a for name, a in arrays.items() if name.startswith("detector.")}
        options, length = params["detector_options"], params.get("detail_length", 0)
        if length:
            given = {"detail_length": length, "detector_options": options}
            detector.detector_ = LooksDetector.from_arrays(given, parts)
        else:
            detector.detector_ = AnomalyDetector.from_arrays(options or {}, parts)
        for name in ("reference_scores_", "reference_p_values_", "reference_parts_"):
            setattr(detector, name, arrays[name])
        detector.n_features_in_ = detector.detector_.n_features_in_ + detector.embedding_length
        detector._neighbours = _Neighbours(arrays["points"], int(arrays["num_neighbours"]))
        detector._tail_parts = arrays["tail_parts"]
        detector._fit_tails()
        inner = detector.detector_
        detector._calibrate(arrays["calibration_scores_"], inner.trim, inner.false_positive_rate)
        return detector

    def _fit_tails(self) -> None:
        trim = self.detector_.trim or CENSORED
        shapes = (self.detector_._null_shape, LIGHT_TAIL)  # distances are bounded
        self._tails = [EmpiricalNull(column, trim, shape) for column, shape in zip(self._tail_parts.T, shapes)]

    def _split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return X[:, : -self.embedding_length], X[:, -self.embedding_length :]


class _Neighbours:
    """Mean distance of new embeddings to the nearest of some points.

    Args:
        points: float32 ``(n, d)``
        count: how many of them
    """

    def __init__(self, points: Float32[np.ndarray, "p e"], count: int) -> None:
        self.points, self.count = points, max(1, count)
        self._index = NearestNeighbors(n_neighbors=self.count, algorithm="brute").fit(points)

    def distances(self, embeddings: Float32[np.ndarray, "n e"]) -> Float[np.ndarray, " n"]:
        """Float64 ``(n,)``."""
        return self._index.kneighbors(embeddings)[0].astype(np.float64).mean(axis=1)


class _Embeddings:
    """A reference's embeddings, of which those that belong together are not each other's neighbours.

    Args:
        embeddings: float32 ``(n, d)``
        groups: ``(n,)``, equal for what belongs together; None where only identical ones do
    """

    def __init__(self, embeddings: Float32[np.ndarray, "n e"], groups: npt.ArrayLike | None = None) -> None:
        numbers = np.zeros(len(embeddings)) if groups is None else np.unique(groups, return_inverse=True)[1]
        rows = np.column_stack([embeddings, numbers]).astype(np.float32)
        different, kinds = np.unique(rows, axis=0, return_inverse=True)
        self._kinds = kinds.reshape(-1)
        self._different = np.ascontiguousarray(different[:, :-1])
        self._labels = np.arange(len(different)) if groups is None else different[:, -1].astype(int)

    def __len__(self) -> int:
        return len(self._kinds)

    def neighbours(self, seen: Bool[np.ndarray, " n"], count: int) -> tuple[_Neighbours, Float[np.ndarray, " n"]]:
        """Takes the ``seen`` embeddings, bool ``(n,)``, for points.

        Returns:
            :class:`_Neighbours`, and float64 ``(n,)``: each embedding's mean distance to the
            nearest points that do not belong to it
        """
        chosen = np.unique(self._kinds[seen])
        if len(np.unique(self._labels[chosen])) < 2:  # of a few large groups, one may hold all that is central
            chosen = np.arange(len(self._different))
        if len(chosen) > MAX_POINTS:
            chosen = np.sort(np.random.default_rng(0).choice(chosen, MAX_POINTS, replace=False))
        points, labels = self._different[chosen], self._labels[chosen]
        count = min(count, len(chosen) - np.bincount(labels).max())
        distances = np.zeros(len(self._different))
        if count > 0:

            def mean_of_nearest(part: np.ndarray, start: int) -> np.ndarray:
                own = self._labels[start : start + len(part)]
                part[own[:, None] == labels] = np.inf
                return np.partition(part, count - 1, axis=1)[:, :count].mean(axis=1, dtype=np.float64)

            parts = pairwise_distances_chunked(self._different, points, reduce_func=mean_of_nearest, working_memory=64)
            distances = np.concatenate(list(parts))
        return _Neighbours(points, count), distances[self._kinds]


def _central(among: _Embeddings, trim: float, count: int) -> Bool[np.ndarray, " n"]:
    """Which embeddings are taken for clean: all but the ``trim`` share that lies farthest from such as are.

    The start is robust: fewer contaminants than the share cannot fill each other's
    neighbourhoods if these are as large as the share.
    """
    everything = np.ones(len(among), bool)
    share = int(np.ceil(trim * min(len(among), MAX_POINTS)))
    _, distances = among.neighbours(everything, max(count, share))
    for _ in range(_TRIM_ROUNDS):
        central = distances <= np.quantile(distances, 1 - trim)
        _, distances = among.neighbours(central, count)
    return distances <= np.quantile(distances, 1 - trim)


def _normalised(embeddings: Float[np.ndarray, "n e"]) -> Float32[np.ndarray, "n e"]:
    """Unit vectors, float32; zeros stay zeros."""
    embeddings = embeddings.astype(np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(lengths > 0, lengths, 1)).astype(np.float32)

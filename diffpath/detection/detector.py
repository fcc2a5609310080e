"""Turns descriptors into calibrated anomaly scores with a density fitted on reference images."""

from __future__ import annotations

import numbers
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.utils.validation import check_is_fitted, validate_data

from ..options import MIN_REFERENCE_SIZE
from .calibration import TAIL_SHAPE, Calibration, ConformalCalibration, EmpiricalNull
from .densities import DENSITIES
from .density import Arrays, Density, central_part
from .rules import DEFAULT_LEVEL

CALIBRATIONS = ("auto", "split", "cross")
SPLIT_FROM = 1000  # samples from which "auto" holds a part out
_CALIBRATION_SHARE = 0.3
_MIN_GROUPS = 2
_MIN_GROUPS_TO_SPLIT = 3  # one to calibrate, and two that judge each other
_MIN_OF_OTHER_GROUPS = 2
_TRIM_ROUNDS = 2
_IQR_OF_STANDARD_NORMAL = 1.349
_LINEAR_RANGE = 30.0


_ARRAYS = ("feature_centre_", "feature_scale_", "reference_scores_", "reference_p_values_")  # kept as they are
_Indices: TypeAlias = Int[np.ndarray, " m"]
_Fold: TypeAlias = tuple[_Indices, _Indices]  # what a fit sees, and what it does not


class CalibratedDetector(OutlierMixin, BaseEstimator):
    """What follows from ``score_samples`` and calibration scores, whatever the detector."""

    reference_scores_: Float[np.ndarray, " n"]
    reference_p_values_: Float[np.ndarray, " n"]
    calibration_: Calibration
    threshold_: float
    n_features_in_: int
    _null_shape: float = TAIL_SHAPE

    @abstractmethod
    def score_samples(self, X: npt.ArrayLike) -> Float[np.ndarray, " n"]:
        """Anomaly scores, **higher = more anomalous**, ``(n_samples,)``."""

    @abstractmethod
    def z_scores(self, X: npt.ArrayLike) -> Float[np.ndarray, "n d"]:
        """Each component of the descriptor in robust standard deviations of the reference."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that scoring needs, as named arrays."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, params: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> CalibratedDetector:
        """The fitted detector whose ``get_params()`` and ``arrays()`` these are."""

    def p_values(self, X: npt.ArrayLike) -> Float[np.ndarray, " n"]:
        """How likely an image of the reference's kind is at least this anomalous.

        Args:
            X: ``(n_samples, n_features)``, samples that are not of the reference

        Returns:
            float64 ``(n_samples,)`` in [``smallest_p_value_``, 1]
        """
        return self.calibration_.p_values(self.score_samples(X))

    def decision_function(self, X: npt.ArrayLike) -> Float[np.ndarray, " n"]:
        """``score_samples`` minus ``threshold_``: at least 0 for likely outliers, ``(n_samples,)``."""
        return self.score_samples(X) - self.threshold_

    def predict(self, X: npt.ArrayLike) -> Int[np.ndarray, " n"]:
        """−1 for likely outliers (a score of at least ``threshold_``), 1 for inliers, ``(n_samples,)``."""
        return np.where(self.decision_function(X) >= 0, -1, 1)

    @property
    def calibration_scores_(self) -> Float[np.ndarray, " c"]:
        return self.calibration_.scores

    @property
    def smallest_p_value_(self) -> float:
        return self.calibration_.smallest_p_value

    def _calibrate_on(self, held_out: _Indices, trim: float, false_positive_rate: float) -> None:
        """Calibrates on some of the reference's scores, which are by fits that did not see them."""
        calibration_scores = self.reference_scores_[held_out]
        self._calibrate(calibration_scores, trim, false_positive_rate)
        self.reference_p_values_ = self.calibration_.p_values(self.reference_scores_)
        self.reference_p_values_[held_out] = self.calibration_.own_p_values(calibration_scores)

    def _calibrate(self, scores: np.ndarray, trim: float, false_positive_rate: float) -> None:
        self.calibration_ = EmpiricalNull(scores, trim, self._null_shape) if trim else ConformalCalibration(scores)
        self.threshold_ = self.calibration_.threshold(false_positive_rate)


class AnomalyDetector(CalibratedDetector):
    """Density of reference descriptors, with p-values; a low density is an anomaly.

    Descriptors are heavy-tailed, so each component is centred on its median, divided by
    its interquartile range, compressed by an inverse hyperbolic sine (linear within thirty
    robust standard deviations, logarithmic beyond) and standardised: as accurate as plain
    standardisation where tails are harmless, and finite where they are not. Logarithms
    and ranks cost accuracy (``benchmarks/detector.py``).

    Nothing is judged by a fit that saw it. With ``"split"`` calibration, 30 % of the
    reference are held out of the fit and calibrate it. With ``"cross"``, each fold is
    scored by a fit on the others; a new sample's score is the mean over these fits, and is
    ranked among the folds' scores. Samples that belong together, as ``groups`` of
    :meth:`fit` says, are on one side of every division; without it, identical ones are.

    With ``trim``, the fits leave out the most deviant samples: those farthest by Gaussian
    fits that did not see them, found anew in two rounds from a robust start.

    Args:
        density: ``"kde"``: Gaussian kernels in the axes of a shrunk covariance;
            ``"gmm"``: a Gaussian mixture whose size and shape have the least Bayesian
            information criterion; ``"mahalanobis"``: one Gaussian of the central three
            quarters
        bandwidth: of ``"kde"``, as a multiple of Scott's
        max_components: of ``"gmm"``, the largest number of components that is tried
        covariance_floor: of ``"gmm"``, added to the diagonal of each component's
            covariance of the standardised descriptor, in [0, ∞)
        trim: share of the reference, in [0, 0.5), that is taken for contamination and
            left out of the fit; 0 where the reference is known to be clean. With ``trim``
            the p-values are those of :class:`diffpath.detection.calibration.EmpiricalNull`
        false_positive_rate: share of clean images above ``threshold_``
        calibration: ``"split"``, ``"cross"``, or ``"auto"`` for the former from
            1,000 samples on, or as many groups where there are groups
        n_splits: folds of ``"cross"``
        random_state: seed of folds and fits

    Attributes:
        reference_scores_: float64 ``(n_samples,)``: the score of each reference image
            by a fit that did not see it
        reference_p_values_: float64 ``(n_samples,)``: likewise
        calibration_scores_: float64 ``(n_calibration,)``, ascending: the scores that
            p-values are ranks among
        held_out_: int ``(n_calibration,)``: which of the reference images these are of; not kept in files
        smallest_p_value_: no p-value can be less
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
        detector.p_values(rng.normal(loc=9, size=(2, 6)))  # array([1/301, 1/301])
    """

    held_out_: _Indices
    feature_centre_: Float[np.ndarray, " d"]
    feature_scale_: Float[np.ndarray, " d"]
    _fits: list[_Fit]

    def __init__(
        self,
        *,
        density: str = "kde",
        bandwidth: float = 1.0,
        max_components: int = 5,
        covariance_floor: float = 0.01,
        trim: float = 0.0,
        false_positive_rate: float = DEFAULT_LEVEL,
        calibration: str = "auto",
        n_splits: int = 5,
        random_state: int = 0,
    ) -> None:
        self.density = density
        self.bandwidth = bandwidth
        self.max_components = max_components
        self.covariance_floor = covariance_floor
        self.trim = trim
        self.false_positive_rate = false_positive_rate
        self.calibration = calibration
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: Any, y: object = None, groups: npt.ArrayLike | None = None) -> AnomalyDetector:
        """Fits the density on reference descriptors and calibrates it.

        Args:
            X: ``(n_samples, n_features)``, at least ``MIN_REFERENCE_SIZE`` samples
            y: ignored
            groups: ``(n_samples,)``, equal for samples that belong together, such as frames
                of one video or crops of one picture: none is judged by a fit that saw
                another of its group. Calibration then holds for samples of **new** groups

        Returns:
            the fitted detector

        Raises:
            ValueError: if X has NaN or infinity or too few samples or groups, or an option is not valid
        """
        self._check_options()
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=MIN_REFERENCE_SIZE)
        self.feature_centre_, self.feature_scale_ = np.median(X, axis=0), _robust_scale(X)
        labels = identical_rows(X) if groups is None else self._labels(groups, X)
        split = self._splits(len(X) if groups is None else labels.max() + 1)
        self.held_out_ = self._fit_split(X, labels) if split else self._fit_cross(X, labels)
        self._calibrate_on(self.held_out_, self.trim, self.false_positive_rate)
        return self

    def score_samples(self, X: npt.ArrayLike) -> Float[np.ndarray, " n"]:
        """Anomaly scores: negative log-likelihoods, **higher = more anomalous**.

        Args:
            X: ``(n_samples, n_features)``

        Returns:
            float64 ``(n_samples,)``
        """
        X = self._validated(X)
        return np.mean([fit.score(X) for fit in self._fits], axis=0)

    def z_scores(self, X: npt.ArrayLike) -> Float[np.ndarray, "n d"]:
        """Each component's distance from the reference's median in robust standard deviations.

        Args:
            X: ``(n_samples, n_features)``

        Returns:
            float64 ``(n_samples, n_features)``; the deviation is the interquartile range
            over 1.349, a normal distribution's standard deviation
        """
        return (self._validated(X) - self.feature_centre_) / self.feature_scale_

    def arrays(self) -> Arrays:
        """All that scoring needs, as named arrays; :meth:`from_arrays` takes them back."""
        check_is_fitted(self)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays["calibration_scores_"] = self.calibration_scores_
        for k, fit in enumerate(self._fits):
            arrays.update({f"fit.{k}.{name}": array for name, array in fit.arrays().items()})
        return arrays

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> AnomalyDetector:
        """The fitted detector whose ``get_params()`` and ``arrays()`` these are."""
        detector = cls(**params)
        detector._check_options()
        groups: dict[int, Arrays] = {}
        for name, array in arrays.items():
            if name.startswith("fit."):
                _, k, part = name.split(".", 2)
                groups.setdefault(int(k), {})[part] = array
            elif name in _ARRAYS:
                setattr(detector, name, array)
        detector.n_features_in_ = len(detector.feature_centre_)
        detector._fits = [_Fit.from_arrays(detector.density, groups[k]) for k in sorted(groups)]
        detector._calibrate(arrays["calibration_scores_"], detector.trim, detector.false_positive_rate)
        return detector

    def _fit_split(self, X: np.ndarray, labels: np.ndarray) -> _Indices:
        """Fits on a part; returns the indices of the rest."""
        splitter = GroupShuffleSplit(1, test_size=_CALIBRATION_SHARE, random_state=self.random_state)
        ((fitted, held_out),) = splitter.split(X, groups=labels)
        self._fits = [_Fit.fit(self, X[fitted], density=self.density)]
        self.reference_scores_ = np.empty(len(X))
        self.reference_scores_[held_out] = self._fits[0].score(X[held_out])
        for seen, unseen in self._folds(labels[fitted]):  # the part that the fit saw, by fits that did not
            scores = _Fit.fit(self, X[fitted[seen]], density=self.density).score(X[fitted[unseen]])
            self.reference_scores_[fitted[unseen]] = scores
        return held_out

    def _fit_cross(self, X: np.ndarray, labels: np.ndarray) -> _Indices:
        """Fits once for each fold; returns the indices of all, as each is held out once."""
        folds = list(self._folds(labels))
        central = self._central(X, folds) if self.trim else np.ones(len(X), bool)
        self._fits, self.reference_scores_ = self._cross_fit(X, folds, central, self.density)
        return np.arange(len(X))

    def _central(self, X: np.ndarray, folds: list[_Fold]) -> np.ndarray:
        """Which samples are taken for clean: all but the ``trim`` share of Gaussian fits that did not see them."""
        central = np.zeros(len(X), bool)
        central[central_part(_Fit.fit(self, X, density=None).standardise(X))] = True
        for _ in range(_TRIM_ROUNDS):
            _, scores = self._cross_fit(X, folds, central, "mahalanobis")
            central = scores <= np.quantile(scores, 1 - self.trim)
        return central

    def _cross_fit(
        self, X: np.ndarray, folds: Iterable[_Fold], central: np.ndarray, density: str
    ) -> tuple[list[_Fit], np.ndarray]:
        """A fit for each fold on the central part of the others, and the scores that these give."""
        fits: list[_Fit] = []
        scores = np.empty(len(X))
        for seen, unseen in folds:
            # Of a few large groups, one may hold all that is central
            chosen = central[seen] if np.count_nonzero(central[seen]) >= MIN_REFERENCE_SIZE else slice(None)
            fits.append(_Fit.fit(self, X[seen], chosen, density=density))
            scores[unseen] = fits[-1].score(X[unseen])
        return fits, scores

    def _folds(self, labels: np.ndarray) -> Iterator[_Fold]:
        count = min(self.n_splits, len(np.unique(labels)))
        return GroupKFold(count, shuffle=True, random_state=self.random_state).split(labels, groups=labels)

    def _labels(self, groups: npt.ArrayLike, X: np.ndarray) -> np.ndarray:
        if np.shape(groups) != (len(X),):
            raise ValueError(f"groups must be one value for each of {len(X):,} samples, got {np.shape(groups)}")
        return check_groups(groups, _MIN_GROUPS_TO_SPLIT if self.calibration == "split" else _MIN_GROUPS)

    def _splits(self, count: int) -> bool:
        if self.trim:
            return False
        return self.calibration == "split" or (self.calibration == "auto" and count >= SPLIT_FROM)

    def _validated(self, X: npt.ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _check_options(self) -> None:
        for name, known in (("density", DENSITIES), ("calibration", CALIBRATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
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

    def __init__(
        self,
        centre: np.ndarray,
        scale: np.ndarray,
        mean: np.ndarray | float,
        deviation: np.ndarray | float,
        density: Density | None,
    ) -> None:
        self.centre, self.scale, self.mean, self.deviation = centre, scale, mean, deviation
        self.density = density

    @classmethod
    def fit(
        cls,
        options: AnomalyDetector,
        X: np.ndarray,
        central: np.ndarray | slice = slice(None),
        *,
        density: str | None,
    ) -> _Fit:
        """Fits the transform's robust part on all of X, and the rest on its central samples."""
        fit = cls(np.median(X, axis=0), _LINEAR_RANGE * _robust_scale(X), 0.0, 1.0, None)
        Z = fit.standardise(X[central])
        deviation = Z.std(axis=0)
        fit.mean, fit.deviation = Z.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
        if density:
            fit.density = DENSITIES[density].fit((Z - fit.mean) / fit.deviation, **options.get_params())
        return fit

    def standardise(self, X: np.ndarray) -> np.ndarray:
        return (np.arcsinh((X - self.centre) / self.scale) - self.mean) / self.deviation

    def score(self, X: np.ndarray) -> np.ndarray:
        assert self.density is not None, "only a fit of the transform alone has no density"
        return -self.density.log_density(self.standardise(X))

    def arrays(self) -> Arrays:
        assert self.density is not None, "only a fit of the transform alone has no density"
        own = {name: getattr(self, name) for name in ("centre", "scale", "mean", "deviation")}
        return {**own, **{f"density.{name}": array for name, array in self.density.arrays().items()}}

    @classmethod
    def from_arrays(cls, density: str, arrays: Mapping[str, np.ndarray]) -> _Fit:
        parts = {name.removeprefix("density."): a for name, a in arrays.items() if name.startswith("density.")}
        own = {name: array for name, array in arrays.items() if not name.startswith("density.")}
        return cls(**own, density=DENSITIES[density].from_arrays(parts))


def check_groups(groups: npt.ArrayLike, least: int = _MIN_GROUPS) -> Int[np.ndarray, " n"]:
    """The groups as numbers from 0, int ``(n,)``, if each can be judged by fits that did not see it.

    Raises:
        ValueError: if they are fewer than ``least``, or one holds nearly all
    """
    values, labels = np.unique(np.asarray(groups), return_inverse=True)
    others = len(labels) - np.bincount(labels).max()
    way_out = "as none is judged by a fit that saw it; add images of other groups, or leave groups out"
    if len(values) < least:
        raise ValueError(f"a reference needs images of at least {least} groups, got {len(values)}, {way_out}")
    if others < _MIN_OF_OTHER_GROUPS:
        raise ValueError(f"all but {others} of the reference images are of one group, {way_out}")
    return labels


def identical_rows(X: np.ndarray) -> np.ndarray:
    """Labels that identical samples share; all differ where there are too few different ones for folds."""
    labels = np.unique(X, axis=0, return_inverse=True)[1].reshape(-1)
    return labels if labels.max() else np.arange(len(X))


def _robust_scale(X: np.ndarray) -> np.ndarray:
    lower, upper = np.quantile(X, [0.25, 0.75], axis=0)
    scale = (upper - lower) / _IQR_OF_STANDARD_NORMAL
    scale = np.where(scale > 0, scale, X.std(axis=0))
    return np.where(scale > 0, scale, 1.0)

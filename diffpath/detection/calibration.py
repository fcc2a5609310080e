"""What a score means: p-values against a reference, and thresholds for a chosen error rate.

    s             the anomaly score of a query, higher = more anomalous
    c₁, …, c_n    calibration scores: of reference images, by a fit that did not see them
    p(s)          (1 + #{cᵢ ≥ s}) / (n + 1)

If query and calibration images are exchangeable, P(p ≤ α) ≤ α for every α: the
split-conformal rank (Vovk, Gammerman & Shafer 2005; Bates, Candès, Lei, Romano & Sesia
2023, for outliers). The smallest possible p is 1 / (n + 1).

Where no images are known to be clean, the calibration scores hold anomalies themselves and
their ranks say nothing. :class:`EmpiricalNull` then takes the centre of the scores for the
clean ones (Efron 2004, "Large-scale simultaneous hypothesis testing: the choice of a null").

Both fall with the score. Every rule (``rules.py``) is therefore one threshold: an image is flagged
if and only if its score is at least the threshold.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

TAIL_SHAPE = 0.5
_HIGHEST_RATE = 1e12  # where scores do not differ: whatever lies above them is flagged


class Calibration(Protocol):
    """What scores of reference images say of others' scores.

    Attributes:
        scores: float64 ``(n,)``, ascending: the calibration scores
    """

    scores: np.ndarray

    @property
    def smallest_p_value(self) -> float:
        """No p-value is less."""

    def p_values(self, scores: npt.ArrayLike) -> np.ndarray:
        """How likely an image of the reference's kind scores at least this, ``(m,)`` in [0, 1]."""

    def own_p_values(self, scores: npt.ArrayLike) -> np.ndarray:
        """The same of calibration scores themselves, which are not to count for themselves."""

    def threshold(self, false_positive_rate: float) -> float:
        """The least score from which p ≤ ``false_positive_rate``."""


class ConformalCalibration:
    """Ranks among the scores of reference images.

    Args:
        scores: c, float ``(n,)``, n ≥ 1
    """

    def __init__(self, scores: npt.ArrayLike) -> None:
        self.scores = np.sort(np.asarray(scores, np.float64))

    @property
    def smallest_p_value(self) -> float:
        return 1 / (len(self.scores) + 1)

    def p_values(self, scores: npt.ArrayLike) -> np.ndarray:
        """Split-conformal p-values of scores of new images, ``(m,)`` in (0, 1]."""
        return (1 + self._at_least(scores)) / (len(self.scores) + 1)

    def own_p_values(self, scores: npt.ArrayLike) -> np.ndarray:
        """p-values of calibration scores themselves: each ranked among the others."""
        return self._at_least(scores) / len(self.scores)

    def threshold(self, false_positive_rate: float) -> float:
        """The least score from which p ≤ ``false_positive_rate``.

        Where the calibration scores are too few for a p that small, the threshold lies
        just above all of them: nothing less would do, and nothing more is known.
        """
        allowed = int(np.floor(false_positive_rate * (len(self.scores) + 1) * (1 + 1e-12))) - 1
        exceeded = self.scores[-1 - min(max(allowed, 0), len(self.scores) - 1)]
        return float(np.nextafter(exceeded, np.inf))

    def _at_least(self, scores: npt.ArrayLike) -> np.ndarray:
        return len(self.scores) - np.searchsorted(self.scores, np.asarray(scores, np.float64), side="left")


class EmpiricalNull:
    """Tail probabilities fitted to the centre of scores that may be contaminated.

    Above the median m, a generalised Pareto tail p(s) = ½ (1 + ξ λ (s − m))^(−1/ξ). The rate
    λ has the greatest likelihood for the scores between the median and the 1 − trim
    quantile, those above counting as censored there: their values, which may be those of
    contaminants, have no part in it. The shape ξ is given: on the development sets of
    ``benchmarks/detector.py`` the default lets 5 % flag about 5 % of clean images. Below the
    median p is a rank.

    An approximation, unlike conformal p-values, and an extrapolation below 1 / (n + 1).

    Args:
        scores: float ``(n,)``, n ≥ 3
        trim: the share at the top, in (0, 0.5), whose values are not used
        shape: ξ, positive; the smaller, the lighter the tail
    """

    smallest_p_value: float = 0.0

    def __init__(self, scores: npt.ArrayLike, trim: float, shape: float = TAIL_SHAPE) -> None:
        self.shape = shape
        self.scores = np.sort(np.asarray(scores, np.float64))
        self.median, censored_from = np.quantile(self.scores, [0.5, 1 - trim])
        above = self.scores[self.scores > self.median]
        excess = np.minimum(above, censored_from) - self.median
        self.rate = _censored_rate(excess, int(np.count_nonzero(above <= censored_from)), shape)

    def p_values(self, scores: npt.ArrayLike) -> np.ndarray:
        """Tail probabilities of scores, ``(m,)`` in [0, 1]."""
        scores = np.asarray(scores, np.float64)
        rank = 1 - np.searchsorted(self.scores, scores, side="left") / len(self.scores)
        excess = scores - self.median
        above = excess > 0
        tail = 0.5 * (1 + self.shape * self.rate * np.where(above, excess, 0)) ** (-1 / self.shape)
        return np.where(above, tail, np.maximum(rank, 0.5))

    def own_p_values(self, scores: npt.ArrayLike) -> np.ndarray:
        """The same: no rank counts a score for itself."""
        return self.p_values(scores)

    def threshold(self, false_positive_rate: float) -> float:
        """The least score from which p ≤ ``false_positive_rate``."""
        if false_positive_rate >= 0.5:
            return float(np.quantile(self.scores, 1 - false_positive_rate, method="higher"))
        excess = ((0.5 / false_positive_rate) ** self.shape - 1) / (self.shape * self.rate)
        return float(np.nextafter(self.median + excess, np.inf))


def _censored_rate(excess: np.ndarray, seen: int, shape: float) -> float:
    """λ of greatest likelihood, where ``seen`` of the excesses are exact and the others at least that large."""
    if not seen or not excess.any():
        return _HIGHEST_RATE

    def slope(rate: float) -> float:
        """Of the log-likelihood in log λ; each excess falls from its exponent to nothing."""
        reach = shape * rate * excess
        exponents = np.full(len(excess), 1 / shape)
        exponents[:seen] += 1
        return seen - (exponents * reach / (1 + reach)).sum()

    from scipy.optimize import brentq  # takes long to import, and a command's help needs none

    unit = 1 / excess.mean()
    return float(brentq(slope, 1e-9 * unit, 1e9 * unit))

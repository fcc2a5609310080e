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

Both fall with the score. Every rule is therefore one threshold: an image is flagged if and
only if its score is at least the threshold.
"""

import numbers

import numpy as np
from scipy.optimize import brentq
from scipy.stats import false_discovery_control

DEFAULT_RULE, DEFAULT_LEVEL = "false_positive_rate", 0.05
TAIL_SHAPE = 0.5
_HIGHEST_RATE = 1e12  # where scores do not differ: whatever lies above them is flagged
_SHARE = "a share between 0.000001 and 0.999"


class ConformalCalibration:
    """Ranks among the scores of reference images.

    Args:
        scores: c, float ``(n,)``, n ≥ 1
    """

    def __init__(self, scores):
        self.scores = np.sort(np.asarray(scores, np.float64))

    @property
    def smallest_p_value(self):
        return 1 / (len(self.scores) + 1)

    def p_values(self, scores):
        """Split-conformal p-values of scores of new images, ``(m,)`` in (0, 1]."""
        return (1 + self._at_least(scores)) / (len(self.scores) + 1)

    def own_p_values(self, scores):
        """p-values of calibration scores themselves: each ranked among the others."""
        return self._at_least(scores) / len(self.scores)

    def threshold(self, false_positive_rate):
        """The least score from which p ≤ ``false_positive_rate``.

        Where the calibration scores are too few for a p that small, the threshold lies
        just above all of them: nothing less would do, and nothing more is known.
        """
        allowed = int(np.floor(false_positive_rate * (len(self.scores) + 1) * (1 + 1e-12))) - 1
        exceeded = self.scores[-1 - min(max(allowed, 0), len(self.scores) - 1)]
        return float(np.nextafter(exceeded, np.inf))

    def _at_least(self, scores):
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

    smallest_p_value = 0.0

    def __init__(self, scores, trim, shape=TAIL_SHAPE):
        self.shape = shape
        self.scores = np.sort(np.asarray(scores, np.float64))
        self.median, censored_from = np.quantile(self.scores, [0.5, 1 - trim])
        above = self.scores[self.scores > self.median]
        excess = np.minimum(above, censored_from) - self.median
        self.rate = _censored_rate(excess, np.count_nonzero(above <= censored_from), shape)

    def p_values(self, scores):
        """Tail probabilities of scores, ``(m,)`` in [0, 1]."""
        scores = np.asarray(scores, np.float64)
        rank = 1 - np.searchsorted(self.scores, scores, side="left") / len(self.scores)
        excess = scores - self.median
        above = excess > 0
        tail = 0.5 * (1 + self.shape * self.rate * np.where(above, excess, 0)) ** (-1 / self.shape)
        return np.where(above, tail, np.maximum(rank, 0.5))

    own_p_values = p_values

    def threshold(self, false_positive_rate):
        """The least score from which p ≤ ``false_positive_rate``."""
        if false_positive_rate >= 0.5:
            return float(np.quantile(self.scores, 1 - false_positive_rate, method="higher"))
        excess = ((0.5 / false_positive_rate) ** self.shape - 1) / (self.shape * self.rate)
        return float(np.nextafter(self.median + excess, np.inf))


def _censored_rate(excess, seen, shape):
    """λ of greatest likelihood, where ``seen`` of the excesses are exact and the others at least that large."""
    if not seen or not excess.any():
        return _HIGHEST_RATE

    def slope(rate):
        """Of the log-likelihood in log λ; each excess falls from its exponent to nothing."""
        reach = shape * rate * excess
        exponents = np.full(len(excess), 1 / shape)
        exponents[:seen] += 1
        return seen - (exponents * reach / (1 + reach)).sum()

    unit = 1 / excess.mean()
    return float(brentq(slope, 1e-9 * unit, 1e9 * unit))


def choose_threshold(rule, level, scores, calibration):
    """The score from which images are flagged.

    Args:
        rule: ``"false_positive_rate"``: p ≤ level; ``"false_discovery_rate"``: at most
            this share of the flagged is expected to be clean; ``"percentile"``: of the
            scores; ``"count"``: this many; ``"score"``: the threshold itself
        level: the rule's number
        scores: float ``(m,)``, of the images that are judged, without NaN
        calibration: a :class:`ConformalCalibration` or :class:`EmpiricalNull`

    Returns:
        a finite float; above all scores where nothing is to be flagged

    Raises:
        ValueError: if the rule is not known or the level is not one of its values
    """
    check_rule(rule, level)
    scores = np.asarray(scores, np.float64)
    return float(_RULES[rule][0](level, scores, calibration))


def describe_rule(rule, level):
    """What a rule flags, in words such as ``"5 % of images like the reference's"``."""
    return {
        "false_positive_rate": f"{100 * level:g} % of images like the reference's are flagged",
        "false_discovery_rate": f"at most {100 * level:g} % of the flagged are expected to be false",
        "percentile": f"from the {level:g}th percentile of the scores",
        "count": f"the {level:g} highest scores",
        "score": "chosen by hand",
    }[rule]


def check_rule(rule, level):
    """Raises a ValueError if the rule is not known or the level is not one of its values."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    _, what, low, high = _RULES[rule]
    number = isinstance(level, numbers.Real) and not isinstance(level, bool) and np.isfinite(level)
    if not number or not low <= level <= high or (rule == "count" and level != int(level)):
        raise ValueError(f"level of the rule {rule!r} must be {what}, got {level!r}")


def _by_false_discovery_rate(level, scores, calibration):
    """Benjamini and Hochberg (1995)."""
    if not len(scores):
        return calibration.threshold(level)
    flagged = scores[false_discovery_control(calibration.p_values(scores)) <= level]
    return flagged.min() if len(flagged) else _above(scores)


def _by_percentile(level, scores, calibration):
    return np.percentile(scores, level, method="higher") if len(scores) else 0.0


def _by_count(level, scores, calibration):
    level = min(int(level), len(scores))
    return np.sort(scores)[-level] if level else _above(scores)


def _above(scores):
    return np.nextafter(scores.max(), np.inf) if len(scores) else 0.0


# What each rule chooses, what its level must be, and the bounds of that
_RULES = {
    "false_positive_rate": (lambda level, scores, calibration: calibration.threshold(level), _SHARE, 1e-6, 0.999),
    "false_discovery_rate": (_by_false_discovery_rate, _SHARE, 1e-6, 0.999),
    "percentile": (_by_percentile, "a percentage from 0 to 100", 0, 100),
    "count": (_by_count, "a whole number of at least 0", 0, np.inf),
    "score": (lambda level, scores, calibration: level, "a finite number", -np.inf, np.inf),
}
RULES = tuple(_RULES)
RULES_OF_ALL_SCORES = ("false_discovery_rate", "percentile", "count")  # the others need no judged scores

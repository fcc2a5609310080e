"""Rules by which images are flagged: each turns a number, its level, into one threshold of the score.

A rule's name, words, bounds and choice are said here and nowhere else: the App's form, the panel's
slider, the record of a run and :func:`diffpath.set_diffpath_threshold` read them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .calibration import Calibration
from .rule import Rule


def choose_threshold(rule: str, level: float, scores: np.ndarray | list[float], calibration: Calibration) -> float:
    """The score from which images are flagged.

    Args:
        rule: the name of one of ``RULES``
        level: the rule's number
        scores: float ``(m,)``, of the images that are to be flagged or not, without NaN
        calibration: of the reference's scores

    Returns:
        a finite float; above all scores where nothing is to be flagged

    Raises:
        ValueError: if the rule is not known or the level is not one of its values
    """
    check_rule(rule, level)
    return float(RULES[rule].choose(level, np.asarray(scores, np.float64), calibration))


def describe_rule(rule: str, level: float) -> str:
    """What a rule flags, in words."""
    return RULES[rule].words(level)


def check_rule(rule: str, level: Any) -> None:
    """Raises a ValueError if the rule is not known or the level is not one of its values."""
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if not RULES[rule].allows(level):
        raise ValueError(f"level of the rule {rule!r} must be {RULES[rule].must}, got {level!r}")


def _by_false_positive_rate(level: float, scores: np.ndarray, calibration: Calibration) -> float:
    return calibration.threshold(level)


def _by_false_discovery_rate(level: float, scores: np.ndarray, calibration: Calibration) -> float:
    """Benjamini and Hochberg (1995)."""
    if not len(scores):
        return calibration.threshold(level)
    from scipy.stats import false_discovery_control  # takes long to import, and a command's help needs none

    flagged = scores[false_discovery_control(calibration.p_values(scores)) <= level]
    return flagged.min() if len(flagged) else _above(scores)


def _by_percentile(level: float, scores: np.ndarray, calibration: Calibration) -> float:
    return np.percentile(scores, level, method="higher") if len(scores) else 0.0


def _by_count(level: float, scores: np.ndarray, calibration: Calibration) -> float:
    count = min(int(level), len(scores))
    return np.sort(scores)[-count] if count else _above(scores)


def _by_score(level: float, scores: np.ndarray, calibration: Calibration) -> float:
    return level


def _above(scores: np.ndarray) -> float:
    return np.nextafter(scores.max(), np.inf) if len(scores) else 0.0


DEFAULT_RULE, DEFAULT_LEVEL = "false_positive_rate", 0.05
_SHARE = "a share between 0.000001 and 0.999"
_LEAST_SHARE, _LARGEST_SHARE = 1e-6, 0.999

RULES = {
    rule.name: rule
    for rule in (
        Rule(
            name="false_positive_rate",
            label="False-positive rate",
            description="Share of images like the reference's that is flagged, such as 0.05",
            must=_SHARE,
            lowest=_LEAST_SHARE,
            highest=_LARGEST_SHARE,
            default_level=DEFAULT_LEVEL,
            words=lambda level: f"{100 * level:g} % of images like the reference's are flagged",
            choose=_by_false_positive_rate,
        ),
        Rule(
            name="false_discovery_rate",
            label="False-discovery rate",
            description="Share of the flagged that is expected to be false, such as 0.1",
            must=_SHARE,
            lowest=_LEAST_SHARE,
            highest=_LARGEST_SHARE,
            default_level=0.1,
            words=lambda level: f"at most {100 * level:g} % of the flagged are expected to be false",
            choose=_by_false_discovery_rate,
            needs_all_scores=True,
        ),
        Rule(
            name="percentile",
            label="Percentile",
            description="Flag from this percentile of the scores, such as 95",
            must="a percentage from 0 to 100",
            lowest=0,
            highest=100,
            default_level=95,
            words=lambda level: f"from the {level:g}th percentile of the scores",
            choose=_by_percentile,
            needs_all_scores=True,
        ),
        Rule(
            name="count",
            label="Count",
            description="Flag this many images",
            must="a whole number of at least 0",
            lowest=0,
            highest=math.inf,
            default_level=100,
            words=lambda level: f"the {level:g} highest scores",
            choose=_by_count,
            is_whole=True,
            needs_all_scores=True,
        ),
        Rule(
            name="score",
            label="Score",
            description="Flag from this score",
            must="a finite number",
            lowest=-math.inf,
            highest=math.inf,
            default_level=None,
            words=lambda level: "chosen by hand",
            choose=_by_score,
        ),
    )
}

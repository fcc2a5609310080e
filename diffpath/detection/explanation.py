"""Why is an image anomalous? Which of the six features moved, and which way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..options import FEATURE_NAMES

LEAST_Z_SCORE = 3.0
UNUSUAL = 0.1
FAR_OUT = 0.05
_MOST_NAMED = 3
NOTHING_STANDS_OUT = "no single feature stands out; their combination is rare"


def explain(
    z_scores: npt.ArrayLike, p_values: npt.ArrayLike, apart: Mapping[str, npt.ArrayLike] | None = None
) -> list[str]:
    """Says in a few words which of the six features moved and which way, and what else lies apart.

    Args:
        z_scores: float ``(n, 6)``: distances from the reference's median in robust
            standard deviations, as ``AnomalyDetector.z_scores`` gives them
        p_values: float ``(n,)``: of the score; of an image that is not unusual, above 0.1,
            there is nothing to be explained
        apart: by name of another part, such as the embedding, float ``(n,)``: how likely one of the
            reference's kind lies at least this far out

    Returns:
        a list of n sentences, empty or such as ``"error² +4.1 sd, rate³ −3.2 sd"``: up to three
        features that are 3 or more deviations away, the farthest first, then
        ``"embedding far out (p 0.003)"`` where that is 0.05 at most
    """
    rows = np.asarray(z_scores, np.float64).reshape(-1, len(FEATURE_NAMES))
    unusual = np.asarray(p_values, np.float64) <= UNUSUAL
    parts = {name: np.asarray(values, np.float64) for name, values in (apart or {}).items()}
    return [
        _explain_one(row, {name: float(values[k]) for name, values in parts.items()}) if unusual[k] else ""
        for k, row in enumerate(rows)
    ]


def _explain_one(z_scores: np.ndarray, apart: Mapping[str, float]) -> str:
    farthest = np.argsort(-np.abs(z_scores), kind="stable")[:_MOST_NAMED]
    named = [f"{FEATURE_NAMES[k]} {_signed(z_scores[k])} sd" for k in farthest if abs(z_scores[k]) >= LEAST_Z_SCORE]
    named += [f"{name} far out (p {p_value:.1g})" for name, p_value in apart.items() if p_value <= FAR_OUT]
    return ", ".join(named) or NOTHING_STANDS_OUT


def _signed(value: float) -> str:
    size = f"{abs(value):.1f}" if abs(value) < 9.95 else f"{abs(value):,.0f}"
    return ("+" if value >= 0 else "−") + size

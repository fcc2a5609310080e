"""Why is an image anomalous? Which of the six features moved, and which way."""

import numpy as np

from .options import FEATURE_NAMES

LEAST_Z_SCORE = 3.0
_MOST_NAMED = 3
NOTHING_STANDS_OUT = "no single feature stands out; their combination is rare"


def explain(z_scores):
    """Says in a few words which of the six features moved and which way.

    Args:
        z_scores: float ``(n, 6)``: distances from the reference's median in robust
            standard deviations, as ``AnomalyDetector.z_scores`` gives them

    Returns:
        a list of n sentences such as ``"error² +4.1 sd, rate³ −3.2 sd"``: up to three
        features that are 3 or more deviations away, the farthest first
    """
    return [_explain_one(row) for row in np.asarray(z_scores, np.float64).reshape(-1, len(FEATURE_NAMES))]


def _explain_one(z_scores):
    farthest = np.argsort(-np.abs(z_scores), kind="stable")[:_MOST_NAMED]
    named = [f"{FEATURE_NAMES[k]} {_signed(z_scores[k])} sd" for k in farthest if abs(z_scores[k]) >= LEAST_Z_SCORE]
    return ", ".join(named) or NOTHING_STANDS_OUT


def _signed(value):
    size = f"{abs(value):.1f}" if abs(value) < 9.95 else f"{abs(value):,.0f}"
    return ("+" if value >= 0 else "−") + size

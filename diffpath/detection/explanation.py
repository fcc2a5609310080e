"""Why is an image anomalous? Which of the six features moved, and which way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..options import FEATURE_NAMES

LEAST_Z_SCORE = 3.0
UNUSUAL = 0.1
FAR_OUT = 0.05
_MOST_NAMED = 3
NOTHING_STANDS_OUT = "no single feature stands out; their combination is rare"


def explain(
    z_scores: npt.ArrayLike, p_values: npt.ArrayLike, embedding_p_values: npt.ArrayLike | None = None
) -> list[str]:
    """Says in a few words which of the six features moved and which way, and whether the embedding lies apart.

    Args:
        z_scores: float ``(n, 6)``: distances from the reference's median in robust
            standard deviations, as ``AnomalyDetector.z_scores`` gives them
        p_values: float ``(n,)``: of the score; of an image that is not unusual, above 0.1,
            there is nothing to be explained
        embedding_p_values: float ``(n,)``: how likely an embedding of the reference's kind
            lies at least this far out, or None without embeddings

    Returns:
        a list of n sentences, empty or such as ``"error² +4.1 sd, rate³ −3.2 sd"``: up to three
        features that are 3 or more deviations away, the farthest first, then
        ``"embedding far out (p 0.003)"`` where that is 0.05 at most
    """
    rows = np.asarray(z_scores, np.float64).reshape(-1, len(FEATURE_NAMES))
    unusual = np.asarray(p_values, np.float64) <= UNUSUAL
    far_out = np.ones(len(rows)) if embedding_p_values is None else np.asarray(embedding_p_values, np.float64)
    return [_explain_one(row, p) if explained else "" for row, p, explained in zip(rows, far_out, unusual)]


def _explain_one(z_scores: np.ndarray, embedding_p_value: float) -> str:
    farthest = np.argsort(-np.abs(z_scores), kind="stable")[:_MOST_NAMED]
    named = [f"{FEATURE_NAMES[k]} {_signed(z_scores[k])} sd" for k in farthest if abs(z_scores[k]) >= LEAST_Z_SCORE]
    if embedding_p_value <= FAR_OUT:
        named.append(f"embedding far out (p {embedding_p_value:.1g})")
    return ", ".join(named) or NOTHING_STANDS_OUT


def _signed(value: float) -> str:
    size = f"{abs(value):.1f}" if abs(value) < 9.95 else f"{abs(value):,.0f}"
    return ("+" if value >= 0 else "−") + size

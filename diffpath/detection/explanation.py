"""Why is an image anomalous? What moved, in which look, and which way."""

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
AS_A_WHOLE = "unlike the reference as a whole"

BLOCKS = "8-pixel blocks (JPEG?)"
FINE_GRAIN = "fine grain far stronger than the reference's (noise?)"
LITTLE_DETAIL = "fine detail far weaker than the reference's (blur, low contrast or empty parts?)"
# How far, in robust deviations, numbers lie from the reference's median on average
_LEAST_BLOCKS, _LEAST_GRAIN, _MOST_DETAIL = 3.0, 2.0, -1.5


def explain(
    z_scores: npt.ArrayLike,
    p_values: npt.ArrayLike,
    apart: Mapping[str, npt.ArrayLike] | None = None,
    words: Mapping[str, list[str]] | None = None,
) -> list[str]:
    """Says in a few words what moved and which way.

    Args:
        z_scores: float ``(n, 6)``: distances of the six features from the reference's median in
            robust standard deviations, as ``AnomalyDetector.z_scores`` gives them
        p_values: float ``(n,)``: of the score; of an image that is not unusual, above 0.1,
            there is nothing to be explained
        apart: by name of another part, such as the embedding or the detail, float ``(n,)``: how
            likely one of the reference's kind lies at least this far out
        words: by such a name, n times what the part is like, or ""; the part's own words stand in
            place of its name

    Returns:
        a list of n sentences, empty or such as ``"error² +4.1 sd, rate³ −3.2 sd"``: up to three
        features that are 3 or more deviations away, the farthest first, after what is said of
        parts whose p-value is 0.05 at most: their words, or ``"embedding far out (p 0.003)"``
    """
    rows = np.asarray(z_scores, np.float64).reshape(-1, len(FEATURE_NAMES))
    unusual = np.asarray(p_values, np.float64) <= UNUSUAL
    parts = {name: np.asarray(values, np.float64) for name, values in (apart or {}).items()}
    said = words or {}
    sentences = []
    for k, row in enumerate(rows):
        far = {name: float(values[k]) for name, values in parts.items() if values[k] <= FAR_OUT}
        clauses = [
            (said[name][k] if name in said else "") or f"{name} far out (p {p_value:.1g})"
            for name, p_value in far.items()
        ]
        sentences.append(", ".join([*clauses, *_features(row)]) or NOTHING_STANDS_OUT if unusual[k] else "")
    return sentences


def words_of_detail(z_scores: npt.ArrayLike) -> list[str]:
    """What the detail of images is like, in words, where it is one of three things; else "".

    Args:
        z_scores: float ``(n, 9)``: distances of the detail look's numbers from the reference's
            median in robust standard deviations, in the order of
            ``diffpath.method.descriptor.DETAIL_NAMES``: four powers, the lowest band first, two
            correlations, two steps across the edges of blocks, flatness
    """
    rows = np.asarray(z_scores, np.float64)
    fine, blocks = rows[:, 1:4].mean(axis=1), rows[:, 6:8].mean(axis=1)
    conditions = [blocks >= _LEAST_BLOCKS, fine >= _LEAST_GRAIN, fine <= _MOST_DETAIL]
    chosen = np.select(conditions, [0, 1, 2], 3)
    return [(BLOCKS, FINE_GRAIN, LITTLE_DETAIL, "")[k] for k in chosen]


def _features(z_scores: np.ndarray) -> list[str]:
    farthest = np.argsort(-np.abs(z_scores), kind="stable")[:_MOST_NAMED]
    return [f"{FEATURE_NAMES[k]} {_signed(z_scores[k])} sd" for k in farthest if abs(z_scores[k]) >= LEAST_Z_SCORE]


def _signed(value: float) -> str:
    size = f"{abs(value):.1f}" if abs(value) < 9.95 else f"{abs(value):,.0f}"
    return ("+" if value >= 0 else "−") + size

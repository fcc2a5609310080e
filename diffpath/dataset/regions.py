"""Boxes around the places of an image that are unlike the reference."""

from __future__ import annotations

import math

import fiftyone as fo
import numpy as np

from ..detection.regions import find_regions
from ..folders.maps import MAPS

DEFAULT_PROBABILITY = 0.001
_STEPS = (10_000, 3_000, 1_000, 300, 100, 30)  # of the labels: the App filters by them


def check_regions(probability: float | None, heatmaps: bool) -> None:
    """Raises a ValueError if no boxes can be drawn from that probability on."""
    if probability is None:
        return
    highest, lowest = (10**-end for end in MAPS["anomaly_map"].scale)
    if not (isinstance(probability, int | float) and lowest <= probability * (1 + 1e-9) <= highest * (1 + 1e-6)):
        raise ValueError(f"regions must be True or a probability in [0.0001, 0.05], got {probability!r}")
    if not heatmaps:
        raise ValueError("regions are taken from the anomaly maps; leave heatmaps on, or regions out")


def detections(surprise: np.ndarray, probability: float) -> fo.Detections:
    """Boxes of the connected places that are at most this probable, the most unusual first.

    Each has the label ``"1 in 1,000"`` or another step, and the attribute ``surprise``, −log₁₀ p.

    Args:
        surprise: an anomaly map, −log₁₀ p, ``(H, W)``
        probability: the highest one that counts
    """
    return fo.Detections(
        detections=[
            fo.Detection(label=_label(each.surprise), bounding_box=list(each.box), surprise=each.surprise)
            for each in find_regions(surprise, -math.log10(probability))
        ]
    )


def _label(surprise: float) -> str:
    rarity = 10**surprise
    return f"1 in {next((step for step in _STEPS if rarity >= step), 20):,}"

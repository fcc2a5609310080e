"""The connected places of an image that are unlike the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import find_objects, label

_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Region:
    """A connected part of an image.

    Attributes:
        box: left, top, width and height as shares of the image, in [0, 1]
        surprise: −log₁₀ p of its most unusual place
    """

    box: tuple[float, float, float, float]
    surprise: float


def find_regions(surprise: Float[np.ndarray, "h w"], least: float) -> list[Region]:
    """The connected places that are at least this unusual, the most unusual first.

    Args:
        surprise: an anomaly map, −log₁₀ p, ``(H, W)``
        least: −log₁₀ of the highest probability that counts
    """
    places, _ = label(surprise >= least, structure=_NEIGHBOURS)
    height, width = surprise.shape
    regions = []
    for number, (rows, columns) in enumerate(find_objects(places), start=1):
        inside = surprise[rows, columns][places[rows, columns] == number]
        box = (
            columns.start / width,
            rows.start / height,
            (columns.stop - columns.start) / width,
            (rows.stop - rows.start) / height,
        )
        regions.append(Region(box, float(inside.max())))
    return sorted(regions, key=lambda region: -region.surprise)

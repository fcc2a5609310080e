"""What the numbers of a picture mean: which is black, which is white, on 256 levels between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from .errors import ImageError

ValueRange: TypeAlias = tuple[float, float]  # what is black and what is white

_BITS = (8, 10, 12, 14, 16)  # that detectors, cameras and scanners have
_WAY_OUT = "give value_range=(low, high), what is to be black and white"


def to_uint8(array: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Numbers of any type as 256 levels.

    Args:
        array: uint8 and bool are known. So is uint16, its whole range, and floats and other whole
            numbers where they lie in [0, 1] and [0, 255]
        value_range: what is black and what is white in numbers of more than 8 bits; those
            beyond are cut off

    Returns:
        uint8, of the same shape

    Raises:
        ImageError: if the type holds no numbers, some are not finite, or their range is not known
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "fiu":
        raise ImageError(f"an image must be of whole numbers, floats or bool, got {array.dtype}")
    low, high = float(np.min(array)), float(np.max(array))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("float images must be finite, got NaN or infinity")
    if value_range is not None:
        black, white = value_range
        return np.round(np.clip((array.astype(np.float64) - black) / (white - black), 0, 1) * 255).astype(np.uint8)
    if array.dtype == np.uint16:
        return np.round(array / 257.0).astype(np.uint8)
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise ImageError(f"float images must lie in [0, 1], got [{low:g}, {high:g}]; {_WAY_OUT}")
        return np.round(array * 255.0).astype(np.uint8)
    if low < 0 or high > 255:
        raise ImageError(f"{array.dtype} images must lie in [0, 255], got [{low:g}, {high:g}]; {_WAY_OUT}")
    return array.astype(np.uint8)


def estimate_value_range(pictures: Iterable[np.ndarray]) -> ValueRange | None:
    """The range of pictures of one kind: the fewest of 8, 10, 12, 14 and 16 bits that hold all their numbers.

    Args:
        pictures: of more than 8 bits, as they are stored

    Returns:
        ``(0, 2 ** bits - 1)``; None where there are no pictures, or they hold floats, negative
        numbers or larger ones, whose range only a person knows
    """
    highest = -1
    for picture in pictures:
        if picture.dtype.kind not in "iu" or picture.min() < 0:
            return None
        highest = max(highest, int(picture.max()))
    fitting = [bits for bits in _BITS if 0 <= highest < 2**bits]
    return (0.0, float(2 ** fitting[0] - 1)) if fitting else None

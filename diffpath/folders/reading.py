"""Decodes samples' images in threads, a bounded number ahead of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias

import numpy as np

from ..errors import ImageError
from ..images import CropPlan, Looks, image_size, load_looks, stored_values
from ..values import ValueRange, estimate_value_range

_LOOKED_AT = 256
DETAIL = 3  # crops per side of the detail look, where the reference's images are large
DETAIL_FROM = 4  # times the model's side, from which they are
Read: TypeAlias = tuple[Looks | None, str | None]


def read_images(
    paths: Iterable[str],
    size: int | tuple[int, ...],
    num_workers: int,
    lookahead: int,
    value_range: ValueRange | None = None,
    plan: CropPlan | None = None,
) -> Generator[Read, None, None]:
    """Reads image files in order.

    Args:
        paths: the files' paths
        size: side of the square that images are resized to, in pixels; or several, through
            which they pass one after the other
        num_workers: decoding threads, at least 1
        lookahead: how many images may be decoded and waiting
        value_range: what is black and white in files of more than 8 bits
        plan: where crops at the picture's own pixels are, if any are wanted

    Yields:
        for each path ``(looks, error)``: a :class:`diffpath.images.Looks` and None, or
        None and a sentence that says why the file cannot be read
    """

    def read(path: str) -> Read:
        try:
            return load_looks(path, size, value_range, plan), None
        except ImageError as error:
            return None, str(error)

    paths = iter(paths)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        waiting: deque[Future[Read]] = deque(pool.submit(read, path) for path in islice(paths, lookahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(read, path) for path in islice(paths, 1))
        finally:
            for future in waiting:
                future.cancel()


def look_for_shorter_side(paths: Sequence[str], num_workers: int) -> float:
    """The median of the shorter sides of up to 256 pictures, spread evenly, in pixels; 0 where none can be read."""
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        sides = [min(size) for size in pool.map(_size_or_none, _spread(paths)) if size is not None]
    return float(np.median(sides)) if sides else 0.0


def suitable_detail(paths: Sequence[str], side: int, num_workers: int) -> int:
    """How many crops per side the detail look takes of pictures like these; 0 where they are hardly larger."""
    return DETAIL if look_for_shorter_side(paths, num_workers) >= DETAIL_FROM * side else 0


def look_for_value_range(paths: Sequence[str], num_workers: int) -> ValueRange | None:
    """The range of the numbers in files of more than 8 bits, from up to 256 files, spread evenly.

    Returns:
        as :func:`diffpath.values.estimate_value_range`; None also where all files have 8 bits
    """

    def look(path: str) -> np.ndarray | None:
        try:
            return stored_values(path)
        except ImageError:
            return None

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        return estimate_value_range(values for values in pool.map(look, _spread(paths)) if values is not None)


def _spread(paths: Sequence[str]) -> list[str]:
    """Some of the files, spread evenly."""
    return [paths[k] for k in np.unique(np.linspace(0, len(paths) - 1, _LOOKED_AT).astype(int))] if paths else []


def _size_or_none(path: str) -> tuple[int, int] | None:
    try:
        return image_size(path)
    except ImageError:
        return None

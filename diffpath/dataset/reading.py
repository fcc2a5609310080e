"""Decodes samples' images in threads, a bounded number ahead of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias

import numpy as np

from ..errors import ImageError
from ..images import load_image

Read: TypeAlias = tuple[np.ndarray | None, str | None]


def read_images(
    paths: Iterable[str], size: int | tuple[int, ...], num_workers: int, lookahead: int
) -> Generator[Read, None, None]:
    """Reads image files in order.

    Args:
        paths: the files' paths
        size: side of the square that images are resized to, in pixels; or several, through
            which they pass one after the other
        num_workers: decoding threads, at least 1
        lookahead: how many images may be decoded and waiting

    Yields:
        for each path ``(image, error)``: a uint8 array ``(size, size, 3)`` and None, or
        None and a sentence that says why the file cannot be read
    """
    paths = iter(paths)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        waiting: deque[Future[Read]] = deque(pool.submit(_read, path, size) for path in islice(paths, lookahead))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(_read, path, size) for path in islice(paths, 1))
        finally:
            for future in waiting:
                future.cancel()


def _read(path: str, size: int | tuple[int, ...]) -> Read:
    try:
        return load_image(path, size), None
    except ImageError as error:
        return None, str(error)

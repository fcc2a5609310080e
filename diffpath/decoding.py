"""What decoding may open, and how much memory all threads together may take for it."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from .errors import ImageError

# Of those that Pillow and its plugins know. Not EPS and WMF, which start or are interpreters, nor
# containers of which Pillow has stubs alone
FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "MPO", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA", "ICO", "DIB"),
    *("DDS", "PSD", "PCX", "DCX", "SGI", "QOI", "ICNS", "CUR", "FITS", "FLI", "IMT", "MSP", "PCD", "PIXAR"),
    *("SPIDER", "SUN", "XBM", "XPM", "XVTHUMB", "BLP", "FTEX", "GBR"),
)
_MENTIONED = (".avif", ".heic", ".heif", ".jxl", ".svg", ".dng", ".nef", ".cr2", ".arw")  # whatever is installed
MEMORY = "DIFFPATH_DECODING_MEMORY"  # megabytes, in the environment
_DEFAULT_MEGABYTES = 1200
# Bytes that a pixel takes at its peak: as it is stored, and as what it is made into
_BYTES = {"1": 6, "L": 6, "P": 6, "RGB": 9}
_BYTES_OF_OTHERS = 18  # with transparency, CMYK and the like
_BYTES_OF_NUMBERS = 24  # of more than 8 bits


@functools.cache
def _suffixes() -> frozenset[str]:
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    return frozenset({*known, *_MENTIONED})


def is_picture_name(name: str) -> bool:
    """Whether a file's name ends as those of pictures do, of kinds that are read or that can be named."""
    return Path(name).suffix.lower() in _suffixes()


def open_picture(file: object) -> Image.Image:
    """``PIL.Image.open``, of formats that are pictures and nothing else."""
    Image.init()
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])  # type: ignore[arg-type]  # its own


def memory_budget() -> int:
    """Bytes that all decoding threads together may take: 1.2 GB, or ``DIFFPATH_DECODING_MEMORY`` megabytes."""
    try:
        megabytes = float(os.environ.get(MEMORY, _DEFAULT_MEGABYTES))
    except ValueError:
        megabytes = _DEFAULT_MEGABYTES
    return round(megabytes * 1e6)


class Room:
    """Memory that threads take together, each waiting until there is some.

    Args:
        share: of :func:`memory_budget`
    """

    def __init__(self, share: float) -> None:
        self._share, self._total, self._changed = share, 0, threading.Condition()

    @property
    def size(self) -> int:
        """Bytes."""
        return round(self._share * memory_budget())

    @contextlib.contextmanager
    def taken(self, wanted: int) -> Iterator[Callable[[int], None]]:
        """Holds bytes; what it gives is called with how many of them are still needed, once that is known."""
        held = wanted
        with self._changed:
            self._changed.wait_for(lambda: self._total + wanted <= self.size or not self._total)
            self._total += wanted

        def keep(needed: int) -> None:
            nonlocal held
            with self._changed:
                self._total -= held - needed
                held = needed
                self._changed.notify_all()

        try:
            yield keep
        finally:
            keep(0)


_ROOM = Room(1)


@contextlib.contextmanager
def decoding(image: Image.Image) -> Iterator[None]:
    """Waits until the pixels of a picture that is about to be decoded have room beside those of other threads.

    Raises:
        ImageError: if they would take more than there is for all
    """
    wanted, budget = math.prod(image.size) * _bytes_per_pixel(image), memory_budget()
    if wanted > budget:
        raise ImageError(
            f"is too large to decode safely ({math.prod(image.size):,} pixels would take {wanted / 1e9:.1f} GB, and "
            f"{budget / 1e9:.1f} are allowed); downscale it, or set {MEMORY} to more megabytes"
        )
    with _ROOM.taken(wanted):
        yield


def _bytes_per_pixel(image: Image.Image) -> int:
    if image.mode.startswith(("I", "F")):
        return _BYTES_OF_NUMBERS
    raw = "".join(str(tile[3]) for tile in getattr(image, "tile", ()))
    if "16" in raw:
        return _BYTES_OF_NUMBERS
    return _BYTES_OF_OTHERS if image.has_transparency_data else _BYTES.get(image.mode, _BYTES_OF_OTHERS)

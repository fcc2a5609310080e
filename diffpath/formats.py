"""What a file is that Pillow alone does not read, which package reads it, and PNG files that it takes for broken."""

from __future__ import annotations

import functools
import importlib
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .addresses import File, name_of, open_file

_HEAD = 1024  # bytes of a file that say what it is
_PNG = b"\x89PNG\r\n\x1a\n"
# What decoding needs; Pillow gives up on long text and colour profiles, which browsers and OpenCV pass over
_CHUNKS_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_TIFF = (b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"IIU\0")
_RAW = (".3fr", ".arw", ".cr2", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".sr2", ".srw")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_DEVELOP = "develop it, with rawpy say, and save it as TIFF or PNG"


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: what it is, with an article
        is_one: whether a file's first bytes and its suffix, in small letters, are of this kind
        way_out: what to do about it
        opener: the module that lets Pillow read it, if it is installed, and its function that does so
        misread: whether Pillow opens it and shows something else, such as its thumbnail
    """

    name: str
    is_one: Callable[[bytes, str], bool]
    way_out: str
    opener: tuple[str, str] | None = None
    misread: bool = False


def _begins(*beginnings: bytes) -> Callable[[bytes, str], bool]:
    return lambda head, suffix: head.startswith(beginnings)


def _brand(*brands: bytes) -> Callable[[bytes, str], bool]:
    return lambda head, suffix: head[4:8] == b"ftyp" and head[8:12] in brands


FORMATS = (
    Format(
        "an EPS or PostScript file",
        _begins(b"%!PS", b"\xc5\xd0\xd3\xc6"),
        "it is a program that draws, which is not run here; convert it to PNG",
        misread=True,
    ),
    Format(
        "a HEIC picture",
        _brand(*_HEIF_BRANDS),
        "run: pip install pillow-heif",
        opener=("pillow_heif", "register_heif_opener"),
    ),
    Format(
        "an AVIF picture",
        _brand(b"avif", b"avis"),
        "update Pillow to 11.3 or newer, which reads it, or save it as PNG",
    ),
    Format(
        "a JPEG XL picture",
        _begins(b"\xff\x0a", b"\0\0\0\x0cJXL "),
        "run: pip install pillow-jxl-plugin",
        opener=("pillow_jxl", ""),
    ),
    Format(
        "a camera raw file",
        lambda head, suffix: suffix in _RAW and head.startswith(_TIFF),
        _DEVELOP,
        misread=True,
    ),
    Format(
        "a camera raw file",
        lambda head, suffix: head.startswith(b"FUJIFILM") or _brand(b"crx ")(head, suffix),
        _DEVELOP,
    ),
    Format("an SVG drawing", lambda head, suffix: b"<svg" in head, "render it to PNG first, with cairosvg say"),
    Format(
        "a DICOM file",
        lambda head, suffix: head[128:132] == b"DICM",
        "read it with pydicom and save it as a 16-bit PNG or TIFF",
    ),
    Format(
        "a NIfTI volume",
        lambda head, suffix: head[344:347] in (b"n+1", b"ni1"),
        "read it with nibabel and save its slices as TIFF",
    ),
    Format("an OpenEXR picture", _begins(b"v/1\x01"), "read it with OpenCV or OpenEXR, and save it as a float TIFF"),
    Format("a Radiance HDR picture", _begins(b"#?RADIANCE", b"#?RGBE"), "read it with OpenCV, and save it as a TIFF"),
    Format("a NumPy array", _begins(b"\x93NUMPY"), "save it as PNG or TIFF, with PIL.Image.fromarray(array).save(…)"),
    Format("a PDF document", _begins(b"%PDF"), "render its pages to PNG first, with pdf2image say"),
    Format(
        "a video",
        lambda head, suffix: head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"FLV\x01")) or _is_avi(head),
        "add it to a video dataset and score its frames, with dataset.to_frames(sample_frames=True).clone()",
    ),
    Format("a Git LFS pointer, not the picture itself", _begins(b"version https://git-lfs"), "run: git lfs pull"),
    Format(
        "a web page",
        lambda head, suffix: head.lstrip().lower().startswith((b"<!doctype html", b"<html")),
        "download the picture itself",
    ),
)


def find_format(file: File) -> Format | None:
    """The kind of a file that Pillow alone does not read or misreads; None for all others."""
    with open_file(file) as opened:
        head = opened.read(_HEAD)
    suffix = Path(name_of(file)).suffix.lower()
    return next((each for each in FORMATS if each.is_one(head, suffix)), None)


@functools.cache
def can_open(kind: Format) -> bool:
    """Lets Pillow read a kind of file, where the package for it is installed; whether it does then."""
    if kind.opener is None:
        return not kind.misread
    module, function = kind.opener
    try:
        found = importlib.import_module(module)
    except ImportError:
        return True  # newer versions of Pillow may read it themselves
    if function:
        getattr(found, function)()
    return True


def pixels_of_png(file: File) -> io.BytesIO | None:
    """A PNG file without what its pixels do not need, such as long text and large colour profiles.

    Returns:
        the file, or None where it is no PNG, is cut off, or holds nothing else
    """
    with open_file(file) as opened:
        data = opened.read()
    if not data.startswith(_PNG):
        return None
    kept, position, dropped = [_PNG], len(_PNG), False
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            return None
        kind = data[position + 4 : position + 8]
        if kind in _CHUNKS_OF_PIXELS:
            kept.append(data[position:end])
        else:
            dropped = True
        if kind == b"eXIf" and zlib.crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            kept.pop()
        position = end
        if kind == b"IEND":
            break
    return io.BytesIO(b"".join(kept)) if dropped else None


def _is_avi(head: bytes) -> bool:
    return head.startswith(b"RIFF") and head[8:12] == b"AVI "

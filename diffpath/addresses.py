"""Files that are elsewhere, such as ``s3://bucket/a.jpg`` and ``https://host/a.jpg``, read through fsspec.

An address has ``://``; everything else is a path of this machine. What is at an address is fetched
once, into memory, when its turn comes, and is read there as a file is. How large it is and what tells
it from what was there before are asked for once: a folder's listing says it of all files in it.
"""

from __future__ import annotations

import functools
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from .decoding import MEMORY, Room
from .errors import ImageError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # of two letters at least: C:// is a drive
_WEB = ("http", "https")
# What changes with a file's content, the best first, as the file systems call it. The first that is there
# is taken alone: a time can be more exact in a listing than it is elsewhere
_TAGS = (
    *("ETag", "etag", "e_tag", "md5Hash", "Content-MD5", "content_md5", "Digest", "generation", "sha", "blob_id"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "modified", "mtime", "created"),
)
_PIECE = 1 << 20  # bytes
_ASKED_AT_ONCE = 16
# Beside what decoding takes: of files that are fetched and being decoded. Whoever waits for room to decode
# may hold some of this, never the other way round
_ROOM = Room(0.25)


class Fetched(io.BytesIO):
    """What was at an address, to be read like a file.

    Attributes:
        address: where it was
    """

    def __init__(self, address: str, content: bytes) -> None:
        super().__init__(content)
        self.address = address


File: TypeAlias = str | os.PathLike[str] | Fetched


class _About(NamedTuple):
    size: int | None
    tag: str


_known: dict[str, _About] = {}  # by address


def is_address(path: object) -> bool:
    """Whether this is an address, and no path of this machine."""
    return isinstance(path, str) and "://" in path and _ADDRESS.match(path) is not None


def name_of(file: File) -> str:
    """The last part of a path or an address, without what is asked of a web server."""
    if isinstance(file, Fetched):
        file = file.address
    if not is_address(file):
        return Path(file).name
    part = str(file).partition("::")[0]
    if _is_web(part):
        part = re.split("[?#]", part)[0]
    return part.rstrip("/").rpartition("/")[2]


def open_file(file: File) -> BinaryIO:
    """Opens a path, or what was fetched, from its beginning."""
    return io.BytesIO(file.getvalue()) if isinstance(file, Fetched) else Path(file).open("rb")


@contextmanager
def fetched(path: str | os.PathLike[str]) -> Iterator[File]:
    """The path itself, or what is at an address, as long as it is used.

    All that is fetched takes at most a quarter of what decoding may take.

    Raises:
        ImageError: if nothing is there, it cannot be reached, or it is too large
    """
    if not is_address(path):
        yield path
        return
    address = str(path)
    size = _about(address).size
    most = _ROOM.size if size is None else size
    if most > _ROOM.size:
        raise ImageError(
            f"{address} is too large to fetch safely ({most / 1e6:,.0f} MB, and {_ROOM.size / 1e6:,.0f} are "
            f"allowed); downscale it, or set {MEMORY} to more megabytes"
        )
    with _ROOM.taken(most) as keep:
        content = _read(address, size, most)
        keep(len(content))
        yield Fetched(address, content)


@contextmanager
def on_disk(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path itself, or a copy of what is at an address, which is gone afterwards."""
    with fetched(path) as file:
        if not isinstance(file, Fetched):
            yield Path(file)
            return
        with tempfile.TemporaryDirectory(prefix="diffpath-") as folder:
            copy = Path(folder) / "fetched"
            copy.write_bytes(file.getbuffer())
            yield copy


def check_address(address: str) -> None:
    """Raises an ImageError where what reads addresses of this kind is not installed; asks nobody."""
    match = _ADDRESS.match(address)
    if match:
        _file_system_class(match[1].lower())


def forget(address: str) -> None:
    """What is known of an address is asked for again."""
    _known.pop(address, None)


def states(addresses: Sequence[str]) -> list[str]:
    """Each address with what tells what is there now from what was there before, as far as its server says it."""
    unknown = [address for address in dict.fromkeys(addresses) if address not in _known]
    if unknown:
        with ThreadPoolExecutor(_ASKED_AT_ONCE, "diffpath-addresses") as pool:
            list(pool.map(_ask, unknown))
    return ["|".join(map(str, (address, *_known.get(address, ())))) for address in addresses]


def has_pattern(address: str) -> bool:
    """Whether an address stands for several; a question mark is a web server's own."""
    return any(sign in address for sign in ("*[" if _is_web(address) else "*?["))


def is_folder(address: str) -> bool:
    """Whether files are below an address.

    Raises:
        ImageError: if nothing is there, or it cannot be reached
    """
    if address.endswith("/"):
        return True
    with _said_of(address):
        files, path = _file_system(address)
        about = files.info(path)
    return about.get("type") == "directory" or about.get("mimetype") == "text/html"


def files_below(address: str) -> list[str]:
    """All files in a folder and below it, sorted.

    Raises:
        ImageError: if it cannot be listed
    """
    with _said_of(address):
        files, path = _file_system(address)
        files.invalidate_cache()
        found = files.find(path, detail=True)
        if not found:
            files.info(path)  # which says why
    return _remembered(address, path, found)


def files_like(pattern: str) -> list[str]:
    """All files that fit a pattern, sorted.

    Raises:
        ImageError: if it cannot be listed
    """
    first = min(pattern.find(sign) for sign in "*?[" if sign in pattern)
    root = pattern[: pattern.rfind("/", 0, first) + 1] + _chained(pattern)
    with _said_of(pattern):
        files, path = _file_system(pattern)
        files.invalidate_cache()
        found = files.glob(path, detail=True)
        _, below = _file_system(root)
    return _remembered(root, below, found)


def _remembered(root: str, path: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Addresses of what a file system has found below a root, whose path it calls it; says what is known of them."""
    chained = _chained(root)
    root = root.removesuffix(chained)
    root = root if root.endswith("/") else f"{root}/"
    addresses = []
    for name, about in found.items():
        relative = name[len(path.rstrip("/")) :].lstrip("/")
        is_below = name.startswith(path.rstrip("/")) and relative and ".." not in relative.split("/")
        if not is_below or about.get("type", "file") != "file":
            continue
        address = f"{root}{relative}{chained}"
        said = _read_about(about)
        if any(said):
            _known[address] = said
        else:  # a web server's page says nothing
            forget(address)
        addresses.append(address)
    return sorted(addresses)


def _chained(address: str) -> str:
    """Where an archive is, of an address in one: ``::s3://bucket/a.zip`` of ``zip://a.jpg::s3://bucket/a.zip``."""
    return "".join(address.partition("::")[1:])


def _read_about(about: Mapping[str, Any]) -> _About:
    tag = next((about[name] for name in _TAGS if about.get(name)), "")
    tag = str(tag.timestamp() if isinstance(tag, datetime) else tag)  # in listings some give the one, some the other
    return _About(about.get("size"), tag)


def _about(address: str) -> _About:
    if address not in _known:
        with _said_of(address):
            files, path = _file_system(address)
            _known[address] = _read_about(files.info(path))
    return _known[address]


def _ask(address: str) -> None:
    with suppress(ImageError):  # one that is not there is the reader's to report
        _about(address)


def _read(address: str, size: int | None, most: int) -> bytes:
    with _said_of(address):
        files, path = _file_system(address)
        if size is not None and not _is_web(address):
            return files.cat_file(path)
        # A web server may send other than it says, and without an end
        stream = {"block_size": 0, "size": size} if _is_web(address) else {}
        with files.open(path, "rb", **stream) as file:
            pieces, left = [], most + 1
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                pieces.append(piece)
                left -= len(piece)
    if left <= 0:
        raise ImageError(f"{address} is larger than the {most:,} bytes that were expected; download the file itself")
    return b"".join(pieces)


def _is_web(address: str) -> bool:
    match = _ADDRESS.match(address)
    return match is not None and match[1].lower() in _WEB


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path by which it knows it."""
    check_address(address)
    import fsspec.core

    return fsspec.core.url_to_fs(address)


@functools.cache
def _file_system_class(scheme: str) -> type[Any]:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise ImageError(f'{scheme}:// addresses are read by fsspec; run: pip install "diffpath[remote]"') from error
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None)
        way_out = f"run: pip install {missing.split('.')[0]}" if missing else str(error)
        raise ImageError(f"what reads {scheme}:// addresses is not installed; {way_out}") from error
    except ValueError as error:
        raise ImageError(
            f"fsspec knows no {scheme}:// addresses; give others, such as s3://, gs:// or https://"
        ) from error


@contextmanager
def _said_of(address: str) -> Iterator[None]:
    """Whatever goes wrong while an address is asked for becomes one sentence."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # each file system raises its own
        cause = error
        while isinstance(cause, FileNotFoundError) and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__  # fsspec says so of a host that does not answer, too
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == 404:
            raise ImageError(f"{address} does not exist; correct the address") from error
        why = _first_line(str(cause)) or type(cause).__name__
        raise ImageError(f"{address} cannot be read ({why}); correct the address, give access or try again") from error


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")[:200]

"""Files: which are one and the same, and moving a run's folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np


def file_keys(paths: Iterable[str]) -> np.ndarray:
    """What tells a file, as it is now, from all others: equal for two paths of one file, of linked folders too.

    A file that was written anew in the same place is another one.

    Args:
        paths: of n files

    Returns:
        uint64 ``(n,)``
    """
    return np.array([_file_key(path) for path in paths], np.uint64)


def _file_key(path: str) -> int:
    file = Path(path)
    found = str(file.resolve() if file.is_symlink() else _real_folder(file.parent) / file.name)
    with contextlib.suppress(OSError):  # a file that is not there is the reader's to report
        state = file.stat()
        found = f"{found}|{state.st_size}|{state.st_mtime_ns}"
    digest = hashlib.blake2b(found.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@functools.lru_cache(maxsize=4096)
def _real_folder(folder: Path) -> Path:
    return folder.resolve()


def file_sizes(folder: str | Path) -> Iterator[int]:
    """Sizes in bytes of the files in a folder and in those below it."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from file_sizes(entry.path)
        else:
            yield entry.stat(follow_symlinks=False).st_size


@contextlib.contextmanager
def writing_files(folder: str | Path) -> Iterator[None]:
    """Says where files cannot be written, and what to do about it.

    Raises:
        ValueError: instead of an ``OSError``
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"files in {folder} cannot be written ({error.strerror or error}); make room or give permission, and call "
            "this again: what is done is kept"
        ) from error


def move_folder(source: str | Path, target: str | Path) -> None:
    """Moves a folder, if it is there."""
    if Path(source).exists():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(source).rename(target)


def remove_if_empty(folder: Path) -> None:
    """Removes a folder that nothing is in."""
    with contextlib.suppress(OSError):  # other runs' folders are in it
        folder.rmdir()

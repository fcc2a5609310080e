"""Files: which are one and the same, and moving a run's folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..addresses import is_address, name_of, states


def file_keys(paths: Iterable[str]) -> np.ndarray:
    """What tells a file, as it is now, from all others: equal for two paths of one file, of linked folders too.

    A file that was written anew in the same place is another one.

    Args:
        paths: of n files; or addresses, of which it is asked at once what is not known yet

    Returns:
        uint64 ``(n,)``
    """
    paths = list(paths)
    elsewhere = [path for path in paths if is_address(path)]
    found = dict(zip(elsewhere, states(elsewhere)))
    return np.array([_hashed(found.get(path) or _state(path)) for path in paths], np.uint64)


def _state(path: str) -> str:
    file = Path(path)
    found = str(file.resolve() if file.is_symlink() else _real_folder(file.parent) / file.name)
    with contextlib.suppress(OSError):  # a file that is not there is the reader's to report
        state = file.stat()
        found = f"{found}|{state.st_size}|{state.st_mtime_ns}"
    return found


def _hashed(state: str) -> int:
    digest = hashlib.blake2b(state.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def stem_of(path: str) -> str:
    """What the names of files that are made of another begin with; of an address what every file system takes."""
    stem = Path(name_of(path)).stem
    return re.sub(r"[^\w. -]+", "_", stem)[:50] if is_address(path) else stem[:80]


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


def write_arrays(folder: str | Path, **arrays: np.ndarray) -> Path:
    """Writes arrays to an ``.npz`` file of a new name in a folder, whole or not at all; returns its path."""
    path = Path(folder) / f"{uuid.uuid4().hex}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its own keyword takes no array
    partial.replace(path)
    return path


def move_folder(source: str | Path, target: str | Path) -> None:
    """Moves a folder, if it is there."""
    if Path(source).exists():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(source).rename(target)


def remove_if_empty(folder: Path) -> None:
    """Removes a folder that nothing is in."""
    with contextlib.suppress(OSError):  # other runs' folders are in it
        folder.rmdir()


def of_one_file(keys: np.ndarray, groups: Sequence[int] | None) -> np.ndarray | None:
    """Groups in which samples of one and the same file are together, as no image may vouch for itself.

    Args:
        keys: uint64 ``(n,)``, as :func:`diffpath.dataset.files.file_keys` gives them
        groups: those that the user gave, or None

    Returns:
        int ``(n,)``; None where there are none and each file is there once

    Raises:
        ValueError: if these are hardly different files
    """
    from ..detection.detector import check_groups

    firsts, of_file = np.unique(keys, return_inverse=True)
    if len(firsts) == len(keys):
        return None if groups is None else np.asarray(groups)
    if groups is None:
        joined = of_file
    else:
        # Files and groups are the two sides of a graph, samples its edges
        edges = (np.ones(len(keys)), (of_file, len(firsts) + np.unique(groups, return_inverse=True)[1]))
        size = edges[1][1].max() + 1
        _, labels = connected_components(coo_array(edges, shape=(size, size)), directed=False)
        joined = labels[of_file]
    try:
        check_groups(joined)
    except ValueError as error:
        raise ValueError(
            f"the {len(keys):,} images of the reference are only {len(firsts):,} different files; add other images"
        ) from error
    return joined

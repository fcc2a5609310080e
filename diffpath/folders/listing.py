"""Which pictures are meant: folders, patterns, lists of paths in text or CSV files, standard input."""

from __future__ import annotations

import csv
import glob
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..addresses import (
    check_address,
    fetched,
    files_below,
    files_like,
    forget,
    has_pattern,
    is_address,
    is_folder,
    name_of,
    open_file,
)
from ..decoding import is_picture_name
from ..errors import ImageError

STANDARD_INPUT = "-"
_LISTS = (".txt", ".lst", ".csv", ".tsv")
_HERE = "file://"
_COLUMNS = ("filepath", "path", "file", "filename", "image")  # of a CSV file, the first that it has


def list_pictures(what: Sequence[str | Path]) -> list[str]:
    """Paths of pictures, each once, in the order given; of a folder all in it and below it, sorted.

    Args:
        what: folders, files, patterns such as ``"images/**/*.jpg"``, lists of paths (``.txt`` with one in a
            line, ``.csv`` or ``.tsv`` with a column ``filepath``, ``path``, ``file``, ``filename`` or ``image``),
            or ``"-"`` for a list on standard input. Relative paths in a list are relative to the list. All of
            these may be addresses, such as ``s3://bucket/good``, of which only folders, patterns and lists
            are asked for here

    Raises:
        ImageError: if there is no such folder, file or column, no picture at all, or what reads an address is
            not installed
    """
    found = dict.fromkeys(path for each in what for path in _of(str(each)))
    if not found:
        raise ImageError(
            f"there are no pictures in {', '.join(map(str, what))}; name a folder, files or a list of them"
        )
    return list(found)


def _of(what: str) -> Iterator[str]:
    what = what.removeprefix(_HERE)
    if is_address(what):
        yield from _of_address(what)
        return
    path = Path(what).expanduser()
    if what == STANDARD_INPUT:
        yield from _lines(sys.stdin, "")
    elif path.is_dir():
        yield from (str(each) for each in sorted(path.rglob("*")) if is_picture_name(each.name) and each.is_file())
    elif _is_list(path.name) and path.is_file():
        yield from _listed(str(path))
    elif path.exists():
        yield str(path)
    elif glob.has_magic(what):
        absolute = glob.glob(str(path), recursive=True)  # noqa: PTH207  # of Path, only relative ones
        yield from (each for each in sorted(absolute) if Path(each).is_file())
    else:
        raise ImageError(f"there is no folder or file {what!r}; give one that is there, or a pattern in quotes")


def _of_address(what: str) -> Iterator[str]:
    """A picture's own address is not asked for before its turn comes: what is not there is one row of many."""
    name = name_of(what)
    found = files_like(what) if has_pattern(what) else []
    if found or "*" in what:  # brackets may be a name's own
        yield from found
    elif _is_list(name):
        yield from _listed(what)
    elif not is_picture_name(name) and is_folder(what):
        yield from (each for each in files_below(what) if is_picture_name(name_of(each)))
    else:
        yield _one(what)


def _one(address: str) -> str:
    check_address(address)
    forget(address)  # it may have changed since an earlier call
    return address


def _is_list(name: str) -> bool:
    return Path(name).suffix.lower() in _LISTS


def _listed(path: str) -> Iterator[str]:
    """What a list names, be it here or elsewhere."""
    forget(path)
    with fetched(path) as file, open_file(file) as opened:
        lines = io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")
        folder = path[: -len(path.rpartition("/")[2])] if is_address(path) else str(Path(path).parent)
        is_table = Path(name_of(path)).suffix.lower() in (".csv", ".tsv")
        yield from _column(path, lines, folder) if is_table else _lines(lines, folder)


def _lines(lines: Iterable[str], folder: str) -> Iterator[str]:
    for line in lines:
        if name := line.strip():
            yield _in(folder, name)


def _column(path: str, file: Iterable[str], folder: str) -> Iterator[str]:
    rows = csv.DictReader(file, delimiter="\t" if name_of(path).lower().endswith(".tsv") else ",")
    columns = [name for name in _COLUMNS if name in (rows.fieldnames or ())]
    if not columns:
        raise ImageError(
            f"{path} has no column {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}; name one of its columns so"
        )
    for row in rows:
        if name := (row[columns[0]] or "").strip():
            yield _in(folder, name)


def _in(folder: str, name: str) -> str:
    """A name in a list; a list that is elsewhere names nothing here."""
    if is_address(name) and not name.startswith(_HERE):
        return _one(name)
    if is_address(folder):
        return _one(f"{folder}{name.lstrip('/')}")
    return str(Path(folder) / name.removeprefix(_HERE))

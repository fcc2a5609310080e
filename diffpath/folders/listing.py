"""Which pictures are meant: folders, patterns, lists of paths in text or CSV files, standard input."""

from __future__ import annotations

import csv
import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..decoding import is_picture_name
from ..errors import ImageError

STANDARD_INPUT = "-"
_LISTS = (".txt", ".lst", ".csv", ".tsv")
_COLUMNS = ("filepath", "path", "file", "filename", "image")  # of a CSV file, the first that it has


def list_pictures(what: Sequence[str | Path]) -> list[str]:
    """Paths of pictures, each once, in the order given; of a folder all in it and below it, sorted.

    Args:
        what: folders, files, patterns such as ``"images/**/*.jpg"``, lists of paths (``.txt`` with one in a
            line, ``.csv`` or ``.tsv`` with a column ``filepath``, ``path``, ``file``, ``filename`` or ``image``),
            or ``"-"`` for a list on standard input. Relative paths in a list are relative to the list

    Raises:
        ImageError: if there is no such folder, file or column, or no picture at all
    """
    found = dict.fromkeys(path for each in what for path in _of(str(each)))
    if not found:
        raise ImageError(
            f"there are no pictures in {', '.join(map(str, what))}; name a folder, files or a list of them"
        )
    return list(found)


def _of(what: str) -> Iterator[str]:
    path = Path(what).expanduser()
    if what == STANDARD_INPUT:
        yield from _lines(sys.stdin, Path())
    elif path.is_dir():
        yield from (str(each) for each in sorted(path.rglob("*")) if is_picture_name(each.name) and each.is_file())
    elif path.suffix.lower() in _LISTS and path.is_file():
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from _column(path, file) if path.suffix.lower() in (".csv", ".tsv") else _lines(file, path.parent)
    elif path.exists():
        yield str(path)
    elif glob.has_magic(what):
        absolute = glob.glob(str(path), recursive=True)  # noqa: PTH207  # of Path, only relative ones
        yield from (each for each in sorted(absolute) if Path(each).is_file())
    else:
        raise ImageError(f"there is no folder or file {what!r}; give one that is there, or a pattern in quotes")


def _lines(lines: Iterable[str], folder: Path) -> Iterator[str]:
    for line in lines:
        if name := line.strip():
            yield str(folder / name)


def _column(path: Path, file: Iterable[str]) -> Iterator[str]:
    rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    columns = [name for name in _COLUMNS if name in (rows.fieldnames or ())]
    if not columns:
        raise ImageError(
            f"{path} has no column {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}; name one of its columns so"
        )
    for row in rows:
        if name := (row[columns[0]] or "").strip():
            yield str(path.parent / name)

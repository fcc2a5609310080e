"""Moves a run's folder, and takes away what is empty then."""

from __future__ import annotations

import contextlib
from pathlib import Path


def move_folder(source: str | Path, target: str | Path) -> None:
    """Moves a folder, if it is there."""
    if Path(source).exists():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(source).rename(target)


def remove_if_empty(folder: Path) -> None:
    """Removes a folder that nothing is in."""
    with contextlib.suppress(OSError):  # other runs' folders are in it
        folder.rmdir()

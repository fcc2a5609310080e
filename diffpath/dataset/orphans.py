"""Files that nobody owns any more: of datasets that were deleted, and of runs that FiftyOne itself deleted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo

from ..folders.files import file_sizes, remove_if_empty
from .internals import database_id, dataset_id, find_dataset, stored_folders
from .maps import OBJECTS, dataset_folder, runs_folder

_ABOUT = "about.json"
_YOUNG = 3600.0  # seconds in which a folder may belong to a run that is about to be recorded


@dataclass(frozen=True)
class OrphanedFolder:
    """A folder that no run of this database has.

    Attributes:
        path: the folder
        owner: the name that its dataset had, or None where that is not known
        num_files: how many files are in it
        num_bytes: their size
        removable: whether it is known to be of this database: folders of early versions do not say so
    """

    path: Path
    owner: str | None
    num_files: int
    num_bytes: int
    removable: bool


def note_owner(folder: Path, dataset: fo.Dataset, run_key: str | None) -> None:
    """Leaves in a folder whose it is."""
    about = {"database": database_id(), "dataset_id": dataset_id(dataset), "dataset": dataset.name, "run_key": run_key}
    (folder / _ABOUT).write_text(json.dumps(about))


def find_orphans(min_age: float = _YOUNG) -> Iterator[OrphanedFolder]:
    """Folders under :func:`diffpath.dataset.maps.runs_folder` that belong to no run of this database.

    Those that say that they are another database's are not among them.

    Args:
        min_age: seconds; younger folders are left out, as a run may be about to begin

    Yields:
        :class:`OrphanedFolder`
    """
    owned = {str(Path(folder).resolve()) for folder in stored_folders()}
    for folder in sorted(path for path in runs_folder().glob("*/*") if path.is_dir()):
        about = _read_about(folder)
        if str(folder.resolve()) in owned or about.get("database", database_id()) != database_id():
            continue
        if folder.name == OBJECTS and find_dataset(about.get("dataset_id", folder.parent.name[-24:]), "") is not None:
            continue
        if time.time() - folder.stat().st_mtime < min_age:
            continue
        sizes = list(file_sizes(folder))
        yield OrphanedFolder(folder, about.get("dataset"), len(sizes), sum(sizes), bool(about))


def remove_orphan(orphan: OrphanedFolder) -> None:
    """Removes a folder that :func:`find_orphans` found."""
    shutil.rmtree(orphan.path)
    remove_if_empty(orphan.path.parent)


def remove_unnamed_folders(dataset: fo.Dataset, run_key: str) -> None:
    """Removes folders that runs of this key have left: of one that was killed at its very beginning or end.

    To be called by whoever has the dataset's lock, while no such run is being made.
    """
    named = stored_folders()
    for folder in dataset_folder(dataset).glob(f"{run_key}-*"):
        about = _read_about(folder)
        ours = (about.get("dataset_id"), about.get("run_key")) == (dataset_id(dataset), run_key)
        unused = not about and {path.name for path in folder.iterdir()} <= {_ABOUT}
        if str(folder) not in named and (ours or unused):
            shutil.rmtree(folder, ignore_errors=True)


def _read_about(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / _ABOUT).read_text()))
    except (OSError, ValueError):
        return {}

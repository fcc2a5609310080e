"""Whose files a run's are: one dataset's, by its id. What came with a copy of it is copied before it is changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from os import PathLike
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..folders.files import writing_files
from ..folders.maps import MAPS, map_folder, map_path
from .internals import dataset_id, every_image
from .maps import run_folder
from .orphans import note_owner
from .record import RunRecord


def own_files(dataset: fo.Dataset, record: RunRecord, folder: str | PathLike[str] | None = None) -> RunRecord:
    """Lets a run have a folder that is its dataset's own, with copies of all that it has elsewhere.

    A dataset that was cloned or imported has copies of records, which name the files of the
    original.

    Args:
        dataset: the dataset that holds the run
        record: of the run
        folder: where the run's files are now, if not where the record says

    Returns:
        the record as it is then

    Raises:
        ValueError: if the folder holds no run's files
    """
    if folder is None and record.is_of(dataset):
        return record
    source = Path(record.folder if folder is None else folder).expanduser().resolve()
    if folder is not None and not (source / "reference.safetensors").is_file():
        raise ValueError(
            f"{source} holds no files of a diffpath run; give the folder that has its reference.safetensors"
        )
    target = run_folder(dataset, record.run_key)
    make_folder(target, dataset, record.run_key)
    with writing_files(target):
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
            note_owner(target, dataset, record.run_key)
        for kind in MAPS:
            if kind in record.fields:
                _copy_maps(dataset, record.fields[kind], target, kind)
    return record.patch(
        dataset,
        folder=str(target),
        owner=dataset_id(dataset),
        provenance={**record.provenance, "reference": _own_reference(dataset, record)},
        evaluations={
            field: {**measured, "histogram": moved_path(measured.get("histogram"), record.folder, str(target))}
            for field, measured in record.evaluations.items()
        },
    )


def make_folder(folder: Path, dataset: fo.Dataset, run_key: str | None) -> None:
    """Makes a folder for a dataset's files, for those who may see its images, and leaves in it whose it is.

    Raises:
        ValueError: if that cannot be done, with the way out
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _admit_whom_images_admit(folder, dataset)
        note_owner(folder, dataset, run_key)
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be made ({error.strerror or error}); set "
            "fo.config.default_dataset_dir, or FIFTYONE_DEFAULT_DATASET_DIR, to one that can be written"
        ) from error


def _admit_whom_images_admit(folder: Path, dataset: fo.Dataset) -> None:
    """Lets those people into a folder who may see the dataset's images: maps show them."""
    with contextlib.suppress(OSError):  # of images that are elsewhere, or folders of somebody else
        for path in every_image(dataset).limit(1).values("filepath"):
            theirs = Path(path).parent.stat()
            folder.chmod(stat.S_IMODE(theirs.st_mode) & 0o777 | stat.S_IRWXU)
            if hasattr(os, "chown"):
                os.chown(folder, -1, theirs.st_gid)


def moved_path(path: str | None, old_folder: str, new_folder: str) -> str | None:
    """Where a file of the old folder is in the new one; other paths stay."""
    return new_folder + path.removeprefix(old_folder) if path and path.startswith(f"{old_folder}/") else path


def _copy_maps(dataset: fo.Dataset, field: str, target: Path, kind: str) -> None:
    """Lets a field's maps be files of the run's folder; an export has them in a folder of its own."""
    path = f"{field}.map_path"
    found = {}
    ids, old_paths = every_image(dataset).exists(field).values(["id", path])
    for sample_id, old in zip(ids, old_paths):
        copied = _copied(map_folder(target, kind), old)
        own = map_path(target, kind, sample_id, len(ids))
        if copied is not None and copied.stem == sample_id:
            own = copied
        if not own.exists():
            source = copied if copied is not None else Path(old or "")
            if not source.is_file():
                continue
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, own)
        if old != str(own):
            found[sample_id] = str(own)
    if found:
        dataset.set_values(path, found, key_field="id")


def _copied(folder: Path, old: str | None) -> Path | None:
    """The copy in a kind's folder of a map that was elsewhere, perhaps in one of several folders there."""
    if not old:
        return None
    former = Path(old)
    copies = (folder / former.parent.name / former.name, folder / former.name)
    return next((copy for copy in copies if copy.is_file()), None)


def _own_reference(dataset: fo.Dataset, record: RunRecord) -> dict[str, Any]:
    """What the record says of its reference; samples of the original are the copy's own now."""
    described = record.provenance["reference"]
    if record.owner is None or described.get("dataset_id") != record.owner:
        return described
    return {**described, "dataset": dataset.name, "dataset_id": dataset_id(dataset)}

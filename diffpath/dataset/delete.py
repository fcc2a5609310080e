"""Deletes a run with all that belongs to it, or nothing: a step that fails undoes the ones before it."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..folders.files import move_folder, remove_if_empty
from .appearance import uncolor_maps
from .heartbeat import check_idle, stop_run
from .internals import (
    Samples,
    every_image,
    forget_unnamed,
    read_saved_view,
    refresh_runs,
    restore_saved_view,
    root_dataset,
)
from .inventory import run_contents
from .lock import writing
from .patience import undoing, waits_for_database
from .pending import finishes, settle
from .record import RunRecord, read_records, require_record
from .tags import given_by_run

_OPERATION = "delete"


@waits_for_database
def delete_diffpath(dataset: Samples, run_key: str, *, stop: bool = False) -> None:
    """Deletes a run with its fields, indexes, saved views, workspaces, colours and files, or nothing.

    Its tag goes where the run has given it, unless a person has changed it on any image: then it
    stays everywhere. Files of another dataset, of which this one is a copy, stay as well. What was
    deleted by hand before is no hindrance.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        stop: whether to stop the run first if it is being computed now

    Raises:
        ValueError: if the dataset has no diffpath run of that key, or it is being computed now
    """
    dataset = root_dataset(dataset)
    if any(each["run_key"] == run_key and each["operation"] == _OPERATION for each in settle(dataset)):
        return
    if stop:
        stop_run(dataset, run_key)
    with writing(dataset, f"deleting run {run_key!r}"):
        record = require_record(dataset, run_key)
        if not stop:
            check_idle(record)
        _delete(dataset, record)


@finishes(_OPERATION)
def _finish(dataset: fo.Dataset, record: RunRecord, _: dict[str, Any]) -> None:
    _delete(dataset, record)


def _delete(dataset: fo.Dataset, record: RunRecord) -> None:
    run_key, folder = record.run_key, Path(record.folder) if record.is_of(dataset) else None
    with undoing() as undo:
        undo.callback(record.patch, dataset, pending=None)
        record = record.patch(dataset, pending={"operation": _OPERATION})
        forget_unnamed(dataset, record.all_views, record.workspaces)
        contents = run_contents(dataset, run_key)
        aside = _put_aside(folder, undo)
        for name in contents.views:
            undo.callback(restore_saved_view, dataset, read_saved_view(dataset, name))
            dataset.delete_saved_view(name)
        for name in contents.workspaces:
            undo.callback(dataset.save_workspace, name, dataset.load_workspace(name))
            dataset.delete_workspace(name)
        tagged = given_by_run(dataset, record)
        if tagged is not None:
            undo.callback(every_image(dataset).select(tagged.values("id")).tag_samples, record.tag)
            tagged.untag_samples(record.tag)
        if contents.fields:
            _drop_indexes(dataset, contents.fields, undo)
            dataset.delete_sample_fields(contents.fields)
    # What is left to do can be done again
    if record.made_color_scheme is not None:
        uncolor_maps(dataset, record.fields, _takes_scheme(dataset, record))
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
        remove_if_empty(aside.parent)
    refresh_runs(dataset)
    dataset.delete_run(run_key)  # last: until then it says that it is to be deleted


def _put_aside(folder: Path | None, undo: ExitStack) -> Path | None:
    """Moves a run's own folder to where it is deleted once all else went well."""
    if folder is None:
        return None
    aside = folder.with_name(f"{folder.name}.deleted")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)  # of a deletion that was killed
    undo.callback(move_folder, aside, folder)
    move_folder(folder, aside)
    return aside


def _drop_indexes(dataset: fo.Dataset, fields: list[str], undo: ExitStack) -> None:
    for name, index in dataset.get_index_information().items():
        if any(key.split(".")[0] in fields for key, _ in index["key"]):
            undo.callback(dataset.create_index, index["key"])
            dataset.drop_index(name)


def _takes_scheme(dataset: fo.Dataset, record: RunRecord) -> bool:
    """Whether the colour scheme goes with the run; another run's colours in it inherit it."""
    if not record.made_color_scheme:
        return False
    for run_key, heir in read_records(dataset).items():
        if run_key != record.run_key and heir.made_color_scheme is not None:
            heir.patch(dataset, made_color_scheme=True)
            return False
    return True

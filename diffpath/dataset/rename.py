"""Gives a run another key, in all that belongs to it or nowhere: a step that fails undoes the ones before it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeAlias

import fiftyone as fo

from ..folders.files import move_folder
from ..folders.maps import MAPS
from .appearance import color_maps, uncolor_maps
from .heartbeat import check_idle
from .internals import Samples, read_saved_view, refresh_runs, replace_beginning, replace_saved_stages, root_dataset
from .inventory import missing_fields
from .lock import writing
from .ownership import moved_path, own_files
from .patience import undoing, waits_for_database
from .pending import finishes, settle
from .record import RunRecord, check_names_free, check_run_key, require_record
from .schema import index_score, is_indexed, view_names
from .workspaces import rename_workspace

_OPERATION = "rename"
_Pairs: TypeAlias = Sequence[tuple[Any, Any]]  # of what is old and what is new
# What a run's record holds of its names
_NAMES = ("fields", "views", "folder", "saved_views", "workspaces", "evaluations")


@waits_for_database
def rename_diffpath(dataset: Samples, run_key: str, new_run_key: str) -> None:
    """Gives a run another key: fields, indexes, saved views, workspaces, colours and record, or nothing.

    Its files stay where they are. Saved views of the user that mention the run's fields go on working.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        new_run_key: the new one, an identifier

    Raises:
        ValueError: if there is no such run, or names of the new key are taken
    """
    dataset = root_dataset(dataset)
    asked = {"operation": _OPERATION, "from": run_key, "to": new_run_key}
    if any(asked.items() <= each.items() for each in settle(dataset)):
        return
    with writing(dataset, f"renaming run {run_key!r}"):
        record = require_record(dataset, run_key)
        _check(dataset, record, new_run_key)
        record = own_files(dataset, record)
        renamed = _renamed_record(record, new_run_key, record.folder)  # its files stay where they are
        check_names_free(dataset, renamed)
        with undoing() as undo:
            undo.callback(record.patch, dataset, pending=None)
            record.patch(dataset, pending={**asked, "folder": renamed.folder})
            _rename(dataset, record, renamed, undo)


@finishes(_OPERATION)
def _finish(dataset: fo.Dataset, record: RunRecord, asked: dict[str, Any]) -> None:
    finish_rename(dataset, record, asked["from"], asked["to"], asked["folder"])


def finish_rename(dataset: fo.Dataset, record: RunRecord, run_key: str, new_run_key: str, folder: str) -> None:
    """Does all steps again: each leaves alone what has the new name already.

    Args:
        dataset: the dataset, whose lock the caller has
        record: of the run, under the one key or the other
        run_key, new_run_key: the one that it had and the one that it gets
        folder: where its files are to be
    """
    before = replace(record, run_key=run_key)
    _rename(dataset, before, _renamed_record(before, new_run_key, folder), ExitStack())


def why_not_rename(dataset: fo.Dataset, run_key: str, new_run_key: str) -> str | None:
    """Why :func:`rename_diffpath` would refuse a key, a sentence; None if it would not."""
    record = require_record(dataset, run_key)
    try:
        _check(dataset, record, new_run_key)
        check_names_free(dataset, _renamed_record(record, new_run_key, record.folder))
    except ValueError as error:
        return str(error)
    return None


def _check(dataset: fo.Dataset, record: RunRecord, new_run_key: str) -> None:
    check_run_key(new_run_key)
    check_idle(record)
    if dataset.has_run(new_run_key):
        raise ValueError(f"dataset {dataset.name!r} already has a run {new_run_key!r}; choose another key")
    if missing_fields(dataset, record):
        raise ValueError(f"run {record.run_key!r} has lost fields; continue it, which makes them again")


def _renamed_record(record: RunRecord, new_run_key: str, folder: str) -> RunRecord:
    """The record under the new key."""
    return replace(
        record,
        run_key=new_run_key,
        fields={kind: f"{new_run_key}_{kind}" for kind in record.fields},
        views=view_names(new_run_key),
        folder=folder,
        saved_views=[_renamed(name, record.run_key, new_run_key) for name in record.saved_views],
        workspaces=[_renamed(name, record.run_key, new_run_key) for name in record.workspaces],
        evaluations={
            field: {**measured, "histogram": moved_path(measured.get("histogram"), record.folder, folder)}
            for field, measured in record.evaluations.items()
        },
    )


def _rename(dataset: fo.Dataset, record: RunRecord, renamed: RunRecord, undo: ExitStack) -> None:
    def both_ways(step: Callable[[_Pairs], None], pairs: _Pairs) -> None:
        # Before the step: each undoes as much of itself as was done
        undo.callback(step, [(new, old) for old, new in pairs])
        step(pairs)

    folders = [(record.folder, renamed.folder)]
    fields = [(record.fields[kind], renamed.fields[kind]) for kind in record.fields]
    workspaces = list(zip(record.workspaces, renamed.workspaces))
    is_moved = record.folder != renamed.folder  # by an older version
    if is_moved:
        both_ways(lambda pairs: move_folder(*pairs[0]), folders)
    indexed = {record.fields["score"], renamed.fields["score"]}
    both_ways(lambda pairs: _rename_fields(dataset, pairs, indexed), fields)
    for name in [renamed.fields[kind] for kind in MAPS if kind in record.fields and is_moved]:
        both_ways(lambda pairs, name=name: _move_maps(dataset, name, *pairs[0]), folders)  # type: ignore[misc]  # name is bound
    if record.made_color_scheme is not None:
        both_ways(lambda pairs: _recolor(dataset, *pairs[0]), [(record.fields, renamed.fields)])
    both_ways(lambda pairs: _rename_in_views(dataset, dict(pairs)), fields)
    both_ways(lambda pairs: _rename_views(dataset, pairs), list(zip(record.all_views, renamed.all_views)))
    both_ways(lambda pairs: _rename_workspaces(dataset, pairs), workspaces)
    both_ways(lambda pairs: _rename_run(dataset, *pairs[0]), [(record.run_key, renamed.run_key)])
    undo.callback(_write_names, dataset, replace(record, run_key=renamed.run_key))
    _write_names(dataset, renamed)


def _write_names(dataset: fo.Dataset, record: RunRecord) -> None:
    record.patch(dataset, pending=None, **{name: getattr(record, name) for name in _NAMES})


def _renamed(name: str, run_key: str, new_run_key: str) -> str:
    return new_run_key + name.removeprefix(run_key) if name.startswith(f"{run_key}:") else name


def _rename_fields(dataset: fo.Dataset, pairs: _Pairs, indexed: Collection[str]) -> None:
    present = {old: new for old, new in pairs if dataset.has_sample_field(old)}
    for old, _ in pairs:
        # Made again under the new name, which is quicker than to change it image by image
        if old in indexed and is_indexed(dataset, old):
            dataset.drop_index(old)
    if present:
        dataset.rename_sample_fields(present)
        dataset.reload()  # the field objects keep their old paths, under which they could not be saved
    for _, new in pairs:
        if new in indexed:
            index_score(dataset, new)


def _rename_run(dataset: fo.Dataset, old: str, new: str) -> None:
    refresh_runs(dataset)
    if dataset.has_run(old):
        dataset.rename_run(old, new)


def _recolor(dataset: fo.Dataset, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    uncolor_maps(dataset, old, made=False)
    color_maps(dataset, new)


def _move_maps(dataset: fo.Dataset, field: str, old_folder: str, new_folder: str) -> None:
    replace_beginning(dataset, f"{field}.map_path", f"{old_folder}/", f"{new_folder}/")


def _rename_in_views(dataset: fo.Dataset, fields: Mapping[str, str]) -> None:
    """Lets every saved view follow the fields, the user's own included."""
    for name in dataset.list_saved_views():
        stages = read_saved_view(dataset, name).stages
        renamed = [_replace(stage, fields) for stage in stages]
        if renamed != stages:
            replace_saved_stages(dataset, name, renamed)


def _replace(value: Any, fields: Mapping[str, str]) -> Any:
    """A stage with each mention of a field (``name``, ``$name``, ``name.attribute``) replaced."""
    if isinstance(value, dict):
        return {_replace(key, fields): _replace(item, fields) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, fields) for item in value]
    if isinstance(value, str):
        sign = "$" if value.startswith("$") else ""
        head, dot, tail = value.removeprefix(sign).partition(".")
        return f"{sign}{fields.get(head, head)}{dot}{tail}"
    return value


def _rename_views(dataset: fo.Dataset, pairs: _Pairs) -> None:
    for old, new in pairs:
        if old != new and dataset.has_saved_view(old):
            dataset.update_saved_view_info(old, {"name": new})


def _rename_workspaces(dataset: fo.Dataset, pairs: _Pairs) -> None:
    for old, new in pairs:
        if old != new and (dataset.has_workspace(old) or dataset.has_workspace(new)):
            rename_workspace(dataset, old, new, new.partition(":")[0])

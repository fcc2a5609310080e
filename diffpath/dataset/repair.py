"""Finds and mends what a crash or an older version left in a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo

from ..detection.rules import describe_rule
from ..folders.maps import MAPS
from .internals import Samples, every_image, follow, forget_unnamed, mend_references, root_dataset
from .inventory import RUNNING, WITHOUT_FILES, missing_fields, run_status
from .lock import writing
from .maps import dataset_folder
from .patience import waits_for_database
from .pending import settle
from .record import COMPLETE, INCOMPLETE, RunRecord, list_diffpath_runs, require_record
from .rename import finish_rename
from .schema import VIEW_KINDS, index_score, is_indexed, save_views


@waits_for_database
def repair_diffpath(dataset: Samples) -> list[str]:
    """Mends what a process that was killed, or an older version, left half done in a dataset.

    Operations that were interrupted are finished; views, indexes and what names them are made again or
    forgotten. What takes the model to make again, scores and maps, is left to :func:`continue_diffpath`,
    and said. What is whole is not touched, and neither is a run that is being computed.

    Args:
        dataset: the ``fo.Dataset``

    Returns:
        what was done, and what is left to do, a sentence each; empty where all is well

    Raises:
        ValueError: if another process is changing the dataset for a long time
    """
    dataset = root_dataset(dataset)
    done = [_finished(each) for each in settle(dataset)]
    with writing(dataset, "repairing", mend=False):
        mended = mend_references(dataset)
        follow(dataset)
        done += [f"forgot {count:,} {what} of which only half was stored" for what, count in mended.items() if count]
        for run_key in list_diffpath_runs(dataset):
            done += _repair_run(dataset, require_record(dataset, run_key))
    return done


def _finished(operation: dict[str, str]) -> str:
    words = {"rename": "renaming", "delete": "deleting", "flag": "flagging by"}
    what = words.get(operation["operation"], "tidying up after")
    to = f" to {operation['to']!r}" if "to" in operation else ""
    return f"finished {what} run {operation.get('from', operation['run_key'])!r}{to}, which was interrupted"


def _repair_run(dataset: fo.Dataset, record: RunRecord) -> Iterator[str]:
    of = f"run {record.run_key!r}"
    if run_status(dataset, record) == RUNNING:
        return
    new_run_key = _half_renamed(dataset, record)
    if new_run_key:
        old_run_key = record.fields["score"].removesuffix("_score")
        finish_rename(dataset, record, old_run_key, new_run_key, _moved_folder(dataset, record, new_run_key))
        yield f"finished renaming {of} to {new_run_key!r}"
        record = require_record(dataset, new_run_key)
        of = f"run {record.run_key!r}"
    if record.status != COMPLETE:
        yield f"{of} was interrupted: continue it, which goes on where it stopped, or delete it"
        return
    missing = missing_fields(dataset, record)
    if missing:
        yield f"{of} has lost {', '.join(missing)}: continue it, which makes them again, or delete it"
        return
    yield from _make_again(dataset, record)
    if run_status(dataset, record) == WITHOUT_FILES:
        yield f"{of} has lost its files: continue it, which makes them again"
        return
    count = _count_without_maps(dataset, record)
    if count:
        record.patch(dataset, status=INCOMPLETE)
        yield f"{of} has no maps of {count:,} images: continue it, which makes them again"


def _make_again(dataset: fo.Dataset, record: RunRecord) -> Iterator[str]:
    """What can be made from what is stored."""
    count = forget_unnamed(dataset, record.all_views, record.workspaces)
    if count:
        yield f"forgot {count:,} views of run {record.run_key!r} that had come to no dataset"
    if not is_indexed(dataset, record.fields["score"]):
        index_score(dataset, record.fields["score"])
        yield f"made the index of run {record.run_key!r} again"
    lost = [record.views[kind] for kind in VIEW_KINDS if not dataset.has_saved_view(record.views[kind])]
    if lost and record.threshold is not None and record.rule is not None and record.level is not None:
        words = describe_rule(record.rule, record.level)
        save_views(dataset, record.fields, record.views, record.threshold, words)
        yield f"made the views {', '.join(map(repr, lost))} again"


def _count_without_maps(dataset: fo.Dataset, record: RunRecord) -> int:
    """How many images have features, but a map of theirs is not there."""
    kinds = [kind for kind in MAPS if kind in record.fields]
    if not kinds:
        return 0
    described = every_image(dataset).exists(record.fields["features"])
    paths = described.values([f"{record.fields[kind]}.map_path" for kind in kinds])
    return sum(not all(path and Path(path).is_file() for path in each) for each in zip(*paths))


def _half_renamed(dataset: fo.Dataset, record: RunRecord) -> str | None:
    """The key that a run was about to get when a version killed it that noted nothing: all its fields have it."""
    lost = set(missing_fields(dataset, record))
    if not lost:
        return None
    kinds = {kind: name for kind, name in record.fields.items() if name in lost}
    schema, (kind, _) = dataset.get_field_schema(), max(kinds.items(), key=lambda item: len(item[0]))
    owned = {name for key in list_diffpath_runs(dataset) for name in require_record(dataset, key).fields.values()}
    for name in schema:
        key = name.removesuffix(f"_{kind}")
        renamed = {f"{key}_{each}" for each in kinds}
        free = key == record.run_key or not dataset.has_run(key)
        if name != key and free and renamed <= set(schema) and not renamed & owned:
            return key
    return None


def _moved_folder(dataset: fo.Dataset, record: RunRecord, new_run_key: str) -> str:
    """Where a half renamed run's files are to be: where they are already, if they were moved."""
    own = Path(record.folder)
    moved = [] if own.exists() else sorted(dataset_folder(dataset).glob(f"{new_run_key}-*"))
    return str(moved[0] if moved else own.with_name(f"{new_run_key}-{own.name.rsplit('-', 1)[-1]}"))

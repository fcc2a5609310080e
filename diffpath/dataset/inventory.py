"""Which runs a dataset has, how each of them is, and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..folders.files import file_sizes
from .internals import Samples, every_image, root_dataset
from .liveness import is_alive
from .patience import waits_for_database
from .pending import settle
from .record import COMPLETE, RunRecord, counted, require_record
from .run import DiffPathRun
from .tags import given_by_run

RUNNING, INTERRUPTED, DAMAGED, WITHOUT_FILES = "running", "interrupted", "damaged", "without files"


def missing_fields(dataset: fo.Dataset, record: RunRecord) -> list[str]:
    """The run's fields that were deleted by hand."""
    return [name for name in record.fields.values() if not dataset.has_sample_field(name)]


def run_status(dataset: fo.Dataset, record: RunRecord) -> str:
    """How a run is.

    Returns:
        ``"complete"``, ``"running"``, ``"interrupted"``, ``"damaged"`` where fields were deleted by
        hand, or ``"without files"`` where its folder was, or is on another machine
    """
    if record.status == COMPLETE and missing_fields(dataset, record):
        return DAMAGED
    if record.status == COMPLETE:
        return COMPLETE if record.reference_path.exists() else WITHOUT_FILES
    return RUNNING if is_alive(record.heartbeat) else INTERRUPTED


@dataclass(frozen=True)
class RunContents:
    """What belongs to a run, and goes with it.

    Attributes:
        fields, views, workspaces: names, those that are there
        tag: what becomes of its tag, a phrase; empty where it has none
        folder: the run's folder, or None where there is none, or it is another dataset's
    """

    fields: list[str]
    views: list[str]
    workspaces: list[str]
    tag: str
    folder: str | None

    def count_files(self) -> tuple[int, int]:
        """How many files are in the folder, and their size in bytes: one look at each of them."""
        sizes = list(file_sizes(self.folder)) if self.folder else []
        return len(sizes), sum(sizes)


def run_contents(dataset: fo.Dataset, run_key: str) -> RunContents:
    """Looks up what :func:`delete_diffpath` would delete."""
    record = require_record(dataset, run_key)
    return RunContents(
        fields=[name for name in record.fields.values() if dataset.has_sample_field(name)],
        views=[name for name in record.all_views if dataset.has_saved_view(name)],
        workspaces=[name for name in record.workspaces if dataset.has_workspace(name)],
        tag=_fate_of_tag(dataset, record),
        folder=record.folder if record.is_of(dataset) and Path(record.folder).exists() else None,
    )


def describe_contents(contents: RunContents) -> list[tuple[str, str]]:
    """A run's contents for people: pairs of a label and a line of text, what there is none of left out."""
    rows = [(kind.capitalize(), ", ".join(getattr(contents, kind))) for kind in ("fields", "views", "workspaces")]
    rows.append(("Tag", contents.tag))
    if contents.folder:
        count, size = contents.count_files()
        rows.append(("Files", f"{count:,} files, {size / 1e6:.1f} MB, in {contents.folder}"))
    return [(label, text) for label, text in rows if text]


def _fate_of_tag(dataset: fo.Dataset, record: RunRecord) -> str:
    if not record.tag:
        return ""
    given = given_by_run(dataset, record)
    if given is None:
        return f"{record.tag!r} stays on all images: it was changed by hand"
    return f"{record.tag!r} is taken from the {len(given):,} images that the run gave it to"


@waits_for_database
def get_diffpath_info(dataset: Samples, run_key: str) -> dict[str, Any]:
    """Everything that is recorded of a run, with its status now.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key

    Returns:
        a dict: the run's record, with ``run_key``, ``status`` (as in :func:`run_status`),
        ``missing_fields``, ``timestamp``, and ``num_done`` where it is not complete

    Raises:
        ValueError: if the dataset has no diffpath run of that key
    """
    dataset = root_dataset(dataset)
    settle(dataset)
    record = require_record(dataset, run_key)
    if record.status == COMPLETE:
        record = counted(dataset, record)
    info = record.to_stored()
    info.update(
        run_key=run_key,
        status=run_status(dataset, record),
        missing_fields=missing_fields(dataset, record),
        timestamp=record.timestamp,
    )
    if info["status"] in (RUNNING, INTERRUPTED):
        features = record.fields["features"]
        info["num_done"] = every_image(dataset).count(features) if dataset.has_sample_field(features) else 0
    return info


def describe_info(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """:func:`get_diffpath_info` for people: pairs of a label and a line of text."""
    made_by = info["made_by"]
    options = ", ".join(f"{name} {_plain(value)}" for name, value in made_by["options"].items() if value is not None)
    rows = [("Status", info["status"] + _detail(info))]
    if "num_scored" in info:
        scored, flagged = info["num_scored"], info["num_likely_ood"]
        rows += [
            ("Images", f"{scored:,} scored, {flagged:,} flagged, {info['num_unreadable']:,} could not be read"),
            ("Threshold", f"score from {info['threshold']:.4g} ({info['rule']} {info['level']:g})"),
            ("Time", f"{info['seconds']:,.1f} s, {info['images_per_second']:,.1f} images/s on {info['device']}"),
        ]
    return [
        *rows,
        ("Reference", ", ".join(f"{name} {value}" for name, value in made_by["reference"].items() if value)),
        ("Model", f"{made_by['model']} at {made_by['resolution']} px, {made_by['dtype']}"),
        *_embeddings_row(made_by),
        ("Options", options),
        ("Begun", f"{info['timestamp']:%Y-%m-%d %H:%M} UTC on {info['machine']}"),
        ("Versions", ", ".join(f"{name} {number}" for name, number in info["versions"].items())),
        ("Files", info["folder"]),
        ("Fields", ", ".join(info["fields"].values())),
        ("Views", ", ".join([*info["views"].values(), *info.get("saved_views", ())])),
    ]


@waits_for_database
def load_diffpath_view(dataset: Samples, run_key: str, kind: str = "ranked") -> fo.DatasetView:
    """One of a finished run's live views: ``"ranked"``, ``"ood"``, ``"typical"`` or ``"unreadable"``."""
    dataset = root_dataset(dataset)
    settle(dataset)
    run = DiffPathRun.load(dataset, run_key)
    if kind not in run.views:
        raise ValueError(f"kind must be one of {', '.join(run.views)}, got {kind!r}")
    missing = missing_fields(dataset, run.record)
    if missing:
        raise ValueError(f"run {run_key!r} has lost {', '.join(missing)}; continue the run, which makes them again")
    return run.view(dataset, kind)


def _embeddings_row(made_by: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "embeddings" in made_by:
        yield "Embeddings", f"{made_by['embeddings']}, vectors of {made_by['embedding_length']:,} numbers"


def _detail(info: Mapping[str, Any]) -> str:
    if info["status"] == WITHOUT_FILES:
        return f": not in {info['folder']}; continue the run to make them again, or to say where they are"
    if info["status"] == DAMAGED:
        return f": {', '.join(info['missing_fields'])} were deleted"
    return f": {info['num_done']:,} images are done" if "num_done" in info else ""


def _plain(value: Any) -> Any:
    return " to ".join(f"{item:g}" for item in value) if isinstance(value, list | tuple) else value

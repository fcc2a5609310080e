"""Takes up an interrupted run with the arguments that are recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from os import PathLike
from typing import Any

import fiftyone as fo

from ..folders.engines import LOCAL, EngineLike
from ..folders.scanning import Progress
from .heartbeat import check_idle
from .internals import Samples, load_view, root_dataset
from .inventory import DAMAGED, INTERRUPTED, WITHOUT_FILES, run_status
from .ownership import own_files
from .pending import settle
from .progress import show_progress
from .record import COMPLETE, INCOMPLETE, RunRecord, require_record
from .request import ScoringRequest
from .run import DiffPathRun
from .scoring import iterate_scoring
from .sources import ReferenceLike, find_reference


def continue_diffpath(
    dataset: Samples,
    run_key: str,
    *,
    folder: str | PathLike[str] | None = None,
    reference: ReferenceLike = None,
    batch_size: int | None = None,
    num_workers: int = 4,
    engine: EngineLike = LOCAL,
    device: str | None = None,
    progress: bool | Callable[[fo.ProgressBar], None] | None = None,
) -> DiffPathRun:
    """Goes on with an interrupted run where it stopped, or gives a run that has lost files or fields what it lacks.

    Files are lost when a dataset comes to another machine, or a folder is deleted. The reference is
    fitted anew on the descriptors that are stored in the samples; only images whose maps are gone
    are scored again.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        folder: where the run's files are now, if they were moved: they are copied from there
        reference: the run's reference, where it cannot be found again by itself
        batch_size, num_workers, engine, device, progress: as in :func:`compute_diffpath`

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no such run of that key, or its images or reference
            cannot be found again
    """
    found: dict[str, Any] = {"folder": folder, "reference": reference}
    how: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "engine": engine, "device": device}
    return show_progress(iterate_continue(dataset, run_key, **found, **how), progress)


def iterate_continue(
    dataset: Samples,
    run_key: str,
    *,
    folder: str | PathLike[str] | None = None,
    reference: ReferenceLike = None,
    **how: Any,
) -> Generator[Progress, None, DiffPathRun]:
    """:func:`continue_diffpath` as a generator of progress that returns the run."""
    dataset = root_dataset(dataset)
    settle(dataset)
    record = require_record(dataset, run_key)
    check_idle(record)
    if folder is not None:
        record = own_files(dataset, record, folder)
    status = run_status(dataset, record)
    if status == COMPLETE and folder is not None:
        count = record.num_scored or 0
        yield Progress("Copying files", count, count, 0.0)
        return DiffPathRun.load(dataset, run_key)
    if status not in (INTERRUPTED, WITHOUT_FILES, DAMAGED):
        raise ValueError(f"run {run_key!r} is {status}, not interrupted; there is nothing to go on with")
    request = request_of(dataset, record, reference, **how)
    if status != INTERRUPTED:
        own_files(dataset, record).patch(dataset, status=INCOMPLETE)
    return (yield from iterate_scoring(request))


def request_of(dataset: fo.Dataset, record: RunRecord, reference: ReferenceLike = None, **how: Any) -> ScoringRequest:
    """The request that a run was begun with.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        record: of the run
        reference: its reference, if it cannot be found again by itself
        **how: arguments of :meth:`ScoringRequest.of` that do not determine its results, such as ``device``

    Raises:
        ValueError: if the run's images or reference cannot be found again
    """
    requested, provenance = record.requested, record.provenance
    if requested is None:
        raise ValueError(f"run {record.run_key!r} does not say what it was asked for; delete it and compute it again")
    return ScoringRequest.of(
        load_view(dataset, requested.samples),
        reference=_reference(dataset, record) if reference is None else reference,
        model=provenance["model"],
        embeddings=provenance.get("embeddings"),
        groups=provenance["reference"].get("groups"),
        model_options=provenance.get("model_options"),
        run_key=record.run_key,
        rule=record.rule or requested.rule,
        level=requested.level if record.level is None else record.level,
        tag=record.tag or requested.tag,
        heatmaps=record.heatmaps,
        regions=record.regions,
        dtype=provenance["dtype"],
        **record.options.to_dict(),
        **how,
    )


def _reference(dataset: fo.Dataset, record: RunRecord) -> ReferenceLike:
    description = record.provenance["reference"]
    if description["kind"] == "saved" and record.reference_path.exists():
        return record.reference_path
    try:
        return find_reference(dataset, description)
    except ValueError as error:
        raise ValueError(f"run {record.run_key!r} cannot go on: {error}") from error

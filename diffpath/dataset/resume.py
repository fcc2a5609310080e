"""Takes up an interrupted run with the arguments that are recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import fiftyone as fo

from .internals import load_view
from .inventory import INTERRUPTED, run_status
from .record import RunRecord, require_record
from .request import ScoringRequest
from .run import DiffPathRun
from .scanning import Progress, show_progress
from .scoring import iterate_scoring
from .sources import ReferenceLike, find_reference


def continue_diffpath(
    dataset: fo.Dataset,
    run_key: str,
    *,
    batch_size: int | None = None,
    num_workers: int = 4,
    device: str | None = None,
    progress: bool | Callable[[fo.ProgressBar], None] | None = None,
) -> DiffPathRun:
    """Goes on with an interrupted run where it stopped.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        batch_size, num_workers, device, progress: as in :func:`compute_diffpath`

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no interrupted run of that key, or its images or reference
            cannot be found again
    """
    steps = iterate_continue(dataset, run_key, batch_size=batch_size, num_workers=num_workers, device=device)
    return show_progress(steps, progress)


def iterate_continue(dataset: fo.Dataset, run_key: str, **how: Any) -> Generator[Progress, None, DiffPathRun]:
    """:func:`continue_diffpath` as a generator of progress that returns the run."""
    record = require_record(dataset, run_key)
    status = run_status(dataset, record)
    if status != INTERRUPTED:
        raise ValueError(f"run {run_key!r} is {status}, not interrupted; there is nothing to go on with")
    return (yield from iterate_scoring(request_of(dataset, record, **how)))


def request_of(dataset: fo.Dataset, record: RunRecord, **how: Any) -> ScoringRequest:
    """The request that a run was begun with.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        record: of the run
        **how: arguments of :meth:`ScoringRequest.of` that do not determine its results, such as ``device``

    Raises:
        ValueError: if the run's images or reference cannot be found again
    """
    requested, provenance = record.requested, record.provenance
    if requested is None:
        raise ValueError(f"run {record.run_key!r} does not say what it was asked for; delete it and compute it again")
    return ScoringRequest.of(
        load_view(dataset, requested.samples),
        reference=_reference(dataset, record),
        model=provenance["model"],
        embeddings=provenance.get("embeddings"),
        groups=provenance["reference"].get("groups"),
        model_options=provenance.get("model_options"),
        run_key=record.run_key,
        rule=requested.rule,
        level=requested.level,
        tag=requested.tag,
        heatmaps=record.heatmaps,
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

"""Operations that were begun: each is written down before it acts, and finished by whoever touches the dataset next.

A process can be killed between any two writes. What renames, deletes or flags says so in the run's
record first; all its steps can be done twice. What is left of a computation needs no note: its
record is incomplete until the end, and the same call goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import fiftyone as fo

from .liveness import is_alive
from .lock import writing
from .record import RunRecord, read_records

Finisher: TypeAlias = Callable[[fo.Dataset, RunRecord, dict[str, Any]], None]

_FINISHERS: dict[str, Finisher] = {}


def finishes(operation: str) -> Callable[[Finisher], Finisher]:
    """Registers a function that does an operation's steps again, all of them."""

    def register(finisher: Finisher) -> Finisher:
        _FINISHERS[operation] = finisher
        return finisher

    return register


def settle(dataset: fo.Dataset) -> list[dict[str, Any]]:
    """Finishes what processes that are gone had begun; returns what was written down of each."""
    if not any(_is_left(record) for record in read_records(dataset).values()):
        return []
    finished = []
    with writing(dataset, "finishing what was interrupted"):
        for record in list(read_records(dataset).values()):
            if _is_left(record):
                assert record.pending is not None
                _FINISHERS[record.pending["operation"]](dataset, record, record.pending)
                finished.append({"run_key": record.run_key, **record.pending})
    return finished


def _is_left(record: RunRecord) -> bool:
    return (
        record.pending is not None and record.pending.get("operation") in _FINISHERS and not is_alive(record.heartbeat)
    )

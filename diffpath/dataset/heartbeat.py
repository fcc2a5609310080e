"""Whether a run is under way: it says so now and then, and says when it stops."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator

import fiftyone as fo

from ..folders.files import writing_files
from ..folders.scanning import Progress
from .internals import DatabaseAway, DatabaseError
from .liveness import Heartbeat, is_alive
from .record import RunRecord, require_record

_BEAT_SECONDS = 10.0
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0


def with_heartbeat(
    steps: Generator[Progress, None, None], dataset: fo.Dataset, record: RunRecord
) -> Generator[Progress, None, None]:
    """Passes a generator's steps on, and says in the run's record every few seconds that it is under way.

    Whatever ends the generator, a closed tab included, is recorded. A killed process
    records nothing more, which :func:`is_alive` notices; a generator that nobody asks for
    its next step does not count as under way either.
    """
    pulse = _Pulse(dataset, record)
    try:
        while True:
            with pulse, writing_files(record.folder):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            pulse.saw(step)
            pulse.check_not_stopped()
            yield step
    finally:
        try:
            with writing_files(record.folder):
                steps.close()
        finally:
            pulse.stop()


def check_idle(record: RunRecord) -> None:
    """Refuses to touch a run that is being computed now."""
    beat = record.heartbeat
    if beat is not None and is_alive(beat):
        raise ValueError(
            f"run {record.run_key!r} is being computed now by process {beat.process} on {beat.machine!r}, "
            f"{beat.done:,} of {beat.total:,} images are done; wait for it, or stop and delete it with "
            f"delete_diffpath(dataset, {record.run_key!r}, stop=True)"
        )


def claim(dataset: fo.Dataset, record: RunRecord) -> RunRecord:
    """Says that a run is under way here, before anything is done; :func:`with_heartbeat` goes on saying so.

    To be called by whoever has the dataset's lock, so that of two that begin at once one is refused.

    Raises:
        ValueError: if it is under way already
    """
    check_idle(record)
    return record.patch(dataset, heartbeat=Heartbeat.now(), stopping=None)


def stop_run(dataset: fo.Dataset, run_key: str, patience: float = _PATIENCE_SECONDS) -> None:
    """Asks a run that is being computed to stop, and waits until it has.

    A process that does not answer finds out when it is to write something next that its run
    is gone.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        patience: how long to wait, in seconds
    """
    asked = time.monotonic()
    beat = require_record(dataset, run_key).patch(dataset, stopping=True).heartbeat
    # In this process it stands still as long as this waits
    while beat is not None and beat.process != os.getpid() and time.monotonic() - asked < patience and is_alive(beat):
        time.sleep(_POLL_SECONDS)
        beat = require_record(dataset, run_key).heartbeat


class _Pulse:
    """Writes the heartbeat from a thread of its own while it is entered: fitting and writing take minutes, too."""

    def __init__(self, dataset: fo.Dataset, record: RunRecord) -> None:
        self._dataset, self._record = dataset, record
        self._done = self._total = 0
        self._checked = time.monotonic()
        self._working, self._stopped = threading.Event(), threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._run, name="diffpath-heartbeat", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        self._working.set()

    def __exit__(self, *_: object) -> None:
        self._working.clear()

    def saw(self, step: Progress) -> None:
        """Takes how far the run is."""
        is_first, self._done, self._total = not self._total, step.done, step.total
        if is_first:
            self._write()

    def check_not_stopped(self) -> None:
        """Ends the run where it was asked to stop."""
        if time.monotonic() - self._checked < _POLL_SECONDS:
            return
        self._checked = time.monotonic()
        try:
            stopping = require_record(self._dataset, self._record.run_key).stopping
        except DatabaseAway:
            return  # it is asked again at the next step
        if stopping:
            raise ValueError(f"run {self._record.run_key!r} was stopped; it can be continued or deleted")

    def stop(self) -> None:
        """Says that the run is not under way any more."""
        self._stopped.set()
        self._thread.join()
        self._beat(None)

    def _run(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            if self._working.is_set():
                self._write()

    def _write(self) -> None:
        self._beat(Heartbeat.now(self._done, self._total))

    def _beat(self, heartbeat: Heartbeat | None) -> None:
        with contextlib.suppress(DatabaseError):  # a database that is away for a while is for the run itself to report
            self._record.beat(self._dataset, heartbeat)

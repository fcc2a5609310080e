"""One writer at a time: what changes a dataset's schema, views or runs waits until no other does.

FiftyOne writes a dataset's document as each process remembers it, so that two that write at once
lose each other's fields and views. Whoever has the lock sees what is stored, and nobody else of
diffpath's writes meanwhile: other processes, other machines and other threads of the App included.
Scanning images does not need it; that one run is not computed twice at once is the heartbeat's
business (:mod:`diffpath.dataset.heartbeat`).
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator

import fiftyone as fo

from . import internals
from .internals import Samples, dataset_id, root_dataset
from .liveness import Heartbeat, is_alive

_POLL_SECONDS = 0.05
_REFRESH_SECONDS = 10.0
PATIENCE_SECONDS = 60.0  # how long to wait for another writer

_tokens: set[str] = set()  # of the locks that threads of this process have
_held = threading.local()  # the datasets that this thread has the lock of


@contextlib.contextmanager
def writing(samples: Samples, what: str, *, mend: bool = True) -> Iterator[fo.Dataset]:
    """Waits until this thread alone changes the dataset; the dataset is then as it is stored.

    Within itself it does nothing. A process that died loses the lock.

    Args:
        samples: a dataset, or a view of it
        what: is done, in words for whoever waits in vain, such as ``"renaming run 'a'"``
        mend: whether names of what is not there are forgotten first

    Raises:
        ValueError: if another one does not finish within a minute
    """
    dataset = root_dataset(samples)
    mine, this = _held.__dict__.setdefault("datasets", set()), dataset_id(dataset)
    if this in mine:
        yield dataset
        return
    token = uuid.uuid4().hex
    _tokens.add(token)
    try:
        _take(dataset, token, what)
    except BaseException:
        _tokens.discard(token)
        raise
    mine.add(this)
    stopped = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(dataset, token, stopped), name="diffpath-lock", daemon=True)
    refresher.start()
    try:
        if mend:
            internals.mend_references(dataset)
        internals.follow(dataset)
        yield dataset
    finally:
        stopped.set()
        refresher.join()
        mine.discard(this)
        _tokens.discard(token)
        internals.release_lock(dataset, token)


def _take(dataset: fo.Dataset, token: str, what: str) -> None:
    since = time.monotonic()
    while True:
        other = internals.take_lock(dataset, token, {"what": what, **Heartbeat.now().to_dict()})
        if other is None:
            return
        holder = Heartbeat.from_dict(other)
        given_up = holder.is_of_this_process and other["token"] not in _tokens  # as the database was away
        if given_up or not is_alive(holder):
            internals.release_lock(dataset, other["token"])
            continue
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise ValueError(
                f"dataset {dataset.name!r} is being changed by process {other['process']} on {other['machine']!r} "
                f"({other['what']}); try again when that is done"
            )
        time.sleep(_POLL_SECONDS)


def _refresh(dataset: fo.Dataset, token: str, stopped: threading.Event) -> None:
    while not stopped.wait(_REFRESH_SECONDS):
        with contextlib.suppress(internals.DatabaseError):
            internals.refresh_lock(dataset, token, time.time())

"""A database that is away for a while is waited for, and said: it is restarted, or the network has gone.

Everything that diffpath writes can be written twice, so that what was under way is simply done again.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import ParamSpec, TypeVar

from ..folders.scanning import Progress
from .internals import DatabaseAway, answers

PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 1.0

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


def waits_for_database(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Calls a function again, once the database is back, where it went away amid it."""

    @functools.wraps(function)
    def patient(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        while True:
            try:
                return function(*arguments, **named)
            except DatabaseAway as error:
                for _ in _until_it_answers(error):
                    pass

    return patient


def wait_amid(begin: Callable[[], Generator[Progress, None, None]]) -> Generator[Progress, None, None]:
    """Passes a generator's steps on; begins it again, once the database is back, where it went away amid it.

    Args:
        begin: makes the generator, which goes on with what is done
    """
    last = Progress("", 0, 0, 0.0)
    while True:
        try:
            with closing(begin()) as steps:
                for last in steps:
                    yield last
            return
        except DatabaseAway as error:
            for seconds in _until_it_answers(error):
                yield Progress(f"Waiting for the database, {seconds:.0f} s", last.done, last.total, 0.0)


@contextmanager
def undoing() -> Iterator[ExitStack]:
    """What is on the stack is undone where something fails, but not where the database goes away.

    What was begun is then noted (:mod:`diffpath.dataset.pending`), and finished once it is back.
    """
    with ExitStack() as undo:
        try:
            yield undo
        except DatabaseAway:
            undo.pop_all()
            raise
        undo.pop_all()


def _until_it_answers(error: Exception) -> Iterator[float]:
    """Yields the seconds that have passed until the database answers.

    Raises:
        ValueError: if it does not for a long time
    """
    _logger.warning("the database does not answer; waiting for it for up to %.0f s", PATIENCE_SECONDS)
    since = time.monotonic()
    while not answers():
        waited = time.monotonic() - since
        if waited > PATIENCE_SECONDS:
            raise ValueError(
                f"the database has not answered for {waited:.0f} s; start it and do this again: what is done is kept"
            ) from error
        yield waited
        time.sleep(_POLL_SECONDS)
    _logger.warning("the database is back after %.0f s", time.monotonic() - since)

"""Whether the process that left a sign of life is still there."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import psutil

_TRUSTED_SECONDS = 600.0  # on this machine, where the process can be looked up
_TRUSTED_SECONDS_ELSEWHERE = 60.0
_CLOCK_SECONDS = 2.0  # by which two looks at a process's start may differ


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life of a process that works on a run, or on a dataset.

    Attributes:
        process: its id
        machine: the name of the machine that it runs on
        done: images that are done
        total: images in all
        at: when this was written, in seconds since 1970
        born: when the process began, likewise: ids are given again; None of early versions
    """

    process: int
    machine: str
    done: int = 0
    total: int = 0
    at: float = 0.0
    born: float | None = None

    @classmethod
    def now(cls, done: int = 0, total: int = 0) -> Heartbeat:
        """One of this process."""
        return cls(os.getpid(), platform.node(), done, total, time.time(), _born(os.getpid()))

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process gave it."""
        return (self.process, self.machine, self.born) == (os.getpid(), platform.node(), _born(os.getpid()))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Heartbeat:
        """The one of which :meth:`to_dict` gave the values; others among them are left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def is_alive(heartbeat: Heartbeat | None) -> bool:
    """Whether whoever gave this sign of life is still at work."""
    if heartbeat is None or not heartbeat.at:
        return False
    silent = time.time() - heartbeat.at
    if heartbeat.machine != platform.node():
        return silent < _TRUSTED_SECONDS_ELSEWHERE
    return silent < _TRUSTED_SECONDS and _is_running(heartbeat.process, heartbeat.born)


def _is_running(process: int, born: float | None) -> bool:
    try:
        found = psutil.Process(process)
        if found.status() == psutil.STATUS_ZOMBIE:
            return False
        return born is None or abs(found.create_time() - born) < _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


@functools.lru_cache(maxsize=1)
def _born(process: int) -> float:
    return psutil.Process(process).create_time()

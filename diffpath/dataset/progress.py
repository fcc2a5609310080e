"""A run under FiftyOne's progress bar."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

import fiftyone as fo

from ..folders.scanning import Progress, drain

_Result = TypeVar("_Result")


def show_progress(
    steps: Generator[Progress, None, _Result], progress: bool | Callable[[fo.ProgressBar], None] | None
) -> _Result:
    """Runs a generator of :class:`Progress` to its end under a progress bar and returns what it returns."""
    with closing(steps):
        first = next(steps)
        with fo.ProgressBar(total=first.total, progress=progress, iters_str="images") as bar:
            return drain(steps, lambda step: bar.set_iteration(step.done))

"""Feeds images of files to the method and results to a store, a chunk at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..folders.reading import Read, read_images
from ..images import Looks
from ..options import MethodOptions, ModelOptions
from ..values import ValueRange

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathResult, DiffPathV2
    from ..models import NoisePredictor

_FLUSH_IMAGES = 512
_FLUSH_SECONDS = 5.0
_LOOKAHEAD = 8  # batches that may be decoded and waiting
_Result = TypeVar("_Result")


class Store(Protocol):
    """Takes results one by one and writes them when it is told to; its length is what waits."""

    def __len__(self) -> int: ...

    def add(self, sample_id: str, result: DiffPathResult) -> None:
        """Takes what the method says of one image."""

    def add_error(self, sample_id: str, error: str) -> None:
        """Takes why an image has no result."""

    def flush(self) -> None:
        """Writes what waits."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``done`` of ``total`` images, at ``rate`` images per second."""

    label: str
    done: int
    total: int
    rate: float

    @property
    def fraction(self) -> float:
        return self.done / max(self.total, 1)

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None


def drain(steps: Generator[Progress, None, _Result], show: Callable[[Progress], Any]) -> _Result:
    """Runs a generator to its end, shows each step, and returns what the generator returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            return finished.value
        show(step)


def make_method(
    model: str | NoisePredictor,
    options: MethodOptions,
    model_options: ModelOptions,
    *,
    device: str | None,
    dtype: str | None,
    batch_size: int | None,
) -> DiffPathV2:
    """Loads what scores a run's images; ``batch_size`` None leaves the default."""
    from ..method.diffpath_v2 import DiffPathV2  # brings torch, which takes seconds to import

    method = DiffPathV2(model, device=device, dtype=dtype, model_options=model_options.to_dict(), **options.to_dict())
    if batch_size is not None:
        method.images_per_pass = batch_size
    return method


def suited_method(
    make: Callable[[MethodOptions], DiffPathV2],
    options: MethodOptions,
    value_range: Callable[[], ValueRange | None],
    detail: Callable[[int], int],
) -> DiffPathV2:
    """The method with what its options leave open settled by a look at the pictures.

    Args:
        make: makes a method of options
        options: as they were given
        value_range: looks for what is black and what is white
        detail: looks for how many crops per side suit a model of a side, 0 for none
    """
    if options.value_range is None:
        options = replace(options, value_range=value_range())
    method = make(options)
    if options.detail is None and options.preset != "paper":
        crops = detail(method.predictor.resolution)
        if crops:
            method = make(replace(options, detail=crops))
    return method


class Scanner:
    """Scores images and counts them.

    Args:
        method: a :class:`diffpath.DiffPathV2`
        num_workers: threads that decode images
        total: how many images there will be

    Attributes:
        done: how many are scored, or found to be unreadable
    """

    def __init__(self, method: DiffPathV2, num_workers: int, total: int) -> None:
        self.method, self.num_workers, self.total = method, num_workers, total
        self.done, self._started = 0, time.monotonic()

    @property
    def rate(self) -> float:
        """Images per second until now."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    def progress(self, label: str) -> Progress:
        return Progress(label, self.done, self.total, self.rate)

    def run(self, paths: Mapping[str, str], store: Store, label: str) -> Generator[Progress, None, None]:
        """Scores the images of ``{sample id: path}`` into a store; yields :class:`Progress`."""
        if not paths:
            return
        method, flushed = self.method, time.monotonic()
        how = method.options.value_range, method.crop_plan
        reader = read_images(paths.values(), method.sides, self.num_workers, _LOOKAHEAD * method.images_per_pass, *how)
        being_scored: deque[list[str]] = deque()
        batches = self._batches(zip(paths, reader), store, being_scored)
        with closing(reader), closing(method.score_batches(batches)) as results:
            try:
                for result in results:
                    self._add(being_scored.popleft(), result, store)
                    if len(store) >= _FLUSH_IMAGES or time.monotonic() - flushed > _FLUSH_SECONDS:
                        store.flush()
                        flushed = time.monotonic()
                    yield self.progress(label)
            finally:
                store.flush()
        yield self.progress(label)

    def _batches(
        self, images: Iterable[tuple[str, Read]], store: Store, being_scored: deque[list[str]]
    ) -> Iterator[list[Looks]]:
        """Pictures to be scored together, whose ids are noted; those that cannot be read go to the store."""
        size, batch = self.method.images_per_pass, dict[str, Looks]()
        for sample_id, (image, error) in images:
            if image is None:
                self.done += 1
                store.add_error(sample_id, error or "the file cannot be read")
            else:
                batch[sample_id] = image
            if len(batch) == size:
                being_scored.append(list(batch))
                yield list(batch.values())
                batch = {}
        if batch:
            being_scored.append(list(batch))
            yield list(batch.values())

    def _add(self, sample_ids: Sequence[str], result: DiffPathResult, store: Store) -> None:
        self.done += len(sample_ids)
        for position, sample_id in enumerate(sample_ids):
            if np.isfinite(result.descriptor[position]).all():
                store.add(sample_id, result[position])
            else:
                store.add_error(sample_id, "the model gave features that are not finite; try dtype='float32'")

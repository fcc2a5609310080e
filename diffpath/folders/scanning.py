"""Loads methods, feeds images of files to them and results to a store, a chunk at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..options import MethodOptions, ModelOptions, complete_options
from ..values import ValueRange
from .engines import Engine, Outcomes

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathResult, DiffPathV2
    from ..models import NoisePredictor

_FLUSH_IMAGES = 512
_FLUSH_SECONDS = 5.0
_Result = TypeVar("_Result")


class Store(Protocol):
    """Takes results one by one and writes them when it is told to; its length is what waits.

    Attributes:
        wanted: what it keeps of ``BULKY``
    """

    @property
    def wanted(self) -> Collection[str]: ...

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


def method_of(
    provenance: Mapping[str, Any], *, model: str | None = None, device: str | None = None, batch_size: int | None = None
) -> DiffPathV2:
    """The method that made something once more.

    Args:
        provenance: what made it, as ``DiffPathV2.provenance``
        model: where its model is, if not where it was
        device, batch_size: as in :func:`diffpath.compute_diffpath`
    """
    model_options = dict(provenance.get("model_options") or {})
    if model is not None:
        model_options.pop("revision", None)  # of the place where the model was
    options = MethodOptions(**complete_options(provenance["options"]))
    return make_method(
        model or provenance["model"],
        options,
        ModelOptions.from_dict(model_options),
        device=device,
        dtype=provenance["dtype"],
        batch_size=batch_size,
    )


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
        engine: reads and scores with it, here or elsewhere
        total: how many images there will be

    Attributes:
        done: how many are scored, or found to be unreadable
    """

    def __init__(self, method: DiffPathV2, engine: Engine, total: int) -> None:
        self.method, self.engine, self.total = method, engine, total
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
        flushed = time.monotonic()
        with closing(self.engine.score(self.method, paths, store.wanted)) as found:
            try:
                for outcomes in found:
                    _add(outcomes, store)
                    self.done += len(outcomes)
                    if len(store) >= _FLUSH_IMAGES or time.monotonic() - flushed > _FLUSH_SECONDS:
                        store.flush()
                        flushed = time.monotonic()
                    yield self.progress(label)
            finally:
                store.flush()
        yield self.progress(label)


def _add(outcomes: Outcomes, store: Store) -> None:
    for sample_id, outcome in outcomes.items():
        if isinstance(outcome, str):
            store.add_error(sample_id, outcome)
        else:
            store.add(sample_id, outcome)

"""Where a run's images are read and scored: in this process, or by the actors of a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from ..images import Looks
from ..options import unknown_name
from .reading import Read, read_images

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathResult, DiffPathV2
    from ..models import NoisePredictor

# By sample id: what the method says of an image, or why there is nothing
Outcomes: TypeAlias = "dict[str, DiffPathResult | str]"
_LOOKAHEAD = 8  # batches that may be decoded and waiting
BULKY = ("heatmaps", "error_maps", "local")  # what is large of a result, and not always wanted


@dataclass(frozen=True)
class RayEngine:
    """Scores on the machines of a Ray cluster, with Ray Data; ``"ray"`` is one of these with its defaults.

    Each machine has diffpath with ``pip install "diffpath[ray]"`` and finds the pictures, and a model that is a
    folder, under the same paths. Where this process is connected to Ray already, that is used.

    Attributes:
        address: of the cluster, such as ``"ray://head:10001"`` or ``"auto"``; None for what Ray takes by itself:
            the cluster that ``RAY_ADDRESS`` names, one that runs on this machine, or a new one on it alone
        num_actors: how many processes score, each with a model; None for as many as there is room for
        gpus_per_actor: such as 1, or 0.5 where two share one; None for 1 where the cluster has GPUs
    """

    address: str | None = None
    num_actors: int | None = None
    gpus_per_actor: float | None = None

    def __post_init__(self) -> None:
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"num_actors must be at least 1, got {self.num_actors}")
        if self.gpus_per_actor is not None and self.gpus_per_actor < 0:
            raise ValueError(f"gpus_per_actor must not be negative, got {self.gpus_per_actor}")


EngineLike: TypeAlias = str | RayEngine
LOCAL = "local"
_NAMES = (LOCAL, "ray")


def check_engine(engine: EngineLike, model: str | NoisePredictor | None = None) -> None:
    """Refuses an engine that there is not, and a model that cannot be sent to it.

    Raises:
        ValueError: with one sentence
    """
    if not isinstance(engine, RayEngine) and engine not in _NAMES:
        if isinstance(engine, str):
            raise ValueError(unknown_name("engine", engine, _NAMES))
        raise ValueError(f"engine must be 'local', 'ray' or a RayEngine, got {type(engine).__name__}")
    if engine != LOCAL and not (model is None or isinstance(model, str)):
        raise ValueError(
            "a model in memory cannot be sent to other processes; save it as a diffusers folder and pass its path, "
            "or leave out engine"
        )


class Engine(Protocol):
    """Reads and scores images."""

    def score(
        self, method: DiffPathV2, paths: Mapping[str, str], wanted: Collection[str]
    ) -> Generator[Outcomes, None, None]:
        """Scores the images of ``{sample id: path}`` with a method; of ``BULKY`` only what is wanted may be there."""


def make_engine(engine: EngineLike, model: str | NoisePredictor | None, *, num_workers: int, **how: Any) -> Engine:
    """What scores a run's images.

    Args:
        engine: ``"local"``, ``"ray"`` or a :class:`RayEngine`
        model: that scores them, as it was given
        num_workers: threads that decode, in each process
        **how: ``device`` and ``batch_size``, as they were given

    Raises:
        ValueError: as :func:`check_engine`, and if Ray is not installed or cannot be reached
    """
    check_engine(engine, model)
    if engine == LOCAL:
        return _InThisProcess(num_workers)
    from .ray_engine import OnRay

    return OnRay(engine if isinstance(engine, RayEngine) else RayEngine(), num_workers=num_workers, **how)


@dataclass(frozen=True)
class _InThisProcess:
    num_workers: int

    def score(
        self, method: DiffPathV2, paths: Mapping[str, str], wanted: Collection[str]
    ) -> Generator[Outcomes, None, None]:
        return score_paths(method, paths, self.num_workers)


def score_paths(method: DiffPathV2, paths: Mapping[str, str], num_workers: int) -> Generator[Outcomes, None, None]:
    """Reads and scores the images of ``{sample id: path}`` in this process; yields what is found, batch by batch."""
    how = method.options.value_range, method.crop_plan
    lookahead = _LOOKAHEAD * method.images_per_pass
    begun: deque[list[str]] = deque()  # batches that are being scored
    outcomes: Outcomes = {}  # of files that could not be read

    def batches(images: Iterable[tuple[str, Read]]) -> Iterator[list[Looks]]:
        batch: dict[str, Looks] = {}
        for sample_id, (image, error) in images:
            if image is None:
                outcomes[sample_id] = error or "the file cannot be read"
            else:
                batch[sample_id] = image
            if len(batch) == method.images_per_pass:
                begun.append(list(batch))
                yield list(batch.values())
                batch = {}
        if batch:
            begun.append(list(batch))
            yield list(batch.values())

    with (
        closing(read_images(paths.values(), method.sides, num_workers, lookahead, *how)) as reader,
        closing(method.score_batches(batches(zip(paths, reader)))) as results,
    ):
        for result in results:
            yield {**outcomes, **_by_id(begun.popleft(), result)}
            outcomes.clear()
    if outcomes:
        yield outcomes


def _by_id(sample_ids: Sequence[str], result: DiffPathResult) -> Outcomes:
    is_finite = np.isfinite(result.descriptor).all(axis=1)
    not_finite = "the model gave features that are not finite; try dtype='float32'"
    return {
        sample_id: result[position] if is_finite[position] else not_finite
        for position, sample_id in enumerate(sample_ids)
    }

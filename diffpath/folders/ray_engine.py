"""Scores images with Ray Data: a pool of actors that each hold the method, and one driver that takes what they say.

The driver cuts the images into parts, one task each. What comes back is bytes, as an image without a result has no
arrays. Ray repeats the task of an actor that dies; a part that kills its actors, or an image at which an actor fails,
is done again in smaller parts, at last alone, so that no image loses its neighbours.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import platform
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import ModelError
from ..images import DOES_NOT_FIT
from .engines import BULKY, Outcomes, RayEngine, score_paths
from .scanning import method_of

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathResult, DiffPathV2

_PART = 64  # images of a task, at most, unless more are scored together
_PARTS_PER_ACTOR = 4  # at least, so that none waits long for the others at the end
_LEAST = 8  # images of a task: fewer fill no forward pass
_TRIES = 3  # of a task whose actor dies


@dataclass(frozen=True)
class _Recipe:
    """What an actor makes a method of, and how it uses it."""

    provenance: Mapping[str, Any]
    device: str | None
    batch_size: int | None
    num_workers: int
    threads: int  # of torch: sums of a large network over another number of them round otherwise
    wanted: frozenset[str]
    folder: str  # to which relative paths belong

    def make(self) -> DiffPathV2:
        """Loads the method.

        Raises:
            ModelError: if its model is not there, or another one than the driver's
        """
        with suppress(OSError):  # of another machine, where paths are better whole
            os.chdir(self.folder)
        try:
            method = method_of(self.provenance, device=self.device, batch_size=self.batch_size)
        except ModelError as error:
            raise ModelError(f"on machine {platform.node()!r}: {error}") from error
        if method.provenance != self.provenance:
            raise ModelError(
                f"model {self.provenance['model']!r} or diffpath itself is not the same on machine "
                f"{platform.node()!r} as here; bring both to one version"
            )
        return method


@dataclass(frozen=True)
class _Failed:
    """Why an actor failed at an image; another one may not."""

    sentence: str


@dataclass(frozen=True)
class _Refused:
    """Why an actor can score no image at all."""

    sentence: str


class Attempts:
    """An actor that counts how often each part was begun: Ray repeats the task of an actor that dies without end."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, part: str) -> int:
        self._begun[part] += 1
        return self._begun[part]


class Scorer:
    """What an actor of the pool runs: tasks ``{"part": [bytes]}`` in, ``{"found": [bytes]}`` out after each pass.

    Args:
        recipe: makes the method, once there is a task
        attempts: the actor that counts them
        is_first: whether what an actor of too little memory rounds otherwise is left to others
    """

    def __init__(self, recipe: _Recipe, attempts: Any, is_first: bool) -> None:
        self._recipe, self._attempts, self._is_first = recipe, attempts, is_first
        self._method: DiffPathV2 | None = None
        self._size = 0  # of a forward pass, where memory suffices

    def __call__(self, task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        import ray
        import torch

        torch.set_num_threads(self._recipe.threads)
        try:
            self._ready()
        except ValueError as error:
            yield _packed(_Refused(str(error)))
            return
        for packed in task["part"]:
            part = pickle.loads(packed)
            if ray.get(self._attempts.begin.remote(next(iter(part)))) > _TRIES:
                died = "ended each process that was to score it; replace or remove it"
                yield _packed({i: _Failed(f"{path} {died}") for i, path in part.items()})
                continue
            for found in self._score(part):
                yield _packed(found)

    def _ready(self) -> DiffPathV2:
        if self._method is None:
            self._method = self._recipe.make()
            self._size = self._method.evaluations_per_pass
        return self._method

    def _score(self, paths: Mapping[str, str]) -> Iterator[dict[str, DiffPathResult | str | _Failed]]:
        """Scores what it can; an image at which it fails is found by halving."""
        left = dict(paths)
        try:
            method = self._ready()
            for outcomes in score_paths(method, paths, self._recipe.num_workers):
                if self._is_first and method.evaluations_per_pass < self._size:
                    raise MemoryError
                yield {sample_id: self._sent(outcome) for sample_id, outcome in outcomes.items()}
                for sample_id in outcomes:
                    del left[sample_id]
            return
        except MemoryError:
            self._method = None  # what it holds may be what others lack
            yield {i: _Failed(f"{path} was left by a process that ran out of memory") for i, path in left.items()}
            return
        except Exception as error:  # nothing may take other images with it
            said = f"{type(error).__name__}: {str(error)[:160]}"
        if len(left) == 1:
            yield {i: _Failed(f"{path} cannot be scored ({said}); replace or remove it") for i, path in left.items()}
            return
        for half in _cut(left, math.ceil(len(left) / 2)):
            yield from self._score(half)

    def _sent(self, outcome: DiffPathResult | str) -> DiffPathResult | str | _Failed:
        """An outcome without what nobody wants of it."""
        if isinstance(outcome, str):
            return _Failed(outcome) if outcome.endswith(DOES_NOT_FIT) else outcome
        unwanted = {name: getattr(outcome, name) for name in BULKY if name not in self._recipe.wanted}
        return replace(outcome, **{name: values[(slice(0),) * values.ndim] for name, values in unwanted.items()})


@dataclass(frozen=True)
class OnRay:
    """Scores with the actors of a Ray cluster."""

    engine: RayEngine
    num_workers: int
    device: str | None
    batch_size: int | None

    def __post_init__(self) -> None:
        _import_ray()

    def score(
        self, method: DiffPathV2, paths: Mapping[str, str], wanted: Collection[str]
    ) -> Generator[Outcomes, None, None]:
        """As :class:`diffpath.folders.engines.Engine`; what fails in one actor is given to others.

        Raises:
            ModelError: if an actor cannot load the model, or it is not the same
            ValueError: if Ray cannot be reached, or not one image could be scored
        """
        ray = _connected(self.engine.address)
        left = dict(paths)
        sentences: dict[str, str] = {}
        recipe = self._recipe(method, wanted)
        pool = self._pool(ray, recipe.threads)
        most = max(_PART, self.batch_size or method.images_per_pass)
        size = min(most, max(_LEAST, len(left) // (_PARTS_PER_ACTOR * pool.num_actors)))
        for number, at_once in enumerate(dict.fromkeys((size, max(1, size // 8), 1))):
            for found in _run(ray, pool, recipe, list(_cut(left, at_once)), is_first=number == 0):
                sentences.update({i: each.sentence for i, each in found.items() if isinstance(each, _Failed)})
                done = {i: each for i, each in found.items() if i in left and not isinstance(each, _Failed)}
                for sample_id in done:
                    del left[sample_id]
                if done:
                    yield done
            if not left:
                return
        if len(left) == len(paths):
            first = sentences.get(next(iter(left)), "its log says why")
            raise ValueError(f"Ray's processes could score none of {len(left):,} images: {first}")
        lost = "was lost by Ray, whose log says why; score it again"
        yield {sample_id: sentences.get(sample_id, f"{path} {lost}") for sample_id, path in left.items()}

    def _recipe(self, method: DiffPathV2, wanted: Collection[str]) -> _Recipe:
        how: dict[str, Any] = dict(device=self.device, batch_size=self.batch_size, num_workers=self.num_workers)
        import torch

        threads, folder = torch.get_num_threads(), str(Path.cwd())
        return _Recipe(method.provenance, **how, threads=threads, folder=folder, wanted=frozenset(wanted))

    def _pool(self, ray: Any, threads: int) -> _Pool:
        """As many actors as are asked for, or as there is room for, and what each takes."""
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self.engine.gpus_per_actor
        if gpus is None:
            gpus = 1.0 if self.device != "cpu" and any("GPU" in machine for machine in machines) else 0.0
        rooms = [
            (machine.get("CPU", 0.0), machine.get("GPU", 0.0) / gpus if gpus else math.inf) for machine in machines
        ]
        number = self.engine.num_actors
        if number is None:
            number = max(1, _most_actors(rooms, 0 if gpus else threads))
        return _Pool(number, _cpus_per_actor(rooms, number, threads), gpus)


@dataclass(frozen=True)
class _Pool:
    num_actors: int
    cpus: float
    gpus: float


_Rooms: TypeAlias = Sequence[tuple[float, float]]  # of each machine: its CPUs, and for how many actors it has GPUs


def _most_actors(rooms: _Rooms, cpus: float) -> int:
    """How many actors of so many CPUs there is room for."""
    return sum(int(min(n / cpus if cpus else math.inf, places)) for n, places in rooms)


def _cpus_per_actor(rooms: _Rooms, number: int, most: int) -> float:
    """How many CPUs each of a number of actors can have; a part of one where they are few."""
    for cpus in range(most, 0, -1):
        if _most_actors(rooms, cpus) >= number:
            return cpus
    cpus_of_all = sum(n for n, places in rooms if places >= 1)
    return 1 / math.ceil(number / cpus_of_all) if cpus_of_all else 0.0


def _run(ray: Any, pool: _Pool, recipe: _Recipe, parts: list[dict[str, str]], *, is_first: bool) -> Iterator[Any]:
    """What a pool of actors finds of parts of the images, as it comes; a part that Ray gives up is left out."""
    import pyarrow

    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
    tables = [pyarrow.table({"part": pyarrow.array([pickle.dumps(part)], pyarrow.binary())}) for part in parts]
    data = ray.data.from_arrow(tables).map_batches(
        Scorer,
        fn_constructor_args=(recipe, attempts, is_first),
        batch_size=None,
        # One task at a time: an actor that dies takes no others with it
        compute=ray.data.ActorPoolStrategy(size=min(pool.num_actors, len(parts)), max_tasks_in_flight_per_actor=1),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
    )
    data.context.max_errored_blocks = -1
    data.context.print_on_execution_start = False
    with _without_bars(ray, data.context):
        for row in data.iter_rows():
            found = pickle.loads(row["found"])
            if isinstance(found, _Refused):
                raise ModelError(found.sentence)
            yield found


@contextmanager
def _without_bars(ray: Any, own: Any) -> Iterator[None]:
    """Without Ray's progress bars; earlier versions do not ask a dataset's own context for it."""
    contexts = (own, ray.data.DataContext.get_current())
    before = [context.enable_progress_bars for context in contexts]
    for context in contexts:
        context.enable_progress_bars = False
    try:
        yield
    finally:
        for context, shown in zip(contexts, before):
            context.enable_progress_bars = shown


def _packed(found: Any) -> dict[str, Any]:
    column = np.empty(1, object)
    column[0] = pickle.dumps(found)
    return {"found": column}


def _cut(paths: Mapping[str, str], size: int) -> Iterator[dict[str, str]]:
    """Parts of so many images."""
    items = iter(paths.items())
    while part := dict(islice(items, size)):
        yield part


def _import_ray() -> Any:
    try:
        import ray.data
    except ImportError as error:
        raise ValueError('engine="ray" needs Ray, which is not installed; run: pip install "diffpath[ray]"') from error
    return ray


def _connected(address: str | None) -> Any:
    """Ray, with a cluster behind it, which stays for the next call until this process ends."""
    ray = _import_ray()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports nothing to its authors
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"there is no Ray cluster at {address!r} ({str(error).splitlines()[0][:160]}); start one with "
            "ray start --head, or leave out address"
        ) from error
    return ray

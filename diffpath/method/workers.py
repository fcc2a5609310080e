"""Scores pieces of the images side by side: a worker for each device, and on a CPU several.

Threads that share the work of one kernel wait for one another after each, and spin while they do:
beside one other busy process they lose most of their time. Workers that score different images
meet nowhere, so that a busy core costs what it must and no more.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

import torch

from ..models import NoisePredictor

_MOST_ON_A_CPU = 32  # more would wait for Python's lock
_AHEAD = 2  # pieces for each worker that are begun before the first is asked for
_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


def run_side_by_side(
    predictors: Sequence[NoisePredictor],
    work: Callable[[NoisePredictor, _Piece], _Result],
    pieces: Iterable[_Piece],
) -> Generator[_Result, None, None]:
    """Works on pieces and gives their results in order; the next pieces are under way while one result is used.

    Args:
        predictors: one for each device
        work: what is done with a predictor and a piece. Which predictor it is depends on which is free
        pieces: taken, in the caller's thread, no earlier than they are needed
    """
    threads, workers = torch.get_num_threads(), _workers(predictors)
    if len(workers) == 1 and workers[0].device.type == "cpu":  # in the caller's thread, with its settings of torch
        yield from (work(predictors[0], piece) for piece in pieces)
        return
    free: SimpleQueue[NoisePredictor] = SimpleQueue()
    for predictor in workers:
        free.put(predictor)
    each_uses = max(1, threads // len(predictors)) if len(workers) == len(predictors) else 1

    def work_on(piece: _Piece) -> _Result:
        predictor = free.get()
        try:
            return work(predictor, piece)
        finally:
            free.put(predictor)

    pieces = iter(pieces)
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(len(workers), "diffpath-scores", torch.set_num_threads, (each_uses,)) as pool:
        try:
            waiting.extend(pool.submit(work_on, piece) for piece in islice(pieces, _AHEAD * len(workers)))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work_on, piece) for piece in islice(pieces, 1))
        finally:
            for each in waiting:
                each.cancel()
            torch.set_num_threads(threads)  # new threads begin with what was set last, in whichever thread


def _workers(predictors: Sequence[NoisePredictor]) -> list[NoisePredictor]:
    """The predictor of each worker."""
    on_cpu = sum(predictor.device.type == "cpu" for predictor in predictors)
    threads = min(_MOST_ON_A_CPU, max(1, torch.get_num_threads() // max(1, on_cpu)))
    shares = (predictor.device.type == "cpu" and predictor.concurrent for predictor in predictors)
    return [each for each, is_shared in zip(predictors, shares) for _ in range(threads if is_shared else 1)]

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

_MOST_ON_A_CPU = 4  # more wait for Python's lock; they share the cores evenly instead
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
    threads, shares = torch.get_num_threads(), _shares(predictors)
    if len(shares) == 1:  # in the caller's thread, whose settings of torch are the caller's
        yield from (work(predictors[0], piece) for piece in pieces)
        return
    free: SimpleQueue[NoisePredictor] = SimpleQueue()
    for predictor, _ in shares:
        free.put(predictor)

    def work_on(piece: _Piece) -> _Result:
        predictor = free.get()
        try:
            return work(predictor, piece)
        finally:
            free.put(predictor)

    least = min(each for _, each in shares)
    pieces = iter(pieces)
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(len(shares), "diffpath-scores", torch.set_num_threads, (least,)) as pool:
        try:
            waiting.extend(pool.submit(work_on, piece) for piece in islice(pieces, _AHEAD * len(shares)))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work_on, piece) for piece in islice(pieces, 1))
        finally:
            for each in waiting:
                each.cancel()
            torch.set_num_threads(threads)  # new threads begin with what was set last, in whichever thread


def count_workers(predictors: Sequence[NoisePredictor]) -> int:
    """How many pieces are worked on at the same time."""
    return len(_shares(predictors))


def _shares(predictors: Sequence[NoisePredictor]) -> list[tuple[NoisePredictor, int]]:
    """A predictor for each worker, and how many threads of torch's it uses."""
    on_cpu = sum(predictor.device.type == "cpu" for predictor in predictors)
    threads = max(1, torch.get_num_threads() // max(1, on_cpu))
    shares = []
    for predictor in predictors:
        count = min(threads, _MOST_ON_A_CPU) if predictor.device.type == "cpu" and predictor.concurrent else 1
        shares += [(predictor, max(1, threads // count))] * count
    return shares

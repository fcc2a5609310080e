"""Pieces are scored side by side: in order, without waiting for one another, and with the same digits."""

import threading
import time

import numpy as np
import pytest
import torch
from conftest import read_demo

from diffpath import DiffPathV2
from diffpath.method.workers import run_side_by_side
from diffpath.models import NoisePredictor

ALPHAS = torch.linspace(0.999, 0.01, 100)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def predictor(concurrent=True, device="cpu"):
    return NoisePredictor(lambda inputs, times: inputs, ALPHAS, concurrent=concurrent, device=device)


def test_results_come_in_order_whichever_is_done_first():
    def work(_, piece):
        time.sleep(0.05 if piece % 2 else 0.0)
        return piece

    assert list(run_side_by_side([predictor()], work, range(9))) == list(range(9))


def test_pieces_are_worked_on_at_the_same_time_and_while_a_result_is_used():
    together = threading.Barrier(2, timeout=20)
    begun = threading.Event()

    def work(_, piece):
        if piece < 2:
            together.wait()
        if piece == 2:
            begun.set()
        return piece

    results = run_side_by_side([predictor()], work, range(5))
    assert next(results) == 0 and begun.wait(20)
    assert list(results) == [1, 2, 3, 4]


def test_no_more_pieces_are_taken_than_are_worked_on_soon():
    taken = []
    results = run_side_by_side([predictor()], lambda _, piece: piece, (taken.append(k) or k for k in range(100)))
    next(results)
    assert len(taken) <= 5
    results.close()
    assert len(taken) <= 5


@pytest.mark.parametrize("concurrent", [True, False])
def test_a_network_that_says_nothing_of_threads_is_asked_by_one(concurrent):
    seen = set()
    list(run_side_by_side([predictor(concurrent)], lambda *_: seen.add(threading.get_ident()), range(8)))
    assert (seen == {threading.get_ident()}) == (not concurrent)


def test_every_worker_has_one_of_the_threads_and_the_caller_keeps_its_own():
    torch.set_num_threads(8)
    shares = list(run_side_by_side([predictor()], lambda *_: torch.get_num_threads(), range(8)))
    assert set(shares) == {1} and torch.get_num_threads() == 8
    alone = [predictor(concurrent=False)] * 2
    assert set(run_side_by_side(alone, lambda *_: torch.get_num_threads(), range(8))) == {4}
    begun_later = []
    thread = threading.Thread(target=lambda: begun_later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert begun_later == [8]


def test_what_goes_wrong_with_a_piece_is_raised_in_its_place_and_nothing_is_left_running():
    done = []

    def work(_, piece):
        if piece == 2:
            raise ValueError("piece 2")
        time.sleep(0.02)
        done.append(piece)
        return piece

    results = run_side_by_side([predictor()], work, range(50))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="piece 2"):
        next(results)
    count = len(done)
    time.sleep(0.1)
    assert len(done) == count < 8 and not [t for t in threading.enumerate() if t.name.startswith("diffpath-scores")]


@pytest.mark.parametrize("options", [{"detail": 2}, {"zoom": 2}, {"preset": "paper"}])
def test_neither_threads_nor_devices_change_a_digit(options):
    images = list(read_demo("photos", 9))
    expected = DiffPathV2(device="cpu", num_timesteps=2, **options).score_images(images)
    for threads, device in ((1, "cpu"), (3, "cpu"), (8, "cpu"), (2, "cpu,cpu"), (4, "cpu,cpu")):
        torch.set_num_threads(threads)
        found = DiffPathV2(device=device, num_timesteps=2, **options).score_images(images)
        for name in ("descriptor", "heatmaps", "error_maps", "local"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

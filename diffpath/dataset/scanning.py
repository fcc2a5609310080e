"""Feeds images to the method and results to a store, a chunk at a time."""

import time
from contextlib import closing
from dataclasses import dataclass

import fiftyone as fo
import numpy as np

from .reading import read_images

_FLUSH_IMAGES = 512
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``done`` of ``total`` images, at ``rate`` images per second."""

    label: str
    done: int
    total: int
    rate: float

    @property
    def fraction(self):
        return self.done / max(self.total, 1)

    @property
    def seconds_left(self):
        return (self.total - self.done) / self.rate if self.rate else None


def show_progress(steps, progress):
    """Runs a generator of :class:`Progress` to its end under a progress bar and returns what it returns."""
    with closing(steps):
        first = next(steps)
        with fo.ProgressBar(total=first.total, progress=progress, iters_str="images") as bar:
            return drain(steps, lambda step: bar.set_iteration(step.done))


def drain(steps, show):
    """Runs a generator to its end, shows each step, and returns what the generator returns."""
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            return finished.value
        show(step)


class Scanner:
    """Scores images and counts them.

    Args:
        method: a :class:`diffpath.DiffPathV2`
        num_workers: threads that decode images
        total: how many images there will be
    """

    def __init__(self, method, num_workers, total):
        self.method, self.num_workers, self.total = method, num_workers, total
        self.done, self.started = 0, time.monotonic()

    @property
    def rate(self):
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def progress(self, label):
        return Progress(label, self.done, self.total, self.rate)

    def run(self, paths, store, label):
        """Scores the images of ``{sample id: path}`` into a store; yields :class:`Progress`."""
        if not paths:
            return
        size = self.method.images_per_pass
        reader = read_images(paths.values(), self.method.sides, self.num_workers, lookahead=4 * size)
        flushed = time.monotonic()
        batch = {}
        with closing(reader):
            try:
                for sample_id, (image, error) in zip(paths, reader):
                    self.done += 1
                    if error:
                        store.add_error(sample_id, error)
                    else:
                        batch[sample_id] = image
                    if len(batch) < size:
                        continue
                    self._score(batch, store)
                    batch.clear()
                    if len(store) >= _FLUSH_IMAGES or time.monotonic() - flushed > _FLUSH_SECONDS:
                        store.flush()
                        flushed = time.monotonic()
                    yield self.progress(label)
                self._score(batch, store)
            finally:
                store.flush()
        yield self.progress(label)

    def _score(self, batch, store):
        result = self.method.score_images(list(batch.values()))
        for position, sample_id in enumerate(batch):
            if np.isfinite(result.descriptor[position]).all():
                store.add(sample_id, result[position])
            else:
                store.add_error(sample_id, "the model gave features that are not finite; try dtype='float32'")

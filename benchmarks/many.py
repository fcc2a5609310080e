"""What it takes to fit, score, flag, tag, look at and rename a run of very many images: seconds, and processor time.

    python -m benchmarks.many            # 200,000 samples
    python -m benchmarks.many 1000000

A run over a few pictures is computed, and its samples are copied within the database, each with a score of its
own, until there are as many. Processor time is this process's and the database's together; memory is this process's,
at its peak.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fiftyone as fo
import numpy as np
import psutil
from bson import ObjectId

from diffpath import (
    compute_diffpath,
    continue_diffpath,
    delete_diffpath,
    get_diffpath_info,
    load_diffpath_view,
    rename_diffpath,
    set_diffpath_threshold,
)
from diffpath.dataset.record import INCOMPLETE, require_record
from diffpath.dataset.run import DiffPathRun
from diffpath.operators.panel import data

_PICTURES = Path(__file__).parents[1] / "demo" / "data" / "clean"
_BATCH = 10_000


def main(count: int) -> None:
    """Prints a row for each operation."""
    dataset = fo.Dataset()
    try:
        paths = sorted(_PICTURES.glob("*.png"))[:60]
        dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths], progress=False)
        compute_diffpath(dataset, reference=dataset.view(), run_key="k", num_timesteps=2, progress=False)
        _copy(dataset, count)
        print(f"{dataset.count():,} samples\n\n| | seconds | processor | memory, MB |\n|---|---|---|---|")
        require_record(dataset, "k").patch(dataset, status=INCOMPLETE)
        with _timed("a reference fitted on all of them, and all scored by it"):
            continue_diffpath(dataset, "k", progress=False)
        with _timed("the view of the most anomalous first"):
            load_diffpath_view(dataset, "k").limit(50).values("id")
        with _timed("threshold"):
            set_diffpath_threshold(dataset, "k", "count", count // 50)
        with _timed("another threshold, with a tag"):
            set_diffpath_threshold(dataset, "k", "count", count // 20, tag="odd")
        with _timed("the tag follows a third threshold"):
            set_diffpath_threshold(dataset, "k", "count", count // 10)
        run = DiffPathRun.load(dataset, "k")
        with _timed("panel: histogram"):
            data.score_histogram(data.view_scores(dataset.view(), run), data.reference_scores(run))
        with _timed("panel: scatter"):
            data.feature_points(dataset.view(), run, *data.COMPONENT_NAMES)
        with _timed("panel: scatter of a filtered view"):
            data.feature_points(dataset.match_tags("odd"), run, *data.COMPONENT_NAMES)
        with _timed("info"):
            get_diffpath_info(dataset, "k")
        with _timed("rename"):
            rename_diffpath(dataset, "k", "other")
        with _timed("delete"):
            delete_diffpath(dataset, "other")
    finally:
        dataset.delete()


def _copy(dataset: fo.Dataset, count: int) -> None:
    """Fills a dataset up with copies of its samples, with other scores."""
    collection = dataset._sample_collection
    stored = list(collection.find())
    random = np.random.default_rng(0)
    for first in range(len(stored), count, _BATCH):
        copies = []
        for row in range(first, min(first + _BATCH, count)):
            sample = dict(stored[row % len(stored)], _id=ObjectId(), _rand=float(random.uniform()))
            sample["k_score"] += float(random.normal())
            copies.append(sample)
        collection.insert_many(copies, ordered=False)
    dataset.reload()


@contextmanager
def _timed(what: str) -> Iterator[None]:
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began, used = time.monotonic(), _processor()
    yield
    seconds, processor = time.monotonic() - began, _processor() - used
    done.set()
    watcher.join()
    print(f"| {what} | {seconds:.1f} | {processor:.1f} | {peak[0] / 1e6:,.0f} |", flush=True)


def _processor() -> float:
    """Seconds of processor time of this process and of its database; of all databases here, if it began none."""
    ours = [each for each in psutil.Process().children(recursive=True) if each.name() == "mongod"]
    found = ours or [each for each in psutil.process_iter() if each.name() == "mongod"]
    return sum(sum(each.cpu_times()[:2]) for each in (psutil.Process(), *found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)

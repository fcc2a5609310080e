"""What a run's memory and time grow by with the number of images: real files, fields and maps, without a network.

    python -m benchmarks.growth 5000 20000 50000

Each size is a process of its own, which makes the files (links to the demo's pictures), a data set and a
run over it, fitted on itself, with a predictor that costs nothing. Memory is this process's resident set:
at its peak, beyond what it was when everything was loaded and the data set was there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path

_PICTURES = Path(__file__).parents[1] / "demo" / "photographs" / "reference"
_COLUMNS = "images", "before", "at the peak", "a further image", "images/s", "while scoring"


def main(counts: list[int]) -> None:
    """Prints a row for each size."""
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}", flush=True)
    before: tuple[int, float] | None = None
    for count in counts:
        made = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", "--one", str(count)], capture_output=True, text=True, check=True
        )
        first, peak, seconds, scoring = map(float, made.stdout.split()[-4:])
        each = "" if before is None else f"{(peak - before[1]) / (count - before[0]) * 1e6:,.0f} bytes"
        rates = f"{count / seconds:,.0f} | {count / scoring:,.0f}"
        print(f"| {count:,} | {first:,.0f} MB | {peak:,.0f} MB | {each} | {rates} |", flush=True)
        before = count, peak


def one(count: int) -> None:
    """Makes a run over so many images; prints MB at the beginning and the peak, and seconds, of all and of scoring."""
    import fiftyone as fo
    import psutil

    from benchmarks.speed import free_predictor
    from diffpath.dataset.scoring import iterate_diffpath

    process, peak, done = psutil.Process(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss / 1e6)

    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, source in enumerate(islice(cycle(sorted(_PICTURES.iterdir())), count)):
            files.append(Path(folder, f"{number // 1000:04}", f"{number:07}.jpg"))
            files[-1].parent.mkdir(exist_ok=True)
            _link(source, files[-1])
        dataset = fo.Dataset()
        dataset.add_samples((fo.Sample(filepath=str(path)) for path in files), progress=False)
        del files
        first = process.memory_info().rss / 1e6
        threading.Thread(target=watch, daemon=True).start()
        started = time.perf_counter()
        scored = started
        for step in iterate_diffpath(dataset, model=free_predictor(), run_key="k", num_workers=2):
            if step.done <= step.total:
                scored = time.perf_counter()
        finished = time.perf_counter()
        done.set()
        assert dataset.count("k_score") == count
        dataset.delete()
    print(first, peak[0], finished - started, scored - started)


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # another file system
        path.write_bytes(source.read_bytes())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        main([int(count) for count in sys.argv[1:]] or [5000, 20_000, 50_000])

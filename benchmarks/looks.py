"""What the detail look and the larger view cost: files scored from disk, as multiples of the whole look alone.

    python -m benchmarks.looks ~/photographs [--rounds 5] [--device cpu]

All settings take turns on the same files, some rounds long; the median of the ratios within a round
is printed, with the least and the greatest, so that what else the machine does counts for all alike.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from diffpath import DiffPathV2
from diffpath.images import load_looks

SETTINGS = {
    "whole look alone": {"detail": 0},
    "detail=2": {"detail": 2},
    "detail=3": {"detail": 3},
    "detail=5": {"detail": 5},
    "zoom=3": {"detail": 0, "zoom": 3},
}
COUNT = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=None)
    arguments = parser.parse_args()
    files = sorted(arguments.folder.expanduser().rglob("*.jpg"))[:COUNT]
    methods = {name: DiffPathV2(device=arguments.device, **options) for name, options in SETTINGS.items()}
    for method in methods.values():
        score(method, files[:4])
    seconds = np.array([[score(method, files) for method in methods.values()] for _ in range(arguments.rounds)])
    ratios = seconds / seconds[:, :1]
    print(f"{len(files)} files on {methods['detail=3'].predictor.device}, {arguments.rounds} rounds")
    for name, column, of in zip(methods, ratios.T, seconds.T):
        print(
            f"{name:<18}{np.median(column):>6.2f} times ({column.min():.2f} to {column.max():.2f}), "
            f"{len(files) / np.median(of):.1f} images per second"
        )


def score(method, files):
    """Seconds from the files to their scores' numbers."""
    started = time.perf_counter()
    value_range = method.options.value_range
    score_looks(method, [load_looks(file, method.sides, value_range, method.crop_plan) for file in files])
    return time.perf_counter() - started


def score_looks(method, looks):
    """Scores pictures that are prepared one by one."""
    whole = np.stack([each.whole for each in looks])
    return method.score_prepared(whole, None if method.crop_plan is None else np.stack([each.crops for each in looks]))


if __name__ == "__main__":
    main()

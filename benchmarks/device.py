"""A device beside the CPU: are the numbers the same, does a lack of memory matter, how fast is it.

    python -m benchmarks.device cuda ~/photographs

Two minutes with a GPU. What is compared are descriptors of the first pictures of a folder in units of
their own deviation, the bundled model's, against the CPU's in float32.
"""

import argparse
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr

from benchmarks.looks import score_looks
from diffpath import DiffPathV2
from diffpath.training.crops import SUFFIXES

COMPARED, TIMED = 48, 200  # pictures
CONFIGURATIONS = {
    "default": {},
    "detail=3": {"detail": 3},
    "zoom=3": {"zoom": 3},
    "preset=paper": {"preset": "paper"},
    "num_noise_draws=3": {"num_noise_draws": 3},
}
MEMORY = 3e9  # bytes that are allowed where the lack of memory is tried
TOO_MANY = 200_000  # evaluations at once, more than fit into that


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", help="cuda, mps or cpu")
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("--times", type=int, default=20, help="how often each of them is scored where it is timed")
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.folder.expanduser().rglob("*") if path.suffix.lower() in SUFFIXES)
    pictures = [Image.open(path).convert("RGB") for path in files[:TIMED]]
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    print(f"{name}, torch {torch.__version__}, {len(pictures)} pictures\n")
    compare(arguments.device, pictures[:COMPARED])
    compare_batches(arguments.device, pictures[:COMPARED])
    if arguments.device.startswith("cuda"):
        lack_memory(arguments.device, pictures)
    measure(arguments.device, pictures, arguments.times)


def compare(device, pictures):
    """Every configuration in float32 and in the device's own type."""
    for name, options in CONFIGURATIONS.items():
        expected = DiffPathV2(device="cpu", dtype="float32", **options).score_images(pictures)
        for dtype in ("float32", None):
            method = DiffPathV2(device=device, dtype=dtype, **options)
            found = method.score_images(pictures)
            columns = zip(found.descriptor.T, expected.descriptor.T, strict=True)
            rank = min(spearmanr(*pair)[0] for pair in columns)
            heatmap, error_map = (
                np.abs(getattr(found, each) - getattr(expected, each)).max() for each in ("heatmaps", "error_maps")
            )
            print(
                f"{name:<18}{method.predictor.dtype!s:<16}off by {deviation(found, expected)}, lowest rank "
                f"correlation {rank:.4f}; heatmap off by {heatmap:.4f}, error map {error_map:.4f}",
                flush=True,
            )


def compare_batches(device, pictures):
    """The same pictures in other batches, and by two workers."""
    for dtype in ("float32", None):
        method = DiffPathV2(device=device, dtype=dtype, detail=3)
        together = method.score_images(pictures)
        parts = [method.score_images(pictures[k : k + 7]) for k in range(0, len(pictures), 7)]
        by_two = DiffPathV2(device=[device, device], dtype=dtype, detail=3).score_images(pictures)
        for name, found in (("seven at a time", type(together).concatenate(parts)), ("two workers", by_two)):
            print(f"{name:<18}{method.predictor.dtype!s:<16}off by {deviation(found, together)}", flush=True)


def lack_memory(device, pictures):
    """More evaluations at once than fit."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(MEMORY / torch.cuda.get_device_properties(device).total_memory)
    method = DiffPathV2(device=device, dtype="float32", max_evaluations=TOO_MANY)
    found = method.score_images(list(islice(cycle(pictures), TOO_MANY // 10)))
    torch.cuda.set_per_process_memory_fraction(1.0)
    expected = DiffPathV2(device=device, dtype="float32").score_images(pictures)
    off = deviation(found[: len(pictures)], expected)
    print(f"{MEMORY / 1e9:.0f} GB allowed, {TOO_MANY:,} evaluations asked at once: parts of {method.max_evaluations:,}")
    print(f"{'':<34}off by {off}\n", flush=True)


def measure(device, pictures, times):
    """Images a second that are resized already, and evaluations a second of the network alone."""
    for name, options in {**CONFIGURATIONS, "float32": {"dtype": "float32"}}.items():
        method = DiffPathV2(device=device, **options)
        looks = [method._prepare(picture, 0) for picture in pictures] * times
        score_looks(method, looks[: len(pictures)])
        speed = len(looks) / seconds(device, lambda method=method, looks=looks: score_looks(method, looks))
        noisy = torch.randn(method.max_evaluations, 3, method.resolution, method.resolution, device=device)
        timesteps = torch.full((len(noisy),), 500, device=device)

        def ask(predictor=method.predictor, noisy=noisy, timesteps=timesteps):
            for _ in range(times):
                predictor.predict_noise(noisy, timesteps, max_evaluations=len(noisy))

        bare = times * len(noisy) / seconds(device, ask)
        print(f"{name:<18}{speed:9,.0f} images/s; the network alone {bare:9,.0f} evaluations/s", flush=True)


def seconds(device, work):
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def deviation(found, expected):
    """The largest and the mean difference of descriptors, in units of each number's deviation over the pictures."""
    off = np.abs(found.descriptor - expected.descriptor) / (expected.descriptor.std(axis=0) + 1e-9)
    return f"{off.max():.4f} at most, {off.mean():.5f} on average"


if __name__ == "__main__":
    main()

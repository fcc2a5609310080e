"""How fast the network is asked, and what everything beside it costs: idle, and beside other processes.

    python -m benchmarks.speed                    # ten minutes on two cores
    python -m benchmarks.speed --device cuda      # two minutes
    python -m benchmarks.speed --profile          # where the time beside the network goes

Every row of one table scores the same pictures, JPEG files of 500×375, at ten evaluations for each, in
turns, round by round; ratios are medians over the rounds. "No network" is a predictor that costs nothing:
what a fast GPU would be fed with.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import fiftyone as fo
import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image

from benchmarks.accuracy.peers import TRAJECTORIES
from diffpath import DiffPathV2, compute_diffpath, delete_diffpath
from diffpath.folders.scanning import drain
from diffpath.folders.scoring import fit_files, score_files
from diffpath.images import load_image
from diffpath.method.trajectory import noise_bank
from diffpath.method.workers import run_side_by_side
from diffpath.models import NoisePredictor, Schedule

_PICTURES = Path(__file__).parents[1] / "demo" / "photographs" / "reference"
_SIZE = 500, 375
_BASE = "score_prepared"
_CEILING = 4000  # pictures, where there is no network
_OPTIONS = {"num_timesteps": 10, "detail": 0}
_Result = TypeVar("_Result")


def main() -> None:
    """Prints a table for each load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--count", type=int, help="pictures; by default 96 on a CPU, 4,000 elsewhere")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 1, 4], help="processes beside this one")
    parser.add_argument("--only", nargs="*", help="rows")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    method = DiffPathV2(device=given.device, dtype=given.dtype, **_OPTIONS)
    count = given.count or (96 if method.predictor.device.type == "cpu" else 4000)
    print(
        f"{method.predictor.device}, {method.predictor.dtype}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {count} pictures of {_SIZE[0]}×{_SIZE[1]}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(method, write_pictures(Path(folder), count), Path(folder))
        if given.profile:
            profile(rows)
            return
        for busy in given.busy:
            with processes(busy):
                compare(rows.all(), count, busy, given.rounds, given.only)
        if given.only is None:
            ceiling(Path(folder))


def write_pictures(folder: Path, count: int) -> list[str]:
    """JPEG files of 500×375, the demo's photographs over and over, each shifted by some pixels."""
    found = [Image.open(path).convert("RGB") for path in sorted(_PICTURES.iterdir())]
    paths = []
    for number in range(count):
        picture = found[number % len(found)].resize((_SIZE[0] + 32, _SIZE[1] + 32), Image.Resampling.BICUBIC)
        left, top = number // len(found) % 32, number // (32 * len(found)) % 32
        path = folder / f"{number:06}.jpg"
        picture.crop((left, top, left + _SIZE[0], top + _SIZE[1])).save(path, quality=90)
        paths.append(str(path))
    return paths


class Rows:
    """What is compared: each method scores all pictures.

    Args:
        method: a :class:`diffpath.DiffPathV2`
        files: the pictures
        folder: for maps
    """

    def __init__(self, method: DiffPathV2, files: Sequence[str], folder: Path) -> None:
        self.method, self.files, self.folder = method, files, folder
        self.images = np.stack([load_image(path, method.sides) for path in files])
        predictor = method.predictor
        self._how = {"model": predictor, "device": str(predictor.device), "options": method.options}
        self.reference = finish(fit_files(files[:40], **self._how))
        self.dataset = fo.Dataset()
        self.dataset.add_samples([fo.Sample(filepath=path) for path in files], progress=False)

    def all(self) -> dict[str, Callable[[], object]]:
        """Them by name."""
        return {
            "network alone": self.ask_network,
            _BASE: lambda: self.method.score_prepared(self.images),
            "score_images": self.score_images,
            "diffpath score, with maps": self.score_files,
            "compute_diffpath": self.compute,
            "DDIM inversion, of DiffPath": lambda: self.run_peer("ddim"),
            "DDPM-OOD": lambda: self.run_peer("ddpm-ood"),
        }

    def ask_network(self) -> None:
        predictor, size = self.method.predictor, self.method.evaluations_per_pass
        steps = self.method.timesteps.to(predictor.device)
        noisy = torch.randn(size, predictor.channels, self.method.resolution, self.method.resolution)
        noisy = noisy.to(predictor.device).contiguous(memory_format=torch.channels_last)
        timesteps = steps[torch.arange(size, device=predictor.device) % len(steps)]

        def ask(on: NoisePredictor, _: int) -> None:
            on.predict_noise(noisy, timesteps, max_evaluations=size)

        finish(run_side_by_side([predictor], ask, range(len(self.files) * len(steps) // size)))
        if predictor.device.type == "cuda":
            torch.cuda.synchronize()

    def score_images(self) -> None:
        self.method.score_images([Image.open(path).convert("RGB") for path in self.files])

    def score_files(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as maps:
            how = {name: value for name, value in self._how.items() if name != "options"}
            finish(
                score_files(self.files, self.reference, rule="false_positive_rate", level=0.05, maps=Path(maps), **how)
            )

    def compute(self) -> None:
        options = {**_OPTIONS, "model": self._how["model"], "device": self._how["device"]}
        compute_diffpath(self.dataset, reference=self.reference, run_key="k", progress=False, **options)
        delete_diffpath(self.dataset, "k")

    @torch.inference_mode()
    def run_peer(self, kind: str) -> None:
        predictor = self.method.predictor
        clean = torch.from_numpy(self.images).permute(0, 3, 1, 2).to(predictor.device).float() / 127.5 - 1
        noise = noise_bank(1, predictor.channels, self.method.resolution, 0).to(predictor.device)
        steps = self.method.timesteps.to(predictor.device)
        for part in clean.split(self.method.evaluations_per_pass):
            TRAJECTORIES[kind](predictor, part, steps, noise).cpu()


def compare(
    rows: dict[str, Callable[[], object]], count: int, busy: int, rounds: int, only: Sequence[str] | None
) -> None:
    """Prints pictures a second of each row, and its time as a multiple of the base's."""
    chosen = {name: run for name, run in rows.items() if only is None or name in (*only, _BASE)}
    for run in chosen.values():
        run()  # whatever is made once
    seconds = np.array([[timed(run) for run in chosen.values()] for _ in range(rounds)])
    ratios = seconds / seconds[:, [list(chosen).index(_BASE)]]
    print(f"\nbeside {busy} busy processes\n\n| | pictures/s | time, {_BASE} = 1 |\n|---|---|---|")
    for name, column, ratio in zip(chosen, seconds.T, ratios.T):
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        print(f"| {name} | {count / np.median(column):,.1f} | {spread} |", flush=True)


def ceiling(folder: Path) -> None:
    """Prints how many files a second become fields and maps where the network costs nothing."""
    rows = Rows(DiffPathV2(free_predictor(), **_OPTIONS), write_pictures(folder, _CEILING), folder)
    print("\nno network\n\n| | pictures/s |\n|---|---|")
    for name in (_BASE, "diffpath score, with maps", "compute_diffpath"):
        print(f"| {name} | {_CEILING / timed(rows.all()[name]):,.0f} |", flush=True)


def free_predictor() -> NoisePredictor:
    """A predictor that costs nothing: for it all that is noised is noise."""
    schedule = Schedule.variance_preserving(DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod)
    return NoisePredictor(lambda inputs, _: inputs, schedule, resolution=32, concurrent=True)


def profile(rows: Rows) -> None:
    """Prints where the main thread of ``compute_diffpath`` spends its time."""
    profiler = cProfile.Profile()
    profiler.runcall(rows.compute)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


@contextmanager
def processes(count: int) -> Iterator[None]:
    """Keeps so many cores busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def finish(steps: Generator[object, None, _Result]) -> _Result:
    """Runs a generator to its end."""
    return drain(steps, lambda _: None)  # type: ignore[arg-type]  # of any steps


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

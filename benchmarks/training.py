"""Compares base models on the development sets: which architecture, which training pictures?

Takes diffusers folders, or folders that ``python -m diffpath train`` writes, and prints a row
of Markdown for each: what its training cost, its held-out loss, the processor time of an
evaluation, and AUROC over all ordered pairs: of the default preset, of its six features
alone, and over the pairs without clothing, which one base was trained on. ``random`` is the
bundled shape with weights that were never trained. Run it from the project's folder::

    python -m benchmarks.training bundled random training/runs/*/model

Evaluations are kept in the benchmark's cache under the model's fingerprint. With
``--linear CONFIG`` a second table gives the noise error by timestep on the development
photographs, which no model was trained on, beside the optimal linear denoiser of that
configuration's training crops.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from diffpath import AnomalyDetector
from diffpath.training.config import read_config
from diffpath.training.crops import load_crops
from diffpath.training.report import TIMESTEP_FRACTIONS, linear_baseline, loss_by_timestep, to_network_scale

from .accuracy.datasets import DEVELOPMENT, load_set, split
from .accuracy.descriptors import default_descriptor
from .accuracy.evaluations import Evaluations, load_predictor, random_weights
from .accuracy.protocol import SEEDS, run_pairs, summary

COUNT = 160  # of each set: half to fit, three tenths to test
HEADER = (
    "| model | parameters | steps | processor | held-out loss | ms per evaluation | AUROC | six features "
    "| without clothing | minimum | worst pair |"
)
_AT_ONCE = 16  # noisy images of a forward pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="bundled, or diffusers folders")
    parser.add_argument("--count", type=int, default=COUNT, help="images of each set")
    parser.add_argument("--linear", metavar="CONFIG", help="a training configuration, for the linear baseline")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file too")
    arguments = parser.parse_args()
    print(HEADER, "|" + "---|" * HEADER.count(" |"), sep="\n", flush=True)
    rows = {}
    models = {name_of(model): random_weights() if model == "random" else model for model in arguments.models}
    for name, model in models.items():
        rows[name] = row = measure(model, arguments.count)
        print(line(name, row), flush=True)
    if arguments.linear:
        print(*loss_table(models, arguments.linear, arguments.count), sep="\n", flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


def name_of(model):
    path = Path(model)
    return path.parent.name if path.name == "model" else path.name


def measure(model, count):
    """The training's own metrics, where the folder has them, and the accuracy over the pairs."""
    predictor = load_predictor(model)
    evaluations = Evaluations(predictor)
    sets = {name: load_set(name).first(count) for name in DEVELOPMENT}
    features = {name: default_descriptor(evaluations, made.images) for name, made in sets.items()}
    splits = {(name, seed): split(made.sources, seed) for name, made in sets.items() for seed in SEEDS}
    results, six = (
        run_pairs(
            {name: X[:, :size] for name, X in features.items()},
            splits,
            lambda seed: AnomalyDetector(random_state=seed),
            permutations(sets, 2),
        )
        for size in (None, 6)
    )
    path = Path(model) / "metrics.json"
    training = json.loads(path.read_text()) if path.is_file() else {}
    elsewhere = {pair: runs for pair, runs in results.items() if "clothing" not in pair}
    return {
        "training": training,
        "milliseconds": milliseconds(predictor),
        "pairs": summary(results),
        "six_features": summary(six),
        "without_clothing": summary(elsewhere),
    }


@torch.inference_mode()
def milliseconds(predictor, repetitions=5):
    """Processor time of one evaluation: the least over some repetitions."""
    noisy = torch.randn(_AT_ONCE, predictor.channels, predictor.resolution, predictor.resolution)
    timesteps = torch.full((_AT_ONCE,), predictor.num_train_timesteps // 2)
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        predictor.predict_noise(noisy, timesteps)
        times.append(time.process_time() - start)
    return 1000 * min(times) / _AT_ONCE


def loss_table(models, config, count):
    """Lines of a Markdown table: the mean squared noise error by timestep, of the linear denoiser and each model."""
    config = read_config(config)
    predictors = {name: load_predictor(model) for name, model in models.items()}
    predictor = next(iter(predictors.values()))
    timesteps = [int(fraction * predictor.num_train_timesteps) for fraction in TIMESTEP_FRACTIONS]
    photographs = load_set("photos").images[:count]
    crops = replace(load_crops(config.data, config.seed), held_out=photographs)
    columns = {"linear": linear_baseline(crops, predictor.alphas_cumprod[timesteps])}
    for name, predictor in predictors.items():
        columns[name] = loss_by_timestep(predictor, to_network_scale(photographs), timesteps)
    yield f"| noise error at t | {' | '.join(str(t) for t in timesteps)} |"
    yield "|" + "---|" * (len(timesteps) + 1)
    for name, losses in columns.items():
        yield f"| {name} | {' | '.join(f'{loss:.4f}' for loss in losses)} |"


def line(name, row):
    """A row of the Markdown table."""
    training, pairs = row["training"], row["pairs"]
    cost = "| – | – | – | – "
    if training:
        loss = f"{np.mean(training['held_out_loss']):.3f}"
        cost = (
            f"| {training['parameters'] / 1e6:.2f} M | {training['steps']:,} × "
            f"{training['images_seen'] // max(1, training['steps'])} | {training['cpu_seconds']:.0f} s | {loss} "
        )
    return (
        f"| {name} {cost}| {row['milliseconds']:.0f} | {pairs['average']:.3f} ± {pairs['spread']:.3f} "
        f"| {row['six_features']['average']:.3f} | {row['without_clothing']['average']:.3f} "
        f"| {pairs['minimum']:.3f} | {pairs['worst_pair'][0]} / {pairs['worst_pair'][1]} |"
    )


if __name__ == "__main__":
    main()

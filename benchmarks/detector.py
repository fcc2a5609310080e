"""Measures the detector's own choices, on development sets only, without running the network again.

    python -m benchmarks.detector [standardisation] [contamination] [rescoring]

- ``standardisation``: AUROC over all ordered pairs of the development sets of
  ``benchmarks.accuracy`` by how the default preset's descriptor is standardised and by
  density;
- ``contamination``: what a self-reference finds at 0, 1, 5, 10 and 20 % contamination, also
  fused with frozen features, and where groups say that the intruders are of one source;
- ``rescoring``: how long it takes to score 100,000 stored descriptors again.

Seeds 0, 1 and 2; the first call fetches the sets and evaluates the bundled model, which
``rescoring`` does not need.
"""

import argparse
import time
from functools import partial
from itertools import permutations

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import QuantileTransformer

from diffpath import AnomalyDetector, FusedDetector
from diffpath.dataset.sources import SELF_REFERENCE
from diffpath.detection.densities import DENSITIES

from .accuracy.datasets import DEVELOPMENT, load_set, split
from .accuracy.descriptors import descriptor, statistics
from .accuracy.evaluations import Evaluations, load_predictor
from .accuracy.methods import DEFAULT
from .accuracy.peers import frozen_features
from .accuracy.protocol import SEEDS, run_pairs, summary

SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)
SOURCES = 10  # of the images that are no intruders, where groups are given


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["standardisation", "contamination", "rescoring"])
    parts = parser.parse_args().parts
    if set(parts) - {"rescoring"}:
        evaluations = Evaluations(load_predictor())
        sets = {name: load_set(name) for name in DEVELOPMENT}
        features = {
            name: descriptor(statistics(evaluations, images.images), DEFAULT).astype(np.float64)
            for name, images in sets.items()
        }
        splits = {(name, seed): split(images.sources, seed) for name, images in sets.items() for seed in SEEDS}
        print(f"Sets: {', '.join(f'{name} ({len(X)})' for name, X in features.items())}; seeds {SEEDS}\n")
    if "standardisation" in parts:
        standardisation(features, splits)
    if "contamination" in parts:
        contamination(features, {name: frozen_features(images.images) for name, images in sets.items()})
    if "rescoring" in parts:
        rescoring()


def standardisation(features, splits):
    print(f"{'standardisation':<34}" + "".join(f"{density:>22}" for density in DENSITIES))
    for name, transform in TRANSFORMS.items():
        cells = []
        for density in DENSITIES:
            results = run_pairs(features, splits, partial(_Plain, transform, density), permutations(features, 2))
            cells.append("{average:.3f} ± {spread:.3f} / {minimum:.3f}".format(**summary(results)))
        print(f"{name:<34}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    print("average AUROC ± spread over seeds / minimum over pairs\n")


def contamination(features, frozen, size=250):
    length = next(iter(frozen.values())).shape[1]
    joined = {name: np.hstack([X, frozen[name]]) for name, X in features.items()}
    rivals = {
        "trimmed (the default)": (features, partial(AnomalyDetector, **SELF_REFERENCE), False),
        "not trimmed, kde": (features, AnomalyDetector, False),
        "frozen features fused": (joined, partial(FusedDetector, length, detector_options=SELF_REFERENCE), False),
        "trimmed, with groups": (features, partial(AnomalyDetector, **SELF_REFERENCE), True),
    }
    print(f"{'self-reference':<24}{'contaminated':>14}{'AUROC':>9}{'found':>9}{'false alarms':>15}")
    for name, (X, make_detector, grouped) in rivals.items():
        for share in SHARES:
            rows = [
                _contaminated(X[inside], X[outside], share, size, seed, make_detector, grouped)
                for inside, outside in permutations(features, 2)
                for seed in SEEDS
            ]
            auroc, found, false = np.nanmean(np.array(rows), axis=0) if share else (np.nan, np.nan, np.mean(rows, 0)[2])
            print(f"{name:<24}{share:>14.0%}{auroc:>9.3f}{found:>9.2f}{false:>15.3f}", flush=True)
    print("found, false alarms: shares flagged of contaminants and of the rest at a false-positive rate of 5 %\n")


def _contaminated(inside, outside, share, size, seed, make_detector, grouped):
    rng = np.random.default_rng(seed)
    count = round(share * size)
    X = np.vstack([rng.permutation(inside)[: size - count], rng.permutation(outside)[:count]])
    truth = np.arange(len(X)) >= len(X) - count
    sources = np.where(truth, SOURCES, np.arange(len(X)) % SOURCES)
    detector = make_detector().fit(X, groups=sources if grouped else None)
    flagged = detector.reference_scores_ >= detector.threshold_
    if not count:
        return np.nan, np.nan, flagged.mean()
    return roc_auc_score(truth, detector.reference_scores_), flagged[truth].mean(), flagged[~truth].mean()


def rescoring(count=100_000, dimensions=60):
    rng = np.random.default_rng(0)
    stored = rng.standard_t(4, (count, dimensions)).astype(np.float32)
    for size in (300, 2_000, 20_000):
        for density in DENSITIES:
            detector = AnomalyDetector(density=density).fit(rng.standard_t(4, (size, dimensions)))
            started = time.perf_counter()
            detector.p_values(stored)
            seconds = time.perf_counter() - started
            print(
                f"{count:,} stored descriptors of {dimensions} numbers, {density} of {size:,} images: {seconds:.1f} s"
            )


class _Plain:
    """A transform and a density, without calibration."""

    def __init__(self, transform, density, seed):
        self.transform, self.density, self.seed = transform, density, seed

    def fit(self, X):
        self.apply = self.transform(X)
        Z = self.apply(X)
        self.mean, self.deviation = Z.mean(axis=0), np.where(Z.std(axis=0) > 0, Z.std(axis=0), 1)
        self.fitted = DENSITIES[self.density].fit((Z - self.mean) / self.deviation, random_state=self.seed)
        return self

    def score_samples(self, X):
        return -self.fitted.log_density((self.apply(X) - self.mean) / self.deviation)


def _robust(linear_range):
    def fit(X):
        lower, median, upper = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
        scale = np.where(upper > lower, upper - lower, 1) / 1.349
        if linear_range is None:
            return lambda values: (values - median) / scale
        return lambda values: np.arcsinh((values - median) / (linear_range * scale))

    return fit


def _logarithm(X):
    scale = X.std(axis=0)
    return lambda values: np.sign(values) * np.log1p(np.abs(values / np.where(scale > 0, scale, 1)))


def _ranks(X):
    return QuantileTransformer(n_quantiles=len(X), output_distribution="normal").fit(X).transform


TRANSFORMS = {
    "mean and deviation": lambda X: lambda values: values,
    "median and interquartile range": _robust(None),
    "sign · log(1 + |x| / deviation)": _logarithm,
    "normal scores of ranks": _ranks,
    "arcsinh, linear within 1 sd": _robust(1),
    "arcsinh, linear within 3 sd": _robust(3),
    "arcsinh, linear within 10 sd": _robust(10),
    "arcsinh, linear within 30 sd (ours)": _robust(30),
}


if __name__ == "__main__":
    main()

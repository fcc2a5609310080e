"""Every method of the tables: what it computes of an image, at how many network evaluations, and its detector."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.preprocessing import Normalizer, StandardScaler

from diffpath import AnomalyDetector, FusedDetector
from diffpath.method.descriptor import FREQUENCY_BANDS

from . import peers
from .descriptors import default_descriptor, descriptor, statistics
from .evaluations import random_weights

_FROZEN_LENGTH = 1280
DEFAULT = ("six signed", "profile 0.2", "library statistics")
PAPER = ("six squared, standard weight",)


class Method(NamedTuple):
    """A row of the tables.

    Attributes:
        evaluations: of the network per image
        features: (evaluations, images) -> ``(N, D)``
        detector: seed -> an object with ``fit(X)`` and ``score_samples(X)``, higher for anomalies
        group: "diffpath", "trajectory" (a peer on the same base model) or "floor"
    """

    evaluations: int
    features: Callable
    detector: Callable
    group: str


def from_statistics(*names):
    """A method's features that follow from the cached score errors."""
    return lambda evaluations, images: descriptor(statistics(evaluations, images), names)


def from_trajectory(kind, columns=slice(None)):
    """A method's features along its own trajectory."""

    def compute(evaluations, images):
        return peers.trajectory_statistics(kind, evaluations.predictor, images)[:, columns]

    return compute


def _one_dimension(evaluations, images):
    """√Σ(∂t ε̂)², the single number of DiffPath-1D."""
    return peers.trajectory_statistics("ddim", evaluations.predictor, images)[:, [4]] ** 0.5


def _mean_square(evaluations, images):
    return statistics(evaluations, images)["square"].mean(axis=1, keepdims=True)


def _with_image_quality(evaluations, images):
    return np.hstack([descriptor(statistics(evaluations, images), DEFAULT), peers.image_quality(images)])


def _with_frozen_features(evaluations, images):
    return np.hstack([descriptor(statistics(evaluations, images), DEFAULT), peers.frozen_features(images)])


def fused(seed):
    return FusedDetector(_FROZEN_LENGTH, detector_options={"random_state": seed})


def density(seed, **options):
    return AnomalyDetector(random_state=seed, **options)


METHODS = {
    "diffpath, default": Method(10, from_statistics(*DEFAULT), density, "diffpath"),
    "diffpath fused with frozen features": Method(10, _with_frozen_features, fused, "diffpath"),
    "diffpath, six features": Method(10, from_statistics("six signed"), density, "diffpath"),
    "default and image quality": Method(10, _with_image_quality, density, "diffpath"),
    "diffpath, paper": Method(10, from_statistics(*PAPER), lambda seed: density(seed, density="gmm"), "diffpath"),
    "DiffPath-6D": Method(10, from_trajectory("ddim"), peers.MixtureDetector, "trajectory"),
    "DiffPath-1D": Method(10, _one_dimension, lambda seed: peers.KernelDetector(bandwidth=5), "trajectory"),
    "MSMA": Method(10, from_trajectory("msma"), peers.MixtureDetector, "trajectory"),
    "DDPM-OOD": Method(10, from_trajectory("ddpm-ood"), lambda seed: peers.MeanZScore(), "trajectory"),
    "score-error MSE": Method(10, _mean_square, lambda seed: peers.KernelDetector(), "trajectory"),
    "frozen features": Method(
        0, lambda e, images: peers.frozen_features(images), lambda seed: peers.Neighbours(Normalizer()), "floor"
    ),
    "raw pixels": Method(
        0,
        lambda e, images: images.reshape(len(images), -1) / 255.0,
        lambda seed: peers.Neighbours(StandardScaler(with_std=False)),
        "floor",
    ),
    "HOG and LBP": Method(
        0, lambda e, images: peers.hog_and_lbp(images), lambda seed: peers.Neighbours(StandardScaler()), "floor"
    ),
    "image quality": Method(
        0, lambda e, images: peers.image_quality(images), lambda seed: peers.LargestZScore(), "floor"
    ),
}


class Ablation(NamedTuple):
    """A variant of diffpath: its features and density, options of its evaluations, its base model."""

    features: Callable
    detector: Callable = density
    evaluations: dict = {}  # noqa: RUF012  # nobody changes it
    group: str = "descriptor"
    model: Callable | None = None  # gives the folder; None for the benchmark's

    @property
    def count(self):
        return self.evaluations.get("num_timesteps", 10) * len(self.evaluations.get("draws", (0,)))


def columns(name, chosen):
    return lambda evaluations, images: statistics(evaluations, images)[name][:, chosen]


def _gmm(seed):
    return density(seed, density="gmm")


def _gaussian(seed):
    return density(seed, density="mahalanobis")


ABLATIONS = {
    "default": Ablation(from_statistics(*DEFAULT)),
    "six features": Ablation(from_statistics("six signed")),
    "raw score instead of the score error": Ablation(from_statistics("six of raw score"), group="claims"),
    "without the derivative": Ablation(columns("six signed", slice(0, 3)), group="claims"),
    "without the error": Ablation(columns("six signed", slice(3, 6)), group="claims"),
    **{
        f"without the power {k + 1}": Ablation(
            lambda e, images, k=k: statistics(e, images)["six signed"][:, [c for c in range(6) if c % 3 != k]],
            group="claims",
        )
        for k in range(3)
    },
    **{
        f"{power}, {weight}": Ablation(
            from_statistics(f"six {power}" + ("" if weight == "no weight" else f", {weight}")), group="weights"
        )
        for power in ("signed", "absolute", "squared")
        for weight in ("no weight", "standard weight", "raised weight")
    },
    "paper": Ablation(from_statistics(*PAPER), _gmm, group="claims"),
    "default without the error's spectrum": Ablation(
        lambda e, images: descriptor(statistics(e, images), DEFAULT)[:, : -len(FREQUENCY_BANDS)]
    ),
    "six features and profile": Ablation(from_statistics("six signed", "profile 0.2")),
    "default, Gaussian mixture": Ablation(from_statistics(*DEFAULT), _gmm, group="density"),
    "default, one robust Gaussian": Ablation(from_statistics(*DEFAULT), _gaussian, group="density"),
    "six features, Gaussian mixture": Ablation(from_statistics("six signed"), _gmm, group="density"),
    **{
        name: Ablation(default_descriptor, evaluations=evaluations, group=group)
        for group, name, evaluations in (
            *(("timesteps", f"{number} timesteps", {"num_timesteps": number}) for number in (3, 5, 25, 50)),
            *(
                ("range", f"timesteps from {first} to {last}", {"timestep_range": (first, last)})
                for first, last in ((0.0, 0.45), (0.1, 0.9), (0.3, 0.7))
            ),
            ("draws", "2 draws", {"draws": (0, 1)}),
            ("draws", "a draw and its mirror image", {"draws": (0, "-0")}),
            ("draws", "4 draws", {"draws": tuple(range(4))}),
            ("draws", "8 draws", {"draws": tuple(range(8))}),
            ("draws", "5 timesteps, 2 draws", {"num_timesteps": 5, "draws": (0, 1)}),
            ("draws", "5 timesteps, a draw and its mirror image", {"num_timesteps": 5, "draws": (0, "-0")}),
        )
    },
    "random weights": Ablation(from_statistics(*DEFAULT), group="model", model=random_weights),
    "random weights, six features": Ablation(from_statistics("six signed"), group="model", model=random_weights),
}

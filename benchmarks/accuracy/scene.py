"""Scene statistics, without a network: what they find of corrupted photographs alone and beside the two looks."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import gammaln

from diffpath import AnomalyDetector
from diffpath.detection.calibration import ConformalCalibration, EmpiricalNull
from diffpath.detection.looks import CENSORED, PART_TAIL

LENGTH = 42


def scene_statistics(images):
    """BRISQUE's 36 numbers (Mittal, Moorthy & Bovik 2012) and steps at the edges of 8-pixel blocks, ``(N, 42)``.

    Of grey pictures at two scales: shapes of the distributions of locally normalised luminance
    and of its products with four neighbours. Of each direction's steps between neighbouring
    pixels, in logarithms of their mean over all eight phases: at the blocks' edges, and the
    greatest and the least of the other phases.
    """
    return np.array([_scene(image @ (0.299, 0.587, 0.114)) for image in images.astype(float)])


def _scene(grey):
    numbers = _phases(grey, 1) + _phases(grey, 0)
    for _ in range(2):
        normal = _normalised(grey)
        numbers += _symmetric_shape(normal)
        right, below = normal[:, 1:] * normal[:, :-1], normal[1:] * normal[:-1]
        for product in (right, below, normal[1:, 1:] * normal[:-1, :-1], normal[1:, :-1] * normal[:-1, 1:]):
            numbers += _skewed_shape(product)
        half = Image.fromarray(grey.astype(np.float32))
        grey = np.asarray(half.resize([side // 2 for side in half.size], Image.Resampling.BICUBIC), float)
    return numbers


def _normalised(grey):
    mean, square = (gaussian_filter(values, 7 / 6, truncate=2.5) for values in (grey, grey**2))
    return (grey - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)


_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = np.exp(2 * gammaln(2 / _SHAPES) - gammaln(1 / _SHAPES) - gammaln(3 / _SHAPES))  # (E|x|)² / E x²


def _symmetric_shape(values):
    variance = np.square(values).mean() + 1e-12
    return [np.interp(np.abs(values).mean() ** 2 / variance, _RATIOS, _SHAPES), variance]


def _skewed_shape(values):
    left, right = (
        np.sqrt(np.square(side).mean() + 1e-12) if side.size else 1e-6
        for side in (values[values < 0], values[values > 0])
    )
    skew = left / right
    ratio = np.abs(values).mean() ** 2 / (np.square(values).mean() + 1e-12)
    shape = np.interp(ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2, _RATIOS, _SHAPES)
    mean = (right - left) * np.exp(gammaln(2 / shape) - (gammaln(1 / shape) + gammaln(3 / shape)) / 2)
    return [shape, mean, left**2, right**2]


def _phases(grey, axis):
    steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
    phases = np.array([steps[phase::8].mean() for phase in range(8)]) + 1e-3
    *others, edge = np.log(phases / phases.mean())
    return [edge, max(others), min(others)]


class WithSceneStatistics:
    """A detector of descriptors and one of scene statistics behind them, whose tail probabilities Fisher combines."""

    def __init__(self, of_descriptor):
        self.of_descriptor = of_descriptor  # makes an unfitted one

    def fit(self, X):
        makers = (self.of_descriptor, AnomalyDetector)
        self.fitted_ = [make().fit(part) for make, part in zip(makers, self._split(X))]
        own = [fitted.reference_scores_ for fitted in self.fitted_]
        self.tails_ = [EmpiricalNull(scores, CENSORED, PART_TAIL) for scores in own]
        self.calibration_ = ConformalCalibration(self._combine(own))
        return self

    def score_samples(self, X):
        return self._combine([fitted.score_samples(part) for fitted, part in zip(self.fitted_, self._split(X))])

    def p_values(self, X):
        return self.calibration_.p_values(self.score_samples(X))

    def _combine(self, scores):
        return -np.sum([np.log(np.maximum(tail.p_values(s), 1e-300)) for tail, s in zip(self.tails_, scores)], axis=0)

    def _split(self, X):
        return np.split(X, [-LENGTH], axis=1)

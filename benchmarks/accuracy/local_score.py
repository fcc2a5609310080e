"""Does the most unusual place of an image help its score? Tried, and left out of the library.

The local score is the mean, over the most unusual hundredth of an image's places, of how far a place's
evidence, less its median over the image, lies from what the reference has there: of five kinds of distance
and four shares that were tried on magnetic tiles and solar cells, the one that told defects best. It joins the
score as the detail look and embeddings do, by tail probabilities:

    s = −log p_score − w log p_local

both of the reference's own images, by fits that did not see them.
"""

import numpy as np

from diffpath.detection.calibration import EmpiricalNull
from diffpath.detection.local import _distances, _fit, _standing_out
from diffpath.detection.looks import CENSORED

from .datasets import load_set, split
from .localisation import GROUNDS, TEST_GROUNDS, evidence_of, pasted_patches
from .methods import METHODS
from .protocol import metrics
from .solar import cells_at

WEIGHTS = (0.25, 0.5, 1.0)
_TOP = 0.01
_FOLDS = 5
_CELLS = (300, 400)  # functional and defective


class LocalScore:
    """The local score of a reference's evidence, float ``(n, K, y, x)``."""

    def __init__(self, evidence):
        values = _standing_out(np.asarray(evidence, np.float64))
        fold = np.arange(len(values)) % _FOLDS
        self.of_reference = np.empty(len(values))
        for number in range(_FOLDS):
            out = fold == number
            self.of_reference[out] = top(_distances(values[out], *_fit(values[~out])), _TOP)
        self._fit = _fit(values)

    def __call__(self, evidence):
        return top(_distances(_standing_out(np.asarray(evidence, np.float64)), *self._fit), _TOP)


def top(maps, share):
    """The mean of the highest share of each map."""
    flat = np.sort(maps.reshape(len(maps), -1), axis=1)
    return flat[:, -max(1, round(share * flat.shape[1])) :].mean(axis=1)


def joined(detector, local, descriptors, evidence):
    """Scores by name: the detector's own, the local one, and both."""
    scores, places = detector.score_samples(descriptors), local(evidence)
    of_score, of_places = _surprise(detector.reference_scores_, scores), _surprise(local.of_reference, places)
    both = {f"both, w = {weight:g}": of_score + weight * of_places for weight in WEIGHTS}
    return {"score": scores, "local score": places, **both}


def compare(detector, local, usual, others):
    """AUROC by name of score, of each of the others.

    Args:
        detector: fitted
        local: :class:`LocalScore`
        usual: descriptors and evidence of images like the reference's
        others: of others, a list
    """
    known = joined(detector, local, *usual)
    found = [joined(detector, local, *other) for other in others]
    return {name: [metrics(scores, each[name])["auroc"] for each in found] for name, scores in known.items()}


def measure(evaluations, seeds):
    """Free pairs, pasted patches and solar cells.

    Returns:
        {name of score: {"pairs", "lowest pair", "drawings", "noise", "solar cells": mean AUROC}}
    """
    grounds, default = (*GROUNDS, *TEST_GROUNDS), METHODS["diffpath, default"]
    everything = {name: load_set(name) for name in grounds}
    known = {name: _known(evaluations, made.images) for name, made in everything.items()}
    pasted = {
        (name, patch): _known(evaluations, pasted_patches(name, patch, 30)[0])
        for name in grounds
        for patch in ("drawings", "noise")
    }
    cells = cells_at(32, *_CELLS)
    good, bad = (_known(evaluations, each.images) for each in cells)
    found = {}
    for seed in seeds:
        parts = {name: split(made.sources, seed) for name, made in everything.items()}
        for name in grounds:
            fit, test = (_of(known[name], parts[name][part]) for part in ("fit", "test"))
            others = [_of(known[other], parts[other]["test"]) for other in grounds if other != name]
            detector, local = default.detector(seed).fit(fit[0]), LocalScore(fit[1])
            rows = compare(detector, local, test, [*others, pasted[name, "drawings"], pasted[name, "noise"]])
            for score, (*pairs, drawings, noise) in rows.items():
                for column, values in (("pairs", pairs), ("drawings", [drawings]), ("noise", [noise])):
                    found.setdefault((score, column), []).extend(values)
        fit, test = np.split(np.random.default_rng(seed).permutation(_CELLS[0]), 2)
        detector, local = default.detector(seed).fit(good[0][fit]), LocalScore(good[1][fit])
        for score, (value,) in compare(detector, local, _of(good, test), [bad]).items():
            found.setdefault((score, "solar cells"), []).append(value)
    rows = {}
    for (score, column), values in found.items():
        rows.setdefault(score, {})[column] = float(np.mean(values))
        if column == "pairs":
            rows[score]["lowest pair"] = float(np.min(values))
    return rows


def _known(evaluations, images):
    return METHODS["diffpath, default"].features(evaluations, images), evidence_of(evaluations, images)


def _of(known, rows):
    return tuple(each[rows] for each in known)


def _surprise(reference, values):
    return -np.log(np.maximum(EmpiricalNull(reference, CENSORED).p_values(values), 1e-300))

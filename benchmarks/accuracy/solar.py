"""Functional against defective solar cells: a real anomaly task, whole and in tiles.

Every resolution is the sensor's 300×300 brought to that side by ``diffpath.images``. *Whole*:
the network sees the picture at that side. *Tiled*: it sees tiles of 32×32, side by side; from
the same evaluations follow

    one descriptor   of the picture, as ``DiffPathV2(resolution=…, tile=32)`` computes it
    tile by tile     a descriptor of each tile, with a density of its own place or one of all
                     places; a cell's score aggregates its tiles' scores

Scores of tiles are standardised by those that the fitted images get from fits that did not
see them, as are scores by cell type (mono- or polycrystalline, which whoever makes the
pictures knows). How tiles are aggregated is chosen on functional cells of the calibration part and
half of the defective cells; the figures are those of the others. Sums of views add the
scores of the whole picture at 32 pixels and of the tiles, each standardised on the
calibration part.
"""

import numpy as np
import torch

from diffpath.method.trajectory import Trajectory
from diffpath.models import Tiles

from . import peers
from .datasets import SIDE, solar_cell_types, solar_cells_at, split
from .descriptors import VERSION, default_descriptor, of_trajectory
from .evaluations import Evaluations, cached, to_network_scale
from .methods import METHODS, density
from .protocol import metrics

VIEWS = {"32": (32, None), "64": (64, None), "64 tiled": (64, SIDE), "128": (128, None), "128 tiled": (128, SIDE)}
AGGREGATES = {
    "highest": lambda tiles: tiles.max(axis=1),
    "two highest": lambda tiles: np.sort(tiles, axis=1)[:, -2:].mean(axis=1),
    "highest quarter": lambda tiles: np.sort(tiles, axis=1)[:, -max(1, tiles.shape[1] // 4) :].mean(axis=1),
    "mean": lambda tiles: tiles.mean(axis=1),
}
FLOORS = ("frozen features", "HOG and LBP")
_CHUNK = 20


def measure(predictor, views, num_functional, num_defective, seeds):
    """Rows of the table.

    Args:
        predictor: the base model
        views: names of ``VIEWS``
        num_functional: functional cells, of which half are fitted
        num_defective: defective cells, of which half are tested
        seeds: of splits and fits

    Returns:
        {(view, reading): {"development": AUROC by seed, "test": likewise}}
    """
    scores = {}
    for view in views:
        good, bad = cells_at(VIEWS[view][0], num_functional, num_defective)
        for reading, given in _readings(predictor, view, good, bad, seeds).items():
            scores[view, reading] = given
    splits = [(split(good.sources, seed), split(bad.sources, seed)) for seed in seeds]
    scores |= _several_views(scores, splits)
    return {key: _aurocs(given, splits) for key, given in scores.items()}


def cells_at(resolution, num_functional, num_defective):
    """Functional and defective cells, each an :class:`benchmarks.accuracy.datasets.ImageSet`."""
    return solar_cells_at(resolution, False, num_functional), solar_cells_at(resolution, True, num_defective)


def tile_descriptors(evaluations, images):
    """The default preset's descriptor of every tile, ``(N, tiles, k)``, row by row; cached."""
    tiles = Tiles(evaluations.resolution, SIDE, 0)

    def compute():
        parts = []
        for k in range(0, len(images), _CHUNK):
            chunk = images[k : k + _CHUNK]
            path = evaluations.trajectory(chunk)
            x0, error, reconstruction = (
                _cut(tiles, values) for values in (to_network_scale(chunk), path.score_error, path.reconstruction)
            )
            made = of_trajectory(x0, Trajectory(error, reconstruction), evaluations.time)
            parts.append(made.reshape(len(chunk), len(tiles), -1))
        return np.concatenate(parts)

    return cached("descriptors", (VERSION, "tiles", evaluations.key, images), compute)


def _cut(tiles, values):
    """Tiles of ``(N, …, H, W)`` as ``(N · tiles, …, h, w)``, a picture's tiles side by side."""
    return torch.stack([values[..., top : top + SIDE, left : left + SIDE] for top, left in tiles.corners], 1).flatten(
        0, 1
    )


def _readings(predictor, view, good, bad, seeds):
    """Scores of all cells under each reading of a view: reading -> [(functional, defective)] by seed."""
    resolution, tile = VIEWS[view]
    evaluations = Evaluations(predictor, resolution=resolution, tile=tile)
    fits = [split(good.sources, seed)["fit"] for seed in seeds]
    types = [solar_cell_types(made.sources) for made in (good, bad)]
    whole = [default_descriptor(evaluations, made.images) for made in (good, bad)]
    out = {"one descriptor": [_fitted_scores(density(seed), *whole, fit) for seed, fit in zip(seeds, fits)]}
    out["one descriptor, a reference of each cell type"] = [
        scores_by_type(density, seed, whole, types, split(good.sources, seed)) for seed in seeds
    ]
    if tile:
        parts = [tile_descriptors(evaluations, made.images) for made in (good, bad)]
        for places, name in ((False, "tile by tile, one density"), (True, "tile by tile, a density of each place")):
            tiles = [_tile_scores(*parts, fit, seed, places) for seed, fit in zip(seeds, fits)]
            for aggregate, of in AGGREGATES.items():
                out[f"{name}, {aggregate}"] = [tuple(of(scores) for scores in pair) for pair in tiles]
    if not tile:
        for name in FLOORS:
            features = peers.frozen_features if name == "frozen features" else peers.hog_and_lbp
            values = [features(made.images) for made in (good, bad)]
            out[name] = [_fitted_scores(METHODS[name].detector(s), *values, fit) for s, fit in zip(seeds, fits)]
            out[f"{name}, a reference of each cell type"] = [
                scores_by_type(METHODS[name].detector, seed, values, types, split(good.sources, seed)) for seed in seeds
            ]
    return out


def _fitted_scores(detector, good, bad, fit):
    detector = detector.fit(good[fit])
    return detector.score_samples(good), detector.score_samples(bad)


def scores_by_type(make_detector, seed, descriptors, types, parts):
    """Each cell against fitted cells of its own type, standardised by scores that no cell's own fit gave.

    Args:
        make_detector: seed -> a detector
        seed: of the fits
        descriptors: of functional and of defective cells, ``(N, k)`` each
        types: likewise, ``(N,)`` each
        parts: the functional cells' parts

    Returns:
        scores of functional and of defective cells
    """
    scores = [np.empty(len(made)) for made in descriptors]
    for kind in np.unique(types[0]):
        fit, calibration = (parts[name][types[0][parts[name]] == kind] for name in ("fit", "calibration"))
        detector = make_detector(seed).fit(descriptors[0][fit])
        usual = getattr(detector, "reference_scores_", None)
        if usual is None:
            usual = detector.score_samples(descriptors[0][calibration])
        centre, spread = _usual(usual)
        for part, made, of in zip(scores, descriptors, types):
            part[of == kind] = (detector.score_samples(made[of == kind]) - centre) / spread
    return tuple(scores)


def _tile_scores(good, bad, fit, seed, places):
    """Standardised scores ``(N, tiles)`` of functional and defective cells."""
    _, tiles, size = good.shape
    out = [np.empty(made.shape[:2]) for made in (good, bad)]
    for chosen in [[place] for place in range(tiles)] if places else [list(range(tiles))]:
        detector = density(seed).fit(good[fit][:, chosen].reshape(-1, size))
        centre, spread = _usual(detector.reference_scores_)
        for scores, made in zip(out, (good, bad)):
            raw = detector.score_samples(made[:, chosen].reshape(-1, size))
            scores[:, chosen] = ((raw - centre) / spread).reshape(-1, len(chosen))
    return out


def _several_views(scores, splits):
    """Sums of a whole small picture's and of tiles' scores, each standardised on the calibration part."""
    tiled = [view for view in VIEWS if VIEWS[view][1] and (view, "one descriptor") in scores]
    if ("32", "one descriptor") not in scores or not tiled:
        return {}
    out = {}
    for reading in [reading for view, reading in scores if view == tiled[0]]:
        views = [scores["32", "one descriptor"], *(scores[view, reading] for view in tiled)]
        sums = []
        for pairs, (parts, _) in zip(zip(*views), splits):
            usual = [_usual(good[parts["calibration"]]) for good, _ in pairs]
            sums.append(
                tuple(sum((pair[k] - centre) / spread for pair, (centre, spread) in zip(pairs, usual)) for k in (0, 1))
            )
        out[" + ".join(["32", *tiled]), reading] = sums
    return out


def _usual(scores):
    return np.median(scores), np.subtract(*np.quantile(scores, [0.75, 0.25])) + 1e-12


def _aurocs(given, splits):
    """AUROC by seed on the cells that choices are made on, and on the others."""
    rows = {"development": [], "test": []}
    for (good, bad), (parts, others) in zip(given, splits):
        rest = np.sort(np.concatenate([others["calibration"], others["test"]]))
        for name, functional, defective in (
            ("development", good[parts["calibration"]], bad[others["fit"]]),
            ("test", good[parts["test"]], bad[rest]),
        ):
            rows[name].append(metrics(functional, defective)["auroc"])
    return rows

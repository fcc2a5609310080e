"""Defects of surfaces: where the maps point, and whether a defective picture is told from a good one.

The local score is that of :mod:`benchmarks.accuracy.local_score`.

A folder has one subfolder of good pictures, ``free`` or ``good``, and one for each kind of defect, where
``NNN.mask.png`` beside a picture says where the defect is. Half of the good pictures are the reference, by
chance; the others are the good ones of the test. Pictures are brought to a square, as diffpath does, and
seen whole at the model's side or also ``zoom`` times as large in tiles, whose maps then count.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from diffpath import AnomalyDetector, DiffPathV2
from diffpath.detection.local import LocalReference

from .given import SetError
from .local_score import LocalScore, compare, top
from .localisation import pixel_auroc, pooled_auroc
from .protocol import metrics

GOOD = ("free", "good")
ZOOMS = (1, 2, 4)
TOPS = {"mean": 1.0, "highest tenth": 0.1, "highest hundredth": 0.01}
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
_MASK = ".mask.png"


def read_folder(path):
    """The pictures of every subfolder.

    Returns:
        {name: [(picture, mask or None)]}, the good ones' without masks
    """
    path = path.expanduser()
    found = {}
    for folder in sorted(each for each in path.glob("*") if each.is_dir()):
        files = [each for each in sorted(folder.iterdir()) if each.suffix.lower() in _ENDINGS]
        pictures = [each for each in files if not each.name.endswith(_MASK)]
        found[folder.name] = [(each, each.with_name(each.stem + _MASK)) for each in pictures]
    good = [name for name in GOOD if found.get(name)]
    if not good or len(found) < 2:
        raise SetError(f"{path} must have a subfolder {' or '.join(GOOD)} of good pictures and others of defects")
    return {"good": found.pop(good[0]), **found}


def measure(folder, model, seeds):
    """Every zoom.

    Yields:
        dicts: zoom, map or score, and the measures that it has, means over seeds
    """
    sets = read_folder(folder)
    good = [picture for picture, _ in sets.pop("good")]
    bad = [pair for pairs in sets.values() for pair in pairs]
    for zoom in ZOOMS:
        method = DiffPathV2(model, zoom=zoom)
        of_good, of_bad = (
            method.score_images(Image.open(path).convert("RGB") for path in paths)
            for paths in (good, [picture for picture, _ in bad])
        )
        side = method.sides[-1]
        masks = np.stack([_mask(path, side) for _, path in bad])
        runs = [_one_split(of_good, of_bad, masks, seed) for seed in seeds]
        for name in runs[0]:
            means = {key: float(np.mean([run[name][key] for run in runs])) for key in runs[0][name]}
            yield {"zoom": zoom, "by": name, **means}


def _one_split(of_good, of_bad, masks, seed):
    fit, test = np.split(np.random.default_rng(seed).permutation(len(of_good)), [len(of_good) // 2])
    local = LocalReference.fit(of_good.local[fit])
    maps = {
        "anomaly map": (local.maps(of_good.local[test]), local.maps(of_bad.local)),
        "error map": (of_good.error_maps[test], of_bad.error_maps),
        "heatmap": (of_good.heatmaps[test], of_bad.heatmaps),
    }
    rows = {}
    for name, (good, bad) in maps.items():
        seen = masks.any(axis=(1, 2))
        everything = np.concatenate([np.zeros(good.shape, bool), masks]), np.concatenate([good, bad])
        rows[name] = {"within": pixel_auroc(masks[seen], bad[seen]), "over all": pooled_auroc(*everything)}
        rows[name] |= {label: metrics(top(good, share), top(bad, share))["auroc"] for label, share in TOPS.items()}
    detector = AnomalyDetector(random_state=seed).fit(of_good.descriptor[fit])
    usual = of_good.descriptor[test], of_good.local[test]
    tops = compare(detector, LocalScore(of_good.local[fit]), usual, [(of_bad.descriptor, of_bad.local)])
    return rows | {name: {"mean": value} for name, (value,) in tops.items()}


def _mask(path, side):
    with Image.open(Path(path)) as image:
        covered = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), float)
    return covered >= 127.5

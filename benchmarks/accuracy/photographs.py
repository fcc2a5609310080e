"""Corrupted photographs of usual size: what the whole look sees of them, and the detail look beside it.

Pictures are the user's (``--folder PATH``, any number of images) and the free photographs of the
other benchmarks. Each is brought to 480 pixels on its shorter side if it is larger, and its middle
320×320 is taken: corruptions are those of ImageNet-C at that size. Pictures are divided, never
crops: some are corrupted, and of the others two thirds are the reference and a third clean queries.

Beside the fifteen kinds stand accidents of cameras and transfers, which are not part of the average.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from diffpath import AnomalyDetector, DiffPathV2
from diffpath.dataset.sources import SELF_REFERENCE
from diffpath.detection.looks import descriptor_detector, detail_options
from diffpath.method.descriptor import detail_length
from diffpath.options import evaluations_per_image

from . import peers
from .corruptions import CORRUPTIONS, corrupt
from .datasets import photograph_files
from .given import SetError
from .protocol import metrics
from .scene import WithSceneStatistics, scene_statistics

SHORTER_SIDE, SIDE = 480, 320  # pixels
CORRUPTED = {3: 30}  # pictures, by severity; of the others
_CORRUPTED_ELSE = 10
_SHARE_CORRUPTED = 0.3  # of a small folder at most
LEVEL = 0.05
DIRTY = (0, 0.05, 0.1, 0.2)  # of a set without a reference, the corrupted share
REFERENCES = (20, 40, 60, 100, 200, 300)  # pictures, where levels are measured
_REPEATED = 20  # choices of the reference
DEAR = ("zoom=3", "detail=2", "detail=5")  # only at the first severity
LEAST_PICTURES = 30
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


def half_grey(image):
    """A transfer that broke off: the lower half is grey."""
    return np.where(np.arange(len(image))[:, None, None] < len(image) // 2, image, 128).astype(np.uint8)


def overexposed(image):
    return np.clip(image.astype(float) * 3, 0, 255).astype(np.uint8)


def nearly_black(image):
    return np.round(image * 0.04).astype(np.uint8)


def sensor_noise(image, seed=0):
    """A high sensitivity: noise that hangs together over neighbours, as demosaicing leaves it, more in the dark."""
    from scipy.ndimage import gaussian_filter

    chance = np.random.default_rng(seed)
    noise = gaussian_filter(chance.normal(size=image.shape), (0.7, 0.7, 0)) / 0.4
    strength = 6 + 0.35 * np.sqrt(255 - image.astype(float))
    return np.clip(np.round(image + strength * noise), 0, 255).astype(np.uint8)


ACCIDENTS = {
    "sensor noise": sensor_noise,
    "half grey": half_grey,
    "overexposed": overexposed,
    "nearly black": nearly_black,
}


class Look(NamedTuple):
    """A row: features of images uint8 ``(N, H, W, 3)``, what makes a detector of them by its options, and its cost."""

    features: object
    detector: object
    evaluations: int


def _one_density(options):
    return AnomalyDetector(**options)


def _of_detail(options):
    return AnomalyDetector(**detail_options(options))


def beside_scene_statistics(look):
    return Look(
        lambda images: np.hstack([look.features(images), scene_statistics(images)]),
        lambda options: WithSceneStatistics(partial(look.detector, options)),
        look.evaluations,
    )


def looks(model):
    """The rows by name."""

    def row(alone=False, **options):
        method = DiffPathV2(model, **options)
        chosen = method.options
        length, crops = detail_length(chosen), chosen.num_noise_draws * chosen.detail**2

        def features(images):
            descriptor = method.score_images(images).descriptor
            return descriptor[:, -length:] if alone else descriptor

        cost = evaluations_per_image(chosen.num_timesteps, chosen.num_noise_draws, chosen.zoom, chosen.detail)
        detector = _of_detail if alone else partial(descriptor_detector, length)
        return Look(features, detector, crops if alone else cost)

    return {
        "whole look (default)": row(),
        "zoom=3": row(zoom=3),
        "detail look alone, 9 crops": row(alone=True, detail=3),
        "detail=2": row(detail=2),
        "detail=3": row(detail=3),
        "detail=5": row(detail=5),
        "detail=3 and scene statistics": beside_scene_statistics(row(detail=3)),
        "scene statistics": Look(scene_statistics, _one_density, 0),
        "image quality": Look(peers.image_quality, _one_density, 0),
    }


def read_folder(path):
    """The middles of a folder's pictures, uint8 ``(N, 320, 320, 3)``, in the order of their names."""
    files = sorted(each for each in path.expanduser().rglob("*") if each.suffix.lower() in _ENDINGS)
    if len(files) < LEAST_PICTURES:
        raise SetError(f"{path} holds {len(files)} pictures; photographs needs {LEAST_PICTURES} or more")
    return np.stack([middle(file) for file in files])


def read_free():
    """The same of the free photographs."""
    return np.stack([middle(file) for file in photograph_files()])


def middle(file, least=1):
    """The middle 320×320 of a picture, uint8, after it is brought to the sides above; None if its side is less."""
    with Image.open(file) as image:
        whole = ImageOps.exif_transpose(image)
        if min(whole.size) < least:
            return None
        if whole.has_transparency_data:
            whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole.convert("RGBA"))
        rgb = whole.convert("RGB")
    scale = max(SIDE / min(rgb.size), min(1, SHORTER_SIDE / min(rgb.size)))
    if scale != 1:
        rgb = rgb.resize([max(SIDE, round(scale * length)) for length in rgb.size], Image.Resampling.LANCZOS)
    left, upper = ((length - SIDE) // 16 * 8 for length in rgb.size)  # on JPEG's blocks
    return np.asarray(rgb.crop((left, upper, left + SIDE, upper + SIDE)))


def divided(images):
    """The pictures that are corrupted, and the others, by chance."""
    order = np.random.default_rng(0).permutation(len(images))
    reserved = min(max(CORRUPTED.values()), int(_SHARE_CORRUPTED * len(images)))
    return images[order[:reserved]], images[order[reserved:]]


def measure(images, rows, severities, seeds):
    """Every row on clean and corrupted pictures.

    Args:
        images: uint8 ``(N, H, W, 3)``
        rows: :class:`Look` by name
        severities: of the fifteen kinds; the first is measured by all rows
        seeds: of the division of the pictures that are not corrupted

    Yields:
        dicts: method, severity, kind, and over seeds auroc, found and clean flagged
    """
    chosen, others = divided(images)
    asked = {(0, kind): np.stack([spoil(image) for image in chosen]) for kind, spoil in ACCIDENTS.items()}
    for severity in severities:
        some = chosen[: CORRUPTED.get(severity, _CORRUPTED_ELSE)]
        asked |= {(severity, kind): corrupt(some, kind, severity) for kind in CORRUPTIONS}
    for name, look in rows.items():
        keys = [key for key in asked if name not in DEAR or key[0] in (0, severities[0])]
        clean = look.features(others)
        features = {key: look.features(asked[key]) for key in keys}
        found = {key: [] for key in keys}
        for seed in seeds:
            shuffled = np.random.default_rng([seed, 1]).permutation(len(others))
            fit, query = np.split(shuffled, [len(others) * 2 // 3])
            detector = look.detector({}).fit(clean[fit])
            normal, flagged = detector.score_samples(clean[query]), (detector.p_values(clean[query]) <= LEVEL).mean()
            for key, X in features.items():
                share = (detector.p_values(X) <= LEVEL).mean()
                auroc = metrics(normal, detector.score_samples(X))["auroc"]
                found[key].append((auroc, share, flagged))
        for (severity, kind), runs in found.items():
            auroc, share, flagged = np.mean(runs, axis=0)
            yield {
                "method": name,
                "evaluations": look.evaluations,
                "severity": severity,
                "kind": kind,
                "auroc": auroc,
                "found": share,
                "clean flagged": flagged,
                "deviation": float(np.std([run[0] for run in runs])),
            }


def measure_levels(images, rows):
    """How many clean pictures a level flags, with few pictures as the reference and with many.

    Args:
        images: uint8 ``(N, H, W, 3)``
        rows: :class:`Look` by name

    Yields:
        dicts: method, reference (how many), and over choices of it the share flagged and its deviation
    """
    for name, look in rows.items():
        X = look.features(images)
        for count in (each for each in REFERENCES if each <= 0.8 * len(X)):
            shares = []
            for seed in range(_REPEATED):
                fit, query = np.split(np.random.default_rng([seed, 3]).permutation(len(X)), [count])
                shares.append((look.detector({}).fit(X[fit]).p_values(X[query]) <= LEVEL).mean())
            deviation = float(np.std(shares))
            yield {"method": name, "reference": count, "flagged": float(np.mean(shares)), "deviation": deviation}


def measure_without_reference(images, rows, seeds):
    """The same pictures as their own reference, some of them corrupted at the middle severity.

    Args:
        images: uint8 ``(N, H, W, 3)``
        rows: :class:`Look` by name
        seeds: of which corrupted ones, of all fifteen kinds, are mixed in

    Yields:
        dicts: method, share corrupted, and over seeds auroc, found and clean flagged
    """
    chosen, others = divided(images)
    for name, look in rows.items():
        clean = look.features(others)
        corrupted = np.concatenate([look.features(corrupt(chosen, kind, 3)) for kind in CORRUPTIONS])
        for share in DIRTY:
            count, runs = round(share / (1 - share) * len(clean)), []
            for seed in seeds:
                mixed = np.random.default_rng([seed, 2]).choice(len(corrupted), count, replace=False)
                detector = look.detector(SELF_REFERENCE).fit(np.concatenate([clean, corrupted[mixed]]))
                p_values, scores = detector.reference_p_values_, detector.reference_scores_
                row = {"clean flagged": (p_values[: len(clean)] <= LEVEL).mean()}
                if count:
                    row["auroc"] = metrics(scores[: len(clean)], scores[len(clean) :])["auroc"]
                    row["found"] = (p_values[len(clean) :] <= LEVEL).mean()
                runs.append(row)
            means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
            yield {"method": name, "corrupted": share, **means}

"""The fifteen corruptions of ImageNet-C (arXiv 1903.12261) for pictures of about 32 or 224 pixels, in five severities.

Strengths that do not depend on the picture's size (noise, contrast, brightness, JPEG
quality, …) are those of ImageNet-C. Lengths (blur radius, motion, zoom, elastic and glass
displacement) are ImageNet-C's from ``FULL_SIZE`` pixels on, and below those that the same
authors use for 32×32 pictures in CIFAR-10-C. Frost lays on crystals grown from ridged
noise, where the authors lay on photographs of frost.

Each is a function of a square float image ``(H, H, 3)`` in [0, 1], a severity in 1…5 and a
NumPy generator.
"""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, map_coordinates, zoom

FAMILIES = {
    "noise": ("Gaussian noise", "shot noise", "impulse noise"),
    "blur": ("defocus blur", "glass blur", "motion blur", "zoom blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic transform", "pixelate", "JPEG"),
}
SEVERITIES = (1, 2, 3, 4, 5)
FULL_SIZE = 112  # pixels, from which a picture counts as one of 224 and not of 32


def gaussian_noise(x, severity, chance):
    return x + chance.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1], x.shape)


def shot_noise(x, severity, chance):
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return chance.poisson(x * photons) / photons


def impulse_noise(x, severity, chance):
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit = chance.random(x.shape) < amount
    return np.where(hit, chance.integers(0, 2, x.shape), x)


def defocus_blur(x, severity, chance):
    radius, soft = _by_size(
        x,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    )[severity - 1]
    reach = max(8, radius)
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(float)
    disk = gaussian_filter(disk / disk.sum(), soft, radius=1)
    return convolve(x, disk[:, :, None], mode="nearest")


def glass_blur(x, severity, chance):
    soft, reach, times = _by_size(
        x,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    )[severity - 1]
    x = _blur(x, soft)
    for _ in range(times):
        for row in range(len(x) - reach - 1, reach - 1, -1):
            for column in range(len(x) - reach - 1, reach - 1, -1):
                down, right = chance.integers(-reach, reach + 1, 2)
                there, here = x[row + down, column + right].copy(), x[row, column].copy()
                x[row, column], x[row + down, column + right] = there, here
    return _blur(x, soft)


def motion_blur(x, severity, chance):
    length, soft = _by_size(
        x,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    )[severity - 1]
    return _move(x, length, soft, chance.uniform(-45, 45))


def zoom_blur(x, severity, chance):
    furthest, step = _by_size(
        x,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    )[severity - 1]
    layers = [_enlarge(x, factor) for factor in np.arange(1, furthest, step)]
    return (x + sum(layers)) / (1 + len(layers))


def snow(x, severity, chance):
    mean, spread, scale, least, length, soft, mix = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    flakes = _enlarge(chance.normal(mean, spread, x.shape[:2])[:, :, None], scale)
    flakes = np.where(flakes < least, 0, np.clip(flakes, 0, 1))
    flakes = _move(flakes, length, soft, chance.uniform(-135, -45))
    grey = (x @ (0.299, 0.587, 0.114))[:, :, None]
    x = mix * x + (1 - mix) * np.maximum(x, grey * 1.5 + 0.5)
    return x + flakes + flakes[::-1, ::-1]


def frost(x, severity, chance):
    keep, cover = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    ridges = 1 - np.abs(2 * _plasma(len(x), 1.8, chance) - 1)
    crystals = np.clip(ridges**3 + 0.4 * _plasma(len(x), 1.3, chance), 0, 1)[:, :, None] * (0.85, 0.95, 1.0)
    return keep * x + cover * crystals


def fog(x, severity, chance):
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    brightest = x.max()
    x = x + amount * _plasma(len(x), decay, chance)[:, :, None]
    return x * brightest / (brightest + amount)


def brightness(x, severity, chance):
    import colorsys

    added = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    out = x.reshape(-1, 3).copy()
    for k, pixel in enumerate(out):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        out[k] = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
    return out.reshape(x.shape)


def contrast(x, severity, chance):
    mean = x.mean(axis=(0, 1))
    return (x - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] + mean


def elastic_transform(x, severity, chance):
    side = len(x)
    strength, smooth, affine = _by_size(
        x,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    )[severity - 1]
    corners = np.array([[side / 3, side / 3], [2 * side / 3, side / 3], [side / 3, 2 * side / 3]])
    moved = corners + chance.uniform(-affine * side, affine * side, corners.shape)
    matrix = np.linalg.solve(np.c_[corners, np.ones(3)], moved)
    rows, columns = np.indices((side, side)).astype(float)
    places = np.stack([rows.ravel(), columns.ravel(), np.ones(side * side)], axis=1) @ matrix
    places = places.T.reshape(2, side, side)
    if strength:
        shift = [gaussian_filter(chance.uniform(-1, 1, (side, side)), smooth * side, mode="reflect") for _ in range(2)]
        places = places + strength * side * np.stack(shift)
    return np.stack([map_coordinates(x[:, :, k], places, order=1, mode="reflect") for k in range(3)], axis=2)


def pixelate(x, severity, chance):
    small = round(len(x) * (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1])
    image = _to_pil(x).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((len(x), len(x)), Image.Resampling.NEAREST)) / 255


def jpeg_compression(x, severity, chance):
    buffer = io.BytesIO()
    _to_pil(x).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB")) / 255


CORRUPTIONS = {
    "Gaussian noise": gaussian_noise,
    "shot noise": shot_noise,
    "impulse noise": impulse_noise,
    "defocus blur": defocus_blur,
    "glass blur": glass_blur,
    "motion blur": motion_blur,
    "zoom blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic transform": elastic_transform,
    "pixelate": pixelate,
    "JPEG": jpeg_compression,
}


def corrupt(images, kind, severity, seed=0):
    """Corrupted copies of uint8 images ``(N, H, H, 3)``; the seed and the kind fix all that is random."""
    chance = np.random.default_rng([seed, severity, list(CORRUPTIONS).index(kind)])
    changed = [np.clip(CORRUPTIONS[kind](image / 255, severity, chance), 0, 1) for image in images]
    return np.round(np.stack(changed) * 255).astype(np.uint8)


def _by_size(x, small, full):
    """The lengths for pictures of about 32 pixels, or for those of about 224."""
    return full if len(x) >= FULL_SIZE else small


def _blur(x, sigma):
    return gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _enlarge(x, factor):
    """The middle of the picture, enlarged to its whole."""
    side = len(x)
    part = int(np.ceil(side / factor))
    first = (side - part) // 2
    large = zoom(x[first : first + part, first : first + part], (factor, factor, 1), order=1)
    first = (len(large) - side) // 2
    return large[first : first + side, first : first + side]


def _move(x, length, soft, degrees):
    """Blur along one direction: a half Gaussian of deviation ``soft``, ``length`` pixels long."""
    offsets = np.arange(2 * length + 1) * 0.5
    weights = np.exp(-0.5 * (offsets / soft) ** 2)
    down, right = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    rows, columns = np.indices(x.shape[:2])
    out = np.zeros_like(x)
    for offset, weight in zip(offsets, weights / weights.sum()):
        for k in range(x.shape[2]):
            places = [rows + offset * down, columns + offset * right]
            out[:, :, k] += weight * map_coordinates(x[:, :, k], places, order=1, mode="nearest")
    return out


def _plasma(side, decay, chance):
    """A smooth random field in [0, 1] whose roughness shrinks by ``decay`` from one octave to the next."""
    field, amplitude, cells = np.zeros((side, side)), 1.0, 2
    while cells <= side:
        nodes = chance.random((cells + 1, cells + 1))
        places = np.indices((side, side)) * cells / side
        field += amplitude * map_coordinates(nodes, places, order=1)
        amplitude, cells = amplitude / decay, cells * 2
    return (field - field.min()) / np.ptp(field)


def _to_pil(x):
    return Image.fromarray(np.round(np.clip(x, 0, 1) * 255).astype(np.uint8))

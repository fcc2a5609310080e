"""Corrupted copies and unreadable files, made when the demo runs: of grey images of 28×28, and of photographs."""

import io
from functools import partial

import numpy as np
from PIL import Image, ImageFilter


def gaussian_noise(image, chance, deviation=40):
    levels = np.asarray(image, float) + chance.normal(0, deviation, np.shape(image))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def gaussian_blur(image, chance):
    return image.filter(ImageFilter.GaussianBlur(2))


def jpeg(image, chance):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=8)
    return Image.open(buffer).convert(image.mode)


def stripes(image, chance):
    levels = np.array(image)
    rows = chance.choice(image.height, 5, replace=False)
    levels[rows] = 255 - levels[rows]
    return Image.fromarray(levels)


def checker_patch(image, chance):
    levels = np.array(image)
    side = 8
    left, top = chance.integers(4, image.width - side - 4, 2)
    levels[top : top + side, left : left + side] = 255 * (np.indices((side, side)).sum(0) // 2 % 2)
    return Image.fromarray(levels)


CORRUPTIONS = {
    "noise": gaussian_noise,
    "blur": gaussian_blur,
    "JPEG": jpeg,
    "stripes": stripes,
    "patch": checker_patch,
}


def motion_blur(image, chance):
    copies = [np.roll(np.asarray(image, float), shift, axis=1) for shift in range(-5, 6)]
    return Image.fromarray(np.mean(copies, axis=0).round().astype(np.uint8))


def broken_transfer(image, chance):
    levels = np.array(image)
    levels[image.height // 2 :] = 128
    return Image.fromarray(levels)


def overexposed(image, chance):
    return image.point(lambda level: min(255, 3 * level))


OF_PHOTOGRAPHS = {
    "noise": partial(gaussian_noise, deviation=15),
    "defocus": gaussian_blur,
    "motion": motion_blur,
    "JPEG": jpeg,
    "broken": broken_transfer,
    "overexposed": overexposed,
}


def write_unreadable(folder, image_path):
    """Writes files that no image decoder accepts and returns their paths, one of which does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "truncated.png": image_path.read_bytes()[:120],
        "empty.png": b"",
        "text.jpg": b"This is not an image.\n",
        "random.png": np.random.default_rng(0).bytes(500),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in (*contents, "missing.png")]

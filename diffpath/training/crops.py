"""Pictures in, small square crops out: the training set.

A picture's file belongs wholly to training or wholly to the held-out part, so that no crop
of a training picture is measured. A crop's side is log-uniform between ``smallest`` pixels
and ``largest`` of the picture's shorter side, so that texture and scene both occur; it is
reduced with a box filter, each output pixel being the mean of what it covers.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .config import Data, Folder

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tga", ".tif", ".tiff", ".webp")
FLAT = 4.0  # grey levels: a crop with a smaller standard deviation teaches little,
KEPT_FLAT = 0.1  # and only this share of them is kept
_ATTEMPTS = 10
_FINER = 4  # times finer than the crop: exact to a grey level or two, and large pictures cost no more than small


@dataclass(frozen=True)
class Crops:
    """Crops as uint8 ``(N, side, side, 3)``; ``files`` holds, for each folder, the counts of pictures and crops."""

    train: UInt8[np.ndarray, "n s s 3"]
    held_out: UInt8[np.ndarray, "m s s 3"]
    files: list[dict[str, int]]
    fingerprint: str


def load_crops(data: Data, seed: int, log: Callable[[str], None] = print) -> Crops:
    """The crops of a configuration, drawn once and kept in ``data.cache``.

    Args:
        data: a :class:`diffpath.training.config.Data`
        seed: of the split and of the crops
        log: called with a line of progress

    Returns:
        :class:`Crops`

    Raises:
        ValueError: if a folder holds too few images
    """
    sources = [_split_files(folder, data.held_out, seed) for folder in data.folders]
    fingerprint = _fingerprint(data, sources, seed)
    path = Path(data.cache) / f"crops-{fingerprint}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Crops(stored["train"], stored["held_out"], json.loads(str(stored["files"])), fingerprint)

    train: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    files: list[dict[str, int]] = []
    total = sum(folder.crops for folder in data.folders)
    for number, (folder, (kept, left_out)) in enumerate(zip(data.folders, sources)):
        log(f"{folder.path}: {folder.crops} crops of {len(kept)} pictures, {len(left_out)} pictures held out")
        measured = max(1, round(data.held_out_crops * folder.crops / total))
        rng = np.random.default_rng([seed, number])
        train.append(_draw(kept, folder, folder.crops, data.resolution, rng))
        held_out.append(_draw(left_out, folder, measured, data.resolution, rng))
        files.append({"train": len(kept), "held out": len(left_out), "crops": len(train[-1])})
    crops = Crops(np.concatenate(train), np.concatenate(held_out), files, fingerprint)

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, train=crops.train, held_out=crops.held_out, files=json.dumps(files))
    partial.replace(path)
    return crops


def _split_files(folder: Folder, held_out: float, seed: int) -> tuple[list[Path], list[Path]]:
    root = Path(folder.path)
    if not root.is_dir():
        raise ValueError(f"data.folders.path {folder.path} is not a folder; correct it or gather the pictures first")
    files = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    if len(files) < 2:
        raise ValueError(
            f"data.folders.path {folder.path} holds {len(files)} images; at least 2 files are needed, one to hold out"
        )
    # In the order of a hash, so that adding a picture moves no other across the split
    files.sort(key=lambda path: hashlib.sha256(f"{seed} {path.relative_to(root).as_posix()}".encode()).digest())
    count = min(len(files) - 1, math.ceil(held_out * len(files)))
    return sorted(files[count:]), sorted(files[:count])


def _draw(
    files: Sequence[Path], folder: Folder, count: int, resolution: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "n s s 3"]:
    """``count`` crops, spread evenly over the files; unreadable files fall out."""
    shares = np.full(len(files), count // len(files))
    shares[rng.permutation(len(files))[: count % len(files)]] += 1
    crops: list[np.ndarray] = []
    for path, share in zip(files, shares):
        if not share:
            continue
        own = np.random.default_rng([zlib.crc32(path.name.encode()), *rng.integers(2**32, size=2)])
        image = _read(path)
        if image is not None:
            crops += cut(image, share, folder.smallest, folder.largest, resolution, own)
    if not crops:
        raise ValueError(f"no image under {folder.path} could be read; replace the files")
    return np.stack(crops)


def cut(
    image: Image.Image, count: int, smallest: int, largest: float, resolution: int, rng: np.random.Generator
) -> list[UInt8[np.ndarray, "s s 3"]]:
    """Random square crops of one picture.

    Args:
        image: an RGB picture, or RGBA: then each crop gets a plain background of a random
            colour
        count: how many
        smallest, largest: least side in pixels; greatest side as a share of the shorter side
        resolution: side of the result
        rng: a NumPy generator

    Returns:
        a list of uint8 ``(resolution, resolution, 3)``
    """
    shorter = min(image.size)
    high = max(1.0, shorter * largest)
    low = min(float(smallest), high)
    crops, halvings = [], [image]
    for _ in range(count):
        for _ in range(_ATTEMPTS):
            side = min(high, math.exp(rng.uniform(math.log(low), math.log(high))))  # exp(log(x)) may exceed x
            left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
            crop = _resample(halvings, (left, top, left + side, top + side), resolution, rng)
            if crop.mean(axis=2).std() >= FLAT or rng.random() < KEPT_FLAT:
                break
        crops.append(crop)
    return crops


def _read(path: Path) -> Image.Image | None:
    """An image as RGB or RGBA, or None where Pillow can't decode it."""
    try:
        with Image.open(path) as image:
            return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        return None


def _resample(
    halvings: list[Image.Image], box: tuple[float, float, float, float], resolution: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "s s 3"]:
    """One crop by a box filter, from the smallest halving of the picture that is still several times finer."""
    side = box[2] - box[0]
    level = max(0, int(math.log2(side / (_FINER * resolution))))
    while len(halvings) <= level:
        halvings.append(halvings[-1].reduce(2))
    kind = Image.Resampling.BOX if side >= resolution else Image.Resampling.BICUBIC
    left, top, right, bottom = (coordinate / 2**level for coordinate in box)
    crop = halvings[level].resize((resolution, resolution), kind, box=(left, top, right, bottom))
    if crop.mode == "RGBA":
        red, green, blue = (int(level) for level in rng.integers(0, 256, 3))
        crop = Image.alpha_composite(Image.new("RGBA", crop.size, (red, green, blue, 255)), crop).convert("RGB")
    return np.asarray(crop)


def _fingerprint(data: Data, sources: Sequence[tuple[list[Path], list[Path]]], seed: int) -> str:
    content = asdict(data)
    content.pop("cache")
    for folder in content["folders"]:  # what doesn't change a crop
        for name in ("path", "source", "licence"):
            folder.pop(name)
    names = [
        [[path.relative_to(folder.path).as_posix(), path.stat().st_size] for path in part]
        for folder, parts in zip(data.folders, sources)
        for part in parts
    ]
    return hashlib.sha256(json.dumps([content, names, seed, FLAT, KEPT_FLAT]).encode()).hexdigest()[:16]

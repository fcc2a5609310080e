"""Makes a copy of gathered pictures that is small enough to carry to another machine.

    python training/pack_pictures.py training/pictures training/packed

A folder of big pictures becomes two folders of small ones, from which
``python -m diffpath train`` cuts nearly the same crops:

    NAME/windows    windows at the picture's own pixels, on multiples of 8 (JPEG's blocks)
    NAME/reduced    the whole picture, box-filtered

as JPEG of quality 90 with Pillow's defaults, or as WebP where something is transparent; windows are
cut where nothing is. What is chosen depends on the files' names alone.
"""

import argparse
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from diffpath.images import BLOCK
from diffpath.training.crops import FLAT, SUFFIXES

QUALITY = 90


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="what gather_pictures.py wrote")
    parser.add_argument("packed", type=Path)
    parser.add_argument("--only", nargs="+", help="some of the folders; by default all")
    parser.add_argument("--window", type=int, default=192, help="side of a window, in pixels")
    parser.add_argument("--largest", type=int, default=2048, help="longer side from which windows are cut")
    parser.add_argument("--most", type=int, default=16, help="windows of one picture at most")
    parser.add_argument("--reduced", type=int, default=160, help="longer side of the whole picture")
    arguments = parser.parse_args()
    for folder in sorted(path for path in arguments.pictures.iterdir() if path.is_dir()):
        if arguments.only and folder.name not in arguments.only:
            continue
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
        work = partial(pack, folder=folder, target=arguments.packed / folder.name, arguments=arguments)
        with ProcessPoolExecutor() as pool:
            sizes = [sum(pair) for pair in zip(*pool.map(work, paths, chunksize=8), strict=True)]
        print(f"{folder.name}: {len(paths)} pictures, {sizes[0]} windows, {sizes[1] / 1e6:.1f} MB", flush=True)


def pack(path, folder, target, arguments):
    """Writes the copies of one picture; their number of windows and of bytes."""
    name = "-".join(path.relative_to(folder).with_suffix("").parts)
    with Image.open(path) as image:
        image = image.convert("RGBA")
    written = [save(fit(image, arguments.reduced), target / "reduced" / name)]
    large = fit(image, arguments.largest)
    for number, window in enumerate(windows(large, arguments.window, arguments.most, zlib.crc32(name.encode()))):
        written.append(save(window, target / "windows" / f"{name}-{number}"))
    return len(written) - 1, sum(written)


def fit(image, longest):
    """The picture with a longer side of at most ``longest``, reduced by a whole number where that halves it."""
    factor = -(-max(image.size) // longest)
    return image if factor == 1 else image.reduce(factor)


def windows(image, side, most, seed):
    """Up to ``most`` windows that aren't flat, anywhere in the picture but not over one another."""
    side = min(side, *(length // BLOCK * BLOCK for length in image.size))
    if not side:
        return
    places = [
        (left, top)
        for top in range(0, image.height - side + 1, side)
        for left in range(0, image.width - side + 1, side)
    ]
    slack = [(length % side) // BLOCK * BLOCK // 2 // BLOCK * BLOCK for length in image.size]
    for number in np.random.default_rng(seed).permutation(len(places)):
        left, top = (start + moved for start, moved in zip(places[number], slack, strict=True))
        window = image.crop((left, top, left + side, top + side))
        if is_opaque(window) and np.asarray(window.convert("RGB")).mean(axis=2).std() >= FLAT:
            yield window
            most -= 1
            if not most:
                return


def is_opaque(image):
    return image.getchannel("A").getextrema()[0] == 255


def save(image, stem):
    """Writes a picture in RGBA in the format that it needs; the number of bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    suffix, image = (".jpg", image.convert("RGB")) if is_opaque(image) else (".webp", image)
    path = stem.with_name(stem.name + suffix)
    image.save(path, quality=QUALITY)
    return path.stat().st_size


if __name__ == "__main__":
    main()

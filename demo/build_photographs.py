"""Rebuilds demo/photographs from free packages: JPEGs of 288×288, parts of photographs and two kinds of intruders.

Get the packages as ``build_data.py`` says; then run::

    python demo/build_photographs.py FOLDER

Each photograph is brought to 640 pixels on its shorter side, and divided into parts that do not
overlap; those that are not nearly flat are taken. A photograph's parts are all reference or all clean queries.
"""

import argparse
import csv
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from build_data import DRAWINGS, NOT_DRAWINGS, PHOTOGRAPHS, TEXTURES, shuffled
from PIL import Image, ImageOps

SIDE, SHORTER_SIDE = 288, 640
FLAT = 12  # standard deviation of the grey levels
INTRUDERS = 24
WIDTHS, MOST_BYTES = (256, 2000), 300_000
QUALITY = 92
CLEAN_PHOTOGRAPHS = 9
DATA = Path(__file__).parent / "photographs"
GREY = ("brick.png", "gravel.png")
MORE = (
    ("mate-backgrounds", "Wood.jpg", "GPL-2+", "Jean-François Fortin Tam"),
    ("python3-skimage", "astronaut.png", "public domain", "NASA"),
)


class Part(NamedTuple):
    image: Image.Image
    source: str
    licence: str
    author: str


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder that holds the unpacked packages")
    packages = parser.parse_args().packages
    photographs = [each for each in PHOTOGRAPHS + MORE if each[1] not in GREY]
    order = shuffled(photographs, "large photographs")
    kinds = {
        "clean": [part for each in order[:CLEAN_PHOTOGRAPHS] for part in parts_of(packages, *each)],
        "reference": [part for each in order[CLEAN_PHOTOGRAPHS:] for part in parts_of(packages, *each)],
        "drawings": drawings(packages / "openclipart-png"),
        "textures": textures(packages / "colobot-common-textures"),
    }
    shutil.rmtree(DATA, ignore_errors=True)
    with_header = [("file", "source", "licence", "author")]
    for kind, parts in sorted(kinds.items()):
        (DATA / kind).mkdir(parents=True)
        for number, part in enumerate(parts):
            path = DATA / kind / f"{number:03d}.jpg"
            part.image.save(path, quality=QUALITY, optimize=True)
            with_header.append((f"{kind}/{path.name}", part.source, part.licence, part.author))
    with (DATA / "SOURCES.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(with_header)


def parts_of(packages, package, pattern, licence, author):
    path = max((packages / package).glob(f"**/{pattern}"), key=lambda path: path.stat().st_size)
    image = brought_to(path, SHORTER_SIDE)
    across, down = (np.linspace(0, side - SIDE, side // SIDE).astype(int) for side in image.size)
    for top in down:
        for left in across:
            part = image.crop((left, top, left + SIDE, top + SIDE))
            if np.asarray(part.convert("L")).std() >= FLAT:
                yield Part(
                    part, f"{path.relative_to(packages)}, {SIDE} px at {left},{top} of {image.size}", licence, author
                )


def drawings(package):
    paths = (path for folder in DRAWINGS for path in package.glob(f"**/png/{folder}/**/*.png"))
    kept = (path for path in sorted(paths) if path.stem not in NOT_DRAWINGS)
    return intruders(kept, "large drawings", package, "public domain", "")


def textures(package):
    paths = sorted(path for pattern in TEXTURES for path in package.glob(f"**/textures/{pattern}.png"))
    return intruders(paths, "large textures", package, "GPL-3+", "Daniel Roux, EPSITEC SA & TerranovaTeam")


def intruders(paths, title, package, licence, author):
    """The middles of the first pictures whose width is within ``WIDTHS``."""
    chosen = []
    for path in shuffled(paths, title):
        if path.stat().st_size <= MOST_BYTES and WIDTHS[0] <= Image.open(path).width <= WIDTHS[1]:
            chosen.append(Part(middle(brought_to(path, SIDE)), str(path.relative_to(package.parent)), licence, author))
        if len(chosen) == INTRUDERS:
            break
    return chosen


def brought_to(path, shorter):
    """A picture over white, reduced to this shorter side; enlarged only where a part would not fit."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    scale = min(1, shorter / min(image.size))
    scale = max(scale, SIDE / min(image.size))
    return image.resize([max(SIDE, round(scale * side)) for side in image.size], Image.Resampling.LANCZOS)


def middle(image):
    left, top = ((side - SIDE) // 2 for side in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


if __name__ == "__main__":
    main()

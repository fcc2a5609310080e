"""Sets that the user has: folders of images, and sets of FiftyOne's zoo.

Both are told apart into splits here and no further: which of the files are read, and how
they are made small, is the caller's to say.
"""

import uuid
from pathlib import Path

import numpy as np

from .datasets import POOL, ImageSet, make_small, open_image, shuffled

SPLITS = ("train", "test")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".tga", ".ppm"}


class SetError(ValueError):
    """A set can't be read, or is not what is needed; the message is one sentence with the way out."""


def load_folder(folder, pool=POOL):
    """The user's own set: up to ``pool`` images of a folder's test split, through the one resampling of every set."""
    return _load(folder_files(folder), pool, "folder")


def load_zoo(name, pool=POOL):
    """The same of a set of FiftyOne's zoo."""
    return _load(zoo_files(name, ["test"]), pool, "zoo")


def folder_files(folder):
    """The image files of a folder, by split.

    Args:
        folder: with subfolders ``train`` and ``test``, or only the latter; where it has neither,
            all of its images are the test split. Images may lie in further subfolders

    Returns:
        a dict of ``test`` and, where there is one, ``train``: paths in the order of their names

    Raises:
        SetError: if a split has no image, or there is no test split
    """
    folder = Path(folder).expanduser()
    parts = {split: folder / split for split in SPLITS if (folder / split).is_dir()} or {"test": folder}
    files = {}
    for split, part in parts.items():
        files[split] = sorted(path for path in part.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not files[split]:
            raise SetError(f"{part} holds no image files; give a folder of PNG, JPEG, WebP, BMP, TIFF or PPM files")
    if "test" not in files:
        raise SetError(f"{folder} has a subfolder train but none of the name test; put the test images there")
    return files


def check_zoo(names):
    """Raises a :class:`SetError` if FiftyOne's zoo has no set of one of these names."""
    import fiftyone.zoo as zoo

    for name in names:
        if name not in zoo.list_zoo_datasets():
            raise SetError(
                f"FiftyOne's zoo has no set {name}; give a folder of its images instead: --folder {name}=PATH"
            )


def zoo_files(name, splits=SPLITS):
    """The image files of a set of FiftyOne's zoo, which is downloaded if FiftyOne does not have it yet.

    FiftyOne writes what it downloads as JPEG, which would add artefacts to sets like CIFAR
    that have none. What is downloaded from here is written as PNG; what FiftyOne had before
    is read as it is.

    Args:
        name: cifar10, cifar100, …
        splits: of those that the set has

    Returns:
        a dict of paths by split, in the order of their names

    Raises:
        SetError: if the zoo has no such set, or lacks what it needs to download it
    """
    import fiftyone as fo
    import fiftyone.zoo as zoo

    check_zoo([name])
    extension, fo.config.default_image_ext = fo.config.default_image_ext, ".png"
    try:
        return {split: _zoo_split(zoo, name, split) for split in splits}
    except ImportError as error:
        raise SetError(
            f"FiftyOne downloads {name} with torchvision (or TensorFlow), which is not installed; "
            f"pip install torchvision, or give a folder of its images: --folder {name}=PATH"
        ) from error
    finally:
        fo.config.default_image_ext = extension


def read_images(paths, prepare):
    """The images of files as an :class:`ImageSet`, whose sources are the paths.

    Args:
        paths: of image files
        prepare: makes a uint8 array ``(H, W, 3)``, of one size, of a PIL image

    Raises:
        SetError: if a file is not an image or damaged
    """
    images = []
    for path in paths:
        try:
            images.append(prepare(open_image(path)))
        except OSError as error:
            raise SetError(f"{path} cannot be read ({error}); replace or remove the file") from error
    return ImageSet(np.stack(images), np.array([str(path) for path in paths]))


def _load(files, pool, name):
    return read_images(shuffled(files["test"], name)[:pool], make_small)


def _zoo_split(zoo, name, split):
    # A name of its own: under the usual one FiftyOne would return, and we delete, a dataset of the user's
    dataset = zoo.load_zoo_dataset(
        name, split=split, dataset_name=f"diffpath-benchmark-{uuid.uuid4().hex}", progress=False
    )
    try:
        return sorted(Path(path) for path in dataset.values("filepath"))
    finally:
        dataset.delete()

"""The pairs of DiffPath (arXiv 2405.11881) and their protocol, for those who have the sets.

CIFAR-10, SVHN and CelebA are in-distribution, each against the two others, CIFAR-100 and
Textures: twelve pairs. A detector is fitted on images of the in-distribution set's training
split; its test split stands against the other set's.

What DiffPath does, from its authors' published code (clear-nus/diffpath):

    fitted, tested   the whole training split; both whole test splits, of torchvision's sets
                     (Textures: DTD, first partition)
    pictures         brought to 32×32 whole, whatever their aspect ratio, with a bilinear
                     filter; of CelebA the middle 140×140 pixels. For a model at 64×64
                     test pictures pass through 32×32, so that all are equally sharp
    DiffPath-6D      standardised; a Gaussian mixture of 50 or 100 components of any of
                     scikit-learn's four shapes, by ten-fold likelihood
    DiffPath-1D      a kernel density with a bandwidth of 5
    measure          AUROC

That these are the paper's sets is known from summaries, as its tables could not be read.
Of DiffPathV2 (arXiv 2507.22692) neither the experiments nor code could be: that it shares
pairs and protocol is assumed. None of the sets was to be had where this was written, so
that no figure of these pairs is ours; the tests run them on stand-ins.

What differs here:

    - Up to ``COUNT`` images of each split, another choice for each seed, or all with
      ``--count 0``. diffpath's densities keep 2,000 images of a reference at most, so
      that more to fit changes little but the peers; an AUROC of .8 from 1,000 against
      1,000 images has a standard error of .01 (Hanley & McNeil 1982). All methods
      together took 0.6 s of one busy core and 70 kB of the cache for each image, so that
      a seed with all five sets, 8,000 images, is more than an hour: ``--seeds 0`` runs
      one, ``--methods`` fewer.
    - ``diffpath.images``' bicubic filter, the one that a user's images pass. CIFAR and SVHN
      are 32×32 already, and are not resampled for a model of that size.
    - Mixtures of fewer components are tried as well, with five folds: see
      :class:`benchmarks.accuracy.peers.MixtureDetector`.
    - The base model, unless one is given: the authors' were trained on CelebA and ImageNet.
"""

import numpy as np

from diffpath.images import prepare_image

from .datasets import shuffled
from .given import SetError, check_zoo, folder_files, read_images, zoo_files

NAMES = {"cifar10": "CIFAR-10", "svhn": "SVHN", "celeba": "CelebA", "cifar100": "CIFAR-100", "textures": "Textures"}
INSIDE = ("cifar10", "svhn", "celeba")
PAIRS = tuple((inside, outside) for inside in INSIDE for outside in NAMES if outside != inside)
COUNT = 1000
SIDE = 32
CELEBA_SIDE = 140


def given_files(folders, zoo):
    """The files of the sets that the user gave.

    Args:
        folders: (name, path) of each folder, as for :func:`benchmarks.accuracy.given.folder_files`
        zoo: names of sets of FiftyOne's zoo

    Returns:
        {name: {"test": paths}}, and "train" where there is one and the set is one of ``INSIDE``

    Raises:
        SetError: if a name is not one of ``NAMES`` or is given twice, or no pair is complete
    """
    names = [name for name, _ in folders] + list(zoo)
    for name in names:
        if name not in NAMES:
            raise SetError(f"{name} is none of the papers' sets; name it one of {', '.join(NAMES)}")
        if names.count(name) > 1:
            raise SetError(f"{name} was given more than once; give it as a folder or from the zoo")
    if len(names) < 2 or not set(INSIDE) & set(names):
        raise _too_few(names)
    check_zoo(zoo)  # before anything is downloaded
    files = {name: folder_files(folder) for name, folder in folders}
    files |= {name: zoo_files(name, ("train", "test") if name in INSIDE else ("test",)) for name in zoo}
    files = {
        name: {split: paths for split, paths in files[name].items() if split == "test" or name in INSIDE}
        for name in NAMES
        if name in files
    }
    if not runnable(files):
        raise _too_few([name if "train" in splits else f"{name} (test split only)" for name, splits in files.items()])
    return files


def runnable(files):
    """Those of ``PAIRS`` whose sets are there, the in-distribution one with a training split."""
    return [(inside, outside) for inside, outside in PAIRS if "train" in files.get(inside, {}) and outside in files]


def not_run(files):
    """Why the others do not run, {reason: pairs}; each pair is named once."""
    reasons = {}
    for inside, outside in PAIRS:
        if missing := [name for name in (inside, outside) if name not in files]:
            reason = f"{' and '.join(NAMES[name] for name in missing)} not given"
        elif "train" not in files[inside]:
            reason = f"no training split of {NAMES[inside]}"
        else:
            continue
        reasons.setdefault(reason, []).append((inside, outside))
    return reasons


def read_set(name, files, count, seeds, resolution):
    """The images that the seeds choose, each read once.

    Args:
        name: one of ``NAMES``
        files: its paths by split
        count: images of each split and seed; 0 for all
        seeds: of the choice
        resolution: the model's

    Returns:
        an :class:`benchmarks.accuracy.datasets.ImageSet`, and for each seed the indices
        ``{"fit": ..., "test": ...}`` of images from the training and from the test split
    """
    choices = {
        (split, seed): shuffled(range(len(paths)), f"{name} {split} {seed}")[: count or None]
        for split, paths in files.items()
        for seed in seeds
    }
    # Seed by seed, so that what the cache holds of one serves a later run with more
    used = list(dict.fromkeys((split, k) for seed in seeds for split in files for k in choices[split, seed]))
    place = {file: n for n, file in enumerate(used)}
    made = read_images([files[split][k] for split, k in used], lambda image: prepare(name, image, resolution))
    parts = {
        seed: {
            part: np.array(sorted(place[split, k] for k in choices.get((split, seed), ())), int)
            for part, split in (("fit", "train"), ("test", "test"))
        }
        for seed in seeds
    }
    return made, parts


def prepare(name, image, resolution):
    """A picture at the model's resolution, uint8 ``(resolution, resolution, 3)``, by way of 32×32.

    Of CelebA's aligned pictures, 178×218, the middle is taken; those that were cut and made
    small before are smaller than that, and are taken whole.
    """
    if name == "celeba" and min(image.size) > CELEBA_SIDE:
        left, top = ((side - CELEBA_SIDE) // 2 for side in image.size)
        image = image.crop((left, top, left + CELEBA_SIDE, top + CELEBA_SIDE))
    return prepare_image(image, (SIDE, resolution))


def description(files, count):
    """What was used of a set: "1,000 of 50,000 training and 1,000 of 10,000 test images, .png"."""
    kinds = sorted({path.suffix.lower() for paths in files.values() for path in paths})
    parts = [
        f"{min(count or len(files[split]), len(files[split])):,} of {len(files[split]):,} {word}"
        for split, word in (("train", "training"), ("test", "test"))
        if split in files
    ]
    return f"{' and '.join(parts)} images, {' and '.join(kinds)}"


def _too_few(names):
    return SetError(
        f"a pair takes one of {', '.join(INSIDE)} with a training and a test split, and another set; "
        f"got {', '.join(names) or 'none'}: give sets with --folder NAME=PATH or --zoo cifar10 cifar100"
    )

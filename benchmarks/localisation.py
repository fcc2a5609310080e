"""Which SSIM constants make the heatmap point at what is wrong?

Pastes drawings and noise into the demo's clothing and photos at known places, and prints
the mean pixel AUROC of 1 − SSIM for several constants. Run it from the project's folder::

    python benchmarks/localisation.py [--sheet twenty.png]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from diffpath import DiffPathV2
from diffpath.ssim import STANDARD_C

DATA = Path(__file__).parents[1] / "demo" / "data"
COUNT, SIDE, PATCH = 60, 32, 10
CONSTANTS = {"standard": STANDARD_C, "0.02": (0.02, 0.02), "0.1": (0.1, 0.1), "0.2": (0.2, 0.2), "0.5": (0.5, 0.5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="write twenty images beside their heatmaps to this PNG")
    arguments = parser.parse_args()

    pasted = {
        (ground, patch): paste(read(ground, SIDE), patches)
        for ground in ("clean", "photos")
        for patch, patches in {"drawings": read("drawings", PATCH), "noise": noise()}.items()
    }
    print(f"{'C1 = C2':<10}" + "".join(f"{patch + ' in ' + ground:>20}" for ground, patch in pasted))
    for name, c in CONSTANTS.items():
        print(f"{name:<10}" + "".join(f"{pixel_auroc(*case, c):>20.3f}" for case in pasted.values()))
    if arguments.sheet:
        write_sheet(arguments.sheet, [images[:5] for images, _ in pasted.values()])


def read(kind, side):
    paths = sorted((DATA / kind).glob("*.png"))[:COUNT]
    return np.stack([np.asarray(Image.open(path).resize((side, side), Image.Resampling.BOX)) for path in paths])


def noise():
    return np.random.default_rng(1).integers(0, 256, (COUNT, PATCH, PATCH), dtype=np.uint8)


def paste(images, patches):
    chance = np.random.default_rng(0)
    images, masks = images.copy(), np.zeros(images.shape, bool)
    for image, mask, patch in zip(images, masks, patches):
        top, left = chance.integers(0, SIDE - PATCH + 1, 2)
        area = np.s_[top : top + PATCH, left : left + PATCH]
        image[area], mask[area] = patch, True
    return images, masks


def pixel_auroc(images, masks, c):
    heatmaps = heatmaps_with(images, c)
    return np.mean([roc_auc_score(mask.ravel(), heatmap.ravel()) for mask, heatmap in zip(masks, heatmaps)])


def heatmaps_with(images, c):
    """The method's heatmap under other constants than its own."""
    import diffpath.method as module

    original = module.dissimilarity_map
    module.dissimilarity_map = lambda *args, **options: original(*args, **{**options, "c": c})
    try:
        return DiffPathV2().score_images(images).heatmaps
    finally:
        module.dissimilarity_map = original


def write_sheet(path, rows):
    """A row for each case: five images, each beside its heatmap (white = 0.5)."""
    sheet = []
    for images in rows:
        heatmaps = np.clip(DiffPathV2().score_images(images).heatmaps / 0.5 * 255, 0, 255).astype(np.uint8)
        sheet.append(np.concatenate([x for pair in zip(images, heatmaps) for x in pair], axis=1))
    image = Image.fromarray(np.concatenate(sheet))
    image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()

"""Which SSIM constants make the heatmap point at what is wrong?

Pastes drawings and noise into the demo's clothing and photos, and prints for several constants
the mean pixel AUROC at which 1 − SSIM finds the pixels that this changed. Run it from the
project's folder::

    python benchmarks/localisation.py [--sheet twenty.png]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from diffpath import DiffPathV2
from diffpath.method import HEATMAP_WINDOW
from diffpath.ssim import STANDARD_C, dissimilarity_map
from diffpath.trajectory import compute_trajectory

DATA = Path(__file__).parents[1] / "demo" / "data"
COUNT, SIDE, PATCH = 60, 32, 10
LEAST_CHANGE = 10  # grey levels; a drawing's black background changes nothing where clothing's is black too
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
    measured = [pixel_aurocs(*case) for case in pasted.values()]
    for name in CONSTANTS:
        print(f"{name:<10}" + "".join(f"{aurocs[name]:>20.3f}" for aurocs in measured))
    if arguments.sheet:
        write_sheet(arguments.sheet, [images[:5] for images, _ in pasted.values()])


def read(kind, side):
    paths = sorted((DATA / kind).glob("*.png"))[:COUNT]
    return np.stack([np.asarray(Image.open(path).resize((side, side), Image.Resampling.BOX)) for path in paths])


def noise():
    return np.random.default_rng(1).integers(0, 256, (COUNT, PATCH, PATCH), dtype=np.uint8)


def paste(images, patches):
    """Pastes one square patch into each square image, grey or RGB; returns images and masks of what this changed."""
    chance = np.random.default_rng(0)
    images, masks = images.copy(), np.zeros(images.shape[:3], bool)
    size, side = patches.shape[1], images.shape[1]
    for image, mask, patch in zip(images, masks, patches):
        top, left = chance.integers(0, side - size + 1, 2)
        area = np.s_[top : top + size, left : left + size]
        change = np.abs(image[area].astype(int) - patch)
        mask[area] = change.reshape(size, size, -1).max(axis=2) >= LEAST_CHANGE
        image[area] = patch
    return images, masks


def pixel_aurocs(images, masks):
    """Mean pixel AUROC for each of ``CONSTANTS``, from one pass of the network."""
    method = DiffPathV2()
    clean = torch.from_numpy(images).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
    path = compute_trajectory(method.predictor, clean, method.timesteps, method.noise, method.max_evaluations)
    aurocs = {}
    for name, c in CONSTANTS.items():
        maps = dissimilarity_map(clean[:, None, None], path.reconstruction, **HEATMAP_WINDOW, c=c)
        heatmaps = maps.mean(dim=(1, 2)).clamp(0, 1).numpy()
        aurocs[name] = np.mean([roc_auc_score(mask.ravel(), map_.ravel()) for mask, map_ in zip(masks, heatmaps)])
    return aurocs


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

"""Heatmaps as PNG files on one fixed scale, comparable between images and runs."""

from pathlib import Path

import fiftyone as fo
import numpy as np
from PIL import Image

HEATMAP_SCALE = (0.0, 0.5)  # 1 − SSIM averaged over timesteps hardly ever lies above


def run_folder(dataset, run_key):
    """Where a run keeps its files: a folder that the user can see, under FiftyOne's own."""
    owner = f"{dataset.slug}-{str(dataset._doc.id)[-6:]}"  # names can be used again, ids cannot
    return Path(fo.config.default_dataset_dir) / "diffpath" / owner / run_key


def heatmap_folder(folder):
    """Where in a run's folder its heatmaps are."""
    return Path(folder) / "heatmaps"


def write_heatmap(heatmap, folder, sample_id):
    """Writes a map as an 8-bit PNG, 0 to 255 for ``HEATMAP_SCALE``.

    Args:
        heatmap: float array ``(H, W)`` in [0, 1]
        folder: the folder to write to, as a ``Path``
        sample_id: names the file

    Returns:
        a ``fo.Heatmap`` that points at the file
    """
    path = folder / f"{sample_id}.png"
    low, high = HEATMAP_SCALE
    levels = np.clip((heatmap - low) / (high - low), 0, 1) * 255
    Image.fromarray(np.round(levels).astype(np.uint8)).save(path)
    return fo.Heatmap(map_path=str(path))

"""One picture of a run: its most anomalous and most typical images beside their heatmaps."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from diffpath.dataset.maps import MAPS

COLUMNS, ROWS = 8, 3
COLOURS = "viridis"


def write_contact_sheet(path, ranked, run_key, title):
    """Writes the sheet as a PNG.

    Args:
        path: the PNG to write
        ranked: a FiftyOne view of scored samples, the most anomalous first
        run_key: the run whose scores and heatmaps to show
        title: what was scored against what
    """
    count = min(COLUMNS * ROWS, len(ranked) // 2)
    blocks = [("Most anomalous", list(ranked[:count])), ("Most typical", list(ranked[-count:])[::-1])]
    figure = plt.figure(figsize=(17.5, 11.4), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=16, fontweight="bold")
    *parts, legend = figure.subfigures(3, 1, height_ratios=[1, 1, 0.16])
    for part, (heading, samples) in zip(parts, blocks):
        part.suptitle(heading, fontsize=13, x=0.005, ha="left")
        axes = part.subplots(ROWS, COLUMNS, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, sample in zip(axes, samples):
            picture = _beside_its_heatmap(sample, run_key)
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(f"{sample['kind']}   {sample[f'{run_key}_score']:.1f}", fontsize=10, pad=3)
    axis = legend.add_axes([0.3, 0.65, 0.4, 0.2])
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(*MAPS["heatmap"].scale), COLOURS)
    label = "heatmap: 1 − SSIM, one scale for all images; it compares places within an image, not images"
    legend.colorbar(scale, cax=axis, orientation="horizontal", label=label)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _beside_its_heatmap(sample, run_key, side=112):
    with Image.open(sample.filepath) as image:
        image = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.NEAREST))
    with Image.open(sample[f"{run_key}_heatmap"].map_path) as heatmap:
        levels = np.asarray(heatmap.resize((side, side), Image.Resampling.NEAREST)) / 255
    coloured = (matplotlib.colormaps[COLOURS](levels)[..., :3] * 255).astype(np.uint8)
    gap = np.full((side, 4, 3), 255, np.uint8)
    return np.concatenate([image, gap, coloured], axis=1)

"""One picture of a run: its most anomalous and most typical images, each beside what is unusual in it."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from diffpath.folders.maps import MAPS

COLUMNS, ROWS = 8, 3
HEIGHT = 112
OPACITY = 0.65
MAP = MAPS["anomaly_map"]
COLOURS = matplotlib.colormaps["viridis"]  # the App's


def write_contact_sheet(path, ranked, run_key, title):
    """Writes the sheet as a PNG.

    Args:
        path: the PNG to write
        ranked: a FiftyOne view of scored samples, the most anomalous first
        run_key: the run whose scores and anomaly maps to show
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
            picture = _beside_its_map(sample, run_key)
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(f"{sample['kind']}   {sample[f'{run_key}_score']:.1f}", fontsize=10, pad=3)
    axis = legend.add_axes([0.3, 0.65, 0.4, 0.2])
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(*MAP.scale), COLOURS)
    label = "anomaly map: 1 in … of the reference's places is as unusual; clear where more than 1 in 20 are"
    bar = legend.colorbar(scale, cax=axis, orientation="horizontal", label=label)
    bar.set_ticks(MAP.ticks["tickvals"], labels=MAP.ticks["ticktext"])
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _beside_its_map(sample, run_key):
    with Image.open(sample.filepath) as image:
        size = round(HEIGHT * image.width / image.height), HEIGHT
        how = Image.Resampling.LANCZOS if image.height > HEIGHT else Image.Resampling.NEAREST
        image = np.asarray(image.convert("RGB").resize(size, how), float)
    with Image.open(sample[f"{run_key}_anomaly_map"].map_path) as made:
        levels = np.asarray(made.resize(size, Image.Resampling.NEAREST)) / 255
    covered = OPACITY * (levels > 0)[..., None]
    on_image = (1 - covered) * image + covered * 255 * COLOURS(levels)[..., :3]
    gap = np.full((HEIGHT, 4, 3), 255)
    return np.concatenate([image, gap, on_image], axis=1).astype(np.uint8)

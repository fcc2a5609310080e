"""Maps as PNG files, each kind on one fixed scale: comparable between images and runs."""

from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo
import numpy as np
from PIL import Image


@dataclass(frozen=True)
class MapKind:
    """A kind of map.

    Attributes:
        source: what :class:`diffpath.DiffPathResult` calls it
        folder: its folder within the run's
        scale: what the PNG's levels 0 and 255 are; hardly any map goes beyond
        colour: of its tint, where the App colours by field: the stronger, the more unusual
    """

    source: str
    folder: str
    scale: tuple
    colour: str


# By kind of field
MAPS = {
    "heatmap": MapKind("heatmaps", "heatmaps", (0.0, 0.15), "#ff5a1f"),
    "error_map": MapKind("error_maps", "error-maps", (0.3, 0.9), "#d6249f"),
}


def run_folder(dataset, run_key):
    """Where a run keeps its files: a folder that the user can see, under FiftyOne's own."""
    owner = f"{dataset.slug}-{str(dataset._doc.id)[-6:]}"  # names can be used again, ids cannot
    return Path(fo.config.default_dataset_dir) / "diffpath" / owner / run_key


def map_folder(folder, kind):
    """Where in a run's folder its maps of a kind are."""
    return Path(folder) / MAPS[kind].folder


def check_scales(config):
    """Refuses to add maps to a run that an older version made, whose maps look otherwise."""
    if config["heatmaps"] and any(list(config[f"{kind}_scale"]) != list(made.scale) for kind, made in MAPS.items()):
        raise ValueError(
            "the run's maps were made by another version of diffpath, on another scale; compute the run again with "
            "overwrite=True"
        )


def write_map(values, kind, folder, sample_id):
    """Writes a map as an 8-bit PNG, 0 to 255 for its kind's scale, at least 1.

    Args:
        values: float array ``(H, W)``
        kind: one of ``MAPS``
        folder: the run's folder, as a ``Path``
        sample_id: names the file

    Returns:
        a ``fo.Heatmap`` that points at the file
    """
    path = map_folder(folder, kind) / f"{sample_id}.png"
    low, high = MAPS[kind].scale
    levels = np.round(np.clip((values - low) / (high - low), 0, 1) * 255)
    # The App draws nothing at level 0, which looks like a hole in the map
    Image.fromarray(np.maximum(levels, 1).astype(np.uint8)).save(path)
    return fo.Heatmap(map_path=str(path))

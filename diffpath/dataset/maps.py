"""Maps as PNG files, each kind on one fixed scale: comparable between images and runs."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from PIL import Image

from .internals import dataset_id


@dataclass(frozen=True)
class MapKind:
    """A kind of map.

    Attributes:
        source: what :class:`diffpath.DiffPathResult` calls it; None of a map that needs the reference
        folder: its folder within the run's
        scale: what the PNG's levels 0 and 255 are; hardly any map goes beyond
        colour: of its tint, where the App colours by field: the stronger, the more unusual
        title: above the map in the panel
        unit: beside its colours
        description: of the field, but for the scale
    """

    source: str | None
    folder: str
    scale: tuple[float, float]
    colour: str
    title: str
    unit: str
    description: str
    transparent: bool = False  # whether nothing is drawn at the lower end of its scale
    ticks: Mapping[str, Any] = field(default_factory=dict)  # of its colours, as plotly has them


# By kind of field
MAPS = {
    "anomaly_map": MapKind(
        source=None,
        folder="anomaly-maps",
        scale=(-math.log10(0.05), 4.0),
        colour="#ff2d2d",
        title="unlike the reference",
        unit="1 in",
        description="How unusual each place is for the reference: -log10 of the share of its images' places that are "
        "as unusual; nothing is drawn where more than 1 in 20 are",
        transparent=True,
        ticks={
            "tickvals": [-math.log10(0.05), 2, 3, 4],
            "ticktext": ["20", "100", "1,000", "10,000"],
        },
    ),
    "heatmap": MapKind(
        source="heatmaps",
        folder="heatmaps",
        scale=(0.0, 0.15),
        colour="#ff5a1f",
        title="difference in structure",
        unit="1 − SSIM",
        description="1 - SSIM between image and reconstruction, averaged over the middle timesteps",
    ),
    "error_map": MapKind(
        source="error_maps",
        folder="error-maps",
        scale=(0.3, 0.9),
        colour="#d6249f",
        title="size of the model's error",
        unit="log error",
        description="Size of the score error around each pixel, on a logarithmic scale where 0 is a thousandth of the "
        "noise's and 1 all of it; finds foreign parts better than the heatmap",
    ),
}


OBJECTS = "objects"  # the folder of a dataset's own pictures, beside those of its runs


def runs_folder() -> Path:
    """Where all runs' files are: a folder that the user can see, under FiftyOne's own."""
    return Path(fo.config.default_dataset_dir) / "diffpath"


def run_folder(dataset: fo.Dataset, run_key: str) -> Path:
    """Where a run is to keep its files: another place whenever it is computed, as browsers keep what they have seen."""
    return dataset_folder(dataset) / f"{run_key}-{uuid.uuid4().hex[:8]}"


def dataset_folder(dataset: fo.Dataset) -> Path:
    """Where the files of a dataset's runs are."""
    return runs_folder() / f"{dataset.slug}-{dataset_id(dataset)}"  # names can be used again, ids cannot


def map_folder(folder: str | Path, kind: str) -> Path:
    """Where in a run's folder its maps of a kind are."""
    return Path(folder) / MAPS[kind].folder


def check_scales(scales: Mapping[str, tuple[float, float]]) -> None:
    """Refuses to add maps to those of another scale, which an older version made."""
    if any(scale != MAPS[kind].scale for kind, scale in scales.items()):
        raise ValueError(
            "the run's maps were made by another version of diffpath, on another scale; compute the run again with "
            "overwrite=True"
        )


def write_map(values: np.ndarray, kind: str, folder: str | Path, sample_id: str) -> fo.Heatmap:
    """Writes a map as an 8-bit PNG, 0 to 255 for its kind's scale, at least 1 where that is not to be transparent.

    Args:
        values: float array ``(H, W)``
        kind: one of ``MAPS``
        folder: the run's folder
        sample_id: names the file

    Returns:
        a ``fo.Heatmap`` that points at the file
    """
    path = map_folder(folder, kind) / f"{sample_id}.png"
    low, high = MAPS[kind].scale
    levels = np.round(np.clip((values - low) / (high - low), 0, 1) * 255)
    # The App draws nothing at level 0, which looks like a hole in the map
    least = 0 if MAPS[kind].transparent else 1
    Image.fromarray(np.maximum(levels, least).astype(np.uint8)).save(path)
    return fo.Heatmap(map_path=str(path))

"""Maps as PNG files, each kind on one fixed scale: comparable between images and runs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


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


MAPS_PER_FOLDER = 10_000

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


def map_path(folder: str | Path, kind: str, name: str, total: int) -> Path:
    """Where in a run's folder one map is: in one of several folders, where one would hold too many files.

    Args:
        folder: the run's
        kind: of ``MAPS``
        name: of the file, without its ending
        total: how many maps of a kind there will be
    """
    within = map_folder(folder, kind)
    if total > MAPS_PER_FOLDER:
        count = math.ceil(2 * total / MAPS_PER_FOLDER)  # twice as many as would do: names spread them nearly evenly
        within /= f"{zlib.crc32(name.encode(errors='surrogateescape')) % count + 1:04}-of-{count:04}"
    return within / f"{name}.png"


class MapWriter:
    """Writes a run's maps as 8-bit PNGs on a thread of its own, 0 to 255 for a kind's scale.

    Args:
        folder: the run's
        kinds: of ``MAPS``, that there will be
        total: how many of each kind there will be, those included that are there
    """

    def __init__(self, folder: str | Path, kinds: Iterable[str], total: int) -> None:
        self._folder, self._total = folder, total
        for kind in kinds:
            map_folder(folder, kind).mkdir(parents=True, exist_ok=True)
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: list[Future[None]] = []

    def add(self, values: np.ndarray, kind: str, name: str) -> str:
        """Takes one map; its file is there after :meth:`wait`.

        Args:
            values: float array ``(H, W)``
            kind: of ``MAPS``
            name: of the file, without its ending

        Returns:
            the file's path
        """
        path = map_path(self._folder, kind, name, self._total)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "diffpath-maps")
        self._waiting.append(self._thread.submit(_write_map, values, kind, path))
        return str(path)

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
            OSError: if something could not be
        """
        if self._thread is None:
            return
        self._thread.shutdown()
        written, self._waiting, self._thread = self._waiting, [], None
        for each in written:
            each.result()


def read_map(path: str | None, scale: tuple[float, float]) -> np.ndarray | None:
    """A map's values, float64 ``(H, W)``, or None where there is none.

    Args:
        path: of its file
        scale: what levels 0 and 255 of its file are
    """
    if not path:
        return None
    try:
        with Image.open(path) as image:
            levels = np.asarray(image, np.float64)
    except OSError:
        return None
    return scale[0] + levels / 255 * (scale[1] - scale[0])


def _write_map(values: np.ndarray, kind: str, path: Path) -> None:
    low, high = MAPS[kind].scale
    levels = np.round(np.clip((values - low) / (high - low), 0, 1) * 255)
    # The App draws nothing at level 0, which looks like a hole in the map
    least = 0 if MAPS[kind].transparent else 1
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.maximum(levels, least).astype(np.uint8)).save(path)

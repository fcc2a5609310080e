"""What anomaly maps are made of, kept on disk while a run is under way: only the reference turns it into maps."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fiftyone as fo
import numpy as np

from .maps import MapWriter
from .record import RunRecord
from .regions import detections

if TYPE_CHECKING:
    from ..detection.local import LocalReference

_FOLDER = "evidence"
_KIND = "anomaly_map"


class Evidence:
    """Local evidence of images by sample id, in files of one flush each.

    Args:
        folder: the run's folder
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER
        self._waiting: dict[str, np.ndarray] = {}
        self._files = {path: _ids(path) for path in sorted(self._folder.glob("*.npz"))}

    @property
    def ids(self) -> set[str]:
        """Of the images that it has on disk."""
        return set().union(*self._files.values()) if self._files else set()

    def add(self, sample_id: str, local: np.ndarray) -> None:
        """Takes one image's, float16 ``(K, y, x)``."""
        self._waiting[sample_id] = local

    def flush(self) -> None:
        """Writes what waits."""
        if not self._waiting:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{uuid.uuid4().hex}.npz"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, ids=np.array(list(self._waiting)), local=np.stack(list(self._waiting.values())))
        partial.replace(path)
        self._files[path] = set(self._waiting)
        self._waiting.clear()

    def chunks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """The images that are wanted, each once: their ids and float16 ``(n, K, y, x)``."""
        seen: set[str] = set()
        for path, ids in self._files.items():
            if ids.isdisjoint(wanted):
                continue
            with np.load(path) as stored:
                names, local = stored["ids"].tolist(), stored["local"]
            rows = [row for row, name in enumerate(names) if name in wanted and name not in seen]
            seen.update(names)
            if rows:
                yield [names[row] for row in rows], local[rows]

    def of(self, sample_ids: Sequence[str], shared: Mapping[str, str]) -> np.ndarray | None:
        """Of all these images, float16 ``(n, K, y, x)``, or None where one has none.

        Args:
            sample_ids: the images
            shared: ids of samples of which another one, of the same file, was read
        """
        names = [shared.get(sample_id, sample_id) for sample_id in sample_ids]
        found: dict[str, np.ndarray] = {}
        for ids, local in self.chunks(set(names)):
            found.update(zip(ids, local))
        return np.stack([found[name] for name in names]) if found.keys() >= set(names) else None

    def clear(self) -> None:
        """Deletes it, once the run is complete: until then a reference that is fitted again needs it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.clear()


def write_anomaly_maps(
    dataset: fo.Dataset, record: RunRecord, evidence: Evidence, local: LocalReference | None, ids: Collection[str]
) -> None:
    """Makes the anomaly maps of images from their evidence, and where the run has them, boxes of their regions.

    Args:
        dataset: the ``fo.Dataset``
        record: the run's record
        evidence: of the images
        local: what the reference's places look like; None where that is not known: then no map is made
        ids: of the images that have features
    """
    field = record.fields.get(_KIND)
    if field is None or local is None:
        return
    writer = MapWriter(record.folder, [_KIND])
    for some, values in evidence.chunks(ids):
        surprise = local.maps(values)
        maps = {i: writer.add(each, _KIND, i) for i, each in zip(some, surprise)}
        if record.regions:
            regions = {i: detections(each, record.regions) for i, each in zip(some, surprise)}
            dataset.set_values(record.fields["regions"], regions, key_field="id")
        writer.wait()
        dataset.set_values(field, maps, key_field="id")


def _ids(path: Path) -> set[str]:
    with np.load(path) as stored:
        return set(stored["ids"].tolist())

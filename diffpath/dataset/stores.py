"""Where results go while a run is under way: the samples' fields, or a file for reference images elsewhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from ..folders.evidence import Evidence
from ..folders.maps import MAPS, MapWriter
from ..method.descriptor import PARTS
from .internals import every_image
from .record import RunRecord, find_record

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathResult

_DONE = "features"  # an image that has them is not scored again: they are written last


class FieldStore:
    """Writes features, maps and errors to the target samples, a chunk at a time.

    Attributes:
        descriptors: of the images that are done, those of an earlier, interrupted run included
    """

    def __init__(self, dataset: fo.Dataset, record: RunRecord, sample_ids: Collection[str]) -> None:
        total = len(sample_ids) + (record.num_scored or 0)
        self._dataset, self._run_key = dataset, record.run_key
        self._fields = record.fields
        self._parts = [part.name for part in PARTS if part.name in record.fields]
        self._maps = {kind: made.source for kind, made in MAPS.items() if made.source and kind in record.fields}
        self._anomaly_map = record.fields.get("anomaly_map")
        self.evidence = Evidence(Path(record.folder))
        order = [*self._maps, *(kind for kind in self._parts if kind != _DONE), "error", _DONE]
        self._waiting: dict[str, dict[str, Any]] = {kind: {} for kind in order}
        self._writer = MapWriter(record.folder, self._maps, total)
        self.descriptors = dict(self._read(sample_ids))

    def __len__(self) -> int:
        return len(self._waiting["error"])

    @property
    def wanted(self) -> set[str]:
        sources = {source for source in self._maps.values() if source}
        return sources | {"local"} if self._anomaly_map else sources

    def add(self, sample_id: str, result: DiffPathResult) -> None:
        self.descriptors[sample_id] = result.descriptor
        for kind in self._parts:
            self._waiting[kind][sample_id] = getattr(result, kind)
        if self._anomaly_map:
            self.evidence.add(sample_id, result.local)
        for kind, source in self._maps.items():
            values = getattr(result, source)
            self._waiting[kind][sample_id] = fo.Heatmap(map_path=self._writer.add(values, kind, sample_id))
        self._waiting["error"][sample_id] = None

    def add_error(self, sample_id: str, error: str) -> None:
        self._waiting["error"][sample_id] = error

    def flush(self) -> None:
        if not len(self):
            return
        self._check_not_deleted()
        # Before what says that an image is done
        self._writer.wait()
        self.evidence.flush()
        for kind, values in self._waiting.items():
            if values:
                self._dataset.set_values(self._fields[kind], values, key_field="id")
                values.clear()
        self._check_not_deleted()

    def _check_not_deleted(self) -> None:
        """Ends where the run was deleted: to write one of its fields makes it anew, which nobody would delete."""
        if find_record(self._dataset, self._run_key) is not None:
            return
        self._dataset.reload()
        left = [name for name in self._fields.values() if self._dataset.has_sample_field(name)]
        if left:
            self._dataset.delete_sample_fields(left)
        raise ValueError(f"run {self._run_key!r} of dataset {self._dataset.name!r} was deleted meanwhile")

    def _read(self, sample_ids: Container[str]) -> Iterator[tuple[str, np.ndarray]]:
        # Not select(sample_ids): a million ids do not fit in one query
        described = every_image(self._dataset).exists(self._fields[_DONE])
        paths = [self._fields[kind] for kind in self._parts]
        maps = [f"{self._fields[kind]}.map_path" for kind in self._maps]
        made = f"{self._anomaly_map}.map_path" if self._anomaly_map else "id"
        kept = self.evidence.ids if self._anomaly_map else sample_ids
        for sample_id, anomaly_map, *values in zip(*described.values(["id", made, *paths, *maps])):
            parts, files = values[: len(paths)], values[len(paths) :]
            if sample_id not in sample_ids or any(value is None for value in values):
                continue
            if sample_id not in kept and not (anomaly_map and Path(anomaly_map).is_file()):
                continue
            if all(Path(file).is_file() for file in files):
                yield sample_id, np.concatenate(parts)


class ReferenceArchive:
    """Keeps the descriptors of reference images that are not among the target, one JSON line each.

    Their samples are left untouched: they may belong to another dataset.

    Attributes:
        descriptors: of the images that are done

    Args:
        folder: the run's
        evidence: takes their local evidence, where the run makes anomaly maps
    """

    def __init__(self, folder: Path, evidence: Evidence | None = None) -> None:
        self._path = folder / "reference.jsonl"
        self._evidence = evidence
        self._waiting: list[str] = []
        self.descriptors = dict(self._read())

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wanted(self) -> set[str]:
        return set() if self._evidence is None else {"local"}

    def add(self, sample_id: str, result: DiffPathResult) -> None:
        self.descriptors[sample_id] = result.descriptor
        self._waiting.append(json.dumps([sample_id, result.descriptor.tolist()]))
        if self._evidence is not None:
            self._evidence.add(sample_id, result.local)

    def add_error(self, sample_id: str, error: str) -> None:
        """An unreadable reference image is left out of the reference."""

    def flush(self) -> None:
        if self._waiting:
            if self._evidence is not None:
                self._evidence.flush()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.writelines(f"{line}\n" for line in self._waiting)
            self._waiting.clear()

    def _read(self) -> Iterator[tuple[str, np.ndarray]]:
        if not self._path.exists():
            return
        for line in self._path.read_text().splitlines():
            try:
                sample_id, descriptor = json.loads(line)
            except ValueError:
                continue  # the line that a killed process left half written
            yield sample_id, np.array(descriptor, np.float32)

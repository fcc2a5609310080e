"""Where results go while a run is under way: the samples' fields, or a file for reference images elsewhere."""

import json
from pathlib import Path

import numpy as np

from .maps import MAPS, map_folder, write_map

# The method's descriptor is these, one after the other, as far as the run has them
_DESCRIPTOR_PARTS = ("features", "profile", "statistics", "zoomed")


class FieldStore:
    """Writes features, maps and errors to the target samples, a chunk at a time."""

    def __init__(self, dataset, config, sample_ids):
        self._dataset, self._fields = dataset, config["fields"]
        self._folder = Path(config["folder"])
        self._parts = [kind for kind in _DESCRIPTOR_PARTS if kind in self._fields]
        self._waiting = {kind: {} for kind in self._fields}
        self._maps = [kind for kind in MAPS if kind in self._fields]
        for kind in self._maps:
            map_folder(self._folder, kind).mkdir(parents=True, exist_ok=True)
        self.descriptors = dict(self._read(sample_ids))

    def __len__(self):
        return len(self._waiting["error"])

    def add(self, sample_id, result):
        """Takes what the method says of one image."""
        self.descriptors[sample_id] = result.descriptor
        for kind in self._parts:
            self._waiting[kind][sample_id] = getattr(result, kind)
        for kind in self._maps:
            values = getattr(result, MAPS[kind].source)
            self._waiting[kind][sample_id] = write_map(values, kind, self._folder, sample_id)
        self._waiting["error"][sample_id] = None

    def add_error(self, sample_id, error):
        self._waiting["error"][sample_id] = error

    def flush(self):
        for kind, values in self._waiting.items():
            if values:
                self._dataset.set_values(self._fields[kind], values, key_field="id")
                values.clear()

    def _read(self, sample_ids):
        # Not select(sample_ids): a million ids do not fit in one query
        described = self._dataset.exists(self._fields["features"])
        for sample_id, *parts in zip(*described.values(["id", *(self._fields[kind] for kind in self._parts)])):
            if sample_id in sample_ids and all(part is not None for part in parts):
                yield sample_id, np.concatenate(parts)


class ReferenceArchive:
    """Keeps the descriptors of reference images that are not among the target, one JSON line each.

    Their samples are left untouched: they may belong to another dataset.
    """

    def __init__(self, folder):
        self._path = folder / "reference.jsonl"
        self._waiting = []
        self.descriptors = dict(self._read())

    def __len__(self):
        return len(self._waiting)

    def add(self, sample_id, result):
        """Takes what the method says of one image."""
        self.descriptors[sample_id] = result.descriptor
        self._waiting.append(json.dumps([sample_id, result.descriptor.tolist()]))

    def add_error(self, sample_id, error):
        """An unreadable reference image is left out of the reference."""

    def flush(self):
        if self._waiting:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.writelines(f"{line}\n" for line in self._waiting)
            self._waiting.clear()

    def _read(self):
        if not self._path.exists():
            return
        for line in self._path.read_text().splitlines():
            try:
                sample_id, descriptor = json.loads(line)
            except ValueError:
                continue  # the line that a killed process left half written
            yield sample_id, np.array(descriptor, np.float32)

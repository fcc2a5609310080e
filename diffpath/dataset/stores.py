"""Where results go while a run is under way: the samples' fields, or a file for reference images elsewhere."""

import json

import numpy as np

from .maps import heatmap_folder, write_heatmap


class FieldStore:
    """Writes features, profiles, heatmaps and errors to the target samples, a chunk at a time."""

    def __init__(self, dataset, config, sample_ids):
        self._dataset, self._fields = dataset, config["fields"]
        self._heatmaps = heatmap_folder(config["folder"])
        self._waiting = {kind: {} for kind in self._fields}
        if "heatmap" in self._fields:
            self._heatmaps.mkdir(parents=True, exist_ok=True)
        self.descriptors = dict(self._read(sample_ids))

    def __len__(self):
        return len(self._waiting["error"])

    def add(self, sample_id, features, profile, heatmap):
        self.descriptors[sample_id] = _descriptor(features, profile, "profile" in self._fields)
        self._waiting["features"][sample_id] = features
        if "profile" in self._fields:
            self._waiting["profile"][sample_id] = profile
        if "heatmap" in self._fields:
            self._waiting["heatmap"][sample_id] = write_heatmap(heatmap, self._heatmaps, sample_id)
        self._waiting["error"][sample_id] = None

    def add_error(self, sample_id, error):
        self._waiting["error"][sample_id] = error

    def flush(self):
        for kind, values in self._waiting.items():
            if values:
                self._dataset.set_values(self._fields[kind], values, key_field="id")
                values.clear()

    def _read(self, sample_ids):
        kinds = [kind for kind in ("features", "profile") if kind in self._fields]
        # Not select(sample_ids): a million ids do not fit in one query
        described = self._dataset.exists(self._fields["features"])
        for sample_id, *parts in zip(*described.values(["id", *(self._fields[kind] for kind in kinds)])):
            if sample_id in sample_ids and all(part is not None for part in parts):
                yield sample_id, np.concatenate(parts)


class ReferenceArchive:
    """Keeps the descriptors of reference images that are not among the target, one JSON line each.

    Their samples are left untouched: they may belong to another dataset.
    """

    def __init__(self, folder, use_profile):
        self._path = folder / "reference.jsonl"
        self._use_profile = use_profile
        self._waiting = []
        self.descriptors = dict(self._read())

    def __len__(self):
        return len(self._waiting)

    def add(self, sample_id, features, profile, heatmap):
        descriptor = _descriptor(features, profile, self._use_profile)
        self.descriptors[sample_id] = descriptor
        self._waiting.append(json.dumps([sample_id, descriptor.tolist()]))

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


def _descriptor(features, profile, use_profile):
    return np.concatenate([features, profile]) if use_profile else features

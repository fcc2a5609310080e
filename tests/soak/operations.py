"""What can be interrupted: how each operation is prepared, done, and done again, and what there is afterwards."""

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo
import numpy as np
from conftest import demo_samples
from fiftyone import ViewField as F
from fiftyone.core.odm import get_db_conn
from PIL import Image

from diffpath import (
    compute_diffpath,
    continue_diffpath,
    delete_diffpath,
    get_diffpath_info,
    list_diffpath_runs,
    rename_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.dataset.maps import dataset_folder
from diffpath.dataset.record import read_records
from diffpath.dataset.workspaces import save_run_view, save_workspace
from diffpath.folders.maps import MAPS

FAST = dict(num_timesteps=2, num_workers=1, progress=False, batch_size=4, dtype="float32")
_RUN = dict(reference="reference", run_key="k", tag="odd", regions=0.05, **FAST)
_VOLATILE = ("timestamp", "alive", "stopping", "seconds", "images_per_second", "counted_at", "dataset_id")


@dataclass(frozen=True)
class Operation:
    """One that can be interrupted.

    Attributes:
        prepare: what comes before, with a dataset
        act: the operation itself; done again, it finishes what was interrupted
    """

    prepare: Callable[[fo.Dataset], None]
    act: Callable[[fo.Dataset], object]


def make_dataset():
    """Twelve pictures of clothing, the first seven of them the reference, and two that do not belong."""
    dataset = fo.Dataset()
    samples = [*demo_samples("reference", 7, tags=["reference"]), *demo_samples("clean", 3), *demo_samples("photos", 2)]
    dataset.add_samples(samples, progress=False)
    dataset.first().tags.append("mine")
    dataset.save_view("mine", dataset.limit(3))
    return dataset


def compute(dataset, **others):
    return compute_diffpath(dataset, **{**_RUN, **others})


def everything(dataset):
    """A run with all that can belong to it, a view of the user over its fields, and a tag that a person gave."""
    compute(dataset)
    dataset.save_view("over scores", dataset.match(F("k_score") > 3).sort_by("k_score"))
    save_run_view(dataset, "k", "seen", dataset.limit(2))
    save_workspace(dataset, "k")


def _new_images(dataset):
    everything(dataset)
    dataset.add_samples([*demo_samples("photos", 2, skip=2), *demo_samples("clean", 1, skip=3)], progress=False)


def _lost_files(dataset):
    everything(dataset)
    shutil.rmtree(read_records(dataset)["k"].folder)


OPERATIONS = {
    "compute": Operation(lambda dataset: None, compute),
    "overwrite": Operation(everything, lambda dataset: compute(dataset, seed=1, overwrite=True)),
    "update": Operation(_new_images, lambda dataset: update_diffpath(dataset, "k", num_workers=1, progress=False)),
    "rename": Operation(everything, lambda dataset: rename_diffpath(dataset, "k", "other")),
    "delete": Operation(everything, lambda dataset: delete_diffpath(dataset, "k")),
    "threshold": Operation(everything, lambda dataset: set_diffpath_threshold(dataset, "k", "count", 5)),
    "tag": Operation(everything, lambda dataset: set_diffpath_threshold(dataset, "k", "count", 4, tag="other")),
    "continue": Operation(
        _lost_files, lambda dataset: continue_diffpath(dataset, "k", num_workers=1, batch_size=4, progress=False)
    ),
}


def finish(operation, dataset):
    """Does an interrupted operation again, as a user would; one that is done already refuses."""
    with contextlib.suppress(ValueError):
        operation.act(dataset)
    finish_all(dataset)


def finish_all(dataset):
    """Looks at every run, which finishes what was interrupted."""
    for run_key in list_diffpath_runs(dataset):
        get_diffpath_info(dataset, run_key)


def snapshot(dataset):
    """All that a run could have changed, but for times and random names of folders."""
    dataset.reload()
    database, this = get_db_conn(), dataset._doc.id
    names = [path.rsplit("/", 2)[-2] + "/" + path.rsplit("/", 1)[-1] for path in dataset.values("filepath")]
    schema = dataset.get_field_schema()
    documents = list(dataset._sample_collection.find())
    stored = {name for document in documents for name in document}
    maps = {f"{key}_{kind}" for key in dataset.list_runs() for kind in MAPS}
    scheme = dataset.app_config.color_scheme
    return {
        "fields": {name: (type(field).__name__, field.description) for name, field in schema.items()},
        "not in the schema": sorted(name for name in stored - set(schema) if not name.startswith("_")),
        "values": {
            name: dict(zip(names, map(_plain, dataset.values(name))))
            for name in schema
            if name not in maps and name not in ("id", "last_modified_at", "created_at", "filepath", "metadata")
        },
        "maps": {
            name: dict(zip(names, map(_pixels, dataset.values(f"{name}.map_path")))) for name in maps & set(schema)
        },
        "indexes": sorted(dataset.get_index_information()),
        "views": {
            name: (dataset.load_saved_view(name)._serialize(include_uuids=False), _description(dataset, name))
            for name in sorted(dataset.list_saved_views())
        },
        "view documents": database.views.count_documents({"_dataset_id": this}),
        "workspaces": sorted(dataset.list_workspaces()),
        "scheme": scheme and {name: value for name, value in scheme.to_dict().items() if name != "_id"},
        "run documents": database.runs.count_documents({"_dataset_id": this}),
        "records": {key: _record(record) for key, record in read_records(dataset).items()},
        "files": sorted(
            (_stable(path.relative_to(dataset_folder(dataset))).replace(sample_id, name))
            for path in dataset_folder(dataset).rglob("*")
            for sample_id, name in [_sample(path, dict(zip(dataset.values("id"), names)))]
        ),
    }


def difference(one, other, path=""):
    """Where two snapshots differ, as lines."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys(), key=str):
            yield from difference(one.get(name), other.get(name), f"{path}/{name}")
    elif isinstance(one, list) and isinstance(other, list) and all(isinstance(each, str) for each in one + other):
        if one != other:
            more, less = Counter(one) - Counter(other), Counter(other) - Counter(one)
            yield f"{path}: also {sorted(more.elements())}, without {sorted(less.elements())}"
    elif not _alike(one, other):
        yield f"{path}: {str(one)[:160]} is not {str(other)[:160]}"


def _alike(one, other):
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-6, atol=1e-9)
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-6, atol=1e-9))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


def _plain(value):
    if isinstance(value, fo.Detections):
        return [(each.label, each.bounding_box, each.surprise) for each in value.detections]
    return sorted(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value


def _pixels(path):
    return None if path is None else np.asarray(Image.open(path), float) if Path(path).is_file() else "no file"


def _description(dataset, name):
    return re.sub(r"[\d.]+", "#", dataset.get_saved_view_info(name)["description"] or "")


def _record(record):
    stored = {name: value for name, value in record.to_stored().items() if name not in _VOLATILE}
    return {**stored, "folder": _stable(Path(stored["folder"]).name), "made_by": _without_names(stored["made_by"])}


def _without_names(made_by):
    reference = {k: v for k, v in made_by["reference"].items() if k not in ("dataset", "dataset_id", "ids")}
    return {**made_by, "reference": reference}


def _stable(path):
    return re.sub(r"-[0-9a-f]{8}\b", "-#", str(path))


def _sample(path, names):
    return (path.stem, names.get(path.stem, path.stem))

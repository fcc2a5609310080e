"""What diffpath needs of FiftyOne that its public API does not give: the only file that touches its private parts.

A FiftyOne release that moves one of these breaks this file alone, and ``test_internals.py`` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeAlias

import fiftyone as fo
import fiftyone.core.media as fo_media
import numpy as np
from bson import ObjectId, json_util
from fiftyone.core.collections import SampleCollection
from fiftyone.core.odm import get_db_conn
from fiftyone.core.view import DatasetView
from fiftyone.server.view import get_view
from fiftyone.utils.patches import extract_patch

Samples: TypeAlias = fo.Dataset | fo.DatasetView
Stages: TypeAlias = list[dict[str, Any]]  # of a view, as FiftyOne stores them


def is_collection(samples: object) -> bool:
    """Whether this is a dataset or a view."""
    return isinstance(samples, SampleCollection)


def root_dataset(samples: Samples) -> fo.Dataset:
    """The dataset that a view is over, or the dataset itself."""
    return samples._root_dataset


def is_generated(samples: Samples) -> bool:
    """Whether the samples are made from others: patches, frames, clips."""
    return samples._dataset._is_generated


def is_patches(samples: Samples) -> bool:
    """Whether each sample is an object within an image: a view of patches, or a dataset that was cloned of one."""
    if samples._dataset._is_patches:
        return True
    schema = samples.get_field_schema()
    kinds = [field.document_type for field in schema.values() if isinstance(field, fo.EmbeddedDocumentField)]
    return isinstance(schema.get("sample_id"), fo.ObjectIdField) and any(
        issubclass(kind, fo.Detection | fo.Polyline) for kind in kinds
    )


def is_dynamic(samples: Samples) -> bool:
    """Whether these are groups that a view makes by a field's values."""
    return samples.media_type == fo_media.GROUP and samples._is_dynamic_groups


def every_image(samples: Samples) -> Samples:
    """The images of all slices of groups, each for itself; a collection without groups as it is.

    A grouped dataset, asked itself, sees its active slice alone.
    """
    if is_dynamic(samples):
        samples = samples.flatten()
    if samples.media_type == fo_media.GROUP:
        samples = samples.select_group_slices(media_type=fo_media.IMAGE)
    return samples


def dataset_id(dataset: fo.Dataset) -> str:
    """What tells a dataset from all others, for ever: names can be used again, ids cannot."""
    return str(dataset._doc.id)


def find_dataset(dataset_id: str | None, name: str) -> fo.Dataset | None:
    """The dataset of an id, whatever its name is now; without an id, the one of that name."""
    if dataset_id is not None:
        found = get_db_conn().datasets.find_one({"_id": ObjectId(dataset_id)}, {"name": True})
        return fo.load_dataset(found["name"]) if found else None
    return fo.load_dataset(name) if fo.dataset_exists(name) else None


def object_pixels(pixels: np.ndarray, box: fo.Detection) -> np.ndarray:
    """What of a picture is within an object's box."""
    return extract_patch(pixels, box)


# Views


def view_stages(samples: Samples) -> Stages:
    """The stages of a view, the same for equal views; empty for a whole dataset."""
    return samples._serialize(include_uuids=False) if isinstance(samples, fo.DatasetView) else []


def build_view(dataset: fo.Dataset, stages: Stages) -> fo.DatasetView:
    """The view of which :func:`view_stages` gave the stages."""
    return DatasetView._build(dataset, stages)


def filtered_images(dataset: fo.Dataset, stages: Stages | None, filters: Mapping[str, Any] | None) -> fo.DatasetView:
    """The images that the App shows: the stages of its view bar and the filters of its sidebar."""
    # A view may leave out a run's fields, which are wanted of its images all the same
    shown = [stage for stage in stages or [] if not stage["_cls"].endswith(_OF_FIELDS)]
    images = every_image(build_view(dataset, shown))
    return get_view(dataset, stages=view_stages(images) or None, filters=filters or None)


def dump_view(samples: Samples) -> str | None:
    """A view as JSON, by which :func:`load_view` makes it again; None for a whole dataset."""
    return None if isinstance(samples, fo.Dataset) else json_util.dumps(view_stages(samples))


def load_view(dataset: fo.Dataset, dumped: str | None) -> Samples:
    """The collection of which :func:`dump_view` gave the JSON."""
    return build_view(dataset, json_util.loads(dumped)) if dumped else dataset


_OF_FIELDS = (".SelectFields", ".ExcludeFields")  # stages


@dataclass(frozen=True)
class SavedView:
    """All that is stored of a saved view."""

    name: str
    stages: Stages
    description: str | None
    color: str | None


def read_saved_view(dataset: fo.Dataset, name: str) -> SavedView:
    """A saved view as it is stored: also where the fields that it names are gone."""
    document = dataset._get_saved_view_doc(name)
    stages = [json.loads(stage) for stage in document.view_stages]
    return SavedView(document.name, stages, document.description, document.color)


def restore_saved_view(dataset: fo.Dataset, saved: SavedView) -> None:
    """Saves a view again that was deleted."""
    view = build_view(dataset, saved.stages)
    dataset.save_view(saved.name, view, description=saved.description, color=saved.color, overwrite=True)


def replace_saved_stages(dataset: fo.Dataset, name: str, stages: Stages) -> None:
    """Gives a saved view other stages, and leaves all else of it."""
    document = dataset._get_saved_view_doc(name)
    document.view_stages = [json.dumps(stage) for stage in stages]
    document.save()


# Runs. FiftyOne keeps them in memory, and replaces the whole of a run's config when it writes:
# two writers lose each other's changes. These read what is stored, and write what is named


@dataclass(frozen=True)
class StoredRun:
    """A run as it is stored."""

    key: str
    timestamp: datetime
    config: dict[str, Any]


def read_runs(dataset: fo.Dataset) -> dict[str, StoredRun]:
    """The runs of a dataset by their keys, as they are stored now, in the order of their making.

    The dataset's own copy of its fields, views and workspaces follows, where another process has
    changed them.
    """
    database = get_db_conn()
    wanted = {"runs": True, "sample_fields.name": True, "saved_views": True, "workspaces": True}
    stored = database.datasets.find_one({"_id": dataset._doc.id}, wanted) or {}
    _follow(dataset, stored)
    keys = {run_id: key for key, run_id in stored.get("runs", {}).items()}
    documents = database.runs.find({"_id": {"$in": list(keys)}}, {"timestamp": True, "config": True})
    found = [StoredRun(keys[each["_id"]], each["timestamp"], each["config"]) for each in documents]
    return {run.key: run for run in sorted(found, key=lambda run: run.timestamp)}


def patch_run(
    dataset: fo.Dataset,
    key: str,
    values: Mapping[str, Any] | None = None,
    *,
    items: Mapping[str, tuple[str, Any]] | None = None,
    members: Mapping[str, Any] | None = None,
) -> bool:
    """Changes parts of a run's stored config at once, and leaves all others as they are stored.

    Args:
        dataset: the dataset that holds the run
        key: the run's key
        values: what names of the config are set to
        items: name -> (key, value): one item of a dictionary in the config
        members: name -> value: added to a list in the config, if it is not in it

    Returns:
        whether there is such a run
    """
    database = get_db_conn()
    stored = database.datasets.find_one({"_id": dataset._doc.id}, {f"runs.{key}": True}) or {}
    run = {"_id": stored.get("runs", {}).get(key)}
    found = True
    if values:
        found = _matched(database.runs.update_one(run, {"$set": {f"config.{name}": v for name, v in values.items()}}))
    if items:
        # By an expression, as an item's key may have dots in it
        changed = {
            f"config.{name}": {
                "$setField": {
                    "field": {"$literal": item},
                    "input": {"$ifNull": [f"$config.{name}", {}]},
                    "value": {"$literal": value},
                }
            }
            for name, (item, value) in items.items()
        }
        found = _matched(database.runs.update_one(run, [{"$set": changed}]))
    if members:
        added = {f"config.{name}": value for name, value in members.items()}
        found = _matched(database.runs.update_one(run, {"$addToSet": added}))
    return found


def last_deletion(dataset: fo.Dataset) -> float | None:
    """When samples of a dataset were last deleted, whoever did it, in seconds since 1970; None if never."""
    stored = get_db_conn().datasets.find_one({"_id": dataset._doc.id}, {"last_deletion_at": True}) or {}
    moment = stored.get("last_deletion_at")
    return None if moment is None else moment.replace(tzinfo=timezone.utc).timestamp()


def database_id() -> str:
    """What tells this database from others that may use the same folders."""
    return str((get_db_conn().config.find_one({}, {"_id": True}) or {}).get("_id"))


def stored_folders() -> set[str]:
    """The folders that runs of this database name, whatever their dataset."""
    return set(get_db_conn().runs.distinct("config.folder"))


def refresh_runs(dataset: fo.Dataset) -> None:
    """Lets FiftyOne's own copy of the dataset's runs be what is stored."""
    dataset._doc.reload("runs")


_OTHERS = ("saved_views", "workspaces")  # of which the document holds the ids


def _follow(dataset: fo.Dataset, stored: Mapping[str, Any]) -> None:
    """Loads a dataset's document again where it holds other names than are stored."""
    kept = dataset._doc
    known = [{field.name for field in kept.sample_fields}, *({each.id for each in kept[name]} for name in _OTHERS)]
    there = [
        {field["name"] for field in stored.get("sample_fields", ())},
        *(set(stored.get(name, ())) for name in _OTHERS),
    ]
    if stored and known != there:
        dataset._reload(hard=True)  # not reload(), which would drop what a person has changed in samples and not saved


def _matched(result: Any) -> bool:
    return result.matched_count > 0

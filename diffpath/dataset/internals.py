"""What diffpath needs of FiftyOne that its public API does not give: the only file that touches its private parts.

A FiftyOne release that moves one of these breaks this file alone, and ``test_internals.py`` says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeAlias

import fiftyone as fo
import fiftyone.core.media as fo_media
import numpy as np
import pymongo
from bson import ObjectId, json_util
from fiftyone.core.collections import SampleCollection
from fiftyone.core.odm import get_db_conn
from fiftyone.core.view import DatasetView
from fiftyone.server.view import get_view
from fiftyone.utils.patches import extract_patch
from pymongo.errors import ConnectionFailure, DuplicateKeyError, PyMongoError

DatabaseError = PyMongoError
DatabaseAway = ConnectionFailure
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


def put_saved_view(dataset: fo.Dataset, name: str, view: fo.DatasetView, description: str) -> None:
    """Saves a view; one of that name is changed in place, so that it is never gone, and keeps its id and colour."""
    if not dataset.has_saved_view(name):
        _forget_unnamed(dataset, "saved_views", [name])
        dataset.save_view(name, view, description=description)
        return
    document = dataset._get_saved_view_doc(name)
    document.view_stages = [json_util.dumps(stage) for stage in view_stages(view)]
    document.description = description
    document.last_modified_at = datetime.now(timezone.utc)
    document.save()


def put_workspace(dataset: fo.Dataset, name: str, space: fo.Space, description: str) -> None:
    """Saves a workspace; one of that name is changed in place, so that it is never gone."""
    if not dataset.has_workspace(name):
        _forget_unnamed(dataset, "workspaces", [name])
        dataset.save_workspace(name, space, description=description)
        return
    document = dataset._get_workspace_doc(name)
    document.child, document.description = space, description
    document.name = name  # of the child, too
    document.last_modified_at = datetime.now(timezone.utc)
    document.save()


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


def datasets_with_runs(names: Iterable[str] = (), method: str = "diffpath") -> Iterator[fo.Dataset]:
    """Datasets that may have runs of a method.

    Args:
        names: of the datasets; all by default
        method: the method

    Raises:
        ValueError: if there is no dataset of one of the names
    """
    there = fo.list_datasets()
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ValueError(f"there is no dataset {unknown[0]!r}; fiftyone datasets list says which there are")
    database = get_db_conn()
    owners = database.runs.distinct("_dataset_id", {"config.method": method})
    with_runs = database.datasets.distinct("name", {"$or": [{"_id": {"$in": owners}}, {"runs": {"$nin": [{}, None]}}]})
    for name in names or [name for name in there if name in with_runs]:
        yield fo.load_dataset(name)


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


def follow(dataset: fo.Dataset) -> None:
    """Loads a dataset's document as it is stored now."""
    if not _follow(dataset, get_db_conn().datasets.find_one({"_id": dataset._doc.id}) or {}):
        dataset._reload()  # samples in memory go on knowing their fields


def _follow(dataset: fo.Dataset, stored: Mapping[str, Any]) -> bool:
    """Loads a dataset's document again where it holds other names than are stored; returns whether it did."""
    kept = dataset._doc
    known = [{field.name for field in kept.sample_fields}, *({each.id for each in kept[name]} for name in _OTHERS)]
    there = [
        {field["name"] for field in stored.get("sample_fields", ())},
        *(set(stored.get(name, ())) for name in _OTHERS),
    ]
    if not stored or known == there:
        return False
    dataset._reload(hard=True)  # not reload(), which would drop what a person has changed in samples and not saved
    return True


def _matched(result: Any) -> bool:
    return result.matched_count > 0


def answers(seconds: float = 2.0) -> bool:
    """Whether the database does, within some seconds."""
    try:
        with pymongo.timeout(seconds):
            get_db_conn().command("ping")
    except PyMongoError:
        return False
    return True


# Changes of many images in the database itself, without their ids coming here and going back


def update_images(
    dataset: fo.Dataset, where: Mapping[str, Any], change: Mapping[str, Mapping[str, Any]] | Stages
) -> None:
    """Changes all samples of a dataset that a MongoDB filter finds, by an update document or a pipeline."""
    now = datetime.now(timezone.utc)
    update: Any = [*change, {"$set": {"last_modified_at": now}}] if isinstance(change, list) else dict(change)
    if isinstance(update, dict):
        update["$set"] = {**update.get("$set", {}), "last_modified_at": now}
    if dataset._sample_collection.update_many(dict(where), update).modified_count:
        fo.Sample._reload_docs(dataset._sample_collection_name)


def count_images(dataset: fo.Dataset, where: Mapping[str, Any]) -> int:
    """How many samples of a dataset a MongoDB filter finds."""
    return dataset._sample_collection.count_documents(dict(where))


def read_view_numbers(view: fo.DatasetView, field: str) -> np.ndarray:
    """The numbers of a field in those of a view's samples that have one."""
    dataset = root_dataset(view)
    if dataset.media_type != fo_media.GROUP and not view_stages(view):
        return read_numbers(dataset, field)
    numbers = np.array(view.values(field), np.float64)
    return numbers[np.isfinite(numbers)]


def some_of(view: fo.DatasetView, share: float) -> fo.DatasetView:
    """About a share in [0, 1] of a view's samples, the same ones whenever they are asked for."""
    return view.mongo([{"$match": {"_rand": {"$lt": share}}}])


def read_numbers(dataset: fo.Dataset, field: str) -> np.ndarray:
    """A field's numbers, of all samples that have one, in no order; of an indexed field the index alone is read."""
    numbers = dataset._sample_collection.find({field: {"$gte": -np.inf}}, {"_id": False, field: True})
    return np.fromiter((each[field] for each in numbers.batch_size(100_000)), np.float64)


def replace_beginning(dataset: fo.Dataset, path: str, old: str, new: str) -> None:
    """Replaces what a text in each sample begins with.

    Args:
        dataset: the dataset
        path: of the text, such as ``"heatmap.map_path"``
        old, new: beginnings
    """
    rest = {"$substrBytes": [f"${path}", len(old.encode()), -1]}
    update_images(
        dataset, {path: {"$regex": f"^{re.escape(old)}"}}, [{"$set": {path: {"$concat": [{"$literal": new}, rest]}}}]
    )


# What a killed process leaves half done: FiftyOne writes a view and what names it one after the other

_COLLECTIONS = {"saved_views": "views", "workspaces": "workspaces"}  # what the dataset calls them, and where they are


def mend_references(dataset: fo.Dataset) -> dict[str, int]:
    """Lets a dataset name those views, workspaces and runs that there are, and deletes runs that it does not name.

    Returns:
        of what there was how much to mend, in words
    """
    database, this, mended = get_db_conn(), {"_id": dataset._doc.id}, {}
    stored = database.datasets.find_one(this, {"saved_views": True, "workspaces": True, "runs": True}) or {}
    for name, collection in _COLLECTIONS.items():
        named = stored.get(name) or []
        there = set(database[collection].distinct("_id", {"_id": {"$in": named}})) if named else set()
        gone = [each for each in named if each not in there]
        if gone:
            database.datasets.update_one(this, {"$pull": {name: {"$in": gone}}})
        mended[name.replace("_", " ")] = len(gone)
    runs = stored.get("runs") or {}
    there = set(database.runs.distinct("_id", {"_id": {"$in": list(runs.values())}})) if runs else set()
    gone = [key for key, run in runs.items() if run not in there]
    if gone:
        database.datasets.update_one(this, {"$unset": {f"runs.{key}": "" for key in gone}})
    ours = {"_dataset_id": dataset._doc.id, "config.method": "diffpath", "_id": {"$nin": list(runs.values())}}
    mended["runs"] = len(gone) + database.runs.delete_many(ours).deleted_count
    return mended


def forget_unnamed(dataset: fo.Dataset, views: Iterable[str], workspaces: Iterable[str] = ()) -> int:
    """Deletes views and workspaces of these names that were written, but never came to be the dataset's."""
    return _forget_unnamed(dataset, "saved_views", views) + _forget_unnamed(dataset, "workspaces", workspaces)


def _forget_unnamed(dataset: fo.Dataset, kind: str, names: Iterable[str]) -> int:
    database = get_db_conn()
    stored = database.datasets.find_one({"_id": dataset._doc.id}, {kind: True}) or {}
    unnamed = {"_dataset_id": dataset._doc.id, "_id": {"$nin": stored.get(kind) or []}}
    return int(database[_COLLECTIONS[kind]].delete_many({**unnamed, "name": {"$in": list(names)}}).deleted_count)


# The lock of a dataset: a document of its own


def take_lock(dataset: fo.Dataset, token: str, holder: Mapping[str, Any]) -> dict[str, Any] | None:
    """Takes a dataset's lock if nobody has it; returns who has it, or None where it is taken now."""
    locks = get_db_conn()[_LOCKS]
    try:
        locks.insert_one({"_id": dataset._doc.id, "token": token, **holder})
    except DuplicateKeyError:
        return locks.find_one({"_id": dataset._doc.id}) or take_lock(dataset, token, holder)
    return None


def refresh_lock(dataset: fo.Dataset, token: str, at: float) -> None:
    """Says that whoever has the lock is still there."""
    get_db_conn()[_LOCKS].update_one({"_id": dataset._doc.id, "token": token}, {"$set": {"at": at}})


def release_lock(dataset: fo.Dataset, token: str) -> None:
    """Gives a lock back; of another token it stays."""
    get_db_conn()[_LOCKS].delete_one({"_id": dataset._doc.id, "token": token})


_LOCKS = "diffpath_locks"

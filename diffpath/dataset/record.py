"""A run's record in its dataset: what made it, what belongs to it and how far it got.

The record is the config of a FiftyOne run. It is read as it is stored now, whatever this process
held before, and changed by *patches* of named fields: a heartbeat, a threshold, a saved workspace
and an update that happen at once all survive.
"""

from __future__ import annotations

import functools
import platform
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import fiftyone as fo
from fiftyone import ViewField as F

from ..errors import ReferenceSetError
from ..folders.maps import MAPS, check_scales, map_folder
from ..options import MethodOptions, complete_options
from . import internals
from .internals import StoredRun
from .liveness import Heartbeat
from .schema import field_names, view_names

if TYPE_CHECKING:
    from ..detection.reference import Reference

METHOD = "diffpath"
RECORD_VERSION = 1  # records of before there was a number are read as version 0
COMPLETE, INCOMPLETE = "complete", "incomplete"
_PACKAGES = ("fiftyone", "torch", "diffusers", "scikit-learn", "pillow")
_LONGEST_KEY = 100
_OF_FIFTYONE = ("method", "cls", "type")
# Where a field's name in the store is another one
_STORED_AS = {"provenance": "made_by", "requested": "asked", "heartbeat": "alive", "owner": "dataset_id"}
_STORED_APART = ("run_key", "timestamp", "map_scales")


@dataclass(frozen=True)
class Requested:
    """What a run was asked for, beside what determines its features.

    Attributes:
        samples: the stages of the view that is scored, as JSON; None for the whole dataset
        rule, level, tag: as in :func:`diffpath.set_diffpath_threshold`
    """

    samples: str | None
    rule: str
    level: float
    tag: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything that is recorded of a run.

    Attributes:
        run_key: the run's key
        timestamp: when it was begun, UTC
        status: ``"complete"`` or ``"incomplete"``
        provenance: what determines the run's results; a run is only continued with the same
        fields: names of the run's fields by kind
        views: names of its saved views by kind
        folder: where its files are
        owner: id of the dataset whose run it is and to whom the folder belongs: a clone's or an
            imported dataset's copy of the record names the original
        heatmaps: whether it has maps
        regions: from which probability on its boxes are drawn; None where it has none
        map_scales: by kind of map, what the levels 0 and 255 of its files are
        machine: where it was begun
        versions: of the packages that it was begun with
        requested: what it was asked for; None of runs of early versions
        record_version: of the record itself
        heartbeat: of a run that is under way, else None
        stopping: whether it was asked to stop
        pending: an operation on it that was begun and is not done, with all that it takes to finish it
        made_color_scheme: whether the dataset's colour scheme was made by this run; None where
            its maps have no colours
        detector: the detector's parameters
        num_scored, num_unreadable, num_likely_ood: images
        num_reference, num_calibration: images of the reference, and of it those that calibrate
        smallest_p_value: no image's p-value can be less; 0 without a reference
        feature_centre, feature_scale: median and robust deviation of the reference's six features
        rule, level, threshold, tag: which images are flagged
        tags_of_others: images that had the tag already when the run gave it to others; None once
            a person has changed it
        counted_at: when the images were counted, in seconds since 1970
        seconds: wall time of the run, of its last part if it was interrupted
        images_per_second: while the network scored them
        device: what scored them
        evaluations: measures by ground truth field
        saved_views: names of views that were saved from the panel
        workspaces: names of workspaces
    """

    run_key: str
    timestamp: datetime
    status: str
    provenance: dict[str, Any]
    fields: dict[str, str]
    views: dict[str, str]
    folder: str
    heatmaps: bool
    map_scales: dict[str, tuple[float, float]]
    machine: str
    versions: dict[str, str]
    requested: Requested | None = None
    record_version: int = 0
    owner: str | None = None
    regions: float | None = None
    heartbeat: Heartbeat | None = None
    stopping: bool | None = None
    pending: dict[str, Any] | None = None
    made_color_scheme: bool | None = None
    detector: dict[str, Any] | None = None
    num_scored: int | None = None
    num_unreadable: int | None = None
    num_likely_ood: int | None = None
    num_reference: int | None = None
    num_calibration: int | None = None
    smallest_p_value: float | None = None
    feature_centre: list[float] | None = None
    feature_scale: list[float] | None = None
    rule: str | None = None
    level: float | None = None
    threshold: float | None = None
    tag: str | None = None
    tags_of_others: int | None = None
    counted_at: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    device: str | None = None
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved_views: list[str] = field(default_factory=list)
    workspaces: list[str] = field(default_factory=list)

    @classmethod
    def new(
        cls,
        run_key: str,
        *,
        owner: str,
        provenance: dict[str, Any],
        heatmaps: bool,
        anomaly_maps: bool,
        folder: Path,
        requested: Requested,
        regions: float | None = None,
    ) -> RunRecord:
        """The record of a run that begins; :meth:`register` writes it."""
        options = MethodOptions(**provenance["options"])
        return cls(
            run_key=run_key,
            timestamp=datetime.now(timezone.utc),  # FiftyOne keeps its own
            status=INCOMPLETE,
            provenance=provenance,
            fields=field_names(
                run_key, options, heatmaps, "embeddings" in provenance, anomaly_maps, regions is not None
            ),
            views=view_names(run_key),
            folder=str(folder),
            heatmaps=heatmaps,
            regions=regions,
            map_scales={kind: made.scale for kind, made in MAPS.items()},
            machine=platform.node(),
            versions={name: version(name) for name in _PACKAGES},
            requested=requested,
            record_version=RECORD_VERSION,
            owner=owner,
            heartbeat=Heartbeat.now(),
        )

    @property
    def options(self) -> MethodOptions:
        """The method's options; those that came after the run have their defaults."""
        return MethodOptions(**complete_options(self.provenance["options"]))

    @property
    def reference_path(self) -> Path:
        """Where the run keeps its fitted reference."""
        return Path(self.folder) / "reference.safetensors"

    @property
    def all_views(self) -> list[str]:
        """Names of all its saved views."""
        return [*self.views.values(), *self.saved_views]

    def is_of(self, dataset: fo.Dataset) -> bool:
        """Whether the run's files are this dataset's, not those of one that it was copied from."""
        ours = internals.dataset_id(dataset)
        if self.owner is not None:
            return self.owner == ours
        return Path(self.folder).parent.name.endswith(f"-{ours[-6:]}")  # as early versions named it

    def map_folder(self, kind: str) -> Path:
        """Where its maps of a kind are."""
        return map_folder(self.folder, kind)

    def check_map_scales(self) -> None:
        """Refuses to add maps to a run that an older version made, whose maps look otherwise."""
        if self.heatmaps:
            check_scales(self.map_scales)

    def load_reference(self) -> Reference:
        """The fitted reference of the run; the last ones read are kept in memory.

        Raises:
            ReferenceSetError: if its file is gone or cannot be read
        """
        path = self.reference_path
        if not path.exists():
            raise ReferenceSetError(
                f"the files of run {self.run_key!r} are not in {self.folder}: "
                f"continue_diffpath(dataset, {self.run_key!r}) makes them again, and with folder=… takes them from "
                "where they are now"
            )
        return _read_reference(path, path.stat().st_mtime_ns)

    def to_stored(self) -> dict[str, Any]:
        """The record as it is stored: JSON-ready, without what is not known yet."""
        stored = {name: _stored_value(getattr(self, name)) for name in _names() if name not in _STORED_APART}
        scales = {f"{kind}_scale": list(scale) for kind, scale in self.map_scales.items()}
        known = {_STORED_AS.get(name, name): value for name, value in stored.items() if value is not None}
        return {**{name: value for name, value in known.items() if value not in ([], {})}, **scales}

    def register(self, dataset: fo.Dataset) -> RunRecord:
        """Writes the record of a new run; returns it as it is stored."""
        dataset.register_run(self.run_key, dataset.init_run(method=METHOD, **self.to_stored()), overwrite=False)
        return require_record(dataset, self.run_key)

    def patch(self, dataset: fo.Dataset, **changes: Any) -> RunRecord:
        """Changes some fields and leaves all others as they are stored now, whoever wrote them.

        Args:
            dataset: the dataset that holds the run
            **changes: new values of fields by name; None for what is not known any more

        Returns:
            the record as it is stored then

        Raises:
            ValueError: if there is no such run any more
        """
        values = {}
        for name, value in changes.items():
            if name not in _names() or name in _STORED_APART:
                raise TypeError(f"a run's record has no field {name!r} that can be changed")
            values[_STORED_AS.get(name, name)] = _stored_value(value)
        return self._patched(dataset, internals.patch_run(dataset, self.run_key, values))

    def patch_item(self, dataset: fo.Dataset, name: str, key: str, value: Any) -> RunRecord:
        """Sets one item of a field that is a dictionary, such as ``evaluations``; as :meth:`patch`."""
        return self._patched(dataset, internals.patch_run(dataset, self.run_key, items={name: (key, value)}))

    def add_member(self, dataset: fo.Dataset, name: str, value: str) -> RunRecord:
        """Adds to a field that is a list, such as ``workspaces``, what is not in it; as :meth:`patch`."""
        return self._patched(dataset, internals.patch_run(dataset, self.run_key, members={name: value}))

    def beat(self, dataset: fo.Dataset, heartbeat: Heartbeat | None) -> None:
        """Writes a sign of life, or takes it back; of a run that was deleted meanwhile, nothing."""
        internals.patch_run(dataset, self.run_key, {_STORED_AS["heartbeat"]: _stored_value(heartbeat)})

    def _patched(self, dataset: fo.Dataset, found: bool) -> RunRecord:
        if not found:
            raise ValueError(
                f"run {self.run_key!r} of dataset {dataset.name!r} was deleted meanwhile; compute it again"
            )
        internals.refresh_runs(dataset)
        return require_record(dataset, self.run_key)


def read_records(dataset: fo.Dataset) -> dict[str, RunRecord]:
    """The records of a dataset's diffpath runs by key, finished or not, in the order of their making."""
    stored = internals.read_runs(dataset)
    return {key: _read(dataset, run) for key, run in stored.items() if run.config.get("method") == METHOD}


def find_record(dataset: fo.Dataset, run_key: str) -> RunRecord | None:
    """The record of a run, or None where the dataset has none of that key.

    Raises:
        ValueError: if the key belongs to a run of another kind, or the record cannot be read
    """
    run = internals.read_runs(dataset).get(run_key)
    if run is None:
        return None
    if run.config.get("method") != METHOD:
        raise ValueError(f"run {run_key!r} of dataset {dataset.name!r} is not a diffpath run; choose another run_key")
    return _read(dataset, run)


def require_record(dataset: fo.Dataset, run_key: str) -> RunRecord:
    """The record of a run.

    Raises:
        ValueError: if the dataset has no diffpath run of that key
    """
    record = find_record(dataset, run_key)
    if record is None:
        known = ", ".join(map(repr, read_records(dataset))) or "none"
        raise ValueError(f"dataset {dataset.name!r} has no diffpath run {run_key!r}; its runs are {known}")
    return record


def finished_record(dataset: fo.Dataset, run_key: str) -> RunRecord:
    """The record of a finished run.

    Raises:
        ValueError: if the dataset has no finished diffpath run of that key
    """
    record = find_record(dataset, run_key)
    if record is None or record.status != COMPLETE:
        raise ValueError(f"dataset {dataset.name!r} has no finished diffpath run {run_key!r}; run compute_diffpath")
    return record


def counts(dataset: fo.Dataset, fields: Mapping[str, str]) -> dict[str, Any]:
    """How many images a run has scored, could not read, and flags, as they are now."""
    images, now = internals.every_image(dataset), time.time()
    flagged = images.match(F(fields["is_ood"]) == True)  # noqa: E712
    return {
        "num_scored": images.count(fields["score"]),
        "num_unreadable": images.count(fields["error"]),
        "num_likely_ood": len(flagged),
        "counted_at": now,
    }


def counted(dataset: fo.Dataset, record: RunRecord) -> RunRecord:
    """The record of a finished run; its images are counted again where samples were deleted meanwhile."""
    deleted_at = internals.last_deletion(dataset)
    if deleted_at is None or (record.counted_at is not None and record.counted_at > deleted_at):
        return record
    if not all(dataset.has_sample_field(record.fields[kind]) for kind in ("score", "error", "is_ood")):
        return record
    return record.patch(dataset, **counts(dataset, record.fields))


def list_diffpath_runs(dataset: internals.Samples) -> list[str]:
    """The keys of a dataset's diffpath runs, finished or not, in the order of their making."""
    return list(read_records(internals.root_dataset(dataset)))


def check_run_key(run_key: str) -> None:
    """Refuses what cannot be the beginning of a field's name."""
    if not run_key.isidentifier() or run_key.startswith("_"):
        raise ValueError(
            f"run_key must be letters, digits and underscores, and begin with a letter, got {run_key[:50]!r}"
        )
    if len(run_key.encode()) > _LONGEST_KEY:
        raise ValueError(
            f"run_key must not be longer than {_LONGEST_KEY} characters, as folders are named by it, got {len(run_key)}"
        )


def check_names_free(dataset: fo.Dataset, record: RunRecord) -> None:
    """Refuses a record whose names the user has already given to something else."""
    taken = [name for name in record.fields.values() if dataset.has_sample_field(name)]
    taken += [name for name in record.views.values() if dataset.has_saved_view(name)]
    if taken:
        raise ValueError(
            f"dataset {dataset.name!r} already has {', '.join(map(repr, taken))}, of which no diffpath run knows; "
            f"choose another run_key than {record.run_key!r}, or delete them, with dataset.delete_sample_fields() and "
            "dataset.delete_saved_view()"
        )


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(f.name for f in fields(RunRecord))


def _read(dataset: fo.Dataset, run: StoredRun) -> RunRecord:
    """The record that a run's config holds."""
    config = {name: value for name, value in run.config.items() if name not in _OF_FIFTYONE}
    where = f"the record of run {run.key!r} of dataset {dataset.name!r}"
    if config.get("record_version", 0) > RECORD_VERSION:
        raise ValueError(f"{where} was written by a newer version of diffpath; update diffpath")
    values: dict[str, Any] = {"run_key": run.key, "timestamp": run.timestamp, "map_scales": _map_scales(config)}
    for each in fields(RunRecord):
        stored_as = _STORED_AS.get(each.name, each.name)
        if each.name in _STORED_APART:
            continue
        if config.get(stored_as) is not None:
            values[each.name] = config[stored_as]
            if not isinstance(config[stored_as], _stored_types()[each.name]):
                raise ValueError(f"{where} holds no valid {stored_as!r}; delete the run and compute it again")
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where} does not say {stored_as!r}; delete the run and compute it again")
    for name, kind in (("requested", Requested), ("heartbeat", Heartbeat)):
        if name in values:
            known = {f.name for f in fields(kind)}
            values[name] = kind(**{key: value for key, value in values[name].items() if key in known})
    record = RunRecord(**values)
    # A copy of a dataset has the signs of life of the original's run
    return record if record.is_of(dataset) else replace(record, heartbeat=None)


@functools.cache
def _stored_types() -> dict[str, tuple[type, ...]]:
    """What each field may be in the store."""
    names = {"Reference": object}
    return {name: tuple(_plain_types(hint)) for name, hint in get_type_hints(RunRecord, localns=names).items()}


def _plain_types(hint: Any) -> Iterator[type]:
    if get_origin(hint) is types.UnionType:
        for part in get_args(hint):
            yield from _plain_types(part)
    elif hint is float:
        yield from (float, int)
    elif hint in (Requested, Heartbeat):
        yield dict
    else:
        yield get_origin(hint) or hint


def _map_scales(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    stored = {kind: config.get(f"{kind}_scale") for kind in MAPS}
    return {kind: tuple(scale) for kind, scale in stored.items() if scale}


def _stored_value(value: Any) -> Any:
    """A field's value as it is stored."""
    if isinstance(value, Requested | Heartbeat):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, tuple):
        return list(value)
    return value


@functools.lru_cache(maxsize=4)
def _read_reference(path: Path, modified: int) -> Reference:
    from ..detection.reference import load_reference

    return load_reference(path)

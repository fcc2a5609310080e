"""A run's record in its dataset: what made it, what belongs to it and how far it got."""

import functools
import platform
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

from .maps import MAPS, map_folder
from .schema import field_names, live_views, view_names

METHOD = "diffpath"
COMPLETE, INCOMPLETE = "complete", "incomplete"


@dataclass(frozen=True)
class DiffPathRun:
    """A finished run.

    Attributes:
        run_key: the run's key
        dataset_name: the dataset that holds its fields
        num_scored: images with a score
        num_unreadable: images that could not be scored; the ``K_error`` field says why
        num_likely_ood: images with a score of at least ``threshold``
        threshold: scores from here on count as likely out-of-distribution
        rule: how the threshold was chosen, as in ``set_diffpath_threshold``
        level: the rule's number
        tag: the sample tag of the flagged images, or None
        smallest_p_value: no image's p-value can be less; 0 without a reference
        seconds: wall time of the run, of its last part if it was interrupted
        heatmap_dir: the folder of the heatmaps, or None; error maps are in one beside it
        fields: names of the run's fields by kind
        views: names of the run's saved views by kind: ranked, ood, typical, unreadable
        config: everything that is recorded of the run
    """

    run_key: str
    dataset_name: str
    num_scored: int
    num_unreadable: int
    num_likely_ood: int
    threshold: float
    rule: str
    level: float
    tag: str | None
    smallest_p_value: float
    seconds: float
    heatmap_dir: str | None
    fields: dict
    views: dict
    config: dict

    @classmethod
    def load(cls, dataset, run_key):
        """Loads the record of a finished run."""
        config = read_finished(dataset, run_key)
        recorded = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        return cls(
            run_key=run_key,
            dataset_name=dataset.name,
            heatmap_dir=str(map_folder(config["folder"], "heatmap")) if config["heatmaps"] else None,
            config=config,
            **recorded,
        )

    @property
    def reference_path(self):
        """The file of the run's fitted reference, which other runs can use as well."""
        return str(reference_file(self.config))

    def reference(self):
        """The run's fitted reference, a :class:`diffpath.Reference`."""
        return saved_reference(self.config)

    def view(self, dataset, kind="ranked"):
        """One of the run's live views over its dataset: ranked, ood, typical or unreadable."""
        return live_views(dataset, self.fields, self.threshold)[kind]


def new_config(run_key, *, made_by, heatmaps, folder):
    """The record of a run that begins.

    Args:
        made_by: what determines the run's results; a run is only continued with the same
    """
    options = made_by["options"]
    return {
        "status": INCOMPLETE,
        "made_by": made_by,
        "fields": field_names(
            run_key,
            heatmaps=heatmaps,
            profile=options["use_profile"],
            statistics=options["use_statistics"],
            zoomed=options["zoom"] > 1,
            embeddings="embeddings" in made_by,
        ),
        "views": view_names(run_key),
        "folder": str(folder),
        "heatmaps": heatmaps,
        **{f"{kind}_scale": made.scale for kind, made in MAPS.items()},
        "machine": platform.node(),
        "versions": {name: version(name) for name in ("fiftyone", "torch", "diffusers", "scikit-learn", "pillow")},
    }


def read_config(dataset, run_key):
    """The record of a run as a dict, or None where the dataset has none of that key.

    Raises:
        ValueError: if the key belongs to a run of another kind
    """
    if not dataset.has_run(run_key):
        return None
    config = dataset.get_run_info(run_key).config.serialize()
    if config.get("method") != METHOD:
        raise ValueError(f"run {run_key!r} of dataset {dataset.name!r} is not a diffpath run; choose another run_key")
    return config


def read_finished(dataset, run_key):
    """The record of a finished run.

    Raises:
        ValueError: if the dataset has no finished diffpath run of that key
    """
    config = read_config(dataset, run_key)
    if config is None or config["status"] != COMPLETE:
        raise ValueError(f"dataset {dataset.name!r} has no finished diffpath run {run_key!r}; run compute_diffpath")
    return config


def reference_file(config):
    """Where a run keeps its fitted reference."""
    return Path(config["folder"]) / "reference.safetensors"


def saved_reference(config):
    """The fitted reference of a run; the last ones read are kept in memory."""
    path = reference_file(config)
    return _read_reference(path, path.stat().st_mtime_ns if path.exists() else None)


@functools.lru_cache(maxsize=4)
def _read_reference(path, modified):
    from ..detection.reference import load_reference

    return load_reference(path)


def write_config(dataset, run_key, config):
    """Registers a run, or replaces the record of one."""
    own = {key: value for key, value in config.items() if key not in ("method", "cls", "type")}
    run_config = dataset.init_run(method=METHOD, **own)
    if dataset.has_run(run_key):
        dataset.update_run_config(run_key, run_config)
    else:
        dataset.register_run(run_key, run_config)


def check_free(dataset, run_key, config):
    """Refuses names that the user has already given to something else."""
    taken = [name for name in config["fields"].values() if dataset.has_sample_field(name)]
    taken += [name for name in config["views"].values() if dataset.has_saved_view(name)]
    if taken:
        raise ValueError(
            f"dataset {dataset.name!r} already has {', '.join(map(repr, taken))}, which no diffpath run made; "
            f"choose another run_key than {run_key!r}"
        )

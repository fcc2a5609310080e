"""A run's record in its dataset: what made it, what belongs to it and how far it got."""

import platform
from dataclasses import dataclass
from importlib.metadata import version

from .maps import HEATMAP_SCALE, heatmap_folder
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
        seconds: wall time of the run, of its last part if it was interrupted
        heatmap_dir: the folder of the heatmaps, or None
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
    seconds: float
    heatmap_dir: str | None
    fields: dict
    views: dict
    config: dict

    @classmethod
    def load(cls, dataset, run_key):
        """Loads the record of a finished run."""
        config = read_config(dataset, run_key)
        if config is None or config["status"] != COMPLETE:
            raise ValueError(f"dataset {dataset.name!r} has no finished diffpath run {run_key!r}; run compute_diffpath")
        names = ("num_scored", "num_unreadable", "num_likely_ood", "threshold", "seconds", "fields", "views")
        return cls(
            run_key=run_key,
            dataset_name=dataset.name,
            heatmap_dir=str(heatmap_folder(config["folder"])) if config["heatmaps"] else None,
            config=config,
            **{name: config[name] for name in names},
        )

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
        ),
        "views": view_names(run_key),
        "folder": str(folder),
        "heatmaps": heatmaps,
        "heatmap_scale": HEATMAP_SCALE,
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

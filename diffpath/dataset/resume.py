"""Takes up an interrupted run with the arguments that are recorded of it."""

import fiftyone as fo
from bson import json_util
from fiftyone.core.view import DatasetView

from .inventory import INTERRUPTED, require_config, run_status
from .record import reference_file
from .scanning import show_progress
from .scoring import iterate_diffpath


def continue_diffpath(dataset, run_key, *, batch_size=None, num_workers=4, device=None, progress=None):
    """Goes on with an interrupted run where it stopped.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        batch_size, num_workers, device, progress: as in :func:`compute_diffpath`

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no interrupted run of that key, or its images or reference
            cannot be found again
    """
    steps = iterate_continue(dataset, run_key, batch_size=batch_size, num_workers=num_workers, device=device)
    return show_progress(steps, progress)


def iterate_continue(dataset, run_key, **how):
    """:func:`continue_diffpath` as a generator of progress that returns the run."""
    config = require_config(dataset, run_key)
    status = run_status(dataset, config)
    if status != INTERRUPTED:
        raise ValueError(f"run {run_key!r} is {status}, not interrupted; there is nothing to go on with")
    made_by = config["made_by"]
    return (
        yield from iterate_diffpath(
            rebuild(dataset, config["asked"]["samples"]),
            reference=_reference(dataset, run_key, config),
            model=made_by["model"],
            embeddings=made_by.get("embeddings"),
            groups=made_by["reference"].get("groups"),
            model_options=made_by.get("model_options"),
            run_key=run_key,
            rule=config["asked"]["rule"],
            level=config["asked"]["level"],
            tag=config["asked"]["tag"],
            heatmaps=config["heatmaps"],
            dtype=made_by["dtype"],
            **made_by["options"],
            **how,
        )
    )


def rebuild(dataset, stages):
    """The collection of which :func:`references.serialize` gave the stages."""
    return DatasetView._build(dataset, json_util.loads(stages)) if stages else dataset


def _reference(dataset, run_key, config):
    description = config["made_by"]["reference"]
    kind = description["kind"]
    if kind == "self":
        return None
    if kind == "tag":
        return description["tag"]
    if kind in ("dataset", "view") and fo.dataset_exists(description["dataset"]):
        return rebuild(fo.load_dataset(description["dataset"]), description.get("stages"))
    if kind == "saved" and reference_file(config).exists():
        return reference_file(config)
    raise ValueError(
        f"the reference of run {run_key!r} cannot be found again; call compute_diffpath with the same arguments"
    )

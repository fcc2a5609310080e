"""Where the files of datasets and runs are."""

from __future__ import annotations

import uuid
from pathlib import Path

import fiftyone as fo

from .internals import dataset_id

OBJECTS = "objects"  # the folder of a dataset's own pictures, beside those of its runs


def runs_folder() -> Path:
    """Where all runs' files are: a folder that the user can see, under FiftyOne's own."""
    return Path(fo.config.default_dataset_dir) / "diffpath"


def run_folder(dataset: fo.Dataset, run_key: str) -> Path:
    """Where a run is to keep its files: another place whenever it is computed, as browsers keep what they have seen."""
    return dataset_folder(dataset) / f"{run_key}-{uuid.uuid4().hex[:8]}"


def dataset_folder(dataset: fo.Dataset) -> Path:
    """Where the files of a dataset's runs are."""
    return runs_folder() / f"{dataset.slug}-{dataset_id(dataset)}"  # names can be used again, ids cannot

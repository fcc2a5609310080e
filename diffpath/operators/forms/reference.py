"""The part of a form that asks which images are normal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.groups import group_fields
from ...dataset.internals import every_image
from ...dataset.record import read_records
from ...dataset.run import DiffPathRun
from ...dataset.sources import ReferenceLike
from .inputs import add_field_choice, add_required_choice
from .run import runs_by_status

REFERENCE_KINDS = {
    "self": "The target itself: find what differs from the rest",
    "tag": "Samples with a tag",
    "view": "A saved view of this dataset",
    "dataset": "Another dataset",
    "run": "The reference of an earlier run on this dataset",
    "file": "A saved reference",
}
_FITTED_BEFORE = ("run", "file")
_OTHERWISE = "; choose another kind of reference"
INPUTS = ("reference_kind", *(f"reference_{kind}" for kind in REFERENCE_KINDS if kind != "self"))


def add_reference(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Inputs for the kind of reference, and for the one that is meant."""
    kinds = types.RadioGroup()
    for value, label in REFERENCE_KINDS.items():
        kinds.add_choice(value, label=label)
    inputs.enum(
        "reference_kind",
        kinds.values(),
        default="self",
        view=kinds,
        label="Reference",
        description="Which images are normal",
    )
    kind = _kind(ctx.params)
    if kind == "file":
        inputs.str(
            "reference_file",
            required=True,
            label="File",
            description="A reference.safetensors on the machine that runs FiftyOne",
        )
    elif kind in _CHOICES:
        choices, missing = _CHOICES[kind](ctx)
        add_required_choice(inputs, f"reference_{kind}", choices, kind.capitalize(), missing)


def add_groups(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """A choice among the fields of a reference that is fitted now by which its images may belong together."""
    kind = _kind(ctx.params)
    if kind in _FITTED_BEFORE:
        return
    samples = ctx.dataset
    if kind == "dataset":
        name = ctx.params.get("reference_dataset")
        if not name or not fo.dataset_exists(name):
            return
        samples = fo.load_dataset(name)
    add_field_choice(
        inputs,
        "groups",
        without_fields_of_runs(group_fields(samples), samples),
        ctx.params.get("groups"),
        label="Groups",
        description="A field by which reference images belong together, such as the video that frames are of: those "
        "of one group do not vouch for each other; empty to leave out",
        otherwise="is no field of single values",
    )


def read_reference(ctx: foo.ExecutionContext, params: Mapping[str, Any]) -> dict[str, Any]:
    """Reference and groups, as arguments of a scoring request.

    Raises:
        ValueError: if the reference is not complete
    """
    kind = _kind(params)
    arguments: dict[str, Any] = {"reference": _read(ctx, params, kind)}
    if "groups" in params and kind not in _FITTED_BEFORE:  # an input that is hidden keeps its value
        arguments["groups"] = params["groups"]
    return arguments


def without_fields_of_runs(names: list[str], dataset: fo.Dataset) -> list[str]:
    """The fields that no run of ours made."""
    ours = {name for record in read_records(dataset).values() for name in record.fields.values()}
    return [name for name in names if name not in ours]


def _kind(params: Mapping[str, Any]) -> str:
    return params.get("reference_kind") or "self"


def _read(ctx: foo.ExecutionContext, params: Mapping[str, Any], kind: str) -> ReferenceLike:
    if kind == "self":
        return None
    if kind not in REFERENCE_KINDS:
        raise ValueError(f"reference_kind must be one of {', '.join(REFERENCE_KINDS)}, got {kind!r}")
    value = params.get(f"reference_{kind}")
    if value is None:
        raise ValueError(f"choose the {kind} that holds the reference images")
    loaders = {
        "tag": str,
        "view": ctx.dataset.load_saved_view,
        "dataset": fo.load_dataset,
        "run": lambda run_key: Path(DiffPathRun.load(ctx.dataset, run_key).reference_path),
        "file": Path,
    }
    return loaders[kind](value)


# What can be chosen of a kind, and what is said where there is nothing
_CHOICES = {
    "tag": lambda ctx: (every_image(ctx.dataset).distinct("tags"), "the dataset has no sample tags" + _OTHERWISE),
    "view": lambda ctx: (ctx.dataset.list_saved_views(), "the dataset has no saved views" + _OTHERWISE),
    "dataset": lambda ctx: (
        [name for name in fo.list_datasets() if name != ctx.dataset.name],
        "there is no other dataset" + _OTHERWISE,
    ),
    "run": lambda ctx: (list(runs_by_status(ctx.dataset)), "the dataset has no finished run" + _OTHERWISE),
}

"""The form of a run that is to be made: put together, and read back as a scoring request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.embeddings import embedding_fields
from ...dataset.record import COMPLETE, read_records
from ...dataset.request import ScoringRequest
from ...options import MethodOptions, evaluations_per_image, unknown_name
from . import model, options, reference, rule
from .inputs import ADVANCED, add_field_choice, given_values, target_images
from .run import add_run_key

REQUEST = "request"  # the parameter of a delegated run, which no form has
_OWN = ("embeddings", "run_key", "heatmaps", "regions", "overwrite")
_OF_FIFTYONE = ("view_target", "delegation_target", ADVANCED)
_COSTLY = ("num_timesteps", "num_noise_draws", "zoom", "detail")
_EVALUATIONS_PER_SECOND = 200  # of the bundled model on two CPU cores, until a run has been timed here


def build_form(ctx: foo.ExecutionContext) -> types.Object:
    """The whole form."""
    inputs = types.Object()
    inputs.view_target(ctx, require_flat=True)
    reference.add_reference(ctx, inputs)
    reference.add_groups(ctx, inputs)
    _add_embeddings(ctx, inputs)
    model.add_model(ctx, inputs)
    add_run_key(ctx, inputs)
    rule.add_rule(ctx, inputs)
    inputs.bool(
        "heatmaps",
        default=ScoringRequest.heatmaps,
        label="Heatmaps",
        description="Show where each image is unlike the reference, and where it differs from what the model expects",
    )
    if ctx.params.get("heatmaps", ScoringRequest.heatmaps):
        inputs.bool(
            "regions",
            default=False,
            label="Boxes",
            description="Draw boxes around the places that are most unlike the reference, 1 in 1,000 or less",
        )
    inputs.bool(
        ADVANCED, default=False, label="Advanced", description="Show the method's options", view=types.SwitchView()
    )
    if ctx.params.get(ADVANCED):
        options.add_options(ctx, inputs)
        model.add_model_options(ctx, inputs)
    _add_estimate(ctx, inputs)
    return inputs


def read_form(ctx: foo.ExecutionContext) -> ScoringRequest:
    """What is asked for: by a form, by a caller's parameters of the same names, or by a delegated request.

    Raises:
        ValueError: if a name is not known, a value not valid, or the reference not complete
    """
    if REQUEST in ctx.params:
        return ScoringRequest.from_dict(ctx.params[REQUEST])
    params = given_values(ctx.params)
    _check_names(params)
    flagged_by, level = rule.read_rule(params)
    return ScoringRequest.of(
        target_images(ctx),
        **reference.read_reference(ctx, params),
        **model.read_model(params),
        **options.read_options(params),
        **{name: params[name] for name in (*_OWN, "tag") if name in params},
        rule=flagged_by,
        level=level,
    )


def format_duration(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _check_names(params: Mapping[str, Any]) -> None:
    known = [*_OWN, *reference.INPUTS, "groups", *model.INPUTS, *options.INPUTS, *rule.INPUTS]
    for name in params:
        if name not in known and name not in _OF_FIFTYONE:
            raise ValueError(unknown_name("option", name, known))


def _add_embeddings(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """A choice among the dataset's fields of vectors, where there are any that no run of ours made."""
    add_field_choice(
        inputs,
        "embeddings",
        reference.without_fields_of_runs(embedding_fields(ctx.dataset), ctx.dataset),
        ctx.params.get("embeddings"),
        label="Embeddings",
        description="A field of vectors whose nearest neighbours in the reference count as well; empty to leave out",
        otherwise="is no field of vectors",
    )


def _add_estimate(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    try:
        count = len(target_images(ctx))
    except Exception:  # a form must open on any view; the run itself says what is wrong
        return
    if not count:
        inputs.view("estimate", types.Warning(label="There are no images in this view"))
        return
    chosen = {**vars(MethodOptions()), **options.read_options(given_values(ctx.params))}
    evaluations = evaluations_per_image(*(chosen[name] for name in _COSTLY))
    name = model.chosen_model(ctx.params)
    measured = _measured_evaluations_per_second(ctx.dataset, name)
    if not measured and name != model.BUNDLED:
        inputs.view("estimate", types.Notice(label=f"{count:,} images; {name} has not been timed here yet"))
        return
    seconds = count * evaluations / (measured or _EVALUATIONS_PER_SECOND)
    basis = "from the speed of an earlier run" if measured else "a rough guess until a run has been timed here"
    inputs.view(
        "estimate",
        types.Notice(
            label=f"{count:,} images, about {format_duration(seconds)} ({basis}); an outside reference adds to it"
        ),
    )


def _measured_evaluations_per_second(dataset: fo.Dataset, name: str) -> float | None:
    for record in reversed(read_records(dataset).values()):
        if record.status == COMPLETE and record.provenance["model"] == name and record.images_per_second:
            return record.images_per_second * evaluations_per_image(*(getattr(record.options, n) for n in _COSTLY))
    return None

"""The operator that scores what a run has not scored."""

from __future__ import annotations

from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples
from ..dataset.run import DiffPathRun
from ..dataset.update import iterate_update, update_diffpath
from .forms.inputs import target_images
from .run_operator import RunOperator
from .running import Scoring, Steps


class UpdateDiffPath(Scoring, RunOperator):
    """Scores what a run has not scored."""

    about: ClassVar = {
        "name": "update_diffpath",
        "label": "Score new images with DiffPath",
        "description": "Score only the images that a run has not scored, against its own reference",
        **Scoring.how,
        "risk_level": "medium",
        "icon": "update",
    }
    submit = "Score"

    def __call__(self, sample_collection: Samples, run_key: str, **arguments: Any) -> DiffPathRun:
        """As :func:`diffpath.update_diffpath`."""
        return update_diffpath(sample_collection, run_key, **arguments)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        inputs.view_target(ctx, require_flat=True)
        samples = target_images(ctx)
        count = len(samples) - samples.count(DiffPathRun.load(ctx.dataset, run_key).fields["score"])
        label = f"{count:,} images have no score yet" if count else "All images have a score"
        inputs.view("estimate", types.Notice(label=label))

    def steps(self, ctx: foo.ExecutionContext) -> Steps:
        return iterate_update(target_images(ctx), ctx.params["run_key"])

"""The operator that chooses anew which images are flagged."""

from __future__ import annotations

from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples, root_dataset
from ..dataset.run import DiffPathRun
from ..dataset.thresholds import preview_threshold, set_diffpath_threshold
from .forms.rule import add_rule, read_rule
from .run_operator import RunOperator


class SetDiffPathThreshold(RunOperator):
    """Chooses anew which images are flagged."""

    about: ClassVar = {
        "name": "set_diffpath_threshold",
        "label": "Set DiffPath threshold",
        "description": "Choose anew which images count as likely OOD, without scoring again",
        "risk_level": "medium",
        "icon": "tune",
    }
    submit = "Apply"

    def __call__(
        self, sample_collection: Samples, run_key: str, rule: str, level: float, tag: str | None = None
    ) -> DiffPathRun:
        """As :func:`diffpath.set_diffpath_threshold`."""
        return set_diffpath_threshold(root_dataset(sample_collection), run_key, rule, level, tag=tag)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        add_rule(ctx, inputs)
        try:
            threshold, count = preview_threshold(ctx.dataset, run_key, *read_rule(ctx.params))
        except ValueError:  # the input says so
            return
        scored = DiffPathRun.load(ctx.dataset, run_key).num_scored
        text = f"{count:,} of {scored:,} images would be flagged: score from {threshold:.4g}"
        inputs.view("preview", types.Notice(label=text))

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, Any]:
        rule, level = read_rule(ctx.params)
        tag = ctx.params.get("tag") or None
        run = set_diffpath_threshold(ctx.dataset, ctx.params["run_key"], rule, level, tag=tag)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{run.num_likely_ood:,} images are flagged now", variant="success")
        return {"run_key": run.run_key, "threshold": run.threshold, "num_likely_ood": run.num_likely_ood}

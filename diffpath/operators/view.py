"""The operator that shows one of a run's views."""

from __future__ import annotations

from typing import ClassVar

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples, root_dataset
from ..dataset.inventory import WITHOUT_FILES, load_diffpath_view
from ..dataset.record import COMPLETE
from ..dataset.run import DiffPathRun
from ..dataset.schema import VIEW_KINDS
from .run_operator import RunOperator
from .running import color_heatmaps, show_heatmaps


class LoadDiffPathView(RunOperator):
    """Shows one of a run's views."""

    about: ClassVar = {
        "name": "load_diffpath_view",
        "label": "Load DiffPath view",
        "description": "Show a run's images, the most anomalous first, only the flagged ones, or others",
        "risk_level": "low",
        "icon": "visibility",
    }
    submit = "Show"
    statuses = (COMPLETE, WITHOUT_FILES)

    def __call__(self, sample_collection: Samples, run_key: str, kind: str = "ranked") -> fo.DatasetView:
        """The view, as :func:`diffpath.load_diffpath_view`."""
        return load_diffpath_view(root_dataset(sample_collection), run_key, kind)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        kinds = types.RadioGroup()
        for kind, view in VIEW_KINDS.items():
            kinds.add_choice(kind, label=view.label)
        inputs.enum("kind", kinds.values(), default="ranked", view=kinds, label="Show")

    def execute(self, ctx: foo.ExecutionContext) -> None:
        run_key, kind = ctx.params["run_key"], ctx.params.get("kind", "ranked")
        color_heatmaps(ctx)
        ctx.ops.set_view(load_diffpath_view(ctx.dataset, run_key, kind))
        show_heatmaps(ctx, DiffPathRun.load(ctx.dataset, run_key).fields)

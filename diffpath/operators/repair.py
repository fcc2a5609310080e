"""The operator that mends what was interrupted."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples, root_dataset
from ..dataset.repair import repair_diffpath
from .markdown import escape

_LABEL = "Repair DiffPath runs"


class RepairDiffPath(foo.Operator):
    """Mends what a killed process or an older version left half done in the dataset."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="repair_diffpath",
            label=_LABEL,
            description="Finish what was interrupted, and say what is left to do",
            risk_level="medium",
            icon="build",
        )

    def __call__(self, sample_collection: Samples) -> list[str]:
        """As :func:`diffpath.repair_diffpath`."""
        return repair_diffpath(root_dataset(sample_collection))

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, Any]:
        done = repair_diffpath(ctx.dataset)
        ctx.ops.reload_dataset()
        return {"done": done, "report": "\n".join(f"- {escape(line)}" for line in done) or "Nothing to repair."}

    def resolve_output(self, ctx: foo.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.md(ctx.results["report"], name="report")
        return types.Property(outputs, view=types.View(label=_LABEL))

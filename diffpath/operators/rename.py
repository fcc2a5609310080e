"""The operator that gives a run another key."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples, root_dataset
from ..dataset.inventory import INTERRUPTED, WITHOUT_FILES
from ..dataset.record import COMPLETE
from ..dataset.rename import rename_diffpath, why_not_rename
from .run_operator import RunOperator


class RenameDiffPath(RunOperator):
    """Gives a run another key."""

    about: ClassVar = {
        "name": "rename_diffpath",
        "label": "Rename DiffPath run",
        "description": "Give a run another key: its fields, views and files follow",
        "risk_level": "medium",
        "icon": "edit",
    }
    submit = "Rename"
    statuses = (COMPLETE, INTERRUPTED, WITHOUT_FILES)

    def __call__(self, sample_collection: Samples, run_key: str, new_run_key: str) -> None:
        """As :func:`diffpath.rename_diffpath`."""
        rename_diffpath(root_dataset(sample_collection), run_key, new_run_key)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        prop = inputs.str("new_run_key", required=True, label="New key")
        new_run_key = ctx.params.get("new_run_key")
        problem = why_not_rename(ctx.dataset, run_key, new_run_key) if new_run_key else None
        if problem:
            prop.invalid, prop.error_message = True, problem

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, str]:
        run_key, new_run_key = ctx.params["run_key"], ctx.params["new_run_key"]
        rename_diffpath(ctx.dataset, run_key, new_run_key)
        ctx.ops.clear_view()  # it may be over the old fields
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Run {run_key!r} is now {new_run_key!r}", variant="success")
        return {"run_key": new_run_key}

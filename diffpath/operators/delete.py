"""The operator that deletes a run."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.delete import delete_diffpath
from ..dataset.internals import Samples, root_dataset
from ..dataset.inventory import RUNNING, describe_contents, run_contents
from .forms.run import ANY_STATUS, runs_by_status
from .markdown import as_list
from .run_operator import RunOperator


class DeleteDiffPath(RunOperator):
    """Deletes a run with everything that belongs to it."""

    about: ClassVar = {
        "name": "delete_diffpath",
        "label": "Delete DiffPath run",
        "description": "Delete a run with its fields, saved views and files",
        "risk_level": "high",
        "icon": "delete",
    }
    submit = "Delete"
    statuses = ANY_STATUS

    def __call__(self, sample_collection: Samples, run_key: str, stop: bool = False) -> None:
        """As :func:`diffpath.delete_diffpath`."""
        delete_diffpath(root_dataset(sample_collection), run_key, stop=stop)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        inputs.view("warning", types.Warning(label=f"This deletes run {run_key!r} and cannot be undone"))
        if run_key in runs_by_status(ctx.dataset, (RUNNING,)):
            stop = inputs.bool("stop", default=False, label="Stop it", description="It is being computed now")
            if not ctx.params.get("stop"):
                stop.invalid, stop.error_message = True, "wait for it, or tick this"
        inputs.md(as_list(describe_contents(run_contents(ctx.dataset, run_key))), name="belongings")

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, str]:
        run_key = ctx.params["run_key"]
        delete_diffpath(ctx.dataset, run_key, stop=bool(ctx.params.get("stop")))
        ctx.ops.clear_view()  # it may be over the fields that are gone
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Run {run_key!r} is deleted", variant="success")
        return {"run_key": run_key}

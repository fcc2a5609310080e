"""The operator that saves and opens a workspace."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.operators as foo

from ..dataset.internals import Samples, root_dataset
from ..dataset.inventory import load_diffpath_view
from ..dataset.workspaces import save_workspace
from .run_operator import RunOperator


class SaveDiffPathWorkspace(RunOperator):
    """Saves and opens a workspace: the grid, and the panel beside it."""

    about: ClassVar = {
        "name": "save_diffpath_workspace",
        "label": "Save DiffPath workspace",
        "description": "The samples, the most anomalous first, with the DiffPath panel beside them",
        "risk_level": "medium",
        "icon": "dashboard",
    }
    submit = "Save"

    def __call__(self, sample_collection: Samples, run_key: str) -> str:
        """Saves the workspace and returns its name."""
        return save_workspace(root_dataset(sample_collection), run_key)

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, str]:
        run_key = ctx.params["run_key"]
        name = save_workspace(ctx.dataset, run_key)
        ctx.ops.reload_dataset()
        ctx.ops.set_spaces(spaces=ctx.dataset.load_workspace(name))
        ctx.ops.set_view(view=load_diffpath_view(ctx.dataset, run_key))
        ctx.ops.notify(f"Saved the workspace {name!r}", variant="success")
        return {"workspace": name}

"""The operator that shows what is recorded of a run."""

from __future__ import annotations

from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples, root_dataset
from ..dataset.inventory import describe_info, get_diffpath_info
from .forms.run import ANY_STATUS
from .markdown import as_table
from .run_operator import RunOperator


class GetDiffPathInfo(RunOperator):
    """Shows everything that is recorded of a run."""

    about: ClassVar = {
        "name": "get_diffpath_info",
        "label": "Get DiffPath info",
        "description": "Options, model, reference, time, versions and counts of a run",
        "risk_level": "low",
        "icon": "info",
    }
    statuses = ANY_STATUS

    def __call__(self, sample_collection: Samples, run_key: str) -> dict[str, Any]:
        """The run's record and status, as :func:`diffpath.get_diffpath_info`."""
        return get_diffpath_info(root_dataset(sample_collection), run_key)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        inputs.md(as_table(describe_info(get_diffpath_info(ctx.dataset, run_key))), name="info")

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, Any]:
        info = get_diffpath_info(ctx.dataset, ctx.params["run_key"])
        return {**info, "timestamp": info["timestamp"].isoformat()}

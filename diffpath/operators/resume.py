"""The operator that goes on with an interrupted run."""

from __future__ import annotations

from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset.internals import Samples, root_dataset
from ..dataset.inventory import DAMAGED, INTERRUPTED, WITHOUT_FILES, get_diffpath_info
from ..dataset.resume import continue_diffpath, iterate_continue
from ..dataset.run import DiffPathRun
from .run_operator import RunOperator
from .running import Scoring, Steps


class ContinueDiffPath(Scoring, RunOperator):
    """Goes on with an interrupted run."""

    about: ClassVar = {
        "name": "continue_diffpath",
        "label": "Continue DiffPath run",
        "description": "Go on with an interrupted run where it stopped, or make lost files again",
        **Scoring.how,
        "risk_level": "medium",
        "icon": "play_arrow",
    }
    submit = "Continue"
    statuses = (INTERRUPTED, WITHOUT_FILES, DAMAGED)

    def __call__(self, sample_collection: Samples, run_key: str, **arguments: Any) -> DiffPathRun:
        """As :func:`diffpath.continue_diffpath`."""
        return continue_diffpath(root_dataset(sample_collection), run_key, **arguments)

    def add_inputs(self, ctx: foo.ExecutionContext, inputs: types.Object, run_key: str) -> None:
        info = get_diffpath_info(ctx.dataset, run_key)
        if info["status"] == INTERRUPTED:
            inputs.view("done", types.Notice(label=f"{info['num_done']:,} images are done already"))
            return
        if info["status"] == DAMAGED:
            lost = ", ".join(info["missing_fields"])
            inputs.view("lost", types.Notice(label=f"The run has lost {lost}; they are made again"))
            return
        inputs.view("without_files", types.Warning(label=f"The run's files are not in {info['folder']}"))
        inputs.str(
            "folder",
            label="Folder",
            description="Where they are now, on the machine that runs FiftyOne; empty to make them again from what the "
            "samples hold",
        )

    def steps(self, ctx: foo.ExecutionContext) -> Steps:
        return iterate_continue(ctx.dataset, ctx.params["run_key"], folder=ctx.params.get("folder") or None)

"""The operator that scores a dataset."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset import DiffPathRun, ScoringRequest, compute_diffpath, iterate_scoring
from ..dataset.internals import Samples
from .forms.scoring import REQUEST, build_form, read_form
from .running import Scoring, Steps

_LABEL = "Compute DiffPath OOD scores"


class ComputeDiffPath(Scoring, foo.Operator):
    """Scores images with DiffPath and shows them, the most anomalous first."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="compute_diffpath",
            label=_LABEL,
            description="Find out-of-distribution and corrupted images with a pretrained diffusion model",
            dynamic=True,
            **self.how,
            risk_level="medium",
            icon="scatter_plot",
        )

    def __call__(
        self, sample_collection: Samples, *, delegate: bool = False, **arguments: Any
    ) -> DiffPathRun | foo.ExecutionResult:
        """Runs from Python, with no time limit.

        Args:
            sample_collection: a dataset or view
            delegate: whether to queue the run for ``fiftyone delegated launch``; a reference or a
                model in memory cannot be handed on then, save it and pass its path
            **arguments: those of :func:`diffpath.compute_diffpath`

        Returns:
            a :class:`diffpath.DiffPathRun`, or FiftyOne's execution result if delegated
        """
        if not delegate:
            return compute_diffpath(sample_collection, **arguments)
        arguments.pop("progress", None)  # of a worker, the Runs page shows it
        request = ScoringRequest.of(sample_collection, **arguments)
        context = {"view": sample_collection.view(), "params": {REQUEST: request.to_dict()}}
        return foo.execute_operator(self.uri, context, request_delegation=True)

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        return types.Property(build_form(ctx), view=types.View(label=_LABEL))

    def resolve_placement(self, ctx: foo.ExecutionContext) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Find images that don't belong (DiffPath)", icon="scatter_plot", prompt=True),
        )

    def steps(self, ctx: foo.ExecutionContext) -> Steps:
        return iterate_scoring(read_form(ctx))

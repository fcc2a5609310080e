"""The operator that scores a dataset."""

import os

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset import ScoringRequest, compute_diffpath, iterate_scoring
from .forms.compute import build_form, read_form
from .running import Scoring


class ComputeDiffPath(Scoring, foo.Operator):
    """Scores images with DiffPath and shows them, the most anomalous first."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_diffpath",
            label="Compute DiffPath OOD scores",
            description="Find out-of-distribution and corrupted images with a pretrained diffusion model",
            dynamic=True,
            **self.how,
            risk_level="medium",
            icon="scatter_plot",
        )

    def __call__(self, sample_collection, *, delegate=False, **arguments):
        """Runs from Python, with no time limit.

        Args:
            sample_collection: a dataset or view
            delegate: whether to queue the run for ``fiftyone delegated launch``;
                ``reference`` is then a tag name, the path of a saved reference, or None
            **arguments: those of :func:`diffpath.compute_diffpath`

        Returns:
            a :class:`diffpath.DiffPathRun`, or FiftyOne's execution result if delegated
        """
        if not delegate:
            return compute_diffpath(sample_collection, **arguments)
        reference = arguments.pop("reference", None)
        if isinstance(reference, str):
            arguments.update(reference_kind="tag", reference_tag=reference)
        elif isinstance(reference, os.PathLike):
            arguments.update(reference_kind="file", reference_file=str(reference))
        elif reference is not None:
            raise ValueError(
                "a delegated run takes a tag, the path of a saved reference, or None as reference, "
                f"got {type(reference).__name__}; tag the samples"
            )
        context = {"view": sample_collection.view(), "params": arguments}
        return foo.execute_operator(self.uri, context, request_delegation=True)

    def resolve_input(self, ctx):
        return types.Property(build_form(ctx), view=types.View(label="Compute DiffPath OOD scores"))

    def resolve_placement(self, ctx):
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Find images that don't belong (DiffPath)", icon="scatter_plot", prompt=True),
        )

    def steps(self, ctx):
        return iterate_scoring(ScoringRequest.of(ctx.target_view(require_flat=True), **read_form(ctx)))

"""The operator that scores a dataset."""

import os

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset import compute_diffpath, drain, iterate_diffpath
from .forms import build_form, format_duration, read_form


class ComputeDiffPath(foo.Operator):
    """Scores images with DiffPath and shows them, the most anomalous first."""

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_diffpath",
            label="Compute DiffPath OOD scores",
            description="Find out-of-distribution and corrupted images with a pretrained diffusion model",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
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

    def execute(self, ctx):
        steps = iterate_diffpath(ctx.target_view(require_flat=True), **read_form(ctx))
        return _run_delegated(ctx, steps) if ctx.delegated else _run_in_app(ctx, steps)

    def resolve_output(self, ctx):
        if not ctx.results:  # in the App, the ranked view and its notice are the output
            return None
        outputs = types.Object()
        outputs.str("summary", label="Result", view=types.LabelValueView())
        return types.Property(outputs, view=types.View(label="DiffPath"))


def _run_in_app(ctx, steps):
    """Yields progress, then shows the ranked view with its heatmaps."""
    run = None
    while run is None:
        try:
            step = next(steps)
            yield ctx.ops.set_progress(label=_label(step), progress=step.fraction)
        except StopIteration as finished:
            run = finished.value
    yield ctx.ops.reload_dataset()
    yield ctx.ops.set_view(view=run.view(ctx.dataset))
    shown = [run.fields[kind] for kind in ("heatmap", "score") if kind in run.fields]
    yield ctx.ops.set_active_fields(shown)
    yield ctx.ops.notify(summarise(run), variant="success" if run.num_scored else "warning")


def _run_delegated(ctx, steps):
    """Runs to the end and returns what the Runs page shows."""
    run = drain(steps, lambda step: ctx.set_progress(progress=step.fraction, label=_label(step)))
    return {"summary": summarise(run), "run_key": run.run_key, "num_likely_ood": run.num_likely_ood}


def _label(step):
    text = f"{step.label}: {step.done:,} of {step.total:,}"
    if 0 < step.done < step.total:
        text += f", {step.rate:.0f} images/s, {format_duration(step.seconds_left)} left"
    return text


def summarise(run):
    """One sentence for the notice: how many images were scored, likely OOD and unreadable."""
    return (
        f"DiffPath scored {run.num_scored:,} images: {run.num_likely_ood:,} likely OOD, "
        f"{run.num_unreadable:,} could not be read"
    )

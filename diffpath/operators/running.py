"""Runs a generator of progress, in the App or in a delegated worker, and shows what came out."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset import DiffPathRun, drain
from ..dataset.appearance import heatmap_colors
from ..folders.scanning import Progress
from .forms.scoring import format_duration

Steps = Generator[Progress, None, DiffPathRun]
Messages = Generator[Any, None, None]  # to the App


class Scoring:
    """Mixed into operators that score images, in the App or in a delegated worker, and show what came out."""

    how: ClassVar[Mapping[str, Any]] = {
        "execute_as_generator": True,
        "allow_immediate_execution": True,
        "allow_delegated_execution": True,
    }

    def steps(self, ctx: foo.ExecutionContext) -> Steps:
        """The generator of progress that returns the run."""
        raise NotImplementedError

    def execute(self, ctx: foo.ExecutionContext) -> Messages | dict[str, Any]:
        return run_delegated(ctx, self.steps(ctx)) if ctx.delegated else run_in_app(ctx, self.steps(ctx))

    def resolve_output(self, ctx: foo.ExecutionContext) -> types.Property | None:
        """What the Runs page shows of a delegated run; in the App, the ranked view and its notice are the output."""
        if not ctx.results:
            return None
        outputs = types.Object()
        outputs.str("summary", label="Result", view=types.LabelValueView())
        return types.Property(outputs, view=types.View(label="DiffPath"))


def run_in_app(ctx: foo.ExecutionContext, steps: Steps) -> Messages:
    """Yields progress, then shows the ranked view with its heatmaps."""
    run = None
    while run is None:
        try:
            step = next(steps)
            yield ctx.ops.set_progress(label=_label(step), progress=step.fraction)
        except StopIteration as finished:
            run = finished.value
    yield ctx.ops.reload_dataset()
    yield from color_heatmaps(ctx)
    yield ctx.ops.set_view(view=run.view(ctx.dataset))
    yield show_heatmaps(ctx, run.fields)
    yield ctx.ops.notify(summarise(run), variant="success" if run.num_scored else "warning")


def run_delegated(ctx: foo.ExecutionContext, steps: Steps) -> dict[str, Any]:
    """Runs to the end and returns what the Runs page shows."""
    run = drain(steps, lambda step: ctx.set_progress(progress=step.fraction, label=_label(step)))
    return {"summary": summarise(run), "run_key": run.run_key, "num_likely_ood": run.num_likely_ood}


def color_heatmaps(ctx: foo.ExecutionContext) -> list[Any]:
    """Lets the App draw maps in the dataset's colours, which may have come after it was opened."""
    colors = heatmap_colors(ctx.dataset)
    return [ctx.trigger("set_color_scheme", colors)] if colors else []


def show_heatmaps(ctx: foo.ExecutionContext, fields: Mapping[str, str]) -> Any:
    """Ticks a run's anomaly map, boxes and score in the sidebar, beside what is ticked: it hides maps by default."""
    maps = "anomaly_map" if "anomaly_map" in fields else "heatmap"
    shown = [fields[kind] for kind in (maps, "regions", "score") if kind in fields]
    return ctx.ops.set_active_fields(list(dict.fromkeys([*(ctx.active_fields or ()), *shown])))


def summarise(run: DiffPathRun) -> str:
    """One sentence for the notice: how many images were scored, likely OOD and unreadable."""
    return (
        f"DiffPath scored {run.num_scored:,} images: {run.num_likely_ood:,} likely OOD, "
        f"{run.num_unreadable:,} could not be read"
    )


def _label(step: Progress) -> str:
    text = f"{step.label}: {step.done:,} of {step.total:,}"
    if 0 < step.done < step.total and step.seconds_left is not None:
        rate = f"{step.rate:.0f}" if step.rate >= 10 else f"{step.rate:.1f}"
        text += f", {rate} images/s, {format_duration(step.seconds_left)} left"
    return text

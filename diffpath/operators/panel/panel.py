"""The panel: look at the scores, move the threshold, see the images, decide.

What it shows is made by ``data.py``, drawn by ``plots.py`` and laid out by ``layout.py``. Its
state, kept by the App, holds numbers and names only; ``base`` is the view that the user chose and
``shown`` the narrower one that the panel set, so that showing a bar's images does not
change the histogram that the bar is in.

When the panel sets the value of an input that is on the page, the App reports this as if
the user had changed it, and puts its older copy of all the state back; so the panel never
does: a value that the user did not type comes with a fresh input, under a new name.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.internals import Stages, build_view, filtered_images, view_stages
from ...dataset.record import COMPLETE, list_diffpath_runs
from ...dataset.run import DiffPathRun
from ...dataset.thresholds import find_threshold, set_diffpath_threshold
from ...dataset.workspaces import PANEL_NAME, save_run_view
from ...folders.maps import MAPS
from ..forms.rule import level_range
from ..running import show_heatmaps
from . import data, layout, plots
from .state import up_to_date_state

PLUGIN = "@diffpath/diffpath"
_STATE = (
    *("dataset", "base", "filters", "shown", "chosen", "runs", "opened", "status", "message", "choices"),
    *("rule", "level", "threshold", "problem", "low", "high", "step", "number", "slider"),
    *("bins", "flagged", "scored", "axes", "drawn", "points", "scatter_layout", "sample"),
)


class DiffPathPanel(foo.Panel):
    """Histogram, threshold, features and single images of the dataset's runs."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name=PANEL_NAME,
            label="DiffPath",
            icon="scatter_plot",
            help_markdown="Which of these images don't belong? Click a bar or drag over a range to see its images.",
        )

    def execute(self, ctx: foo.ExecutionContext) -> Any:
        """Looks first whether the run that is shown was renamed, deleted or damaged meanwhile."""
        with up_to_date_state(ctx, _STATE):
            opened = ctx.panel.get_state("opened") if ctx.params.get("panel_id") else None
            if opened and ctx.params.get("__method__") not in (None, "on_startup", "on_load", "on_unload"):
                if opened not in list_diffpath_runs(ctx.dataset):
                    ctx.panel.set_state("rule", None)
                    self._open(ctx, None)
            return super().execute(ctx)

    # What the App tells the panel

    def on_load(self, ctx: foo.ExecutionContext) -> None:
        """Also called when the App lays out its panels anew: what the user has set so far is kept."""
        ctx.panel.set_state({"dataset": ctx.dataset.name, "base": _app_view(ctx), "filters": _filters(ctx)})
        ctx.panel.set_state({"shown": None, "chosen": ""})
        self._open(ctx, ctx.panel.get_state("opened"))

    def on_change_dataset(self, ctx: foo.ExecutionContext) -> None:
        if ctx.dataset.name != ctx.panel.get_state("dataset"):
            self.on_load(ctx)

    def on_change_view(self, ctx: foo.ExecutionContext) -> None:
        """The user's view is followed; one that the panel set is not."""
        view, filters = _app_view(ctx), _filters(ctx)
        state = ctx.panel.state
        followed = state.shown if state.shown is not None else state.base
        if view == followed and filters == state.filters:
            return
        if view != followed:
            ctx.panel.set_state({"base": view, "shown": None, "chosen": ""})
        ctx.panel.set_state("filters", filters)
        self._show(ctx)

    def on_change_selected(self, ctx: foo.ExecutionContext) -> None:
        self._report(ctx, ctx.selected[-1] if ctx.selected else ctx.current_sample)

    def on_change_current_sample(self, ctx: foo.ExecutionContext) -> None:
        if ctx.current_sample:
            self._report(ctx, ctx.current_sample)

    # What the user does

    def on_run(self, ctx: foo.ExecutionContext) -> None:
        if ctx.params["value"] != ctx.panel.get_state("opened"):
            self._open(ctx, ctx.params["value"])

    def on_rule(self, ctx: foo.ExecutionContext) -> None:
        if ctx.params["value"] != ctx.panel.get_state("rule"):
            self._move(ctx, ctx.params["value"], None)

    def on_level(self, ctx: foo.ExecutionContext) -> None:
        """The number or the slider was moved; one that was replaced meanwhile is not heard any more."""
        name, level, state = ctx.params["path"].rpartition(".")[2], ctx.params["value"], ctx.panel.state
        if name in (state.number, state.slider) and level not in (None, state.level):
            self._move(ctx, state.rule, level, moved="number" if name == state.number else "slider")

    def on_axes(self, ctx: foo.ExecutionContext) -> None:
        name = ctx.params["path"].partition(".")[2]
        if ctx.params["value"] != ctx.panel.get_state(f"drawn.{name}"):
            ctx.panel.set_state(f"axes.{name}", ctx.params["value"])
            self._scatter(ctx)

    def on_bar(self, ctx: foo.ExecutionContext) -> None:
        self._narrow(ctx, ctx.params["idx"], ctx.params["idx"])

    def on_range(self, ctx: foo.ExecutionContext) -> None:
        bars = [point["idx"] for point in ctx.params.get("data") or ()]
        if bars:  # the App also reports that nothing is selected, whenever it draws anew
            self._narrow(ctx, min(bars), max(bars))

    def on_lasso(self, ctx: foo.ExecutionContext) -> None:
        ids = [point["id"] for point in ctx.params.get("data") or ()]
        if ids:
            self._set_view(ctx, self._base(ctx).select(ids), f"{len(ids):,} chosen images")

    def on_point(self, ctx: foo.ExecutionContext) -> None:
        if ctx.params.get("id"):
            ctx.ops.set_selected_samples([ctx.params["id"]])
            self._report(ctx, ctx.params["id"])

    def apply(self, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        run = set_diffpath_threshold(ctx.dataset, state.opened, state.rule, state.level)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{run.num_likely_ood:,} images are flagged now", variant="success")
        self._show(ctx)

    def tag(self, ctx: foo.ExecutionContext) -> None:
        run = self._run(ctx)
        tag = f"{run.run_key} flagged"
        flagged = self._flagged(ctx, run)
        flagged.tag_samples(tag)
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{len(flagged):,} images have the tag {tag!r}", variant="success")

    def save(self, ctx: foo.ExecutionContext) -> None:
        """Saves what the grid shows, or the flagged images where the panel has not narrowed it."""
        run, state = self._run(ctx), ctx.panel.state
        if state.shown is not None:
            view, what = build_view(ctx.dataset, state.shown), state.chosen
        else:
            view, what = self._flagged(ctx, run), f"score from {state.threshold:.4g}"
        name = save_run_view(ctx.dataset, run.run_key, what, view)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Saved the view {name!r}", variant="success")

    def export(self, ctx: foo.ExecutionContext) -> None:
        run = self._run(ctx)
        text = data.export_csv(self._flagged(ctx, run), run)
        content = base64.b64encode(text.encode()).decode()
        ctx.ops.browser_download(f"data:text/csv;base64,{content}", f"{run.run_key}.csv")

    def clear(self, ctx: foo.ExecutionContext) -> None:
        base = ctx.panel.get_state("base")
        ctx.panel.set_state({"shown": None, "chosen": ""})
        ctx.ops.clear_selected_samples()
        if base:
            ctx.ops.set_view(build_view(ctx.dataset, base))
        else:
            ctx.ops.clear_view()
        self._show(ctx)

    def manage(self, ctx: foo.ExecutionContext) -> None:
        """One of the buttons that open an operator's form for the run."""
        ctx.prompt(
            f"{PLUGIN}/{ctx.params['operator']}",
            params={"run_key": ctx.panel.get_state("opened")},
            on_success=self.refresh,
        )

    def refresh(self, ctx: foo.ExecutionContext) -> None:
        ctx.panel.set_state("rule", None)
        self._open(ctx, ctx.panel.get_state("opened"))

    # How it follows

    def _open(self, ctx: foo.ExecutionContext, run_key: str | None) -> None:
        """Opens a run, or says why there is none to show."""
        state = ctx.panel.state
        kept = (state.rule, state.level) if state.opened == run_key and state.rule else None
        runs = list_diffpath_runs(ctx.dataset)
        if run_key not in runs:
            run_key = runs[-1] if runs else None
        choices = _fresh("choices")
        ctx.panel.set_state({"runs": runs, "opened": run_key, "sample": None})
        ctx.panel.set_state({choices: {"run": run_key}, "choices": choices})
        status, message = layout.describe_status(ctx.dataset, run_key)
        ctx.panel.set_state({"status": status, "message": message})
        if status != COMPLETE:
            return
        run = self._run(ctx)
        show_heatmaps(ctx, run.fields)
        ctx.panel.set_state({"axes.x": ctx.panel.get_state("axes.x") or data.COMPONENT_NAMES[0]})
        ctx.panel.set_state({"axes.y": ctx.panel.get_state("axes.y") or data.COMPONENT_NAMES[1]})
        rule, level = kept or (run.rule, run.level)
        ctx.panel.set_state("threshold", run.threshold)
        self._move(ctx, rule, level, draw=False)
        self._show(ctx)

    def _show(self, ctx: foo.ExecutionContext) -> None:
        """Draws everything anew: another run, another view."""
        if ctx.panel.get_state("status") != COMPLETE:
            return
        run = self._run(ctx)
        histogram = data.score_histogram(data.view_scores(self._base(ctx), run), data.reference_scores(run))
        if histogram is None:
            ctx.panel.set_state("bins", None)
            return
        ctx.panel.set_state("bins", histogram.to_dict())
        _draw(ctx, "histogram", plots.histogram_traces(histogram))
        self._count(ctx, run)
        self._scatter(ctx)

    def _move(
        self, ctx: foo.ExecutionContext, rule: str, level: float | None, moved: str | None = None, draw: bool = True
    ) -> None:
        """Moves the threshold.

        Args:
            ctx: the execution context
            rule: the name of a rule
            level: a number, or None for the present threshold as a score or the rule's default
            moved: the input that the user has moved, "number" or "slider": only the other one follows
            draw: whether the plots are to follow
        """
        run, state = self._run(ctx), ctx.panel.state
        low, high, step, default = level_range(rule, ctx.dataset, run)
        if level is None:
            level = state.threshold if rule == "score" else default
        try:
            threshold, problem = find_threshold(ctx.dataset, run.record, rule, level), None
        except ValueError as error:
            threshold, problem = state.threshold, str(error)
        ctx.panel.set_state({"rule": rule, "level": level, "threshold": threshold, "problem": problem})
        ctx.panel.set_state({"low": min(low, level), "high": max(high, level), "step": step})
        if moved != "number":
            name = _fresh("number")
            ctx.panel.set_state({"number": name, state.choices: {"run": run.run_key, "rule": rule, name: level}})
        if moved != "slider":
            name = _fresh("slider")
            ctx.panel.set_state({"slider": name, "sliders": {name: level}})
        if draw:
            self._count(ctx, run)
            self._scatter(ctx)

    def _count(self, ctx: foo.ExecutionContext, run: DiffPathRun) -> None:
        base = self._base(ctx)
        ctx.panel.set_state({"flagged": len(self._flagged(ctx, run)), "scored": base.count(run.fields["score"])})

    def _scatter(self, ctx: foo.ExecutionContext) -> None:
        state = ctx.panel.state
        x, y = state.axes["x"], state.axes["y"]
        points = data.feature_points(self._base(ctx), self._run(ctx), x, y)
        ctx.panel.set_state({"drawn": {"x": x, "y": y}, "points": [len(points.ids), points.total]})
        ctx.panel.set_state("scatter_layout", plots.scatter_layout(points, x, y))
        _draw(ctx, "scatter", plots.scatter_traces(points, state.threshold))

    def _narrow(self, ctx: foo.ExecutionContext, first: int, last: int) -> None:
        run = self._run(ctx)
        low, high = data.span(ctx.panel.get_state("bins")["edges"], first, last)
        view = data.match_scores(self._base(ctx), run, low, high)
        self._set_view(ctx, view, data.describe_span(low, high))

    def _set_view(self, ctx: foo.ExecutionContext, view: fo.DatasetView, chosen: str) -> None:
        ctx.panel.set_state({"shown": view_stages(view), "chosen": chosen})
        ctx.ops.set_view(view)

    def _report(self, ctx: foo.ExecutionContext, sample_id: str | None) -> None:
        if ctx.panel.get_state("status") != COMPLETE:
            return
        run = self._run(ctx)
        report = data.sample_report(ctx.dataset, run, sample_id) if sample_id else None
        if report is None:
            ctx.panel.set_state("sample", None)
            return
        has = {name: getattr(report, name) is not None for name in ("z", *MAPS)}
        picture = None if report.picture is None else asdict(report.picture)
        ctx.panel.set_state(
            "sample", {**has, "text": data.describe_report(report, run), "picture": picture, "outline": report.outline}
        )
        if report.z is not None:
            _draw(ctx, "z_scores", plots.z_score_traces(report.z))
        for kind in MAPS:
            if has[kind]:
                scale = run.record.map_scales[kind]
                _draw(ctx, f"maps.{kind}", plots.map_traces(getattr(report, kind), kind, scale, report.picture))

    def _run(self, ctx: foo.ExecutionContext) -> DiffPathRun:
        return DiffPathRun.load(ctx.dataset, ctx.panel.get_state("opened"))

    def _base(self, ctx: foo.ExecutionContext) -> fo.DatasetView:
        """The images of the user's view, with the sidebar's filters."""
        state = ctx.panel.state
        return filtered_images(ctx.dataset, state.base, state.filters)

    def render(self, ctx: foo.ExecutionContext) -> types.Property:
        return layout.lay_out(ctx.panel.state, self)

    def _flagged(self, ctx: foo.ExecutionContext, run: DiffPathRun) -> fo.DatasetView:
        return data.match_scores(self._base(ctx), run, low=ctx.panel.get_state("threshold"))


def _fresh(name: str) -> str:
    """A name that no input had before."""
    return f"{name}_{uuid.uuid4().hex[:8]}"


def _draw(ctx: foo.ExecutionContext, name: str, traces: list[dict[str, Any]]) -> None:
    """Replaces a plot's traces: the App would merge them with its copy of the former ones."""
    ctx.panel.set_state(name, None)
    ctx.panel.set_data(name, traces)


def _app_view(ctx: foo.ExecutionContext) -> Stages:
    """The stages of the App's view bar, comparable."""
    name = ctx.request_params.get("view_name")
    if name:
        view = ctx.dataset.load_saved_view(name)
    else:
        view = build_view(ctx.dataset, ctx.request_params.get("view") or [])
    return view_stages(view)


def _filters(ctx: foo.ExecutionContext) -> dict[str, Any]:
    return ctx.request_params.get("filters") or {}

"""The panel: look at the scores, move the threshold, see the images, decide.

What it shows is made by ``data.py`` and drawn by ``plots.py``. Its state, kept
by the App, holds numbers and names only; ``base`` is the view that the user chose and
``shown`` the narrower one that the panel set, so that showing a bar's images does not
change the histogram that the bar is in.

When the panel sets the value of an input that is on the page, the App reports this as if
the user had changed it, and puts its older copy of all the state back; so the panel never
does: a value that the user did not type comes with a fresh input, under a new name.
"""

import base64
import uuid

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset import inventory
from ...dataset.internals import build_view, filtered_view, view_stages
from ...dataset.maps import MAPS
from ...dataset.record import COMPLETE, list_diffpath_runs
from ...dataset.run import DiffPathRun
from ...dataset.thresholds import preview_threshold, set_diffpath_threshold
from ...dataset.workspaces import PANEL_NAME, save_run_view
from ..forms.compute import RULE_CHOICES
from ..forms.run import level_range
from ..running import show_heatmaps
from . import data, plots
from .state import up_to_date_state

PLUGIN = "@diffpath/diffpath"
_NO_BAR = {"displayModeBar": False, "scrollZoom": False}
_STATE = (
    *("dataset", "base", "filters", "shown", "chosen", "runs", "opened", "status", "message", "choices"),
    *("rule", "level", "threshold", "problem", "low", "high", "step", "number", "slider"),
    *("bins", "flagged", "scored", "axes", "drawn", "points", "scatter_layout", "sample"),
)


class DiffPathPanel(foo.Panel):
    """Histogram, threshold, features and single images of the dataset's runs."""

    @property
    def config(self):
        return foo.PanelConfig(
            name=PANEL_NAME,
            label="DiffPath",
            icon="scatter_plot",
            help_markdown="Which of these images don't belong? Click a bar or drag over a range to see its images.",
        )

    def execute(self, ctx):
        """Looks first whether the run that is shown was renamed, deleted or damaged meanwhile."""
        with up_to_date_state(ctx, _STATE):
            opened = ctx.panel.get_state("opened") if ctx.params.get("panel_id") else None
            if opened and ctx.params.get("__method__") not in (None, "on_startup", "on_load", "on_unload"):
                if opened not in list_diffpath_runs(ctx.dataset):
                    ctx.panel.set_state("rule", None)
                    self._open(ctx, None)
            return super().execute(ctx)

    # What the App tells the panel

    def on_load(self, ctx):
        """Also called when the App lays out its panels anew: what the user has set so far is kept."""
        ctx.panel.set_state({"dataset": ctx.dataset.name, "base": _app_view(ctx), "filters": _filters(ctx)})
        ctx.panel.set_state({"shown": None, "chosen": ""})
        self._open(ctx, ctx.panel.get_state("opened"))

    def on_change_dataset(self, ctx):
        if ctx.dataset.name != ctx.panel.get_state("dataset"):
            self.on_load(ctx)

    def on_change_view(self, ctx):
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

    def on_change_selected(self, ctx):
        self._report(ctx, ctx.selected[-1] if ctx.selected else ctx.current_sample)

    def on_change_current_sample(self, ctx):
        if ctx.current_sample:
            self._report(ctx, ctx.current_sample)

    # What the user does

    def on_run(self, ctx):
        if ctx.params["value"] != ctx.panel.get_state("opened"):
            self._open(ctx, ctx.params["value"])

    def on_rule(self, ctx):
        if ctx.params["value"] != ctx.panel.get_state("rule"):
            self._move(ctx, ctx.params["value"], None)

    def on_level(self, ctx):
        """The number or the slider was moved; one that was replaced meanwhile is not heard any more."""
        name, level, state = ctx.params["path"].rpartition(".")[2], ctx.params["value"], ctx.panel.state
        if name in (state.number, state.slider) and level not in (None, state.level):
            self._move(ctx, state.rule, level, moved="number" if name == state.number else "slider")

    def on_axes(self, ctx):
        name = ctx.params["path"].partition(".")[2]
        if ctx.params["value"] != ctx.panel.get_state(f"drawn.{name}"):
            ctx.panel.set_state(f"axes.{name}", ctx.params["value"])
            self._scatter(ctx)

    def on_bar(self, ctx):
        self._narrow(ctx, ctx.params["idx"], ctx.params["idx"])

    def on_range(self, ctx):
        bars = [point["idx"] for point in ctx.params.get("data") or ()]
        if bars:  # the App also reports that nothing is selected, whenever it draws anew
            self._narrow(ctx, min(bars), max(bars))

    def on_lasso(self, ctx):
        ids = [point["id"] for point in ctx.params.get("data") or ()]
        if ids:
            self._set_view(ctx, self._base(ctx).select(ids), f"{len(ids):,} chosen images")

    def on_point(self, ctx):
        if ctx.params.get("id"):
            ctx.ops.set_selected_samples([ctx.params["id"]])
            self._report(ctx, ctx.params["id"])

    def apply(self, ctx):
        state = ctx.panel.state
        run = set_diffpath_threshold(ctx.dataset, state.opened, state.rule, state.level)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{run.num_likely_ood:,} images are flagged now", variant="success")
        self._show(ctx)

    def tag(self, ctx):
        run = self._run(ctx)
        tag = f"{run.run_key} flagged"
        flagged = self._flagged(ctx, run)
        flagged.tag_samples(tag)
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{len(flagged):,} images have the tag {tag!r}", variant="success")

    def save(self, ctx):
        """Saves what the grid shows, or the flagged images where the panel has not narrowed it."""
        run, state = self._run(ctx), ctx.panel.state
        if state.shown is not None:
            view, what = build_view(ctx.dataset, state.shown), state.chosen
        else:
            view, what = self._flagged(ctx, run), f"score from {state.threshold:.4g}"
        name = save_run_view(ctx.dataset, run.run_key, what, view)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Saved the view {name!r}", variant="success")

    def export(self, ctx):
        run = self._run(ctx)
        text = data.export_csv(self._flagged(ctx, run), run)
        content = base64.b64encode(text.encode()).decode()
        ctx.ops.browser_download(f"data:text/csv;base64,{content}", f"{run.run_key}.csv")

    def clear(self, ctx):
        base = ctx.panel.get_state("base")
        ctx.panel.set_state({"shown": None, "chosen": ""})
        ctx.ops.clear_selected_samples()
        if base:
            ctx.ops.set_view(build_view(ctx.dataset, base))
        else:
            ctx.ops.clear_view()
        self._show(ctx)

    def manage(self, ctx):
        """One of the buttons that open an operator's form for the run."""
        ctx.prompt(
            f"{PLUGIN}/{ctx.params['operator']}",
            params={"run_key": ctx.panel.get_state("opened")},
            on_success=self.refresh,
        )

    def refresh(self, ctx):
        ctx.panel.set_state("rule", None)
        self._open(ctx, ctx.panel.get_state("opened"))

    # How it follows

    def _open(self, ctx, run_key):
        """Opens a run, or says why there is none to show."""
        state = ctx.panel.state
        kept = (state.rule, state.level) if state.opened == run_key and state.rule else None
        runs = list_diffpath_runs(ctx.dataset)
        if run_key not in runs:
            run_key = runs[-1] if runs else None
        choices = _fresh("choices")
        ctx.panel.set_state({"runs": runs, "opened": run_key, "sample": None})
        ctx.panel.set_state({choices: {"run": run_key}, "choices": choices})
        status, message = _status(ctx.dataset, run_key)
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

    def _show(self, ctx):
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

    def _move(self, ctx, rule, level, moved=None, draw=True):
        """Moves the threshold.

        Args:
            level: a number, or None for the present threshold as a score or the rule's default
            moved: the input that the user has moved, "number" or "slider": only the other one follows
        """
        run, state = self._run(ctx), ctx.panel.state
        low, high, step, default = level_range(rule, ctx.dataset, run)
        if level is None:
            level = state.threshold if rule == "score" else default
        try:
            threshold, problem = preview_threshold(ctx.dataset, run.run_key, rule, level)[0], None
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

    def _count(self, ctx, run):
        base = self._base(ctx)
        ctx.panel.set_state({"flagged": len(self._flagged(ctx, run)), "scored": base.count(run.fields["score"])})

    def _scatter(self, ctx):
        state = ctx.panel.state
        x, y = state.axes["x"], state.axes["y"]
        points = data.feature_points(self._base(ctx), self._run(ctx), x, y)
        ctx.panel.set_state({"drawn": {"x": x, "y": y}, "points": [len(points.ids), points.total]})
        ctx.panel.set_state("scatter_layout", plots.scatter_layout(points, x, y))
        _draw(ctx, "scatter", plots.scatter_traces(points, state.threshold))

    def _narrow(self, ctx, first, last):
        run = self._run(ctx)
        low, high = data.span(ctx.panel.get_state("bins")["edges"], first, last)
        view = data.match_scores(self._base(ctx), run, low, high)
        self._set_view(ctx, view, data.describe_span(low, high))

    def _set_view(self, ctx, view, chosen):
        ctx.panel.set_state({"shown": view_stages(view), "chosen": chosen})
        ctx.ops.set_view(view)

    def _report(self, ctx, sample_id):
        if ctx.panel.get_state("status") != COMPLETE:
            return
        run = self._run(ctx)
        report = data.sample_report(ctx.dataset, run, sample_id) if sample_id else None
        if report is None:
            ctx.panel.set_state("sample", None)
            return
        has = {name: getattr(report, name) is not None for name in ("z", *MAPS)}
        ctx.panel.set_state("sample", {**has, "text": data.describe_report(report, run)})
        if report.z is not None:
            _draw(ctx, "z_scores", plots.z_score_traces(report.z))
        for kind in MAPS:
            if has[kind]:
                _draw(ctx, kind, plots.map_traces(getattr(report, kind), kind, run.config[f"{kind}_scale"]))

    def _run(self, ctx):
        return DiffPathRun.load(ctx.dataset, ctx.panel.get_state("opened"))

    def _base(self, ctx):
        """The user's view, with the sidebar's filters."""
        state = ctx.panel.state
        return filtered_view(ctx.dataset, state.base, state.filters)

    def _flagged(self, ctx, run):
        return data.match_scores(self._base(ctx), run, low=ctx.panel.get_state("threshold"))

    # What the panel looks like

    def render(self, ctx):
        panel = types.Object()
        state = ctx.panel.state
        if state.runs:
            self._render_controls(panel, state)
        if state.status != COMPLETE:
            self._render_message(panel, state)
        elif state.bins is None:
            panel.md("**No image of this view has a score of this run.**", name="nothing")
        else:
            self._render_count(panel, state)
            self._render_plots(panel, state)
            self._render_sample(panel, state)
            self._render_more(panel)
        return types.Property(panel, view=types.GridView(orientation="vertical", columns=1, gap=1, pad=2))

    def _render_controls(self, panel, state):
        choices = panel.h_stack(state.choices, gap=2, align_y="end")
        _choices(choices, "run", {key: key for key in state.runs}, "Run", self.on_run)
        if state.status != COMPLETE:
            return
        _choices(choices, "rule", {rule: label for rule, (label, _) in RULE_CHOICES.items()}, "Flag by", self.on_rule)
        choices.float(state.number, label="Level", on_change=self.on_level)
        slider = types.SliderView(
            value_label_display="auto",
            value_precision=0 if state.step == 1 else 3,
            label_position="left",
            view_multiple_of=state.step,
        )
        limits = {"min": state.low, "max": state.high}
        panel.grid("sliders").float(state.slider, label="Level", view=slider, on_change=self.on_level, **limits)

    def _render_message(self, panel, state):
        panel.md(state.message or "", name="message_text")
        buttons = panel.btn_group("message_buttons")
        for operator, label in _OFFERS.get(state.status, ()):
            act = self.refresh if operator == "refresh" else self.manage
            buttons.btn(operator, label=label, on_click=act, params={"operator": operator}, variant="outlined")

    def _render_count(self, panel, state):
        if state.problem:
            panel.view("problem", types.Error(label=state.problem))
        share = state.flagged / max(state.scored, 1)
        text = (
            f"**{state.flagged:,}** of {state.scored:,} images flagged ({share:.1%}): score from {state.threshold:.4g}"
        )
        if state.chosen:
            text += f"  \nThe grid shows {state.chosen}; *Clear* goes back."
        panel.md(text, name="count_text")
        buttons = panel.btn_group("buttons")
        for name, label, act, icon in (
            ("apply", "Apply threshold", self.apply, "done"),
            ("tag", "Tag flagged", self.tag, "sell"),
            ("save", "Save view", self.save, "bookmark"),
            ("export", "Export list (CSV)", self.export, "download"),
            ("clear", "Clear", self.clear, "clear"),
        ):
            buttons.btn(name, label=label, on_click=act, icon=icon, variant="outlined")

    def _render_plots(self, panel, state):
        bins = state.bins
        layout = plots.histogram_layout(bins, data.Axis.from_dict(bins["axis"]).place(state.threshold))
        panel.plot(
            "histogram",
            layout=layout,
            config=_NO_BAR,
            on_click=self.on_bar,
            on_selected=self.on_range,
            height="260px",
        )
        axes = panel.h_stack("axes", gap=2)
        names = {name: name for name in (*data.COMPONENT_NAMES, *data.FEATURE_NAMES)}
        _choices(axes, "x", names, "Across", self.on_axes)
        _choices(axes, "y", names, "Up", self.on_axes)
        drawn, total = state.points or (0, 0)
        if drawn < total:
            panel.md(f"{drawn:,} of {total:,} images: the most anomalous, and a sample of the others.", name="sampled")
        panel.plot(
            "scatter",
            layout=state.scatter_layout,
            config=_NO_BAR,
            on_click=self.on_point,
            on_selected=self.on_lasso,
            height="320px",
        )

    def _render_sample(self, panel, state):
        sample = state.sample
        if not sample:
            panel.md("Select an image to see its six features and its maps.", name="hint")
            return
        panel.md(sample["text"], name="sample_text")
        if sample["z"]:
            panel.plot("z_scores", layout=plots.z_score_layout(), config=_NO_BAR, height="230px")
        for kind in MAPS:
            if sample.get(kind):
                panel.plot(kind, layout=plots.map_layout(kind), config=_NO_BAR, height="260px")

    def _render_more(self, panel):
        buttons = panel.btn_group("more")
        for operator, label in _MORE:
            buttons.btn(operator, label=label, on_click=self.manage, params={"operator": operator}, variant="outlined")


# Operators on the run that is shown, and labels of their buttons
_MORE = (
    ("get_diffpath_info", "Info"),
    ("update_diffpath", "Score new images"),
    ("evaluate_diffpath", "Evaluate"),
    ("save_diffpath_workspace", "Workspace"),
    ("rename_diffpath", "Rename"),
    ("delete_diffpath", "Delete"),
)
# What can be done where there is no finished run: operators and labels of their buttons
_OFFERS = {
    "none": (("compute_diffpath", "Find images that don't belong"),),
    inventory.RUNNING: (("refresh", "Look again"),),
    inventory.INTERRUPTED: (("continue_diffpath", "Continue"), ("delete_diffpath", "Delete")),
    inventory.DAMAGED: (("delete_diffpath", "Delete"),),
}
_EMPTY = "**This dataset has no images.** Add some, then compute their scores."
_NONE = "**No image has a score yet.**"
_MESSAGES = {
    inventory.RUNNING: "**Run {run_key} is being computed.** {num_done:,} images are done.",
    inventory.INTERRUPTED: "**Run {run_key} was interrupted.** {num_done:,} images are done; it goes on where it "
    "stopped.",
    inventory.DAMAGED: "**Run {run_key} has lost {missing_fields}.** Delete what is left of it, and compute it again.",
}


def _status(dataset, run_key):
    """What there is to show: a status, and a message in Markdown where it is not a finished run."""
    if not dataset.count():
        return "empty", _EMPTY
    if run_key is None:
        return "none", _NONE
    info = inventory.get_diffpath_info(dataset, run_key)
    if info["status"] == COMPLETE:
        return COMPLETE, ""
    return info["status"], _MESSAGES[info["status"]].format(
        **{**info, "missing_fields": ", ".join(info["missing_fields"])}
    )


def _fresh(name):
    """A name that no input had before."""
    return f"{name}_{uuid.uuid4().hex[:8]}"


def _draw(ctx, name, traces):
    """Replaces a plot's traces: the App would merge them with its copy of the former ones."""
    ctx.panel.set_state(name, None)
    ctx.panel.set_data(name, traces)


def _choices(inputs, name, labels, label, on_change):
    view = types.DropdownView()
    for value, text in labels.items():
        view.add_choice(value, label=text)
    inputs.enum(name, list(labels), view=view, label=label, on_change=on_change)


def _app_view(ctx):
    """The stages of the App's view bar, comparable."""
    name = ctx.request_params.get("view_name")
    if name:
        view = ctx.dataset.load_saved_view(name)
    else:
        view = build_view(ctx.dataset, ctx.request_params.get("view") or [])
    return view_stages(view)


def _filters(ctx):
    return ctx.request_params.get("filters") or {}

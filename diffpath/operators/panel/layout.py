"""What the panel looks like: inputs, buttons and plots, laid out for a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import fiftyone as fo
import fiftyone.operators.types as types

from ...dataset.inventory import DAMAGED, INTERRUPTED, RUNNING, WITHOUT_FILES, get_diffpath_info
from ...dataset.record import COMPLETE
from ...detection.rules import RULES
from ...folders.maps import MAPS
from ...options import FEATURE_NAMES
from ..markdown import escape
from . import data, plots

_NO_BAR = {"displayModeBar": False, "scrollZoom": False}
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
    RUNNING: (("refresh", "Look again"),),
    INTERRUPTED: (("continue_diffpath", "Continue"), ("delete_diffpath", "Delete")),
    WITHOUT_FILES: (
        ("continue_diffpath", "Continue"),
        ("load_diffpath_view", "Show images"),
        ("delete_diffpath", "Delete"),
    ),
    DAMAGED: (("continue_diffpath", "Continue"), ("delete_diffpath", "Delete")),
}
_EMPTY = "**This dataset has no images.** Add some, then compute their scores."
_NONE = "**No image has a score yet.**"
_MESSAGES = {
    RUNNING: "**Run {run_key} is being computed.** {num_done:,} images are done.",
    INTERRUPTED: "**Run {run_key} was interrupted.** {num_done:,} images are done; it goes on where it stopped.",
    WITHOUT_FILES: "**The files of run {run_key} are not in {folder}.** Continue it to make them again from what the "
    "samples hold, or to say where they are; its views and fields work as before.",
    DAMAGED: "**Run {run_key} has lost {missing_fields}.** Continue it to make them again, or delete it.",
}

Event = Callable[[Any], None]


class Events(Protocol):
    """What the panel does when something of the layout is used: FiftyOne calls these with its context."""

    on_run: Event
    on_rule: Event
    on_level: Event
    on_axes: Event
    on_bar: Event
    on_range: Event
    on_lasso: Event
    on_point: Event
    apply: Event
    tag: Event
    save: Event
    export: Event
    clear: Event
    manage: Event
    refresh: Event


def describe_status(dataset: fo.Dataset, run_key: str | None) -> tuple[str, str]:
    """What there is to show: a status, and a message in Markdown where it is not a finished run."""
    if not dataset.count():
        return "empty", _EMPTY
    if run_key is None:
        return "none", _NONE
    info = get_diffpath_info(dataset, run_key)
    if info["status"] == COMPLETE:
        return COMPLETE, ""
    said = {**info, "missing_fields": ", ".join(info["missing_fields"])}
    plain = {name: escape(value) if isinstance(value, str) else value for name, value in said.items()}
    return info["status"], _MESSAGES[info["status"]].format(**plain)


def lay_out(state: Any, events: Events) -> types.Property:
    """The whole panel.

    Args:
        state: the panel's state, by attribute
        events: the panel
    """
    panel = types.Object()
    if state.runs:
        _controls(panel, state, events)
    if state.status != COMPLETE:
        _message(panel, state, events)
    elif state.bins is None:
        panel.md("**No image of this view has a score of this run.**", name="nothing")
    else:
        _count(panel, state, events)
        _plots(panel, state, events)
        _sample(panel, state)
        _more(panel, events)
    return types.Property(panel, view=types.GridView(orientation="vertical", columns=1, gap=1, pad=2))


def _controls(panel: types.Object, state: Any, events: Events) -> None:
    choices = panel.h_stack(state.choices, gap=2, align_y="end")
    _choices(choices, "run", {key: key for key in state.runs}, "Run", events.on_run)
    if state.status != COMPLETE:
        return
    _choices(choices, "rule", {rule.name: rule.label for rule in RULES.values()}, "Flag by", events.on_rule)
    choices.float(state.number, label="Level", on_change=events.on_level)
    slider = types.SliderView(
        value_label_display="auto",
        value_precision=0 if state.step == 1 else 3,
        label_position="left",
        view_multiple_of=state.step,
    )
    limits = {"min": state.low, "max": state.high}
    panel.grid("sliders").float(state.slider, label="Level", view=slider, on_change=events.on_level, **limits)


def _message(panel: types.Object, state: Any, events: Events) -> None:
    panel.md(state.message or "", name="message_text")
    buttons = panel.btn_group("message_buttons")
    for operator, label in _OFFERS.get(state.status, ()):
        act = events.refresh if operator == "refresh" else events.manage
        buttons.btn(operator, label=label, on_click=act, params={"operator": operator}, variant="outlined")


def _count(panel: types.Object, state: Any, events: Events) -> None:
    if state.problem:
        panel.view("problem", types.Error(label=state.problem))
    share = state.flagged / max(state.scored, 1)
    text = f"**{state.flagged:,}** of {state.scored:,} images flagged ({share:.1%}): score from {state.threshold:.4g}"
    if state.chosen:
        text += f"  \nThe grid shows {state.chosen}; *Clear* goes back."
    panel.md(text, name="count_text")
    buttons = panel.btn_group("buttons")
    for name, label, act, icon in (
        ("apply", "Apply threshold", events.apply, "done"),
        ("tag", "Tag flagged", events.tag, "sell"),
        ("save", "Save view", events.save, "bookmark"),
        ("export", "Export list (CSV)", events.export, "download"),
        ("clear", "Clear", events.clear, "clear"),
    ):
        buttons.btn(name, label=label, on_click=act, icon=icon, variant="outlined")


def _plots(panel: types.Object, state: Any, events: Events) -> None:
    bins = state.bins
    panel.plot(
        "histogram",
        layout=plots.histogram_layout(bins, float(data.Axis.from_dict(bins["axis"]).place(state.threshold))),
        config=_NO_BAR,
        on_click=events.on_bar,
        on_selected=events.on_range,
        height="260px",
    )
    axes = panel.h_stack("axes", gap=2)
    names = {name: name for name in (*data.COMPONENT_NAMES, *FEATURE_NAMES)}
    _choices(axes, "x", names, "Across", events.on_axes)
    _choices(axes, "y", names, "Up", events.on_axes)
    drawn, total = state.points or (0, 0)
    if drawn < total:
        panel.md(f"{drawn:,} of {total:,} images: the most anomalous, and a sample of the others.", name="sampled")
    panel.plot(
        "scatter",
        layout=state.scatter_layout,
        config=_NO_BAR,
        on_click=events.on_point,
        on_selected=events.on_lasso,
        height="320px",
    )


def _sample(panel: types.Object, state: Any) -> None:
    sample = state.sample
    if not sample:
        panel.md("Select an image to see its six features and its maps.", name="hint")
        return
    panel.md(sample["text"], name="sample_text")
    if sample["z"]:
        panel.plot("z_scores", layout=plots.z_score_layout(), config=_NO_BAR, height="230px")
    shown = [kind for kind in MAPS if sample.get(kind)]
    if shown:
        picture = data.Picture(**sample["picture"]) if sample["picture"] else None
        layout = partial(plots.map_layout, picture=picture, outline=sample.get("outline"))
        maps = panel.h_stack("maps", gap=1)
        for kind in shown:
            maps.plot(kind, layout=layout(kind), config=_NO_BAR, height="230px", width="290px")


def _more(panel: types.Object, events: Events) -> None:
    buttons = panel.btn_group("more")
    for operator, label in _MORE:
        buttons.btn(operator, label=label, on_click=events.manage, params={"operator": operator}, variant="outlined")


def _choices(inputs: types.Object, name: str, labels: Mapping[str, str], label: str, on_change: Event) -> None:
    view = types.DropdownView()
    for value, text in labels.items():
        view.add_choice(value, label=text)
    inputs.enum(name, list(labels), view=view, label=label, on_change=on_change)

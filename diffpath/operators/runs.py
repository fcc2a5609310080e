"""Operators for runs that are there: look up, show, rename, delete, judge anew, score what is new."""

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ..dataset import inventory
from ..dataset.delete import delete_diffpath
from ..dataset.internals import root_dataset
from ..dataset.record import COMPLETE
from ..dataset.rename import rename_diffpath, why_not_rename
from ..dataset.resume import continue_diffpath, iterate_continue
from ..dataset.run import DiffPathRun
from ..dataset.thresholds import preview_threshold, set_diffpath_threshold
from ..dataset.update import iterate_update, update_diffpath
from ..dataset.workspaces import save_workspace
from .forms.compute import add_rule, read_rule
from .forms.run import add_run_choice
from .running import Scoring, show_heatmaps

_ANY = (COMPLETE, inventory.RUNNING, inventory.INTERRUPTED, inventory.DAMAGED)


class _RunOperator(foo.Operator):
    """An operator on a run that the form lets one choose."""

    about = {}  # arguments of OperatorConfig
    submit = "Done"
    statuses = (COMPLETE,)  # of the runs that can be chosen

    @property
    def config(self):
        return foo.OperatorConfig(dynamic=True, **self.about)

    def resolve_input(self, ctx):
        inputs = types.Object()
        run_key = add_run_choice(ctx, inputs, self.statuses)
        if run_key:
            self.add_inputs(ctx, inputs, run_key)
        return types.Property(inputs, view=types.PromptView(label=self.about["label"], submit_button_label=self.submit))

    def add_inputs(self, ctx, inputs, run_key):
        """Adds what the form holds beside the run."""


class GetDiffPathInfo(_RunOperator):
    """Shows everything that is recorded of a run."""

    about = {
        "name": "get_diffpath_info",
        "label": "Get DiffPath info",
        "description": "Options, model, reference, time, versions and counts of a run",
        "risk_level": "low",
        "icon": "info",
    }
    statuses = _ANY

    def __call__(self, sample_collection, run_key):
        """The run's record and status, as :func:`diffpath.get_diffpath_info`."""
        return inventory.get_diffpath_info(root_dataset(sample_collection), run_key)

    def add_inputs(self, ctx, inputs, run_key):
        inputs.md(_table(inventory.describe_info(inventory.get_diffpath_info(ctx.dataset, run_key))), name="info")

    def execute(self, ctx):
        info = inventory.get_diffpath_info(ctx.dataset, ctx.params["run_key"])
        return {**info, "timestamp": info["timestamp"].isoformat()}


class LoadDiffPathView(_RunOperator):
    """Shows one of a run's views."""

    about = {
        "name": "load_diffpath_view",
        "label": "Load DiffPath view",
        "description": "Show a run's images, the most anomalous first, only the flagged ones, or others",
        "risk_level": "low",
        "icon": "visibility",
    }
    submit = "Show"

    def __call__(self, sample_collection, run_key, kind="ranked"):
        """The view, as :func:`diffpath.load_diffpath_view`."""
        return inventory.load_diffpath_view(root_dataset(sample_collection), run_key, kind)

    def add_inputs(self, ctx, inputs, run_key):
        kinds = types.RadioGroup()
        for kind, label in _VIEWS.items():
            kinds.add_choice(kind, label=label)
        inputs.enum("kind", kinds.values(), default="ranked", view=kinds, label="Show")

    def execute(self, ctx):
        run_key, kind = ctx.params["run_key"], ctx.params.get("kind", "ranked")
        ctx.ops.set_view(inventory.load_diffpath_view(ctx.dataset, run_key, kind))
        show_heatmaps(ctx, DiffPathRun.load(ctx.dataset, run_key).fields)


class RenameDiffPath(_RunOperator):
    """Gives a run another key."""

    about = {
        "name": "rename_diffpath",
        "label": "Rename DiffPath run",
        "description": "Give a run another key: its fields, views and files follow",
        "risk_level": "medium",
        "icon": "edit",
    }
    submit = "Rename"
    statuses = (COMPLETE, inventory.INTERRUPTED)

    def __call__(self, sample_collection, run_key, new_run_key):
        """As :func:`diffpath.rename_diffpath`."""
        rename_diffpath(root_dataset(sample_collection), run_key, new_run_key)

    def add_inputs(self, ctx, inputs, run_key):
        prop = inputs.str("new_run_key", required=True, label="New key")
        new_run_key = ctx.params.get("new_run_key")
        problem = why_not_rename(ctx.dataset, run_key, new_run_key) if new_run_key else None
        if problem:
            prop.invalid, prop.error_message = True, problem

    def execute(self, ctx):
        run_key, new_run_key = ctx.params["run_key"], ctx.params["new_run_key"]
        rename_diffpath(ctx.dataset, run_key, new_run_key)
        ctx.ops.clear_view()  # it may be over the old fields
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Run {run_key!r} is now {new_run_key!r}", variant="success")
        return {"run_key": new_run_key}


class DeleteDiffPath(_RunOperator):
    """Deletes a run with everything that belongs to it."""

    about = {
        "name": "delete_diffpath",
        "label": "Delete DiffPath run",
        "description": "Delete a run with its fields, saved views and files",
        "risk_level": "high",
        "icon": "delete",
    }
    submit = "Delete"
    statuses = _ANY

    def __call__(self, sample_collection, run_key):
        """As :func:`diffpath.delete_diffpath`."""
        delete_diffpath(root_dataset(sample_collection), run_key)

    def add_inputs(self, ctx, inputs, run_key):
        inputs.view("warning", types.Warning(label=f"This deletes run {run_key!r} and cannot be undone"))
        inputs.md(_list(inventory.describe_contents(inventory.run_contents(ctx.dataset, run_key))), name="belongings")

    def execute(self, ctx):
        run_key = ctx.params["run_key"]
        delete_diffpath(ctx.dataset, run_key)
        ctx.ops.clear_view()  # it may be over the fields that are gone
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Run {run_key!r} is deleted", variant="success")
        return {"run_key": run_key}


class SetDiffPathThreshold(_RunOperator):
    """Chooses anew which images are flagged."""

    about = {
        "name": "set_diffpath_threshold",
        "label": "Set DiffPath threshold",
        "description": "Choose anew which images count as likely OOD, without scoring again",
        "risk_level": "medium",
        "icon": "tune",
    }
    submit = "Apply"

    def __call__(self, sample_collection, run_key, rule, level, tag=None):
        """As :func:`diffpath.set_diffpath_threshold`."""
        return set_diffpath_threshold(root_dataset(sample_collection), run_key, rule, level, tag=tag)

    def add_inputs(self, ctx, inputs, run_key):
        add_rule(ctx, inputs)
        try:
            threshold, count = preview_threshold(ctx.dataset, run_key, *read_rule(ctx.params))
        except ValueError:  # the input says so
            return
        scored = DiffPathRun.load(ctx.dataset, run_key).num_scored
        text = f"{count:,} of {scored:,} images would be flagged: score from {threshold:.4g}"
        inputs.view("preview", types.Notice(label=text))

    def execute(self, ctx):
        rule, level = read_rule(ctx.params)
        tag = ctx.params.get("tag") or None
        run = set_diffpath_threshold(ctx.dataset, ctx.params["run_key"], rule, level, tag=tag)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"{run.num_likely_ood:,} images are flagged now", variant="success")
        return {"run_key": run.run_key, "threshold": run.threshold, "num_likely_ood": run.num_likely_ood}


class ContinueDiffPath(Scoring, _RunOperator):
    """Goes on with an interrupted run."""

    about = {
        "name": "continue_diffpath",
        "label": "Continue DiffPath run",
        "description": "Go on with an interrupted run where it stopped",
        **Scoring.how,
        "risk_level": "medium",
        "icon": "play_arrow",
    }
    submit = "Continue"
    statuses = (inventory.INTERRUPTED,)

    def __call__(self, sample_collection, run_key, **arguments):
        """As :func:`diffpath.continue_diffpath`."""
        return continue_diffpath(root_dataset(sample_collection), run_key, **arguments)

    def add_inputs(self, ctx, inputs, run_key):
        info = inventory.get_diffpath_info(ctx.dataset, run_key)
        inputs.view("done", types.Notice(label=f"{info['num_done']:,} images are done already"))

    def steps(self, ctx):
        return iterate_continue(ctx.dataset, ctx.params["run_key"])


class UpdateDiffPath(Scoring, _RunOperator):
    """Scores what a run has not scored."""

    about = {
        "name": "update_diffpath",
        "label": "Score new images with DiffPath",
        "description": "Score only the images that a run has not scored, against its own reference",
        **Scoring.how,
        "risk_level": "medium",
        "icon": "update",
    }
    submit = "Score"

    def __call__(self, sample_collection, run_key, **arguments):
        """As :func:`diffpath.update_diffpath`."""
        return update_diffpath(sample_collection, run_key, **arguments)

    def add_inputs(self, ctx, inputs, run_key):
        inputs.view_target(ctx, require_flat=True)
        samples = ctx.target_view(require_flat=True)
        count = len(samples) - samples.count(DiffPathRun.load(ctx.dataset, run_key).fields["score"])
        label = f"{count:,} images have no score yet" if count else "All images have a score"
        inputs.view("estimate", types.Notice(label=label))

    def steps(self, ctx):
        return iterate_update(ctx.target_view(require_flat=True), ctx.params["run_key"])


class SaveDiffPathWorkspace(_RunOperator):
    """Saves and opens a workspace: the grid, and the panel beside it."""

    about = {
        "name": "save_diffpath_workspace",
        "label": "Save DiffPath workspace",
        "description": "The samples, the most anomalous first, with the DiffPath panel beside them",
        "risk_level": "medium",
        "icon": "dashboard",
    }
    submit = "Save"

    def __call__(self, sample_collection, run_key):
        """Saves the workspace and returns its name."""
        return save_workspace(root_dataset(sample_collection), run_key)

    def execute(self, ctx):
        run_key = ctx.params["run_key"]
        name = save_workspace(ctx.dataset, run_key)
        ctx.ops.reload_dataset()
        ctx.ops.set_spaces(spaces=ctx.dataset.load_workspace(name))
        ctx.ops.set_view(view=inventory.load_diffpath_view(ctx.dataset, run_key))
        ctx.ops.notify(f"Saved the workspace {name!r}", variant="success")
        return {"workspace": name}


_VIEWS = {
    "ranked": "All images, the most anomalous first",
    "ood": "Flagged images",
    "typical": "All images, the most typical first",
    "unreadable": "Images that could not be read",
}


def _table(rows):
    return "\n".join(["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)])


def _list(rows):
    return "\n".join(f"- **{label}:** {value}" for label, value in rows)

"""The part of a form that asks for a run: one that is there, or the key of a new one."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.inventory import DAMAGED, INTERRUPTED, RUNNING, WITHOUT_FILES, run_status
from ...dataset.record import COMPLETE, check_run_key, find_record, read_records
from ...dataset.request import ScoringRequest

ANY_STATUS = (COMPLETE, RUNNING, INTERRUPTED, DAMAGED, WITHOUT_FILES)
# What is said of a run whose key is chosen for a new one
_EXISTING = {
    COMPLETE: ("exists", "Choose another run key to keep it."),
    INTERRUPTED: ("was interrupted", "Leave this off to go on where it stopped, with the same options as before."),
    WITHOUT_FILES: ("has lost its files", "Continue it to make them again, or choose another run key to keep it."),
    DAMAGED: ("has lost fields", "Continue it to make them again, or choose another run key to keep it."),
}


def runs_by_status(dataset: fo.Dataset, statuses: Sequence[str] = (COMPLETE,)) -> dict[str, str]:
    """Keys of the dataset's runs that are in one of the statuses, with that status."""
    found = {key: run_status(dataset, record) for key, record in read_records(dataset).items()}
    return {key: status for key, status in found.items() if status in statuses}


def add_run_choice(
    ctx: foo.ExecutionContext, inputs: types.Object, statuses: Sequence[str] = (COMPLETE,)
) -> str | None:
    """Adds a choice among the dataset's runs.

    Args:
        ctx: the execution context
        inputs: the form
        statuses: which of the runs can be chosen, as in ``run_status``

    Returns:
        the key that is chosen, or None where there is none to choose
    """
    found = runs_by_status(ctx.dataset, statuses)
    fitting = list(found)
    if not fitting:
        prop = inputs.view("no_run", types.Warning(label="This dataset has no DiffPath run for this"))
        prop.invalid = True
        return None
    view = types.DropdownView()
    for key in fitting:
        view.add_choice(key, label=key if found[key] == COMPLETE else f"{key} ({found[key]})")
    inputs.enum("run_key", fitting, default=fitting[-1], required=True, label="Run", view=view)
    chosen = ctx.params.get("run_key", fitting[-1])
    return chosen if chosen in fitting else None


def add_run_key(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """An input for the key of a new run; where there is one of that key, what can be done about it."""
    run_key = ctx.params.get("run_key", ScoringRequest.run_key)
    prop = inputs.str(
        "run_key",
        default=ScoringRequest.run_key,
        label="Run key",
        description="Prefix of the run's fields and saved views",
    )
    try:
        check_run_key(str(run_key))
    except ValueError:
        prop.invalid = True
        prop.error_message = "use letters, digits and underscores, and begin with a letter"
        return
    try:
        record = find_record(ctx.dataset, run_key)
    except ValueError as error:
        prop.invalid = True
        prop.error_message = str(error)
        return
    if record is None:
        return
    status = run_status(ctx.dataset, record)
    if status == RUNNING:
        prop.invalid = True
        prop.error_message = f"run {run_key!r} is being computed now; wait for it, or choose another key"
        return
    what, otherwise = _EXISTING[status]
    inputs.view(
        "existing_run",
        types.Warning(
            label=f"Run {run_key!r} {what}",
            description=f"Overwriting deletes its fields, views and heatmaps. {otherwise}",
        ),
    )
    overwrite = inputs.bool("overwrite", default=False, label="Overwrite")
    if status != INTERRUPTED and not ctx.params.get("overwrite"):
        overwrite.invalid = True
        overwrite.error_message = "tick this to replace the run, or choose another run key"

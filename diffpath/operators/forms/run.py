"""Inputs that several forms and the panel share: which run, which threshold."""

import fiftyone.operators.types as types

from ...dataset.inventory import run_status
from ...dataset.record import COMPLETE, read_records

_SHARE_RANGE = (0.001, 0.3, None, 0.05)


def runs_by_status(dataset, statuses=(COMPLETE,)):
    """Keys of the dataset's runs that are in one of the statuses, with that status."""
    found = {key: run_status(dataset, record) for key, record in read_records(dataset).items()}
    return {key: status for key, status in found.items() if status in statuses}


def add_run_choice(ctx, inputs, statuses=(COMPLETE,)):
    """Adds a choice among the dataset's runs.

    Args:
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


def level_range(rule, dataset, run):
    """``(low, high, step, default)`` of a rule's level on a slider; the step is None for a hundredth."""
    if rule == "score":
        low, high = dataset.bounds(run.fields["score"])
        return low, high, None, run.threshold
    if rule == "percentile":
        return 0, 100, 0.5, 95
    if rule == "count":
        return 0, run.num_scored, 1, run.num_likely_ood
    return _SHARE_RANGE

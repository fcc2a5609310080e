"""The part of a form that asks which images are to be flagged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.internals import every_image
from ...dataset.run import DiffPathRun
from ...detection.rules import DEFAULT_RULE, RULES, check_rule

INPUTS = ("rule", "level", "tag", *(f"level_{rule}" for rule in RULES))
_SHARES_ON_A_SLIDER = (0.001, 0.3)


def add_rule(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Inputs for the rule by which images are flagged, its number and a tag."""
    choices = types.DropdownView()
    for known in RULES.values():
        choices.add_choice(known.name, label=known.label, description=known.description)
    inputs.enum(
        "rule", choices.values(), default=DEFAULT_RULE, label="Flag by", view=choices, description="What is likely OOD"
    )
    rule, level = read_rule(ctx.params)
    about = RULES.get(rule)
    # One input per rule, as an input keeps what was typed when the rule changes
    prop = inputs.float(
        f"level_{rule}",
        default=about.default_level if about else None,
        label="Level",
        description=about.description if about else "",
    )
    try:
        check_rule(rule, level)
    except ValueError as error:
        prop.invalid, prop.error_message = True, str(error)
    inputs.str(
        "tag",
        default=None,
        label="Tag the flagged",
        description="Give the flagged images this sample tag; empty for none",
    )


def read_rule(params: Mapping[str, Any]) -> tuple[str, Any]:
    """Rule and level of a form's parameters, or of a caller's ``rule`` and ``level``."""
    rule = params.get("rule") or DEFAULT_RULE
    level = params.get(f"level_{rule}", params.get("level"))
    if level is None or level == "":
        return rule, RULES[rule].default_level if rule in RULES else None
    return rule, level


def level_range(rule: str, dataset: fo.Dataset, run: DiffPathRun) -> tuple[float, float, float | None, float]:
    """``(low, high, step, default)`` of a rule's level on a slider; the step is None for a hundredth."""
    about = RULES[rule]
    if rule == "score":
        low, high = every_image(dataset).bounds(run.fields["score"])
        return low, high, None, run.threshold
    if about.is_whole:
        return about.lowest, run.num_scored, 1, run.num_likely_ood
    if about.highest > 1:
        return about.lowest, about.highest, 0.5, about.default_level or about.lowest
    return *_SHARES_ON_A_SLIDER, None, 0.05

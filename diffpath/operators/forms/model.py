"""The part of a form that asks for the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...models.cards import MODEL_CARDS, find_card
from ...options import ModelOptions
from .inputs import add_option, fills_in_a_form, hides_advanced

BUNDLED = "bundled"
INPUTS = ("model", "model_options", *(each.name for each in fields(ModelOptions)))


def add_model(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """An input for the model, with what is known of the ones that it suggests."""
    choices = types.AutocompleteView()
    for card in MODEL_CARDS:
        choices.add_choice(card.id, label=card.id, description=card.facts())
    # Not an enum, whose values would be all that is allowed
    inputs.str(
        "model",
        default=BUNDLED,
        view=choices,
        label="Model",
        description="One of these, any other hub id, or the path of a diffusers folder on FiftyOne's machine",
    )
    chosen = find_card(chosen_model(ctx.params))
    if chosen and chosen.id != BUNDLED:
        inputs.view(
            "model_card",
            types.Notice(
                label=chosen.facts(),
                description="It is downloaded when it is first used. Facts are from its page and paper; we have not "
                "run it.",
            ),
        )


def add_model_options(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Inputs for how the model is loaded; the bundled one needs none."""
    if chosen_model(ctx.params) != BUNDLED:
        for each in fields(ModelOptions):
            add_option(inputs, ModelOptions, each)


def chosen_model(params: Mapping[str, Any]) -> str:
    """The model that is filled in."""
    return params.get("model") or BUNDLED


def read_model(params: Mapping[str, Any]) -> dict[str, Any]:
    """Model and model options, as arguments of a scoring request."""
    arguments: dict[str, Any] = {"model": chosen_model(params)}
    if hides_advanced(params) or (fills_in_a_form(params) and arguments["model"] == BUNDLED):
        return arguments
    given = {each.name: params[each.name] for each in fields(ModelOptions) if each.name in params}
    return {**arguments, "model_options": {**params.get("model_options", {}), **given}}

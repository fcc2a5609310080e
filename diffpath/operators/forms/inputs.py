"""Inputs that every form is made of, and which of them a form hides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field
from types import UnionType
from typing import Any, get_args, get_type_hints

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.internals import Samples, every_image, is_dynamic
from ...options import MethodOptions, ModelOptions, option_of

ADVANCED = "advanced"


def given_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in; an input that was emptied counts as none."""
    return {name: value for name, value in params.items() if value is not None and value != ""}


def target_images(ctx: foo.ExecutionContext) -> Samples:
    """What a form's target is: of a grouped dataset the slice that the App shows, unless the view says which."""
    chosen = ctx.target_view()
    return every_image(chosen) if is_dynamic(chosen) else ctx.target_view(require_flat=True)


def fills_in_a_form(params: Mapping[str, Any]) -> bool:
    """Whether these are the values of a form and not the arguments of a caller from Python.

    An input that a form hides keeps what was typed into it, which is void then. A caller fills in no
    form: whatever is given counts.
    """
    return ADVANCED in params


def hides_advanced(params: Mapping[str, Any]) -> bool:
    """Whether these are the values of a form that hides its advanced inputs."""
    return fills_in_a_form(params) and not params[ADVANCED]


def suggestions(values: Iterable[str]) -> types.AutocompleteView:
    """A list to choose from or to type into."""
    choices = types.AutocompleteView()
    for value in values:
        choices.add_choice(value, label=value)
    return choices


def add_required_choice(inputs: types.Object, name: str, values: list[str], label: str, missing: str) -> None:
    """A required choice among values; where there are none, ``missing`` says so."""
    choices = suggestions(values)
    prop = inputs.enum(name, choices.values(), required=True, label=label, view=choices)
    if not values:
        prop.invalid = True
        prop.error_message = missing


def add_field_choice(
    inputs: types.Object,
    name: str,
    fields: list[str],
    chosen: str | None,
    *,
    label: str,
    description: str,
    otherwise: str,
) -> None:
    """An optional choice among fields, where there are any."""
    if not fields:
        return
    prop = inputs.enum(name, fields, default=None, label=label, view=suggestions(fields), description=description)
    if chosen and chosen not in fields:
        prop.invalid, prop.error_message = True, f"{chosen!r} {otherwise}; choose one, or leave this empty"


def add_option(
    inputs: types.Object, options: type[MethodOptions] | type[ModelOptions], each: Field[Any], **changes: Any
) -> None:
    """An input for one option: its default, bounds and words are the option's own.

    Args:
        inputs: the form
        options: the class that the option is a field of
        each: the field
        **changes: what else the input is given, in place of the option's own
    """
    about = option_of(each)
    given: dict[str, Any] = {"default": each.default, "label": about.label, "description": about.help, **changes}
    kind = _plain_type(get_type_hints(options)[each.name])
    if about.choices:
        inputs.enum(each.name, list(about.choices), **given)
    elif kind in (int, float):
        low, high = (bound if math.isfinite(bound) else None for bound in (about.low, about.high))
        limits = {"min": int(low) if low is not None else None, "max": high}
        make = inputs.int if kind is int else inputs.float
        make(each.name, **given, **{name: bound for name, bound in limits.items() if bound is not None})
    else:
        make = inputs.bool if kind is bool else inputs.str
        make(each.name, **given)


def _plain_type(hint: Any) -> type:
    return get_args(hint)[0] if isinstance(hint, UnionType) else hint

"""The part of a form that asks for the method's options, and for how a run is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from ...dataset.request import ScoringRequest
from ...options import PRESETS, MethodOptions, option_of
from .inputs import add_option, hides_advanced

_OPTIONS = {each.name: each for each in fields(MethodOptions)}
# Two inputs for an option that is a pair
_PAIRS = {"timestep_range": ("first_timestep", "last_timestep"), "value_range": ("black", "white")}
_ENDS = tuple(end for ends in _PAIRS.values() for end in ends)
_WEIGHTING = {"yes": True, "no": False}  # not a switch: an untouched switch would override the preset
_HOW = ("batch_size", "num_workers", "device", "dtype")
INPUTS = (*_OPTIONS, *_ENDS, *_HOW)


def add_options(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Inputs for all options that forms have one for, and for how the run is computed."""
    preset = ctx.params.get("preset") or "default"
    chosen = MethodOptions.from_preset(preset if preset in PRESETS else "default")
    for name, each in _OPTIONS.items():
        about = option_of(each)
        if about.label is None:
            continue
        if name in _PAIRS:
            bounds = {side: bound for side, bound in (("min", about.low), ("max", about.high)) if math.isfinite(bound)}
            for end, default in zip(_PAIRS[name], getattr(chosen, name) or (None, None)):
                label = end.replace("_", " ").capitalize()
                inputs.float(end, default=default, label=label, description=about.help, **bounds)
        elif name == "ssim_weighting":
            said = f"The preset's is {'yes' if chosen.ssim_weighting else 'no'!r}"
            inputs.enum(name, list(_WEIGHTING), default=None, label=about.label, description=said)
        elif name in PRESETS[chosen.preset]:
            add_option(
                inputs, MethodOptions, each, default=None, description=about.help or _said(getattr(chosen, name))
            )
        else:
            add_option(inputs, MethodOptions, each)
    inputs.int(
        "batch_size",
        default=None,
        min=1,
        label="Batch size",
        description="Images per forward pass; empty to choose by device",
    )
    inputs.int("num_workers", default=ScoringRequest.num_workers, min=1, label="Decoding threads")
    inputs.str("device", default=None, label="Device", description="Such as cuda:1, cpu, or cuda:0, cuda:1 to share")


def read_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the method and of how the run is computed, as arguments of a scoring request."""
    if hides_advanced(params):
        return {}
    arguments = {name: params[name] for name in (*_OPTIONS, *_HOW) if name in params}
    for name, ends in _PAIRS.items():
        if any(end in params for end in ends):
            defaults = getattr(MethodOptions, name) or (None, None)
            arguments[name] = tuple(params.get(end, default) for end, default in zip(ends, defaults))
    weighting = params.get("ssim_weighting")
    if isinstance(weighting, str) and weighting in _WEIGHTING:
        arguments["ssim_weighting"] = _WEIGHTING[weighting]
    return arguments


def _said(value: Any) -> str:
    return f"The preset's is {value!r}"

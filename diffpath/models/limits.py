"""What a model's configuration may say: checked before anything is built of it.

A configuration comes from strangers. A million layers, or a trillion timesteps, must be one
sentence, not an hour or all of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import ModelError

MAX_CONFIG_BYTES = 4_000_000
_DEEPEST = 6
_LONGEST_TEXT = 2_000
_MOST_ITEMS = 100_000
_LARGEST = 100_000  # of any number that says nothing special
# Of numbers that decide how much is built, or of the items of lists of them
_LARGEST_OF = {
    "layers_per_block": 64,
    "num_layers": 256,
    "transformer_layers_per_block": 64,
    "down_block_types": 16,
    "up_block_types": 16,
    "block_out_channels": 16_384,
    "in_channels": 4_096,
    "out_channels": 4_096,
    "sample_size": 8_192,
    "patch_size": 256,
    "num_attention_heads": 1_024,
    "attention_head_dim": 16_384,
    "norm_num_groups": 16_384,
}
_AT_LEAST_ONE = (
    *("layers_per_block", "block_out_channels", "in_channels", "out_channels", "sample_size", "patch_size"),
    *("num_attention_heads", "norm_num_groups", "num_train_timesteps", "timestep_scale"),
)


def check_config(config: Any, file: str, model: str) -> dict[str, Any]:
    """The configuration, if it is one and its numbers are such as models have.

    Args:
        config: what its JSON holds
        file: its name, for errors
        model: the model's name, likewise

    Raises:
        ModelError: names the key that is wrong
    """
    if not isinstance(config, dict):
        raise ModelError(f"{file} of model {model!r} must hold a JSON object, got {type(config).__name__}")
    wrong = _wrong(config)
    if wrong:
        raise ModelError(f"{file} of model {model!r} says {wrong}; correct it, or choose another model")
    return config


def _wrong(value: Any, key: str = "", depth: int = 0) -> str | None:
    if depth > _DEEPEST:
        return "what is nested too deeply"
    if isinstance(value, Mapping):
        items = [(str(name), item) for name, item in value.items()]
        return next(filter(None, (_wrong(item, name, depth + 1) for name, item in items)), None)
    if isinstance(value, list):
        if len(value) > (_LARGEST_OF.get(key, _MOST_ITEMS) if key.endswith("block_types") else _MOST_ITEMS):
            return f"{len(value):,} {key}"
        return next(filter(None, (_wrong(item, key, depth + 1) for item in value)), None)
    if isinstance(value, str):
        return f"{len(value):,} characters for {key!r}" if len(value) > _LONGEST_TEXT else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or abs(value) > _LARGEST_OF.get(key, _LARGEST):
        return f"{key} = {value:g}"
    return f"{key} = {value:g}" if key in _AT_LEAST_ONE and value < (0 if key == "timestep_scale" else 1) else None

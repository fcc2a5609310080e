"""Finds out-of-distribution and corrupted images with a pretrained diffusion model.

The public names are loaded when they are first used, so that ``import diffpath`` is
quick and the method needs no FiftyOne.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "AnomalyDetector": "detector",
    "DiffPathResult": "method",
    "DiffPathRun": "dataset",
    "DiffPathV2": "method",
    "FusedDetector": "fusion",
    "ImageError": "errors",
    "MethodOptions": "options",
    "ModelError": "errors",
    "Reference": "reference",
    "ReferenceSetError": "errors",
    "compute_diffpath": "dataset",
    "continue_diffpath": "dataset",
    "delete_diffpath": "dataset",
    "evaluate_diffpath": "dataset",
    "get_diffpath_info": "dataset",
    "list_diffpath_runs": "dataset",
    "load_diffpath_view": "dataset",
    "rename_diffpath": "dataset",
    "load_model": "models",
    "load_reference": "reference",
    "set_diffpath_threshold": "dataset",
    "update_diffpath": "dataset",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])

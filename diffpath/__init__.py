"""Finds out-of-distribution and corrupted images with a pretrained diffusion model.

The public names, listed in ``__init__.pyi``, are loaded when they are first used, so that
``import diffpath`` is quick and the method needs no FiftyOne.
"""

from typing import Any

import lazy_loader

__version__ = "0.1.0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "fiftyone":
            raise
        raise ModuleNotFoundError(
            f"diffpath.{name} works on FiftyOne's datasets, but FiftyOne is not installed; "
            'run: pip install "diffpath[fiftyone]"',
            name=error.name,
        ) from error

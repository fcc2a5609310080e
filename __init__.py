"""FiftyOne's entry point of the plugin; everything else is in the ``diffpath`` package."""

from .diffpath.operators import register

__all__ = ["register"]

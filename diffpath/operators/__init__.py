"""FiftyOne operators."""

from .compute import ComputeDiffPath
from .evaluate import EvaluateDiffPath


def register(plugin):
    """Registers the operators; FiftyOne calls this when it loads the plugin."""
    plugin.register(ComputeDiffPath)
    plugin.register(EvaluateDiffPath)

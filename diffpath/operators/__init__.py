"""FiftyOne operators."""

from .compute import ComputeDiffPath


def register(plugin):
    """Registers the operators; FiftyOne calls this when it loads the plugin."""
    plugin.register(ComputeDiffPath)

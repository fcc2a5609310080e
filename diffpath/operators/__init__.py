"""FiftyOne operators and the panel."""

from .compute import ComputeDiffPath
from .evaluate import EvaluateDiffPath
from .manage import (
    ContinueDiffPath,
    DeleteDiffPath,
    GetDiffPathInfo,
    LoadDiffPathView,
    RenameDiffPath,
    SaveDiffPathWorkspace,
    SetDiffPathThreshold,
    UpdateDiffPath,
)
from .panel import DiffPathPanel

_OPERATORS = (
    ComputeDiffPath,
    ContinueDiffPath,
    DeleteDiffPath,
    DiffPathPanel,
    EvaluateDiffPath,
    GetDiffPathInfo,
    LoadDiffPathView,
    RenameDiffPath,
    SaveDiffPathWorkspace,
    SetDiffPathThreshold,
    UpdateDiffPath,
)


def register(plugin):
    """Registers the operators and the panel; FiftyOne calls this when it loads the plugin."""
    for operator in _OPERATORS:
        plugin.register(operator)

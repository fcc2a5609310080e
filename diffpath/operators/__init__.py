"""FiftyOne operators and the panel."""

from .evaluation import EvaluateDiffPath
from .panel.panel import DiffPathPanel
from .runs import (
    ContinueDiffPath,
    DeleteDiffPath,
    GetDiffPathInfo,
    LoadDiffPathView,
    RenameDiffPath,
    SaveDiffPathWorkspace,
    SetDiffPathThreshold,
    UpdateDiffPath,
)
from .scoring import ComputeDiffPath

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

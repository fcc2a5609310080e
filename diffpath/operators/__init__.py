"""FiftyOne operators and the panel: each in a file of its own, and listed here and in ``fiftyone.yml``."""

from typing import Any

from .delete import DeleteDiffPath
from .evaluation import EvaluateDiffPath
from .info import GetDiffPathInfo
from .panel.panel import DiffPathPanel
from .rename import RenameDiffPath
from .repair import RepairDiffPath
from .resume import ContinueDiffPath
from .scoring import ComputeDiffPath
from .threshold import SetDiffPathThreshold
from .update import UpdateDiffPath
from .view import LoadDiffPathView
from .workspace import SaveDiffPathWorkspace

_OPERATORS = (
    ComputeDiffPath,
    ContinueDiffPath,
    DeleteDiffPath,
    DiffPathPanel,
    EvaluateDiffPath,
    GetDiffPathInfo,
    LoadDiffPathView,
    RenameDiffPath,
    RepairDiffPath,
    SaveDiffPathWorkspace,
    SetDiffPathThreshold,
    UpdateDiffPath,
)


def register(plugin: Any) -> None:
    """Registers the operators and the panel; FiftyOne calls this when it loads the plugin."""
    for operator in _OPERATORS:
        plugin.register(operator)

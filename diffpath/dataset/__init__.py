"""diffpath over FiftyOne datasets: reads samples, writes fields, maps, views and runs."""

from .ground_truth import evaluate_diffpath
from .inventory import (
    delete_diffpath,
    get_diffpath_info,
    list_diffpath_runs,
    load_diffpath_view,
    rename_diffpath,
)
from .record import DiffPathRun
from .resume import continue_diffpath, iterate_continue
from .scanning import drain
from .scoring import compute_diffpath, iterate_diffpath
from .thresholds import preview_threshold, set_diffpath_threshold
from .update import iterate_update, update_diffpath

__all__ = [
    "DiffPathRun",
    "compute_diffpath",
    "continue_diffpath",
    "delete_diffpath",
    "drain",
    "evaluate_diffpath",
    "get_diffpath_info",
    "iterate_continue",
    "iterate_diffpath",
    "iterate_update",
    "list_diffpath_runs",
    "load_diffpath_view",
    "preview_threshold",
    "rename_diffpath",
    "set_diffpath_threshold",
    "update_diffpath",
]

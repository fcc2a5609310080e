"""diffpath over FiftyOne datasets: reads samples, writes fields, maps, views and runs."""

from ..folders.scanning import drain
from .delete import delete_diffpath
from .ground_truth import evaluate_diffpath
from .inventory import get_diffpath_info, load_diffpath_view
from .objects import crop_objects
from .record import RunRecord, list_diffpath_runs
from .rename import rename_diffpath
from .repair import repair_diffpath
from .request import ScoringRequest
from .resume import continue_diffpath, iterate_continue
from .run import DiffPathRun
from .scoring import compute_diffpath, iterate_diffpath, iterate_scoring
from .thresholds import preview_threshold, set_diffpath_threshold
from .update import iterate_update, update_diffpath

__all__ = [
    "DiffPathRun",
    "RunRecord",
    "ScoringRequest",
    "compute_diffpath",
    "continue_diffpath",
    "crop_objects",
    "delete_diffpath",
    "drain",
    "evaluate_diffpath",
    "get_diffpath_info",
    "iterate_continue",
    "iterate_diffpath",
    "iterate_scoring",
    "iterate_update",
    "list_diffpath_runs",
    "load_diffpath_view",
    "preview_threshold",
    "rename_diffpath",
    "repair_diffpath",
    "set_diffpath_threshold",
    "update_diffpath",
]

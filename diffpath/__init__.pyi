from .dataset import (
    DiffPathRun,
    compute_diffpath,
    continue_diffpath,
    crop_objects,
    delete_diffpath,
    evaluate_diffpath,
    get_diffpath_info,
    list_diffpath_runs,
    load_diffpath_view,
    rename_diffpath,
    repair_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from .detection.detector import AnomalyDetector
from .detection.fusion import FusedDetector
from .detection.reference import Reference, load_reference
from .errors import ImageError, ModelError, ReferenceSetError
from .folders.engines import RayEngine
from .method.diffpath_v2 import DiffPathResult, DiffPathV2
from .models import load_model
from .options import MethodOptions

__all__ = [
    "AnomalyDetector",
    "DiffPathResult",
    "DiffPathRun",
    "DiffPathV2",
    "FusedDetector",
    "ImageError",
    "MethodOptions",
    "ModelError",
    "RayEngine",
    "Reference",
    "ReferenceSetError",
    "compute_diffpath",
    "continue_diffpath",
    "crop_objects",
    "delete_diffpath",
    "evaluate_diffpath",
    "get_diffpath_info",
    "list_diffpath_runs",
    "load_diffpath_view",
    "load_model",
    "load_reference",
    "rename_diffpath",
    "repair_diffpath",
    "set_diffpath_threshold",
    "update_diffpath",
]

__version__: str

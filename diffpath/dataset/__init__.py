"""diffpath over FiftyOne datasets: reads samples, writes fields, maps, views and runs."""

from .compute import compute_diffpath, drain, iterate_diffpath
from .manage import (
    delete_diffpath,
    get_diffpath_info,
    list_diffpath_runs,
    load_diffpath_view,
    rename_diffpath,
)
from .runs import DiffPathRun

__all__ = [
    "DiffPathRun",
    "compute_diffpath",
    "delete_diffpath",
    "drain",
    "get_diffpath_info",
    "iterate_diffpath",
    "list_diffpath_runs",
    "load_diffpath_view",
    "rename_diffpath",
]

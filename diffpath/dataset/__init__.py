"""diffpath over FiftyOne datasets: reads samples, writes fields, maps, views and runs."""

from .compute import compute_diffpath, drain, iterate_diffpath
from .runs import DiffPathRun, delete_diffpath

__all__ = ["DiffPathRun", "compute_diffpath", "delete_diffpath", "drain", "iterate_diffpath"]

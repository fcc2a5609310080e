"""What is saved of a run's panel: views under the run's key, and a workspace with the panel beside the grid."""

from __future__ import annotations

from collections.abc import Iterator

import fiftyone as fo

from .internals import put_saved_view, put_workspace
from .lock import writing
from .patience import waits_for_database
from .record import require_record

PANEL_NAME = "diffpath_panel"
_DESCRIPTION = "DiffPath's scores beside the images"


@waits_for_database
def save_run_view(dataset: fo.Dataset, run_key: str, what: str, view: fo.DatasetView) -> str:
    """Saves a view under the run's key, to be renamed and deleted with the run.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        what: the view's name without the run's key
        view: the view

    Returns:
        its name

    Raises:
        ValueError: if a view of the user has that name
    """
    with writing(dataset, f"saving a view of run {run_key!r}"):
        record, name = require_record(dataset, run_key), f"{run_key}: {what}"
        if dataset.has_saved_view(name) and name not in record.saved_views:
            raise ValueError(f"dataset {dataset.name!r} already has a saved view {name!r}; rename it first")
        record.add_member(dataset, "saved_views", name)  # first: what the record names goes with the run
        put_saved_view(dataset, name, view, "Saved from the DiffPath panel")
    return name


@waits_for_database
def save_workspace(dataset: fo.Dataset, run_key: str) -> str:
    """Saves a workspace: the grid, and the panel beside it, to be renamed and deleted with the run.

    Returns:
        its name
    """
    name = f"{run_key}: workspace"
    grid = fo.Panel(type="Samples", pinned=True)
    panel = fo.Panel(type=PANEL_NAME, state=_state(run_key))
    halves = [fo.Space(children=[child], active_child=child.component_id) for child in (grid, panel)]
    workspace = fo.Space(children=halves, orientation="horizontal", sizes=[0.5, 0.5])
    with writing(dataset, f"saving the workspace of run {run_key!r}"):
        require_record(dataset, run_key).add_member(dataset, "workspaces", name)
        put_workspace(dataset, name, workspace, _DESCRIPTION)
    return name


def rename_workspace(dataset: fo.Dataset, name: str, new_name: str, new_run_key: str) -> None:
    """Gives a workspace another name, and lets its panels open another run."""
    if dataset.has_workspace(name):
        dataset.update_workspace_info(name, {"name": new_name})
    space = dataset.load_workspace(new_name)
    for panel in _panels(space):
        panel.state = _state(new_run_key)
    put_workspace(dataset, new_name, space, _DESCRIPTION)


def _panels(space: fo.Space) -> Iterator[fo.Panel]:
    """The DiffPath panels of a workspace."""
    for child in space.children:
        if isinstance(child, fo.Space):
            yield from _panels(child)
        elif child.type == PANEL_NAME:
            yield child


def _state(run_key: str) -> dict[str, dict[str, str]]:
    return {"state": {"opened": run_key}}

"""What is saved of a run's panel: views under the run's key, and a workspace with the panel beside the grid."""

from __future__ import annotations

from collections.abc import Iterator

import fiftyone as fo

from .record import require_record

PANEL_NAME = "diffpath_panel"
_DESCRIPTION = "DiffPath's scores beside the images"


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
    record, name = require_record(dataset, run_key), f"{run_key}: {what}"
    if dataset.has_saved_view(name) and name not in record.saved_views:
        raise ValueError(f"dataset {dataset.name!r} already has a saved view {name!r}; rename it first")
    dataset.save_view(name, view, description="Saved from the DiffPath panel", overwrite=True)
    record.add_member(dataset, "saved_views", name)
    return name


def save_workspace(dataset: fo.Dataset, run_key: str) -> str:
    """Saves a workspace: the grid, and the panel beside it, to be renamed and deleted with the run.

    Returns:
        its name
    """
    record, name = require_record(dataset, run_key), f"{run_key}: workspace"
    grid = fo.Panel(type="Samples", pinned=True)
    panel = fo.Panel(type=PANEL_NAME, state=_state(run_key))
    halves = [fo.Space(children=[child], active_child=child.component_id) for child in (grid, panel)]
    workspace = fo.Space(children=halves, orientation="horizontal", sizes=[0.5, 0.5])
    dataset.save_workspace(name, workspace, description=_DESCRIPTION, overwrite=True)
    record.add_member(dataset, "workspaces", name)
    return name


def rename_workspace(dataset: fo.Dataset, name: str, new_name: str, new_run_key: str) -> None:
    """Gives a workspace another name, and lets its panels open another run."""
    dataset.update_workspace_info(name, {"name": new_name})
    space = dataset.load_workspace(new_name)
    for panel in _panels(space):
        panel.state = _state(new_run_key)
    dataset.save_workspace(new_name, space, description=_DESCRIPTION, overwrite=True)


def _panels(space: fo.Space) -> Iterator[fo.Panel]:
    """The DiffPath panels of a workspace."""
    for child in space.children:
        if isinstance(child, fo.Space):
            yield from _panels(child)
        elif child.type == PANEL_NAME:
            yield child


def _state(run_key: str) -> dict[str, dict[str, str]]:
    return {"state": {"opened": run_key}}

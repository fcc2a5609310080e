"""What can be done with a run once it is there: look it up, show it, rename it, delete it.

Renaming and deleting are all or nothing: a step that fails undoes the ones before it.
"""

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo

from .appearance import color_maps, uncolor_maps
from .heartbeat import is_alive
from .maps import MAPS, run_folder
from .record import COMPLETE, METHOD, DiffPathRun, check_free, read_config, write_config
from .schema import flagged_view, view_names

PANEL_NAME = "diffpath_panel"
_WORKSPACE = "DiffPath's scores beside the images"
RUNNING, INTERRUPTED, DAMAGED = "running", "interrupted", "damaged"


def list_diffpath_runs(dataset):
    """The keys of a dataset's diffpath runs, finished or not, in the order of their making."""
    return dataset.list_runs(method=METHOD)


def require_config(dataset, run_key):
    """The record of a run.

    Raises:
        ValueError: if the dataset has no diffpath run of that key
    """
    config = read_config(dataset, run_key)
    if config is None:
        known = ", ".join(map(repr, list_diffpath_runs(dataset))) or "none"
        raise ValueError(f"dataset {dataset.name!r} has no diffpath run {run_key!r}; its runs are {known}")
    return config


def missing_fields(dataset, config):
    """The run's fields that were deleted by hand."""
    return [name for name in config["fields"].values() if not dataset.has_sample_field(name)]


def run_status(dataset, config):
    """``"complete"``, ``"running"``, ``"interrupted"``, or ``"damaged"`` where fields were deleted by hand."""
    if missing_fields(dataset, config):
        return DAMAGED
    if config["status"] == COMPLETE:
        return COMPLETE
    return RUNNING if is_alive(config) else INTERRUPTED


@dataclass(frozen=True)
class Belongings:
    """What belongs to a run, and goes with it.

    Attributes:
        fields, views, workspaces: names, those that are there
        folder: the run's folder, or None where there is none
        num_files: files in it
        num_bytes: their size
    """

    fields: list
    views: list
    workspaces: list
    folder: str | None
    num_files: int
    num_bytes: int


def belongings(dataset, run_key):
    """Looks up what :func:`delete_diffpath` would delete, a :class:`Belongings`."""
    config = require_config(dataset, run_key)
    folder = Path(config["folder"])
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Belongings(
        fields=[name for name in config["fields"].values() if dataset.has_sample_field(name)],
        views=[name for name in _own_views(config) if dataset.has_saved_view(name)],
        workspaces=[name for name in config.get("workspaces", ()) if dataset.has_workspace(name)],
        folder=str(folder) if folder.exists() else None,
        num_files=len(sizes),
        num_bytes=sum(sizes),
    )


def get_diffpath_info(dataset, run_key):
    """Everything that is recorded of a run, with its status now.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key

    Returns:
        a dict: the run's record, with ``run_key``, ``status`` (as in :func:`run_status`),
        ``missing_fields``, ``timestamp``, and ``num_done`` where it is not complete

    Raises:
        ValueError: if the dataset has no diffpath run of that key
    """
    config = require_config(dataset, run_key)
    info = {name: value for name, value in config.items() if name not in ("cls", "type", "method")}
    info.update(
        run_key=run_key,
        status=run_status(dataset, config),
        missing_fields=missing_fields(dataset, config),
        timestamp=dataset.get_run_info(run_key).timestamp,
    )
    if info["status"] in (RUNNING, INTERRUPTED):
        info["num_done"] = dataset.count(config["fields"]["features"])
    return info


def describe_info(info):
    """:func:`get_diffpath_info` for people: pairs of a label and a line of text."""
    made_by = info["made_by"]
    options = ", ".join(f"{name} {_plain(value)}" for name, value in made_by["options"].items() if value is not None)
    rows = [("Status", info["status"] + _detail(info))]
    if "num_scored" in info:
        scored, flagged = info["num_scored"], info["num_likely_ood"]
        rows += [
            ("Images", f"{scored:,} scored, {flagged:,} flagged, {info['num_unreadable']:,} could not be read"),
            ("Threshold", f"score from {info['threshold']:.4g} ({info['rule']} {info['level']:g})"),
            ("Time", f"{info['seconds']:,.1f} s, {info['images_per_second']:,.1f} images/s on {info['device']}"),
        ]
    rows += [
        ("Reference", ", ".join(f"{name} {value}" for name, value in made_by["reference"].items() if value)),
        ("Model", f"{made_by['model']} at {made_by['resolution']} px, {made_by['dtype']}"),
        *_embeddings_row(made_by),
        ("Options", options),
        ("Begun", f"{info['timestamp']:%Y-%m-%d %H:%M} UTC on {info['machine']}"),
        ("Versions", ", ".join(f"{name} {number}" for name, number in info["versions"].items())),
        ("Files", info["folder"]),
        ("Fields", ", ".join(info["fields"].values())),
        ("Views", ", ".join(_own_views(info))),
    ]
    return rows


def _embeddings_row(made_by):
    if "embeddings" in made_by:
        yield "Embeddings", f"{made_by['embeddings']}, vectors of {made_by['embedding_length']:,} numbers"


def _detail(info):
    if info["status"] == DAMAGED:
        return f": {', '.join(info['missing_fields'])} were deleted"
    return f": {info['num_done']:,} images are done" if "num_done" in info else ""


def _plain(value):
    return " to ".join(f"{item:g}" for item in value) if isinstance(value, list | tuple) else value


def describe_belongings(owned):
    """:class:`Belongings` for people: pairs of a label and a line of text, what there is none of left out."""
    size = owned.num_bytes / 1e6
    rows = [(kind.capitalize(), ", ".join(getattr(owned, kind))) for kind in ("fields", "views", "workspaces")]
    if owned.folder:
        rows.append(("Files", f"{owned.num_files:,} files, {size:.1f} MB, in {owned.folder}"))
    return [(label, text) for label, text in rows if text]


def load_diffpath_view(dataset, run_key, kind="ranked"):
    """One of a finished run's live views: ``"ranked"``, ``"ood"``, ``"typical"`` or ``"unreadable"``."""
    run = DiffPathRun.load(dataset, run_key)
    if kind not in run.views:
        raise ValueError(f"kind must be one of {', '.join(run.views)}, got {kind!r}")
    missing = missing_fields(dataset, run.config)
    if missing:
        raise ValueError(f"run {run_key!r} has lost {', '.join(missing)}; delete the run and compute it again")
    return run.view(dataset, kind)


def rename_diffpath(dataset, run_key, new_run_key):
    """Gives a run another key: fields, indexes, saved views, workspaces, colours, files and record, or nothing.

    Saved views of the user that mention the run's fields go on working.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key
        new_run_key: the new one, an identifier

    Raises:
        ValueError: if there is no such run, or names of the new key are taken
    """
    config = require_config(dataset, run_key)
    renamed = _renamed_config(dataset, run_key, new_run_key, config)
    with ExitStack() as undo:
        _rename(dataset, run_key, new_run_key, config, renamed, undo)
        undo.pop_all()  # everything went well


def why_not_rename(dataset, run_key, new_run_key):
    """Why :func:`rename_diffpath` would refuse a key, a sentence; None if it would not."""
    try:
        _renamed_config(dataset, run_key, new_run_key, require_config(dataset, run_key))
    except ValueError as error:
        return str(error)


def _renamed_config(dataset, run_key, new_run_key, config):
    """The record under the new key, if that can be had."""
    if not new_run_key.isidentifier():
        raise ValueError(f"run_key must be letters, digits and underscores, got {new_run_key!r}")
    if dataset.has_run(new_run_key):
        raise ValueError(f"dataset {dataset.name!r} already has a run {new_run_key!r}; choose another key")
    if missing_fields(dataset, config):
        raise ValueError(f"run {run_key!r} has lost fields; delete it and compute it again")
    folder = run_folder(dataset, new_run_key)
    if folder.exists():
        raise ValueError(f"{folder} already exists; choose another key, or move it away")
    renamed = {
        **config,
        "fields": {kind: f"{new_run_key}_{kind}" for kind in config["fields"]},
        "views": view_names(new_run_key),
        "folder": str(folder),
        "saved_views": [_renamed(name, run_key, new_run_key) for name in config.get("saved_views", ())],
        "workspaces": [_renamed(name, run_key, new_run_key) for name in config.get("workspaces", ())],
    }
    check_free(dataset, new_run_key, renamed)
    return renamed


def _rename(dataset, run_key, new_run_key, config, renamed, undo):
    def both_ways(step, pairs):
        # Before the step: each undoes as much of itself as was done
        undo.callback(step, [(new, old) for old, new in pairs])
        step(pairs)

    folders = [(config["folder"], renamed["folder"])]
    fields = [(config["fields"][kind], renamed["fields"][kind]) for kind in config["fields"]]
    both_ways(lambda pairs: _move_folder(*pairs[0]), folders)
    both_ways(lambda pairs: _rename_fields(dataset, pairs), fields)
    for name in [renamed["fields"][kind] for kind in MAPS if kind in config["fields"]]:
        both_ways(lambda pairs, name=name: _move_maps(dataset, name, *pairs[0]), folders)
    if "made_color_scheme" in config:
        both_ways(lambda pairs: _recolor(dataset, *pairs[0]), [(config["fields"], renamed["fields"])])
    both_ways(lambda pairs: _rename_in_views(dataset, dict(pairs)), fields)
    both_ways(lambda pairs: _rename_views(dataset, pairs), list(zip(_own_views(config), _own_views(renamed))))
    both_ways(
        lambda pairs: _rename_workspaces(dataset, pairs), list(zip(config.get("workspaces", ()), renamed["workspaces"]))
    )
    both_ways(lambda pairs: _rename_record(dataset, *pairs[0]), [(run_key, new_run_key)])
    undo.callback(write_config, dataset, new_run_key, config)
    write_config(dataset, new_run_key, renamed)


def delete_diffpath(dataset, run_key):
    """Deletes a run with its fields, indexes, saved views, workspaces, colours and files, or nothing.

    What was deleted by hand before is no hindrance.

    Args:
        dataset: the ``fo.Dataset`` that holds the run
        run_key: the run's key

    Raises:
        ValueError: if the dataset has no diffpath run of that key
    """
    config, owned = require_config(dataset, run_key), belongings(dataset, run_key)
    folder = Path(config["folder"])
    aside = folder.with_name(f"{folder.name}.deleted")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)  # of a deletion that was killed
    with ExitStack() as undo:
        undo.callback(_move_folder, aside, folder)
        _move_folder(folder, aside)
        for name in owned.views:
            undo.callback(_restore_view, dataset, dataset._get_saved_view_doc(name))
            dataset.delete_saved_view(name)
        for name in owned.workspaces:
            undo.callback(dataset.save_workspace, name, dataset.load_workspace(name))
            dataset.delete_workspace(name)
        if config.get("tag") and config["fields"]["is_ood"] in owned.fields:
            flagged = flagged_view(dataset, config["fields"]).match_tags(config["tag"])
            undo.callback(dataset.select(flagged.values("id")).tag_samples, config["tag"])
            flagged.untag_samples(config["tag"])
        if owned.fields:
            _drop_indexes(dataset, owned.fields, undo)
            dataset.delete_sample_fields(owned.fields)
        undo.pop_all()  # what is left to do can be done again
    if "made_color_scheme" in config:
        uncolor_maps(dataset, config["fields"], _take_scheme(dataset, run_key, config))
    dataset.delete_run(run_key)
    shutil.rmtree(aside, ignore_errors=True)
    _remove_if_empty(folder.parent)


def save_run_view(dataset, run_key, what, view):
    """Saves a view under the run's key, to be renamed and deleted with the run.

    Args:
        what: the view's name without the run's key
        view: the view

    Returns:
        its name

    Raises:
        ValueError: if a view of the user has that name
    """
    config, name = require_config(dataset, run_key), f"{run_key}: {what}"
    own = config.get("saved_views", [])
    if dataset.has_saved_view(name) and name not in own:
        raise ValueError(f"dataset {dataset.name!r} already has a saved view {name!r}; rename it first")
    dataset.save_view(name, view, description="Saved from the DiffPath panel", overwrite=True)
    if name not in own:
        write_config(dataset, run_key, {**config, "saved_views": [*own, name]})
    return name


def save_workspace(dataset, run_key):
    """Saves a workspace: the grid, and the panel beside it, to be renamed and deleted with the run.

    Returns:
        its name
    """
    config, name = require_config(dataset, run_key), f"{run_key}: workspace"
    grid = fo.Panel(type="Samples", pinned=True)
    panel = fo.Panel(type=PANEL_NAME, state={"state": {"opened": run_key}})
    halves = [fo.Space(children=[child], active_child=child.component_id) for child in (grid, panel)]
    workspace = fo.Space(children=halves, orientation="horizontal", sizes=[0.5, 0.5])
    dataset.save_workspace(name, workspace, description=_WORKSPACE, overwrite=True)
    if name not in config.get("workspaces", ()):
        write_config(dataset, run_key, {**config, "workspaces": [*config.get("workspaces", ()), name]})
    return name


def _panels(space):
    """The DiffPath panels of a workspace."""
    for child in space.children:
        if isinstance(child, fo.Space):
            yield from _panels(child)
        elif child.type == PANEL_NAME:
            yield child


def _own_views(config):
    return [*config["views"].values(), *config.get("saved_views", ())]


def _renamed(name, run_key, new_run_key):
    return new_run_key + name.removeprefix(run_key) if name.startswith(f"{run_key}:") else name


def _move_folder(source, target):
    if Path(source).exists():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(source).rename(target)


def _remove_if_empty(folder):
    try:
        folder.rmdir()
    except OSError:  # other runs' folders are in it
        pass


def _rename_fields(dataset, pairs):
    present = {old: new for old, new in pairs if dataset.has_sample_field(old)}
    if present:
        dataset.rename_sample_fields(present)
        dataset.reload()  # the field objects keep their old paths, under which they could not be saved


def _rename_record(dataset, old, new):
    if dataset.has_run(old):
        dataset.rename_run(old, new)


def _recolor(dataset, old, new):
    uncolor_maps(dataset, old, made=False)
    color_maps(dataset, new)


def _move_maps(dataset, field, old_folder, new_folder):
    path = f"{field}.map_path"
    ids, paths = dataset.exists(field).values(["id", path])
    moved = {
        sample_id: new_folder + value.removeprefix(old_folder)
        for sample_id, value in zip(ids, paths)
        if value and value.startswith(old_folder)
    }
    if moved:
        dataset.set_values(path, moved, key_field="id")


def _rename_in_views(dataset, fields):
    """Lets every saved view follow the fields, the user's own included."""
    for name in dataset.list_saved_views():
        document = dataset._get_saved_view_doc(name)
        stages = [json.dumps(_replace(json.loads(stage), fields)) for stage in document.view_stages]
        if [json.loads(stage) for stage in stages] != [json.loads(stage) for stage in document.view_stages]:
            document.view_stages = stages
            document.save()


def _replace(value, fields):
    """A stage with each mention of a field (``name``, ``$name``, ``name.attribute``) replaced."""
    if isinstance(value, dict):
        return {_replace(key, fields): _replace(item, fields) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, fields) for item in value]
    if isinstance(value, str):
        sign = "$" if value.startswith("$") else ""
        head, dot, tail = value.removeprefix(sign).partition(".")
        return f"{sign}{fields.get(head, head)}{dot}{tail}"
    return value


def _rename_views(dataset, pairs):
    for old, new in pairs:
        if old != new and dataset.has_saved_view(old):
            dataset.update_saved_view_info(old, {"name": new})


def _rename_workspaces(dataset, pairs):
    for old, new in pairs:
        if old != new and dataset.has_workspace(old):
            dataset.update_workspace_info(old, {"name": new})
            space = dataset.load_workspace(new)
            for panel in _panels(space):
                panel.state = {"state": {"opened": new.partition(":")[0]}}
            dataset.save_workspace(new, space, description=_WORKSPACE, overwrite=True)


def _restore_view(dataset, document):
    from fiftyone.core.view import DatasetView

    view = DatasetView._build(dataset, [json.loads(stage) for stage in document.view_stages])
    dataset.save_view(document.name, view, description=document.description, color=document.color, overwrite=True)


def _drop_indexes(dataset, fields, undo):
    for name, index in dataset.get_index_information().items():
        if any(key.split(".")[0] in fields for key, _ in index["key"]):
            undo.callback(dataset.create_index, index["key"])
            dataset.drop_index(name)


def _take_scheme(dataset, run_key, config):
    """Whether the colour scheme goes with the run; another run's colours in it inherit it."""
    if not config["made_color_scheme"]:
        return False
    for other in list_diffpath_runs(dataset):
        heir = read_config(dataset, other)
        if other != run_key and "made_color_scheme" in heir:
            write_config(dataset, other, {**heir, "made_color_scheme": True})
            return False
    return True

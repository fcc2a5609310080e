"""Looking up, renaming and deleting runs: everything that belongs to a run, and nothing else."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import pytest
from conftest import ROOT, read_demo
from fiftyone import ViewField as F

from diffpath import (
    DiffPathV2,
    Reference,
    compute_diffpath,
    continue_diffpath,
    delete_diffpath,
    get_diffpath_info,
    load_diffpath_view,
    rename_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.dataset import heartbeat, inventory, iterate_diffpath, liveness, rename, workspaces
from diffpath.dataset.appearance import color_maps, uncolor_maps
from diffpath.dataset.internals import patch_run
from diffpath.dataset.record import Heartbeat
from diffpath.folders.maps import MAPS

FAST = dict(num_timesteps=2, num_workers=2, progress=False)


@pytest.fixture
def dataset():
    paths = sorted((ROOT / "demo" / "data" / "clean").glob("*.png"))[:12]
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths], progress=False)
    dataset.add_sample(fo.Sample(filepath="/no/such/image.png"))
    yield dataset
    dataset.delete()


def state(dataset):
    """All that a run could have changed, to be compared: schema, indexes, views, workspaces, colours, runs, files."""
    dataset.reload()
    scheme = dataset.app_config.color_scheme
    return {
        "schema": {name: str(field) for name, field in dataset.get_field_schema().items()},
        "indexes": dataset.get_index_information(),
        "views": {
            name: dataset.load_saved_view(name)._serialize(include_uuids=False) for name in dataset.list_saved_views()
        },
        "workspaces": dataset.list_workspaces(),
        "scheme": scheme and {name: value for name, value in scheme.to_dict().items() if name != "_id"},
        "sidebar": [group.to_dict() for group in dataset.app_config.sidebar_groups or ()],
        "runs": dataset.list_runs(),
        "files": sorted(str(path) for path in Path(fo.config.default_dataset_dir).rglob("*")),
    }


def values(dataset, run):
    return {kind: dataset.values(name) for kind, name in run.fields.items() if kind not in MAPS}


def test_deleting_a_run_leaves_the_dataset_as_it_was(dataset):
    (Path(fo.config.default_dataset_dir) / "diffpath").mkdir(parents=True, exist_ok=True)
    dataset.save_view("mine", dataset.limit(3))
    before = state(dataset)
    compute_diffpath(dataset, run_key="k", **FAST)
    assert state(dataset) != before
    delete_diffpath(dataset, "k")
    assert state(dataset) == before


@pytest.mark.parametrize("run_key", ["none", "other"])
def test_what_is_no_diffpath_run_is_not_touched(dataset, run_key):
    dataset.register_run("other", dataset.init_run(method="somebody's"))
    for act in (delete_diffpath, get_diffpath_info, load_diffpath_view, lambda d, k: rename_diffpath(d, k, "new")):
        with pytest.raises(ValueError, match=run_key):
            act(dataset, run_key)
    assert dataset.list_runs() == ["other"]


def test_a_run_whose_parts_were_deleted_by_hand_is_said_to_be_damaged_and_can_be_deleted(dataset):
    (Path(fo.config.default_dataset_dir) / "diffpath").mkdir(parents=True, exist_ok=True)
    before = state(dataset)
    run = compute_diffpath(dataset, run_key="k", **FAST)
    dataset.delete_sample_field("k_features")
    dataset.delete_saved_view(run.views["ood"])
    shutil.rmtree(run.config["folder"])
    info = get_diffpath_info(dataset, "k")
    assert info["status"] == "damaged" and info["missing_fields"] == ["k_features"]
    with pytest.raises(ValueError, match="k_features"):
        load_diffpath_view(dataset, "k")
    delete_diffpath(dataset, "k")
    assert state(dataset) == before


def test_what_would_be_deleted_is_listed_before(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    owned = inventory.run_contents(dataset, "k")
    assert sorted(owned.fields) == sorted(run.fields.values()) and sorted(owned.views) == sorted(run.views.values())
    files = [path for path in Path(owned.folder).rglob("*") if path.is_file()]
    count, size = owned.count_files()
    assert count == len(files) >= 12
    assert size == sum(path.stat().st_size for path in files)


def test_a_renamed_run_keeps_everything_under_the_new_key(dataset):
    run = compute_diffpath(dataset, run_key="old", **FAST)
    dataset.save_view("mine", dataset.match(F("old_score") > run.threshold).sort_by("old_score"))
    dataset.save_view("mine too", dataset.match({"old_score": {"$gt": run.threshold}}).exists("old_heatmap.map_path"))
    expected = {name: dataset.load_saved_view(name).values("id") for name in ("mine", "mine too")}
    kept = values(dataset, run)

    rename_diffpath(dataset, "old", "new")

    renamed = inventory.DiffPathRun.load(dataset, "new")
    assert dataset.list_runs() == ["new"]
    for kind, column in values(dataset, renamed).items():
        assert [str(value) for value in column] == [str(value) for value in kept[kind]]
    assert not [name for name in dataset.get_field_schema() if name.startswith("old")]
    assert "new_score" in dataset.list_indexes() and "old_score" not in dataset.list_indexes()
    assert all(dataset.load_saved_view(name).values("id") == ids for name, ids in expected.items())
    assert dataset.load_saved_view("new: most anomalous first").values("new_score") == sorted(
        (score for score in kept["score"] if score is not None), reverse=True
    )
    assert not [name for name in dataset.list_saved_views() if name.startswith("old")]
    for kind, made in MAPS.items():
        paths = dataset.exists(f"new_{kind}").values(f"new_{kind}.map_path")
        assert len(paths) == 12
        for path in map(Path, paths):
            assert path.is_file() and path.parent == Path(renamed.heatmap_dir).parent / made.folder
    assert renamed.record.folder == run.config["folder"]  # files stay where they are
    assert [entry["path"] for entry in dataset.app_config.color_scheme.colorscales] == [f"new_{kind}" for kind in MAPS]
    assert len(load_diffpath_view(dataset, "new")) == 12


def test_a_renamed_run_takes_a_new_threshold_and_new_images(dataset):
    compute_diffpath(dataset, run_key="old", **FAST)
    rename_diffpath(dataset, "old", "new")
    assert set_diffpath_threshold(dataset, "new", "count", 2).num_likely_ood == 2
    assert update_diffpath(dataset, "new", progress=False).num_scored == 12


def test_a_renamed_run_is_deleted_without_a_trace(dataset):
    (Path(fo.config.default_dataset_dir) / "diffpath").mkdir(parents=True, exist_ok=True)
    before = state(dataset)
    compute_diffpath(dataset, run_key="old", **FAST)
    rename_diffpath(dataset, "old", "new")
    delete_diffpath(dataset, "new")
    assert state(dataset) == before


@pytest.mark.parametrize("new_key", ["not a key", "taken", "k"])
def test_a_key_that_cannot_be_had_is_refused_before_anything_changes(dataset, new_key):
    compute_diffpath(dataset, run_key="k", **FAST)
    dataset.add_sample_field("taken_score", fo.FloatField)
    before = state(dataset)
    with pytest.raises(ValueError, match=new_key):
        rename_diffpath(dataset, "k", new_key)
    assert state(dataset) == before


def test_a_renaming_that_fails_at_any_step_is_undone(dataset, monkeypatch):
    compute_diffpath(dataset, run_key="k", **FAST)
    dataset.save_view("mine", dataset.sort_by("k_score"))
    paths = ["k_heatmap.map_path", "k_error_map.map_path"]
    before, maps = state(dataset), dataset.values(paths)
    run = inventory.DiffPathRun.load(dataset, "k")
    steps = ("_recolor", "_rename_in_views", "_rename_views", "_rename_run", "_write_names")
    for step in steps:
        real = getattr(rename, step)

        def fail_once(*arguments, step=step, real=real):
            monkeypatch.setattr(rename, step, real)
            real(*arguments)
            raise OSError("the disk is gone")

        monkeypatch.setattr(rename, step, fail_once)
        with pytest.raises(OSError, match="disk"):
            rename_diffpath(dataset, "k", "new")
        assert state(dataset) == before and dataset.values(paths) == maps, step
        assert inventory.DiffPathRun.load(dataset, "k") == run, step


def test_a_deletion_that_fails_half_way_is_undone(dataset, monkeypatch):
    compute_diffpath(dataset, run_key="k", **FAST)
    before, run = state(dataset), inventory.DiffPathRun.load(dataset, "k")

    def fail(self, names):
        raise OSError("the database is gone")

    monkeypatch.setattr(fo.Dataset, "delete_sample_fields", fail)
    with pytest.raises(OSError, match="database"):
        delete_diffpath(dataset, "k")
    assert state(dataset) == before
    assert inventory.DiffPathRun.load(dataset, "k") == run


def test_the_info_of_a_run_holds_what_made_it_and_what_came_out(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    info = get_diffpath_info(dataset, "k")
    assert info["status"] == "complete" and info["missing_fields"] == []
    assert info["made_by"]["options"]["num_timesteps"] == 2 and info["made_by"]["model"] == "bundled"
    assert info["num_scored"] == run.num_scored == 12 and info["num_unreadable"] == 1
    assert info["versions"]["fiftyone"] == fo.__version__ and info["seconds"] == run.seconds


def test_a_view_of_a_run_is_loaded_by_its_kind(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    assert len(load_diffpath_view(dataset, "k", "unreadable")) == 1
    with pytest.raises(ValueError, match="kind"):
        load_diffpath_view(dataset, "k", "best")


def test_heatmaps_get_a_colour_scale_beside_the_users_own_scheme(dataset):
    mine = fo.ColorScheme(
        color_by="field",
        colorscales=[{"path": "depth", "name": "hsv"}],
        fields=[{"path": "label", "fieldColor": "#00ff00"}],
    )
    dataset.app_config.color_scheme = mine
    dataset.save()
    before = state(dataset)
    fields = {"score": "k_score", "heatmap": "k_heatmap", "error_map": "k_error_map"}
    made = color_maps(dataset, fields)
    scheme = dataset.app_config.color_scheme
    assert not made and scheme.color_by == "field"
    assert [entry["path"] for entry in scheme.colorscales] == ["depth", "k_heatmap", "k_error_map"]
    assert [entry["path"] for entry in scheme.fields] == ["label", "k_heatmap", "k_error_map"]
    for entry in scheme.colorscales[1:]:
        values = [step["value"] for step in entry["list"]]
        assert values[0] == 0 and values[-1] == 1 and values == sorted(values)
    uncolor_maps(dataset, fields, made)
    assert state(dataset) == before


def test_the_last_of_two_runs_takes_the_colour_scheme_with_it(dataset):
    assert dataset.app_config.color_scheme is None
    compute_diffpath(dataset, run_key="a", **FAST)
    compute_diffpath(dataset, run_key="b", **FAST)
    assert dataset.app_config.color_scheme.color_by == "value"
    delete_diffpath(dataset, "a")
    assert [entry["path"] for entry in dataset.app_config.color_scheme.colorscales] == [f"b_{kind}" for kind in MAPS]
    delete_diffpath(dataset, "b")
    assert dataset.app_config.color_scheme is None


def test_a_colour_scheme_that_the_user_has_changed_since_stays(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    dataset.app_config.color_scheme.opacity = 0.3
    dataset.save()
    delete_diffpath(dataset, "k")
    assert dataset.app_config.color_scheme.opacity == 0.3 and not dataset.app_config.color_scheme.colorscales


def interrupted(dataset, samples, **arguments):
    """A run that stopped half way, as when the tab is closed."""
    steps = iterate_diffpath(samples, run_key="k", num_timesteps=2, num_workers=2, batch_size=2, **arguments)
    statuses = []
    for step in steps:
        statuses.append(get_diffpath_info(dataset, "k")["status"])
        if step.done >= 6:
            break
    steps.close()
    return statuses


@pytest.mark.parametrize("reference", ["self", "tag", "view", "dataset", "saved", "file"])
def test_an_interrupted_run_is_continued_with_the_arguments_that_began_it(dataset, reference, tmp_path):
    dataset.limit(4).tag_samples("normal")
    target = dataset.skip(2)
    references = {"self": None, "tag": "normal", "view": dataset.limit(5).sort_by("filepath"), "dataset": dataset}
    if reference in ("saved", "file"):
        method = DiffPathV2(num_timesteps=2)
        references["saved"] = Reference.fit(method, list(read_demo("reference", 8)))
        references["file"] = tmp_path / "moved.safetensors"
        references["saved"].save(references["file"])
    statuses = interrupted(dataset, target, reference=references[reference], rule="count", level=3, tag="look")
    assert statuses[-1] == "running"
    info = get_diffpath_info(dataset, "k")
    assert info["status"] == "interrupted" and 0 < info["num_done"] < 11
    if reference == "file":
        references["file"] = references["file"].rename(tmp_path / "elsewhere.safetensors")
    run = continue_diffpath(dataset, "k", progress=False)
    assert get_diffpath_info(dataset, "k")["status"] == "complete" and "alive" not in run.config
    assert set(dataset.exists("k_score").values("id")) == set(target.limit(10).values("id"))
    assert (run.rule, run.level, dataset.match_tags("look").count()) == ("count", 3, 3)
    whole = compute_diffpath(
        target, reference=references[reference], run_key="whole", rule="count", level=3, num_timesteps=2, progress=False
    )
    assert whole.threshold == pytest.approx(run.threshold, rel=0.05)


def test_an_interrupted_run_is_continued_with_the_same_view_of_the_model(dataset):
    interrupted(dataset, dataset, model_options={"prediction_type": "epsilon"})
    run = continue_diffpath(dataset, "k", progress=False)
    assert run.num_scored == 12 and run.config["made_by"]["model_options"]["prediction_type"] == "epsilon"


def test_maps_of_an_older_version_are_not_mixed_with_new_ones(dataset):
    def made_before(run_key):
        patch_run(dataset, run_key, {"heatmap_scale": [0.0, 0.5]})

    interrupted(dataset, dataset)
    made_before("k")
    with pytest.raises(ValueError, match="another version of diffpath.*overwrite=True"):
        continue_diffpath(dataset, "k")
    for heatmaps in (True, False):
        compute_diffpath(dataset, run_key="k", overwrite=True, heatmaps=heatmaps, **FAST)
        made_before("k")
        if heatmaps:
            with pytest.raises(ValueError, match="another version of diffpath.*overwrite=True"):
                update_diffpath(dataset, "k")
    update_diffpath(dataset, "k", progress=False)  # without maps there is nothing to mix


def test_a_run_under_way_is_not_begun_a_second_time_and_a_killed_one_is_noticed(dataset, monkeypatch):
    steps = iterate_diffpath(dataset, run_key="k", num_timesteps=2, batch_size=2)
    for _ in range(3):
        next(steps)
    with pytest.raises(ValueError, match="being computed now"):
        compute_diffpath(dataset, run_key="k", **FAST)
    for touch in (continue_diffpath, delete_diffpath, update_diffpath):
        with pytest.raises(ValueError, match="being computed now|no finished"):
            touch(dataset, "k")
    with pytest.raises(ValueError, match="being computed now"):
        rename_diffpath(dataset, "k", "n")
    with pytest.raises(ValueError, match="being computed now.*stop=True"):
        compute_diffpath(dataset, run_key="k", overwrite=True, **FAST)
    monkeypatch.setattr(liveness, "_is_running", lambda *_: False)  # as after kill -9
    assert get_diffpath_info(dataset, "k")["status"] == "interrupted"
    monkeypatch.undo()
    assert get_diffpath_info(dataset, "k")["status"] == "running"
    steps.close()
    assert get_diffpath_info(dataset, "k")["status"] == "interrupted"


def test_a_run_on_another_machine_counts_as_alive_as_long_as_it_says_so():
    alive = Heartbeat(process=1, machine="elsewhere", done=1, total=2, at=time.time())
    assert heartbeat.is_alive(alive)
    assert not heartbeat.is_alive(replace(alive, at=time.time() - 3600))
    assert not heartbeat.is_alive(None)


def test_a_view_saved_from_the_panel_and_the_workspace_go_with_the_run(dataset):
    before = state(dataset)
    compute_diffpath(dataset, run_key="k", **FAST)
    dataset.save_view("k: mine", dataset.limit(1))
    name = workspaces.save_run_view(dataset, "k", "score from 3", dataset.sort_by("k_score"))
    with pytest.raises(ValueError, match="mine"):
        workspaces.save_run_view(dataset, "k", "mine", dataset.limit(2))
    workspaces.save_workspace(dataset, "k")
    assert name in inventory.run_contents(dataset, "k").views and len(dataset.load_saved_view("k: mine")) == 1
    rename_diffpath(dataset, "k", "n")
    assert dataset.has_saved_view("n: score from 3") and dataset.list_workspaces() == ["n: workspace"]
    panel = dataset.load_workspace("n: workspace").children[1].children[0]
    assert panel.state == {"state": {"opened": "n"}}  # the run that the panel opens with
    delete_diffpath(dataset, "n")
    dataset.delete_saved_view("k: mine")
    assert state(dataset)["views"] == before["views"] and dataset.list_workspaces() == []

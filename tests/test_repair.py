"""What an older version or a crash left is found and mended, and what is whole is left alone."""

import shutil
from pathlib import Path

import pytest
from conftest import demo_samples
from fiftyone.core.odm import get_db_conn

from diffpath import (
    compute_diffpath,
    continue_diffpath,
    get_diffpath_info,
    list_diffpath_runs,
    load_diffpath_view,
    repair_diffpath,
)
from diffpath.cli import main
from diffpath.dataset.liveness import Heartbeat
from diffpath.dataset.record import require_record
from diffpath.operators.markdown import as_list, as_table, escape
from diffpath.operators.repair import RepairDiffPath

FAST = dict(num_timesteps=2, num_workers=1, progress=False)


@pytest.fixture
def dataset(make_dataset):
    made = make_dataset(demo_samples("clean", 8), demo_samples("photos", 2))
    compute_diffpath(made, reference=made.view(), run_key="k", **FAST)
    return made


def test_a_whole_dataset_is_left_alone(dataset):
    before = get_diffpath_info(dataset, "k")
    assert repair_diffpath(dataset) == []
    assert get_diffpath_info(dataset, "k") == before


def test_views_and_their_names_are_mended(dataset):
    database, this, views = get_db_conn(), dataset._doc.id, require_record(dataset, "k").views
    dataset.delete_saved_view(views["ood"])
    database.views.delete_one({"_dataset_id": this, "name": views["ranked"]})  # the dataset still names it
    stored = database.views.find_one({"_dataset_id": this})
    database.views.insert_one({**stored, "_id": type(this)(), "name": views["ranked"]})  # which no dataset names
    dataset.drop_index("k_score")
    assert repair_diffpath(dataset.view()) == [
        "forgot 1 saved views of which only half was stored",
        "forgot 1 views of run 'k' that had come to no dataset",
        "made the index of run 'k' again",
        f"made the views {views['ranked']!r}, {views['ood']!r} again",
    ]
    assert repair_diffpath(dataset) == []
    assert "k_score" in dataset.get_index_information()
    assert set(views.values()) <= set(dataset.list_saved_views())
    assert len(load_diffpath_view(dataset, "k", "ranked")) == 10
    assert database.views.count_documents({"_dataset_id": this}) == len(dataset.list_saved_views())


def test_lost_maps_are_counted_and_made_again(dataset):
    paths = dataset.values("k_heatmap.map_path")
    for path in paths[:3]:
        Path(path).unlink()
    said = ["run 'k' has no maps of 3 images: continue it, which makes them again"]
    scores = dataset.values("k_score")
    assert repair_diffpath(dataset) == said
    assert repair_diffpath(dataset) == [
        "run 'k' was interrupted: continue it, which goes on where it stopped, or delete it"
    ]
    continue_diffpath(dataset, "k", num_workers=1, progress=False)
    assert all(map(Path.is_file, map(Path, paths))) and dataset.values("k_score") == scores
    assert repair_diffpath(dataset) == []


def test_what_takes_the_model_is_said(dataset):
    shutil.rmtree(require_record(dataset, "k").folder)
    assert repair_diffpath(dataset) == ["run 'k' has lost its files: continue it, which makes them again"]
    dataset.delete_sample_field("k_profile")
    assert repair_diffpath(dataset) == ["run 'k' has lost k_profile: continue it, which makes them again, or delete it"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_rename_that_an_older_version_left_half_done_is_finished(dataset, moved):
    record = require_record(dataset, "k")
    renamed = {name: f"other{name.removeprefix('k')}" for name in record.fields.values() if name != "k_error"}
    if moved:
        renamed["k_error"] = "other_error"
        folder = Path(record.folder)
        folder.rename(folder.with_name("other-0123abcd"))
    dataset.rename_sample_fields(renamed)
    scores = dataset.values("other_score")
    assert repair_diffpath(dataset) == ["finished renaming run 'k' to 'other'"]
    dataset.reload()
    assert list_diffpath_runs(dataset) == ["other"]
    info = get_diffpath_info(dataset, "other")
    assert info["status"] == "complete" and dataset.values("other_score") == scores
    assert all(Path(path).is_file() for path in dataset.values("other_heatmap.map_path"))
    assert not [name for name in dataset.get_field_schema() if name.startswith("k_")]
    assert sorted(dataset.list_saved_views()) == sorted(info["views"].values())
    assert repair_diffpath(dataset) == []


def test_a_run_that_is_being_computed_is_left_alone(dataset):
    record = require_record(dataset, "k").patch(dataset, status="incomplete", heartbeat=Heartbeat.now())
    assert repair_diffpath(dataset) == []
    record.beat(dataset, None)


def test_the_command_names_what_it_did(dataset, capsys):
    dataset.drop_index("k_score")
    assert main(["repair", dataset.name]) == 0
    assert capsys.readouterr().out == f"{dataset.name}: made the index of run 'k' again\n"
    assert main(["repair", dataset.name]) == 0
    assert capsys.readouterr().out == "nothing to repair\n"
    assert main(["repair", "nothing of this name"]) == 1
    assert "there is no dataset 'nothing of this name'" in capsys.readouterr().err


def test_the_operator_reports(dataset):
    class Ops:
        def reload_dataset(self):
            pass

    class Context:
        ops = Ops()

    context = Context()
    context.dataset = dataset
    dataset.drop_index("k_score")
    results = RepairDiffPath().execute(context)
    assert results["report"] == "- made the index of run 'k' again"
    assert RepairDiffPath().execute(context)["report"] == "Nothing to repair."
    context.results = results
    assert RepairDiffPath().resolve_output(context).type.properties["report"]


def test_text_of_people_is_shown_as_it_is():
    text = "a|b <img src=x onerror=alert(1)>\n\n# *big* [link](javascript:alert(1)) `code` a_b"
    escaped = escape(text)
    assert "\n" not in escaped
    assert escaped.replace("\\", "") == " ".join(text.split())
    for mark in "|<>*[]`_":
        assert f"\\{mark}" in escaped and mark not in escaped.replace(f"\\{mark}", "")
    assert as_table([("Tag", "a|b")]).splitlines()[-1] == "| Tag | a\\|b |"
    assert as_list([("Tag", "*")]) == "- **Tag:** \\*"

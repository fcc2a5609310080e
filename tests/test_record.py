"""A run's record: read as it is stored, changed by patches that leave others' changes alone."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import ROOT, demo_samples

from diffpath import (
    compute_diffpath,
    continue_diffpath,
    delete_diffpath,
    evaluate_diffpath,
    get_diffpath_info,
    list_diffpath_runs,
    rename_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.dataset import RunRecord, ScoringRequest, heartbeat, iterate_scoring, record, scoring, stores, update
from diffpath.dataset.internals import patch_run, read_runs
from diffpath.dataset.record import Heartbeat, find_record, require_record
from diffpath.dataset.workspaces import save_workspace

FAST = dict(num_timesteps=2, num_workers=2, progress=False)
# What each of several processes does to one run, again and again
WRITERS = {
    "heartbeat": "record.beat(dataset, Heartbeat(k, 'm', k, 50, time.time()))",
    "threshold": "record.patch(dataset, rule='count', level=k, threshold=k / 10)",
    "workspace": "record.add_member(dataset, 'workspaces', f'workspace {k}')",
    "evaluation": "record.patch_item(dataset, 'evaluations', f'field.{k}', {'auroc': k})",
}


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(demo_samples("clean", 12))


def test_a_record_is_read_back_as_it_was_written(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    again = require_record(dataset, "k")
    assert again == run.record and again.record_version == record.RECORD_VERSION
    assert replace(again, run_key="other").to_stored() == run.config


def test_a_heartbeat_a_threshold_workspaces_and_evaluations_written_at_once_all_survive(dataset):
    compute_diffpath(dataset, run_key="k", heatmaps=False, **FAST)
    before = require_record(dataset, "k")
    script = (
        "import sys, time, fiftyone as fo\n"
        "from diffpath.dataset.record import Heartbeat, require_record\n"
        f"dataset = fo.load_dataset({dataset.name!r}); record = require_record(dataset, 'k')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for k in range(50): {}\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script.format(action)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for action in WRITERS.values()
    ]
    for writer in writers:
        assert any(line == "ready\n" for line in writer.stdout)
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0

    after = require_record(dataset, "k")
    assert (after.heartbeat.process, after.heartbeat.done, after.heartbeat.machine) == (49, 49, "m")
    assert (after.rule, after.level, after.threshold) == ("count", 49, 4.9)
    assert sorted(after.workspaces) == sorted(f"workspace {k}" for k in range(50))
    assert after.evaluations == {f"field.{k}": {"auroc": k} for k in range(50)}
    assert replace(after, heartbeat=None, rule=before.rule, level=before.level, threshold=before.threshold) == replace(
        before, workspaces=after.workspaces, evaluations=after.evaluations
    )


def test_what_another_process_wrote_is_seen_and_kept(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    held = require_record(dataset, "k")
    patch_run(dataset, "k", {"tag": "theirs"})  # behind FiftyOne's back, as from elsewhere
    assert held.patch(dataset, level=0.1).tag == "theirs"
    assert dataset.get_run_info("k").config.tag == "theirs"


def test_a_field_that_a_record_has_not_is_not_written(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    for name in ("treshold", "run_key", "timestamp"):
        with pytest.raises(TypeError, match=name):
            run.record.patch(dataset, **{name: 1})


def test_patching_a_run_that_was_deleted_meanwhile_says_so(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    delete_diffpath(dataset, "k")
    with pytest.raises(ValueError, match="deleted meanwhile"):
        run.record.patch(dataset, tag="x")
    run.record.beat(dataset, None)  # says nothing


def test_a_record_of_a_newer_version_or_one_that_is_damaged_is_refused_with_the_way_out(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    patch_run(dataset, "k", {"record_version": record.RECORD_VERSION + 1})
    with pytest.raises(ValueError, match="newer version of diffpath; update diffpath"):
        find_record(dataset, "k")
    patch_run(dataset, "k", {"record_version": 1, "fields": ["k_score"]})
    with pytest.raises(ValueError, match="no valid 'fields'; delete the run"):
        find_record(dataset, "k")
    patch_run(dataset, "k", {"fields": None})
    with pytest.raises(ValueError, match="does not say 'fields'; delete the run"):
        find_record(dataset, "k")


def test_a_run_of_the_version_before_records_had_a_number_opens_and_is_worked_with(dataset):
    """As the version before wrote it: no number, its own ``alive``, options that came later missing."""
    compute_diffpath(dataset.limit(8), run_key="k", **FAST)
    config = dict(read_runs(dataset)["k"].config)
    del config["record_version"], config["made_by"]["options"]["zoom"]
    own = {name: value for name, value in config.items() if name not in ("cls", "type", "method")}
    dataset.update_run_config("k", dataset.init_run(method="diffpath", **own))
    old = require_record(dataset, "k")
    assert old.record_version == 0 and old.options.zoom == 1 and old.heartbeat is None
    assert set_diffpath_threshold(dataset, "k", "count", 2).num_likely_ood == 2
    assert update_diffpath(dataset, "k", progress=False).num_scored == 12
    rename_diffpath(dataset, "k", "n")
    assert get_diffpath_info(dataset, "n")["status"] == "complete"
    delete_diffpath(dataset, "n")
    assert list_diffpath_runs(dataset) == []


def test_runs_are_listed_in_the_order_of_their_making(dataset):
    for key in ("b", "c", "a"):
        compute_diffpath(dataset, run_key=key, heatmaps=False, **FAST)
    assert list_diffpath_runs(dataset) == ["b", "c", "a"]


def test_a_threshold_and_a_workspace_set_during_an_update_survive_it(dataset, monkeypatch):
    run = compute_diffpath(dataset.limit(8), run_key="k", rule="count", level=1, **FAST)
    real = update.write_scores

    def meanwhile(*arguments):
        set_diffpath_threshold(dataset, "k", "count", 6, tag="look")
        save_workspace(dataset, "k")
        real(*arguments)

    monkeypatch.setattr(update, "write_scores", meanwhile)
    updated = update_diffpath(dataset, "k", progress=False)
    assert (updated.num_scored, updated.rule, updated.level, updated.tag) == (12, "count", 6, "look")
    assert updated.record.workspaces == ["k: workspace"] and updated.num_likely_ood == 6
    assert updated.threshold < run.threshold  # at most four images were added above it


def test_a_threshold_set_during_an_evaluation_survives_it(dataset, monkeypatch):
    import diffpath.detection.evaluation_plot as evaluation_plot

    dataset.set_values("odd", [k < 3 for k in range(12)])
    compute_diffpath(dataset, run_key="k", **FAST)
    real = evaluation_plot.write_histogram

    def meanwhile(*arguments, **keywords):
        set_diffpath_threshold(dataset, "k", "count", 3)
        real(*arguments, **keywords)

    monkeypatch.setattr(evaluation_plot, "write_histogram", meanwhile)
    evaluate_diffpath(dataset, "k", "odd", num_bootstrap=10)
    after = require_record(dataset, "k")
    assert (after.rule, after.level, after.num_likely_ood) == ("count", 3, 3) and "odd" in after.evaluations


def test_a_renamed_runs_evaluations_point_at_their_pictures(dataset):
    dataset.set_values("odd", [k < 3 for k in range(12)])
    compute_diffpath(dataset, run_key="k", **FAST)
    evaluate_diffpath(dataset, "k", "odd", num_bootstrap=10)
    rename_diffpath(dataset, "k", "n")
    picture = Path(require_record(dataset, "n").evaluations["odd"]["histogram"])
    assert picture.is_file() and picture.parent == Path(require_record(dataset, "n").folder)


@pytest.mark.parametrize("stage", ["write_results", "apply_threshold"])
def test_a_run_is_under_way_while_it_fits_and_writes(stage, dataset, monkeypatch):
    """Seen from another machine, which trusts a sign of life for a minute: it is renewed without any step."""
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.1)
    real, seen = getattr(scoring, stage), []

    def slow(*arguments, **keywords):
        started = time.time()
        time.sleep(0.6)
        seen.append(require_record(dataset, "k").heartbeat.at - started)
        return real(*arguments, **keywords)

    monkeypatch.setattr(scoring, stage, slow)
    run = compute_diffpath(dataset, run_key="k", **FAST)
    assert seen[0] > 0.2 and run.record.heartbeat is None


def test_an_update_is_under_way_while_it_writes(dataset, monkeypatch):
    compute_diffpath(dataset.limit(8), run_key="k", **FAST)
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.1)
    real, seen = update.write_scores, []

    def slow(*arguments):
        time.sleep(0.5)
        seen.append(heartbeat.is_alive(replace(require_record(dataset, "k").heartbeat, machine="elsewhere")))
        real(*arguments)

    monkeypatch.setattr(update, "write_scores", slow)
    assert update_diffpath(dataset, "k", progress=False).record.heartbeat is None and seen == [True]


def test_a_run_whose_next_step_nobody_asks_for_does_not_say_that_it_is_under_way(dataset, monkeypatch):
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.05)
    steps = iterate_scoring(ScoringRequest.of(dataset, run_key="k", num_timesteps=2, batch_size=2))
    next(steps)
    before = require_record(dataset, "k").heartbeat.at
    time.sleep(0.4)
    assert require_record(dataset, "k").heartbeat.at == before
    steps.close()
    assert require_record(dataset, "k").heartbeat is None


def test_a_run_that_is_killed_between_two_writes_leaves_no_image_without_maps(dataset, monkeypatch):
    """Whichever field is written last before the kill, the continued run makes all that is missing."""

    class Killed(BaseException):
        pass

    for allowed in range(6):
        real, written = fo.Dataset.set_values, []

        def set_values(self, name, *arguments, real=real, written=written, allowed=allowed, **keywords):
            if len(written) == allowed:
                raise Killed
            written.append(name)
            return real(self, name, *arguments, **keywords)

        with monkeypatch.context() as patched:
            patched.setattr(fo.Dataset, "set_values", set_values)
            patched.setattr(stores.FieldStore, "flush", _flush_once(stores.FieldStore.flush))
            with pytest.raises(Killed):
                compute_diffpath(dataset, run_key="k", **FAST)
        continue_diffpath(dataset, "k", progress=False)
        for kind in ("features", "profile", "statistics", "heatmap", "error_map", "score"):
            assert dataset.count(f"k_{kind}") == 12, (allowed, kind)
        delete_diffpath(dataset, "k")


def _flush_once(flush):
    """A store that writes once, and after that not even in ``finally``: as if the process were gone."""
    gone = []

    def once(self):
        if not gone:
            gone.append(True)
            flush(self)

    return once


def test_the_speed_of_a_run_is_that_of_the_network_alone(dataset, monkeypatch):
    real = scoring.write_results

    def slow(*arguments):
        time.sleep(3)
        return real(*arguments)

    compute_diffpath(dataset, run_key="warm", **FAST)
    monkeypatch.setattr(scoring, "write_results", slow)
    run = compute_diffpath(dataset, run_key="k", **FAST)
    assert run.seconds > 3 and run.config["images_per_second"] > 12 / 3


def test_deleting_a_run_looks_at_none_of_its_files(dataset, monkeypatch):
    compute_diffpath(dataset, run_key="k", **FAST)
    looked = []
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: looked.append(self) or real(self, **how))
    delete_diffpath(dataset, "k")
    assert not [path for path in looked if path.suffix == ".png"]


def test_a_run_record_is_new_once(dataset):
    request = dict(owner="0" * 24, provenance={"options": {}}, heatmaps=False, folder=Path("/x"), requested=None)
    RunRecord.new("k", anomaly_maps=False, **request).register(dataset)
    with pytest.raises(ValueError, match="already exists"):
        RunRecord.new("k", anomaly_maps=False, **request).register(dataset)


def test_a_heartbeat_of_the_version_before_is_read(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    patch_run(dataset, "k", {"alive": {"process": 1, "machine": "m"}})  # before its first step
    assert require_record(dataset, "k").heartbeat == Heartbeat(1, "m") and not heartbeat.is_alive(Heartbeat(1, "m"))


def test_columns_of_numbers_are_stored_as_plain_ones(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    centre = read_runs(dataset)["k"].config["feature_centre"]
    assert all(type(value) is float for value in centre) and np.allclose(centre, run.record.feature_centre)

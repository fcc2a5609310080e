"""The plugin in FiftyOne's registry: its form, and every way to run it."""

import asyncio
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from conftest import ROOT
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionContext, Executor, execute_or_delegate_operator
from fiftyone.operators.registry import OperatorRegistry
from PIL import Image

from diffpath import DiffPathV2, Reference, load_reference

URI = "@diffpath/diffpath/compute_diffpath"
EVALUATE = "@diffpath/diffpath/evaluate_diffpath"
OPERATORS = (
    "compute_diffpath",
    "continue_diffpath",
    "delete_diffpath",
    "diffpath_panel",
    "evaluate_diffpath",
    "get_diffpath_info",
    "load_diffpath_view",
    "rename_diffpath",
    "repair_diffpath",
    "save_diffpath_workspace",
    "set_diffpath_threshold",
    "update_diffpath",
)
FAST = dict(num_timesteps=2, num_workers=2)
UNLIMITED = execute_or_delegate_operator.__wrapped__


@pytest.fixture
def dataset():
    data = ROOT / "demo" / "data"
    dataset = fo.Dataset()
    for kind in ("reference", "clean", "photos"):
        paths = sorted((data / kind).glob("*.png"))[:12]
        dataset.add_samples([fo.Sample(filepath=str(path), tags=[kind]) for path in paths], progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture
def operator():
    return foo.get_operator(URI)


def form(dataset, view=None, uri=URI, **params):
    """The form as the App would get it, input properties by name."""
    context = context_of(dataset, uri, view, **params)
    resolved = foo.get_operator(uri).resolve_type(context, "inputs").to_json()
    return resolved["type"]["properties"]


def context_of(dataset, uri, view=None, **params):
    """What an operator gets from the App."""
    return ExecutionContext(
        dict(
            dataset_name=dataset.name,
            view=(view if view is not None else dataset.view())._serialize(),
            selected=[],
            params=params,
        ),
        executor=Executor(),
        operator_uri=uri,
    )


def text_of(prop):
    return str(prop)


def test_the_plugin_loads_without_errors_and_offers_exactly_its_operators():
    assert OperatorRegistry().list_errors() == []
    ours = [operator.uri for operator in foo.list_operators() if operator.uri.startswith("@diffpath/")]
    assert sorted(ours) == [f"@diffpath/diffpath/{name}" for name in OPERATORS]


def test_the_operator_declares_both_ways_to_run_and_a_moderate_risk(operator):
    config = operator.config
    assert config.allow_immediate_execution and config.allow_delegated_execution
    assert config.dynamic and config.risk_level.value == "medium"
    assert config.label == "Compute DiffPath OOD scores"


def test_the_form_asks_for_target_reference_model_and_run_key(dataset):
    inputs = form(dataset)
    assert {"reference_kind", "model", "run_key", "heatmaps", "advanced"} <= set(inputs)
    assert "num_timesteps" not in inputs
    assert "36 images" in text_of(inputs["estimate"])
    assert "view_target" in form(dataset, dataset.limit(5))
    assert "5 images" in text_of(form(dataset, dataset.limit(5), view_target="CURRENT_VIEW")["estimate"])


def test_the_form_offers_the_datasets_own_tags_views_and_other_datasets(dataset):
    dataset.save_view("kept", dataset.limit(4))
    other = fo.Dataset()
    try:
        assert "photos" in text_of(form(dataset, reference_kind="tag")["reference_tag"])
        assert "kept" in text_of(form(dataset, reference_kind="view")["reference_view"])
        names = text_of(form(dataset, reference_kind="dataset")["reference_dataset"])
        assert other.name in names and dataset.name not in names
    finally:
        other.delete()


def test_advanced_options_follow_the_preset(dataset):
    default = form(dataset, advanced=True)
    paper = form(dataset, advanced=True, preset="paper")
    assert {"num_timesteps", "num_noise_draws", "error_power", "ssim_weighting", "ssim_window", "seed"} <= set(default)
    assert "signed" in default["error_power"]["view"]["description"]
    assert "squared" in paper["error_power"]["view"]["description"]


@pytest.mark.parametrize("run_key", ["not a key", "1st", "a-b"])
def test_the_form_marks_an_impossible_run_key(dataset, run_key):
    assert form(dataset, run_key=run_key)["run_key"]["invalid"]


def test_the_form_warns_before_it_overwrites(dataset, operator):
    assert "existing_run" not in form(dataset)
    operator(dataset, progress=False, **FAST)
    inputs = form(dataset)
    assert "exists" in text_of(inputs["existing_run"])
    assert inputs["overwrite"]["invalid"]
    assert not form(dataset, overwrite=True)["overwrite"].get("invalid")
    assert "existing_run" not in form(dataset, run_key="other")


def test_the_form_warns_where_there_is_nothing_to_score(dataset):
    empty = dataset.match_tags("no such tag")
    assert "no images" in text_of(form(dataset, empty, view_target="CURRENT_VIEW")["estimate"])


def test_the_estimate_uses_the_speed_of_an_earlier_run(dataset, operator):
    assert "rough guess" in text_of(form(dataset)["estimate"])
    operator(dataset, progress=False, **FAST)
    assert "earlier run" in text_of(form(dataset, run_key="next")["estimate"])


def test_the_estimate_grows_with_what_costs_time(dataset):
    """36 images at 10 evaluations and a guess of 200 a second: 2 s."""
    guesses = [dict(), dict(num_timesteps=20), dict(num_noise_draws=3), dict(zoom=3)]
    found = [re.search(r"about (\d+) s", text_of(form(dataset, **guess)["estimate"]))[1] for guess in guesses]
    assert found == ["2", "4", "5", "18"]


def test_calling_the_operator_from_python_gives_the_run(dataset, operator):
    run = operator(dataset, reference="reference", run_key="py", progress=False, **FAST)
    assert run.num_scored == 36 == dataset.count("py_score")


def test_the_operator_takes_a_reference_of_the_library_though_the_plugin_is_a_copy_of_it(dataset, operator):
    run = operator(dataset, reference="reference", run_key="first", progress=False, **FAST)
    again = operator(dataset, reference=load_reference(run.reference_path), run_key="b", progress=False, **FAST)
    assert again.num_scored == 36


def execute(dataset, **params):
    """What the server streams to the App, message by message: (operator, parameters)."""
    request = dict(dataset_name=dataset.name, view=dataset.view()._serialize(), params=params)
    result = asyncio.run(execute_or_delegate_operator(URI, request))
    result.raise_exceptions()
    messages = [message.to_json()["body"] for message in result.result]
    return [(message["operator_uri"].split("/")[-1], message["params"]) for message in messages]


def test_immediate_execution_reports_progress_and_ends_on_the_ranked_view(dataset):
    messages = execute(dataset, reference_kind="tag", reference_tag="reference", batch_size=4, num_timesteps=2)
    names = [name for name, _ in messages]
    progress = [params["progress"] for name, params in messages if name == "set_progress"]
    assert len(progress) > 5 and progress == sorted(progress) and progress[-1] == 1
    assert names[-5:] == ["reload_dataset", "set_color_scheme", "set_view", "set_active_fields", "notify"]
    colors = messages[-4][1]
    assert colors["color_by"] == "value" and colors["colorscales"][0]["path"] == "diffpath_anomaly_map"
    notice = messages[-1][1]["message"]
    run = dataset.get_run_info("diffpath").config.serialize()
    assert "36 images" in notice and f"{run['num_likely_ood']} likely OOD" in notice and "0 could not be read" in notice
    assert {"_cls": "fiftyone.core.stages.SortBy"}.items() <= messages[-3][1]["view"][-1].items()


def test_the_form_of_a_saved_view_or_another_dataset_as_reference_is_understood(dataset):
    dataset.save_view("normal", dataset.match_tags("reference"))
    execute(dataset, run_key="v", reference_kind="view", reference_view="normal", num_timesteps=2)
    other = dataset.match_tags("reference").clone()
    try:
        execute(dataset, run_key="d", reference_kind="dataset", reference_dataset=other.name, num_timesteps=2)
    finally:
        other.delete()
    assert dataset.count("v_score") == dataset.count("d_score") == 36
    assert dataset.get_run_info("v").config.serialize()["num_reference"] == 12


def test_an_incomplete_reference_is_an_error_not_a_run(dataset):
    with pytest.raises(Exception, match="reference_tag|choose the tag"):
        execute(dataset, reference_kind="tag")
    assert dataset.list_runs() == []


def test_delegated_execution_scores_and_returns_a_summary(dataset, operator):
    operator(dataset, delegate=True, reference="reference", run_key="later", dtype="float32", **FAST)
    assert dataset.list_runs() == []
    service = DelegatedOperationService()
    service.execute_queued_operations(limit=1)
    assert dataset.count("later_score") == 36
    made_by = dataset.get_run_info("later").config.serialize()["made_by"]
    assert made_by["reference"]["tag"] == "reference" and made_by["dtype"] == "float32"
    last = service.list_operations(operator=URI)[-1]
    assert last.run_state == "completed"
    assert "36 images" in last.result.result["summary"]


def test_a_worker_that_is_started_from_the_shell_runs_what_was_scheduled_and_reports_progress(dataset, operator):
    dataset.persistent = True  # another process opens the database
    service = DelegatedOperationService()
    queued = operator(dataset, delegate=True, reference="reference", run_key="later", batch_size=4, **FAST).result["id"]
    worker = subprocess.Popen([Path(sys.executable).with_name("fiftyone"), "delegated", "launch"])
    try:
        seen, end = [], time.monotonic() + 240
        while time.monotonic() < end and str(service.get(queued).run_state) not in ("completed", "failed"):
            status = service.get(queued).status
            if status and status.label:
                seen.append((status.progress, status.label))
            time.sleep(0.2)
    finally:
        worker.terminate()
        worker.wait(60)
    operation = service.get(queued)
    assert str(operation.run_state) == "completed", operation.result
    assert any("images/s" in label and 0 < progress < 1 for progress, label in seen)
    assert operation.result.result["summary"].startswith("DiffPath scored 36 images")
    dataset.reload()
    assert dataset.count("later_score") == 36


def test_a_delegated_run_carries_a_view_as_reference(dataset, operator):
    operator(dataset, delegate=True, reference=dataset.match_tags("reference"), run_key="later", **FAST)
    DelegatedOperationService().execute_queued_operations(limit=1)
    dataset.reload()
    assert dataset.count("later_score") == 36
    made_by = dataset.get_run_info("later").config.made_by
    assert made_by["reference"]["kind"] == "view"


def test_a_delegated_run_refuses_a_reference_that_it_could_not_carry(dataset, operator):
    reference = Reference.fit(DiffPathV2(num_timesteps=2), [Image.open(path) for path in dataset.values("filepath")])
    with pytest.raises(ValueError, match="save it and pass its path"):
        operator(dataset, delegate=True, reference=reference)


@pytest.mark.parametrize("path", ["python", "sdk", "delegated", "app"])
def test_a_misspelt_option_is_refused_on_every_path(path, dataset, operator):
    said = "unknown option 'num_timestep' .did you mean 'num_timesteps'"
    call = {
        "python": lambda: operator(dataset, num_timestep=2),
        "sdk": lambda: foo.execute_operator(URI, dict(dataset=dataset, params=dict(num_timestep=2))),
        "delegated": lambda: operator(dataset, delegate=True, num_timestep=2),
        "app": lambda: execute(dataset, num_timestep=2),
    }[path]
    with pytest.raises(Exception, match=said):
        call()
    assert dataset.list_runs() == []


@pytest.mark.parametrize("path", ["python", "app", "sdk", "delegated"])
def test_a_run_longer_than_the_operator_timeout_is_not_cut(path, dataset, operator, monkeypatch):
    assert fo.config.operator_timeout < 10  # set by conftest, usually 600 seconds
    package = type(operator).__module__.removesuffix(".operators.scoring")
    plugin = importlib.import_module(f"{package}.method.diffpath_v2")
    real = plugin.DiffPathV2._score_piece

    def slow(self, predictor, piece):
        time.sleep(2.5 * fo.config.operator_timeout / 9)
        return real(self, predictor, piece)

    monkeypatch.setattr(plugin.DiffPathV2, "_score_piece", slow)
    started = time.monotonic()
    if path == "python":
        operator(dataset, batch_size=4, progress=False, **FAST)
    elif path == "app":
        execute(dataset, batch_size=4, num_timesteps=2)
    elif path == "sdk":
        foo.execute_operator(URI, dict(dataset=dataset, params=dict(batch_size=4, num_timesteps=2)))
    else:
        operator(dataset, delegate=True, batch_size=4, **FAST)
        DelegatedOperationService().execute_queued_operations(limit=1)
    assert time.monotonic() - started > 2 * fo.config.operator_timeout
    assert dataset.count("diffpath_score") == 36


def test_the_form_offers_each_rule_with_a_level_of_its_own_and_marks_an_impossible_one(dataset):
    plain = form(dataset)
    assert "False-positive rate" in text_of(plain["rule"]) and "level_false_positive_rate" in plain
    assert plain["level_false_positive_rate"]["default"] == 0.05
    assert form(dataset, rule="count")["level_count"]["default"] == 100
    assert "at least 0" in form(dataset, rule="count", level_count=-1)["level_count"]["error_message"]
    assert not form(dataset, rule="percentile", level_percentile=97)["level_percentile"].get("invalid")


def test_rule_tag_and_the_reference_of_an_earlier_run_reach_the_run(dataset, operator):
    first = operator(dataset, reference="reference", run_key="first", progress=False, **FAST)
    assert "first" in text_of(form(dataset, reference_kind="run")["reference_run"])
    common = dict(num_timesteps=2, rule="count", level_count=3)
    execute(dataset, run_key="run", reference_kind="run", reference_run="first", tag="odd", **common)
    execute(dataset, run_key="file", reference_kind="file", reference_file=first.reference_path, **common)
    assert len(dataset.match_tags("odd")) == 3
    for key in ("run", "file"):
        config = dataset.get_run_info(key).config.serialize()
        assert config["made_by"]["reference"]["kind"] == "saved"
        assert (config["rule"], config["level"], config["num_likely_ood"]) == ("count", 3, 3)


def test_a_delegated_run_carries_a_saved_reference_and_a_rule(dataset, operator):
    reference = Path(operator(dataset, reference="reference", run_key="first", progress=False, **FAST).reference_path)
    operator(dataset, delegate=True, reference=reference, run_key="later", rule="count", level=2, **FAST)
    DelegatedOperationService().execute_queued_operations(limit=1)
    config = dataset.get_run_info("later").config.serialize()
    assert config["num_likely_ood"] == 2 and config["made_by"]["reference"]["kind"] == "saved"


def test_the_evaluation_form_asks_for_the_labels_of_a_field_that_does_not_say_itself(dataset):
    dataset.set_values("truth", [True] * 12 + [False] * 24)
    dataset.set_values("kind", ["a"] * 20 + ["b"] * 16)
    assert "no DiffPath run" in text_of(form(dataset, uri=EVALUATE)["no_run"])
    plain = form(dataset, uri=EVALUATE, ground_truth_field="truth")
    assert "ood" not in plain and {"truth", "kind", "tags"} <= set(text_of(plain["ground_truth_field"]).split("'"))
    inputs = form(dataset, uri=EVALUATE, ground_truth_field="kind")
    assert "'a'" in text_of(inputs["ood"]) and "'b'" in text_of(inputs["in_distribution"])


def test_the_evaluation_shows_measures_and_a_picture(dataset, operator, monkeypatch):
    # without the tests' short limit, which this is not about
    monkeypatch.setattr("fiftyone.operators.executor.execute_or_delegate_operator", UNLIMITED)
    operator(dataset, reference="reference", progress=False, **FAST)
    params = dict(run_key="diffpath", ground_truth_field="tags", ood=["photos"])
    result = foo.execute_operator(EVALUATE, dict(dataset=dataset, params=params)).result
    assert "| AUROC | " in result["summary"] and "Positive class: **photos**" in result["summary"]
    assert result["picture"].startswith("data:image/png;base64,")


def test_the_form_offers_fields_that_images_belong_together_by_of_the_reference_that_is_fitted(dataset, operator):
    assert "groups" not in form(dataset)
    dataset.set_values("video", [k // 3 for k in range(36)])
    offered = form(dataset)["groups"]
    assert offered["type"]["values"] == ["video"] and offered["default"] is None and not offered["required"]
    assert form(dataset, groups="tags")["groups"]["invalid"] and not form(dataset, groups="video")["groups"]["invalid"]
    other = dataset.clone()
    other.rename_sample_field("video", "scene")
    chosen = dict(reference_kind="dataset", reference_dataset=other.name)
    assert form(dataset, **chosen)["groups"]["type"]["values"] == ["scene"]
    assert "groups" not in form(dataset, reference_kind="dataset")
    execute(dataset, run_key="app", groups="video", num_timesteps=2)
    assert dataset.get_run_info("app").config.serialize()["made_by"]["reference"]["groups"] == "video"
    assert form(dataset)["groups"]["type"]["values"] == ["video"]  # not the run's own fields
    assert "groups" not in form(dataset, reference_kind="run")
    # an input that is hidden keeps its value
    execute(dataset, run_key="again", groups="video", reference_kind="run", reference_run="app", num_timesteps=2)
    operator(dataset, delegate=True, groups="video", run_key="later", **FAST)
    DelegatedOperationService().execute_queued_operations(limit=1)
    assert dataset.count("again_score") == dataset.count("later_score") == 36
    other.delete()


def test_the_form_offers_the_users_fields_of_vectors_and_none_where_there_are_none(dataset, operator):
    assert "embeddings" not in form(dataset)
    dataset.set_values("clip", [np.eye(5)[k % 5] + 0.1 * k for k in range(36)])
    dataset.set_values("kind", ["a"] * 36)
    chosen = form(dataset)["embeddings"]
    assert form(dataset, embeddings="kind")["embeddings"]["invalid"]
    assert not form(dataset, embeddings="clip")["embeddings"].get("invalid")
    assert chosen["type"]["values"] == ["clip"] and chosen["default"] is None and not chosen["required"]
    execute(dataset, run_key="plain", num_timesteps=2)
    assert "embedding_score" not in dataset.get_run_info("plain").config.serialize()["fields"]
    assert form(dataset)["embeddings"]["type"]["values"] == ["clip"]  # not the run's own vectors
    execute(dataset, run_key="app", embeddings="clip", num_timesteps=2)
    operator(dataset, delegate=True, embeddings="clip", run_key="later", **FAST)
    DelegatedOperationService().execute_queued_operations(limit=1)
    for key in ("app", "later"):
        assert dataset.count(f"{key}_embedding_score") == dataset.count(f"{key}_score") == 36

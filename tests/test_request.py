"""What a call, a form, a delegated run and an interrupted one hand over."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import pytest
from conftest import ROOT, demo_samples

from diffpath import DiffPathV2, Reference, compute_diffpath, load_model
from diffpath.dataset import ScoringRequest, iterate_scoring
from diffpath.dataset.resume import request_of
from diffpath.folders.scanning import drain
from diffpath.options import MethodOptions

FAST = dict(num_timesteps=2, num_workers=2, progress=False)


@pytest.fixture
def dataset(make_dataset):
    dataset = make_dataset(demo_samples("clean", 12))
    dataset.limit(6).tag_samples("normal")
    return dataset


def same(request, other):
    return request.to_dict() == other.to_dict()


@pytest.mark.parametrize("kind", ["self", "tag", "view", "dataset", "file"])
def test_a_request_comes_back_from_json_with_its_samples_reference_and_options(kind, dataset, tmp_path):
    reference = {
        "self": None,
        "tag": "normal",
        "view": dataset.limit(5).sort_by("filepath"),
        "dataset": dataset,
        "file": tmp_path / "r.safetensors",
    }[kind]
    samples = dataset.match_tags("normal").sort_by("filepath", reverse=True)
    request = ScoringRequest.of(
        samples,
        reference=reference,
        run_key="k",
        level=0.1,
        preset="paper",
        timestep_range=(0.1, 0.8),
        model_options={"prediction_type": "epsilon"},
        device=["cpu", "cpu"],
    )
    again = ScoringRequest.from_dict(json.loads(json.dumps(request.to_dict())))
    assert same(request, again) and again.samples.values("id") == samples.values("id")
    assert again.options == request.options and again.options.error_power == "squared"
    assert again.device == "cpu,cpu" and again.model_options == request.model_options


def test_a_request_that_came_from_json_makes_the_same_run(dataset):
    request = ScoringRequest.of(dataset, reference="normal", run_key="k", num_timesteps=2, dtype="float32")
    run = drain(iterate_scoring(ScoringRequest.from_dict(request.to_dict())), lambda step: None)
    expected = compute_diffpath(dataset, reference="normal", run_key="other", dtype="float32", **FAST)
    assert dataset.values("k_score") == pytest.approx(dataset.values("other_score"), rel=1e-4)
    assert run.threshold == pytest.approx(expected.threshold, rel=1e-4)


def test_a_runs_record_says_what_it_was_asked_for(dataset):
    request = ScoringRequest.of(
        dataset.limit(8), reference="normal", run_key="k", rule="count", level=2, tag="look", num_timesteps=2
    )
    run = drain(iterate_scoring(request), lambda step: None)
    asked = request_of(dataset, run.record, num_workers=request.num_workers)
    request = replace(
        request, options=replace(request.options, detail=0)
    )  # small images: what a run decides is asked for again
    for name in ("reference", "run_key", "rule", "level", "tag", "heatmaps", "options", "embeddings", "groups"):
        assert getattr(asked, name) == getattr(request, name), name
    assert asked.samples.values("id") == request.samples.values("id")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"num_timestep": 5}, "unknown option 'num_timestep'"),
        ({"referense": "normal"}, "unknown option 'referense'"),
        ({"model_options": {"revison": "x"}}, "unknown model option 'revison'"),
        ({"rule": "countt"}, "countt"),
        ({"level": 7}, "level"),
        ({"run_key": "not a key"}, "run_key must be letters"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
    ],
)
def test_what_is_misspelt_or_not_valid_is_refused_before_anything_is_loaded(arguments, said, dataset):
    with pytest.raises(ValueError, match=said):
        ScoringRequest.of(dataset, **arguments)
    with pytest.raises(ValueError, match=said):
        compute_diffpath(dataset, **arguments)
    values = ScoringRequest.of(dataset).to_dict()
    options = values["options"] if "unknown option" in said else values
    options.update(arguments)
    with pytest.raises(ValueError, match=said):
        ScoringRequest.from_dict(values)
    assert dataset.list_runs() == []


def test_a_relative_model_path_is_found_from_everywhere(dataset, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "diffpath" / "models" / "bundled", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    request = ScoringRequest.of(dataset, model="mine", num_timesteps=2)
    assert request.model == str(tmp_path / "mine")
    (tmp_path / "bundled").mkdir()  # no folder stands in for the bundled model
    assert ScoringRequest.of(dataset).model == ScoringRequest.of(dataset, model="bundled").model == "bundled"
    assert ScoringRequest.of(dataset, model="google/ddpm-cifar10-32").model == "google/ddpm-cifar10-32"
    monkeypatch.chdir("/")
    assert drain(iterate_scoring(request), lambda step: None).config["made_by"]["model"] == str(tmp_path / "mine")


def test_an_object_that_only_this_process_has_is_not_handed_on(dataset):
    reference = Reference.fit(DiffPathV2(num_timesteps=2), [sample for sample in _pictures(dataset)])
    with pytest.raises(ValueError, match="save it and pass its path"):
        ScoringRequest.of(dataset, reference=reference).to_dict()
    with pytest.raises(ValueError, match="save it as a diffusers folder"):
        ScoringRequest.of(dataset, model=load_model()).to_dict()


def _pictures(dataset):
    from PIL import Image

    return [Image.open(path) for path in dataset.values("filepath")]


def test_a_request_for_a_dataset_that_is_gone_says_so(dataset):
    values = ScoringRequest.of(dataset).to_dict()
    values["samples"].update(dataset="no such dataset", dataset_id="0" * 24)
    with pytest.raises(ValueError, match="no dataset 'no such dataset'"):
        ScoringRequest.from_dict(values)


def test_a_request_follows_a_dataset_to_its_new_name(make_dataset):
    dataset = make_dataset(demo_samples("clean", 4))
    values = ScoringRequest.of(dataset, reference=dataset.limit(3)).to_dict()
    dataset.name = f"{dataset.name}-renamed"
    request = ScoringRequest.from_dict(values)
    assert request.samples.name == dataset.name and len(request.reference) == 3


def test_the_keywords_of_a_request_are_those_of_compute_diffpath_with_their_defaults_and_words(dataset):
    parameters = inspect.signature(compute_diffpath).parameters
    assert set(ScoringRequest.__dataclass_fields__) - {"options"} <= set(parameters)
    assert set(MethodOptions.__dataclass_fields__) <= set(parameters)
    assert parameters["level"].default == 0.05 and parameters["num_timesteps"].default == 10
    assert "a sample tag for the likely out-of-distribution images" in compute_diffpath.__doc__
    assert "{arguments}" not in compute_diffpath.__doc__


def test_a_request_cannot_be_changed(dataset):
    request = ScoringRequest.of(dataset)
    with pytest.raises(AttributeError):
        request.level = 0.1


def test_samples_that_are_no_collection_are_refused():
    with pytest.raises(ValueError, match="samples must be a FiftyOne dataset or view, got list"):
        ScoringRequest.of([Path("x.png")])


def test_a_view_saved_under_a_name_is_the_same_reference_without_it(dataset):
    dataset.save_view("normal ones", dataset.match_tags("normal"))
    steps = iterate_scoring(
        ScoringRequest.of(
            dataset, reference=dataset.load_saved_view("normal ones"), run_key="k", num_timesteps=2, batch_size=2
        )
    )
    for _ in range(3):
        next(steps)
    steps.close()
    from diffpath import continue_diffpath

    assert continue_diffpath(dataset, "k", progress=False).num_scored == 12
    assert isinstance(fo.load_dataset(dataset.name), fo.Dataset)

"""Models in a dataset's runs and in the operator's form."""

from dataclasses import fields

import diffusers
import fiftyone as fo
import fiftyone.operators as foo
import pytest
import tiny_models as tiny
from conftest import ROOT
from fiftyone.operators.executor import ExecutionContext, Executor

from diffpath import DiffPathRun, compute_diffpath, update_diffpath
from diffpath.models.cards import MODEL_CARDS, find_card
from diffpath.operators.forms.scoring import build_form, read_form
from diffpath.options import MethodOptions, ModelOptions, option_of

URI = "@diffpath/diffpath/compute_diffpath"


@pytest.fixture
def dataset():
    dataset = fo.Dataset()
    paths = sorted((ROOT / "demo" / "data" / "photos").glob("*.png"))[:8]
    dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths], progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture
def folder(tmp_path):
    """A model that does not say its prediction type."""
    return tiny.write(tmp_path / "model", tiny.unet(), tiny.EARLY_SCHEDULER)


def context(dataset, **params):
    request = dict(dataset_name=dataset.name, view=dataset.view()._serialize(), selected=[], params=params)
    return ExecutionContext(request, executor=Executor(), operator_uri=URI)


def form(dataset, **params):
    return build_form(context(dataset, **params)).to_json()["properties"]


def test_the_form_offers_known_models_and_free_text(dataset):
    model = form(dataset)["model"]
    assert model["type"]["name"] == "String"  # an enum would refuse a folder
    assert [choice["value"] for choice in model["view"]["choices"]] == [card.id for card in MODEL_CARDS]
    assert all("×" in choice["description"] for choice in model["view"]["choices"])
    assert model["view"].get("allow_user_input") is not False


def test_the_form_says_what_is_known_of_a_model(dataset):
    shown = str(form(dataset, model="facebook/DiT-XL-2-256")["model_card"])
    assert "CC-BY-NC-4.0" in shown and "256×256" in shown and "have not run it" in shown
    assert "model_card" not in form(dataset) and "model_card" not in form(dataset, model="some/other")
    assert "not been timed" in str(form(dataset, model="some/other")["estimate"])


def test_model_options_are_asked_for_other_models_only_and_read_back(dataset):
    names = {"revision", "prediction_type", "allow_pickle", "latent_scaling", "class_label", "compile"}
    assert not names & set(form(dataset, advanced=True))
    assert names <= set(form(dataset, advanced=True, model="some/other"))
    chosen = dict(model="some/other", revision="v1", allow_pickle=False, compile=True, prediction_type="")
    request = read_form(context(dataset, **chosen, tile=64, equalise_resampling=32, zoom=3))
    assert request.model_options.to_dict() == {"revision": "v1", "compile": True}
    assert (request.options.tile, request.options.equalise_resampling, request.options.zoom) == (64, 32, 3)
    assert read_form(context(dataset)).model_options.to_dict() == {}
    direct = read_form(context(dataset, model_options={"revision": "v2"}))  # as a call from Python has it
    assert direct.model_options.to_dict() == {"revision": "v2"}


TYPED_BEFORE = dict(num_timesteps=3, zoom=2, batch_size=4, device="cpu", revision="v1", allow_pickle=True)


def test_what_was_typed_into_inputs_that_the_form_hides_again_does_not_apply(dataset):
    closed = read_form(context(dataset, model="some/other", advanced=False, **TYPED_BEFORE))
    untouched = read_form(context(dataset, model="some/other"))
    assert closed == untouched
    opened = read_form(context(dataset, model="some/other", advanced=True, **TYPED_BEFORE))
    assert (opened.options.num_timesteps, opened.model_options.revision, opened.batch_size) == (3, "v1", 4)
    bundled = read_form(context(dataset, advanced=True, **TYPED_BEFORE))  # which has no model options
    assert bundled.options.num_timesteps == 3
    assert bundled.model_options.to_dict() == {}


def test_a_caller_who_fills_in_no_form_gets_all_that_is_given(dataset):
    request = read_form(context(dataset, model="some/other", **TYPED_BEFORE))
    assert (request.options.zoom, request.model_options.allow_pickle, request.device) == (2, True, "cpu")


@pytest.mark.parametrize("name", ["resolution", "zoom", "tile", "num_timesteps", "batch_size", "num_workers"])
def test_nought_is_refused_and_not_taken_for_the_default(name, dataset):
    with pytest.raises(ValueError, match=f"{name} must be"):
        read_form(context(dataset, advanced=True, **{name: 0}))


def test_every_option_that_forms_have_an_input_for_is_asked_for_with_its_own_words_and_bounds(dataset):
    inputs = form(dataset, advanced=True, model="some/other")
    for options in (MethodOptions, ModelOptions):
        for each in fields(options):
            about = option_of(each)
            if about.label is None or each.name in ("timestep_range", "value_range"):
                continue
            shown = inputs[each.name]
            assert shown["view"]["label"] == about.label, each.name
            if about.help:
                assert shown["view"]["description"] == about.help, each.name
    assert inputs["num_timesteps"]["type"]["min"] == 2
    assert inputs["last_timestep"]["type"]["max"] == 1
    assert inputs["black"]["default"] is inputs["white"]["default"] is None
    assert "more than 8 bits" in inputs["white"]["view"]["description"]
    assert inputs["num_timesteps"]["default"] == 10


def test_cards_have_what_a_reader_needs_to_choose(capsys):
    from diffpath.cli import main

    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    for card in MODEL_CARDS:
        assert card.id in printed and card.licence and card.good_at and card.image_size in (32, 256, 512)
        assert set(card.settings) <= {"prediction_type", "latent_scaling"}
    assert "only the bundled model was run" in printed
    assert find_card("bundled").image_size == 32 and find_card("some/other") is None


def test_a_run_keeps_how_its_model_is_loaded_and_is_updated_with_it(dataset, folder):
    options = dict(model=str(folder), device="cpu, cpu", dtype="float32", num_timesteps=2, equalise_resampling=8)
    with pytest.raises(ValueError, match="prediction_type"):
        compute_diffpath(dataset, progress=False, **options)
    assert not dataset.list_runs()
    run = compute_diffpath(
        dataset, progress=False, model_options={"prediction_type": "epsilon"}, batch_size=3, **options
    )
    assert run.num_scored == 8
    assert run.config["made_by"]["model_options"] == {"prediction_type": "epsilon"}
    assert run.config["device"] == "cpu, cpu"
    path = sorted((ROOT / "demo" / "data" / "clean").glob("*.png"))[0]
    dataset.add_samples([fo.Sample(filepath=str(path))], progress=False)
    update_diffpath(dataset, "diffpath", progress=False)
    assert DiffPathRun.load(dataset, "diffpath").num_scored == 9


def test_the_operator_runs_with_model_options(dataset, folder):
    run = foo.get_operator(URI)(
        dataset, model=str(folder), model_options={"prediction_type": "sample"}, num_timesteps=2, progress=False
    )
    assert run.num_scored == 8


def test_an_unknown_model_option_is_named(dataset, folder):
    with pytest.raises(ValueError, match="unknown model option 'predicts'.*; the model options are prediction_type"):
        compute_diffpath(dataset, model=str(folder), model_options={"predicts": "epsilon"}, progress=False)


def test_tiles_reach_the_dataset(dataset, tmp_path):
    model = tiny.write(tmp_path / "full", tiny.unet(), diffusers.DDPMScheduler())
    run = compute_diffpath(dataset, model=str(model), resolution=48, tile=16, num_timesteps=2, progress=False)
    assert run.num_scored == 8 and run.config["made_by"]["options"]["tile"] == 16

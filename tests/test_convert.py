"""Converted checkpoints against an independent implementation of the original network."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openai_unet
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

import diffpath
from diffpath import ModelError
from diffpath.cli import COMMANDS, main
from diffpath.models.convert import Architecture, convert_state

# The published models' structure; at a quarter of their channels, since rounding and time grow with width
CELEBA = Architecture(
    image_size=32, num_channels=32, num_res_blocks=3, learn_sigma=True, diffusion_steps=4000, noise_schedule="cosine"
)
IMAGENET_64 = replace(CELEBA, image_size=64, channel_mult=None)
LSUN = replace(
    CELEBA,
    image_size=64,
    channel_mult=(1, 1, 2, 2),
    num_res_blocks=2,
    num_heads=1,
    attention_resolutions=(16,),
    scale_shift_norm=False,
    diffusion_steps=1000,
    noise_schedule="linear",
    rescale_timesteps=False,
)
GUIDED_64 = Architecture(
    image_size=64,
    num_channels=64,
    num_res_blocks=3,
    attention_resolutions=(32, 16, 8),
    num_head_channels=64,
    use_new_attention_order=True,
    resblock_updown=True,
    learn_sigma=True,
    num_classes=10,
    noise_schedule="cosine",
)
ARCHITECTURES = {"CelebA 32": CELEBA, "ImageNet 64": IMAGENET_64, "LSUN": LSUN, "guided ImageNet 64": GUIDED_64}


def flags(architecture):
    """The command line of an architecture."""
    given = ["--image-size", architecture.image_size, "--num-channels", architecture.num_channels]
    given += ["--channel-mult", ",".join(map(str, architecture.channel_mult))]
    given += ["--num-res-blocks", architecture.num_res_blocks, "--num-heads", architecture.num_heads]
    given += ["--attention-resolutions", ",".join(map(str, architecture.attention_resolutions))]
    given += ["--diffusion-steps", architecture.diffusion_steps, "--noise-schedule", architecture.noise_schedule]
    if architecture.num_head_channels:
        given += ["--num-head-channels", architecture.num_head_channels]
    if architecture.num_classes:
        given += ["--num-classes", architecture.num_classes]
    switches = {
        "--use-new-attention-order": architecture.use_new_attention_order,
        "--no-scale-shift-norm": not architecture.scale_shift_norm,
        "--resblock-updown": architecture.resblock_updown,
        "--learn-sigma": architecture.learn_sigma,
        "--no-rescale-timesteps": not architecture.rescale_timesteps,
    }
    return [str(value) for value in given] + [switch for switch, on in switches.items() if on]


def converted(architecture, folder):
    state = openai_unet.random_state(architecture)
    torch.save(state, folder / "ema.pt")
    assert main(["convert", str(folder / "ema.pt"), str(folder / "out"), *flags(architecture)]) == 0
    return state, folder / "out"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_converted_network_computes_what_the_original_does(name, tmp_path):
    architecture = ARCHITECTURES[name]
    state, folder = converted(architecture, tmp_path)
    network = UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True).eval()
    own = json.loads((folder / "diffpath.json").read_text()) if (folder / "diffpath.json").exists() else {}
    if heads := own.get("num_attention_heads"):
        from diffpath.models.networks import set_attention_heads

        set_attention_heads(network, heads)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, architecture.image_size, architecture.image_size, generator=generator)
    t = torch.tensor([0.25, 731.5])
    labels = torch.tensor([3, 7]) if architecture.num_classes else None
    with torch.inference_mode():
        expected = openai_unet.forward(state, x, t, architecture, labels)
        actual = network(x, t, class_labels=labels).sample
    assert expected.std() > 0.1 and actual.shape == (2, 6, *x.shape[2:])
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_the_full_width_celeba_structure_has_every_parameter_of_the_published_configuration():
    architecture = replace(CELEBA, num_channels=128)
    shapes = {name: value.shape for name, value in openai_unet.random_state(architecture).items()}
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        network = UNet2DModel(**architecture.unet_config())
        renamed = convert_state(state, architecture)
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in renamed.items()
    }
    # heads of one width, 64, so that diffusers alone reads the folder rightly but for the timesteps
    assert architecture.own_config() == {"timestep_scale": 0.25}
    assert replace(IMAGENET_64, num_channels=128).own_config() == {"timestep_scale": 0.25, "num_attention_heads": 4}
    assert LSUN.own_config() == GUIDED_64.own_config() == {}


@pytest.mark.parametrize("architecture, name", [(CELEBA, "cosine"), (LSUN, "linear")])
def test_the_schedule_is_that_of_the_paper(architecture, name, tmp_path):
    _, folder = converted(architecture, tmp_path)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    steps = architecture.diffusion_steps
    t = np.arange(steps + 1) / steps
    if name == "cosine":  # Nichol and Dhariwal, equation 17, with betas clipped at 0.999
        signal = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
    else:
        betas = np.linspace(0.0001 * 1000 / steps, 0.02 * 1000 / steps, steps)
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=2e-3, atol=1e-6)
    assert scheduler.config.num_train_timesteps == steps and scheduler.config.prediction_type == "epsilon"


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(num_res_blocks=2), "check image size"),
        (dict(channel_mult=(1, 2, 2)), "check image size"),
        (dict(learn_sigma=False), "learned sigma"),
        (dict(attention_resolutions=(16,)), "attention"),
        (dict(num_channels=64), "check channels"),
        (dict(num_classes=4), "label_emb.weight"),
        (dict(scale_shift_norm=False), "scale-shift"),
        (dict(num_heads=7), "--num-heads"),
    ],
)
def test_flags_that_do_not_fit_the_checkpoint_are_named(wrong, message, tmp_path, capsys):
    torch.save(openai_unet.random_state(CELEBA), tmp_path / "ema.pt")
    architecture = replace(CELEBA, **wrong)
    assert main(["convert", str(tmp_path / "ema.pt"), str(tmp_path / "out"), *flags(architecture)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Trap:
    def __reduce__(self):
        return open, ("sprung", "w")


@pytest.mark.parametrize("content", ["pickle", "text", "list", "missing"])
def test_anything_but_plain_tensors_is_refused_and_never_run(content, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ema.pt"
    if content == "pickle":
        torch.save({"time_embed.0.weight": Trap()}, path)
    elif content == "text":
        path.write_text("no checkpoint")
    elif content == "list":
        torch.save([torch.zeros(1)], path)
    assert main(["convert", str(path), "out", "--image-size", "32"]) == 1
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()
    if content == "pickle":  # the trap is one
        torch.load(path, weights_only=False)["time_embed.0.weight"].close()
        assert (tmp_path / "sprung").exists()


def test_a_folder_that_holds_a_model_is_not_overwritten(tmp_path, capsys):
    _, folder = converted(CELEBA, tmp_path)
    assert main(["convert", str(tmp_path / "ema.pt"), str(folder), *flags(CELEBA)]) == 1
    assert "already holds a model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(image_size=48), "channel-mult"),
        (dict(image_size=32, noise_schedule="sqrt"), "linear or cosine"),
        (dict(image_size=32, num_channels=100), "multiple of 32"),
        (dict(image_size=32, attention_resolutions=(10,)), "attention_resolutions"),
    ],
)
def test_an_impossible_architecture_is_refused(options, message):
    with pytest.raises(ModelError, match=message):
        Architecture(**options)


def test_commands_are_listed_and_an_unknown_one_is_refused(capsys):
    assert (main(["--help"]), main([])) == (0, 2)
    said = capsys.readouterr()
    assert all(name in said.out and name in said.err for name in COMMANDS)
    assert main(["transmogrify"]) == 2
    known = ", ".join(COMMANDS)
    assert f"no command 'transmogrify'; the commands are {known}" in capsys.readouterr().err


def test_a_command_that_is_called_wrongly_says_so_and_one_says_what_it_takes(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["convert", "ema.pt", "out"])
    assert caught.value.code == 2
    assert "--image-size" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["convert", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    for option in ("--image-size", "--channel-mult", "--learn-sigma", "side of the training images, in pixels"):
        assert option in said


@pytest.mark.parametrize("numbers", [["1,2,2"], ["1", "2", "2"], ["1,2", "2"]])
def test_several_numbers_are_given_with_commas_as_to_the_original_scripts_or_with_spaces(numbers, monkeypatch):
    converted = []
    monkeypatch.setattr("diffpath.models.convert.convert_checkpoint", lambda *given: converted.append(given))
    assert main(["convert", "ema.pt", "out", "--image-size", "32", "--channel-mult", *numbers]) == 0
    assert converted == [(Path("ema.pt"), Path("out"), Architecture(32, channel_mult=(1, 2, 2)))]


@pytest.mark.parametrize(
    "given, sentence",
    [
        (["--image-size", "48"], "there is no usual channel_mult for image_size 48; give --channel-mult, as in 1,2,2"),
        (["--image-size", "32", "--noise-schedule", "sqrt"], "noise_schedule must be linear or cosine, got 'sqrt'"),
    ],
)
def test_an_impossible_architecture_is_an_error_of_one_sentence_and_no_usage_error(given, sentence, capsys):
    assert main(["convert", "ema.pt", "out", *given]) == 1
    assert capsys.readouterr().err == f"diffpath convert: {sentence}\n"


@pytest.mark.parametrize("numbers", [["1,x"], ["two"]])
def test_numbers_that_are_none_are_a_usage_error(numbers, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["convert", "ema.pt", "out", "--image-size", "32", "--channel-mult", *numbers])
    assert caught.value.code == 2
    assert "--channel-mult" in capsys.readouterr().err


@pytest.mark.parametrize("program", [[sys.executable, "-m", "diffpath"], [Path(sys.executable).with_name("diffpath")]])
def test_the_console_command_and_the_module_are_the_same_and_quick(program):
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"diffpath {diffpath.__version__}\n"


def test_listing_models_brings_no_torch():
    code = "import sys; from diffpath.cli import COMMANDS, main; main(['models']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

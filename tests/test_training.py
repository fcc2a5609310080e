"""Training: crops, the linear baseline, steps, checkpoints, and what a run leaves behind."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import openai_unet
import pytest
import tiny_models as tiny
import torch
from conftest import ROOT
from PIL import Image

import diffpath
from diffpath.cli import main
from diffpath.models import NoisePredictor
from diffpath.models.convert import Architecture, convert_checkpoint
from diffpath.training import trainer as training
from diffpath.training.command import train
from diffpath.training.config import Config, Data, Folder, Training, read_config
from diffpath.training.crops import cut, load_crops
from diffpath.training.linear import LinearDenoiser
from diffpath.training.report import linear_baseline, loss_by_timestep, model_card, to_network_scale, write_grid

TINY = dict(
    block_out_channels=[8, 16],
    down_block_types=["DownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "UpBlock2D"],
    norm_num_groups=4,
    attention_head_dim=8,
)
SIDE = 16
METRICS = dict(
    steps=1,
    parameters=1,
    training_loss=1.0,
    timesteps=[0],
    held_out_loss=[0.5],
    linear_loss=None,
    cpu_seconds=1.0,
    seconds=1.0,
    device="cpu",
    dtype="float32",
    seed=0,
    command="c",
    revision="r",
)


@pytest.fixture(scope="module")
def pictures(photos, tmp_path_factory):
    """The photographs as files, some in a subfolder."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(root / ("more" if number % 2 else ".") / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks here are too small for two
    yield
    torch.set_num_threads(threads)


def configuration(pictures, output, crops=64, seed=3, network=TINY, **training):
    options = dict(steps=6, batch_size=8, warmup_steps=2, dtype="float32", samples=0, checkpoint_every=3)
    data = Data(
        (Folder(str(pictures), crops),), resolution=SIDE, held_out=0.2, held_out_crops=24, cache=str(output / "crops")
    )
    return Config(str(output), data, network, training=Training(**{**options, **training}), seed=seed)


def quiet(line):
    pass


def weights(output):
    from safetensors.torch import load_file

    return load_file(output / "model" / "unet" / "diffusion_pytorch_model.safetensors")


# Crops


def test_crops_of_one_picture_never_stand_on_both_sides_of_the_split(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for level in range(20):  # each picture has a colour of its own, and enough contrast to be kept
        picture = np.full((40, 60, 3), level * 12, np.uint8)
        picture[::2, :, 2] = 255
        Image.fromarray(picture).save(pictures / f"{level}.png")
    crops = load_crops(configuration(pictures, tmp_path, crops=200).data, seed=0, log=quiet)
    train, held_out = (set(np.unique(part[..., 0])) for part in (crops.train, crops.held_out))
    assert len(train) == 16 and len(held_out) == 4 and not train & held_out


@pytest.mark.parametrize("factor", [6, 12])  # read from the picture itself, and from a halving of it
def test_a_crop_is_the_mean_of_what_each_pixel_covers(factor):
    from skimage import data

    side = factor * SIDE
    photo = data.astronaut()[:side, 160 : 160 + side]
    (crop,) = cut(Image.fromarray(photo), 1, side, 1.0, SIDE, np.random.default_rng(0))
    means = photo.reshape(SIDE, factor, SIDE, factor, 3).mean(axis=(1, 3))
    assert np.abs(crop - means).max() <= 1.5  # grey levels, of rounding


def test_the_sides_of_crops_are_log_uniform_between_the_configured_scales():
    ramp = np.tile(np.linspace(0, 255, 512, dtype=np.uint8)[None, :, None], (512, 1, 3))
    crops = np.stack(cut(Image.fromarray(ramp), 400, 64, 0.5, SIDE, np.random.default_rng(0))).astype(float)
    span = crops[:, 0, -1, 0] - crops[:, 0, 0, 0]  # proportional to the side, less one output pixel
    sides = span / 255 * 512 * SIDE / (SIDE - 1)
    assert sides.min() > 60 and sides.max() < 265
    assert np.log2(np.median(sides)) == pytest.approx(np.log2(np.sqrt(64 * 256)), abs=0.15)


def test_transparent_pictures_lie_on_backgrounds_of_different_colours():
    picture = np.zeros((48, 48, 4), np.uint8)
    picture[12:36, 12:36] = (200, 30, 30, 255)
    crops = np.stack(cut(Image.fromarray(picture), 20, 48, 1.0, SIDE, np.random.default_rng(0)))
    assert len(np.unique(crops[:, 0, 0], axis=0)) > 15
    assert np.all(crops[:, 8, 8] == (200, 30, 30))


def test_crops_are_drawn_once_and_then_read(pictures, tmp_path):
    data, lines = configuration(pictures, tmp_path).data, []
    first = load_crops(data, 0, lines.append)
    again = load_crops(data, 0, lines.append)
    assert len(lines) == 1 and np.array_equal(first.train, again.train) and first.files == again.files
    other = load_crops(data, 1, lines.append)
    assert len(lines) == 2 and other.fingerprint != first.fingerprint


def test_a_damaged_picture_falls_out(pictures, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in pictures.rglob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:200])
    crops = load_crops(configuration(folder, tmp_path, crops=90).data, 0, quiet)
    assert 70 <= len(crops.train) <= 90 and crops.train.shape[1:] == (SIDE, SIDE, 3)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are Debian's")
def test_pictures_are_gathered_from_packages_without_maps_icons_and_smaller_sizes(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    game, wallpapers = "usr/share/games/supertuxkart/data", "usr/share/wallpapers/Kay/contents/images"
    build_package(
        tmp_path / "supertuxkart-data_1_all.deb",
        {f"{game}/textures/grass.png": noise, f"{game}/tracks/a/rock_normal.png": noise}
        | {f"{game}/textures/icon.png": noise.resize((16, 16)), f"{game}/gui/menu.png": noise},
    )
    build_package(
        tmp_path / "plasma-workspace-wallpapers_1_all.deb",
        {f"{wallpapers}/5120x2880.png": noise, f"{wallpapers}/1080x1920.png": noise.resize((64, 64))},
    )
    command = [sys.executable, ROOT / "training" / "gather_pictures.py", tmp_path / "out", "--packages", tmp_path]
    command += ["--only", "textures", "plasma-wallpapers"]
    subprocess.run(command, check=True, capture_output=True)
    rows = (tmp_path / "out" / "SOURCES.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [
        ["textures/textures/grass.png", "supertuxkart-data_1_all.deb"],
        ["plasma-wallpapers/Kay.png", "plasma-workspace-wallpapers_1_all.deb"],
    ]
    with Image.open(tmp_path / "out" / "plasma-wallpapers" / "Kay.png") as image:
        assert image.size == (128, 128)
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stdout.splitlines() == ["textures: already there", "plasma-wallpapers: already there"]


def build_package(path, images):
    root = path.with_suffix("")
    for name, image in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name)
    (root / "DEBIAN").mkdir()
    name = path.name.split("_")[0]
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: none <n@example.org>\nDescription: test\n"
    (root / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", str(root), str(path)], check=True, capture_output=True)


# The linear baseline


def gaussian_images(count, seed=0, dimensions=12):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(dimensions, dimensions)) / dimensions**0.5
    return rng.normal(size=(count, dimensions)) @ mixing.T + 0.3, mixing @ mixing.T


@pytest.mark.parametrize("alpha", [0.999, 0.7, 0.1])
def test_the_linear_denoiser_reaches_the_wiener_filters_error_on_gaussian_images(alpha):
    images, covariance = gaussian_images(200_000)
    variances = np.linalg.eigvalsh(covariance)
    theory = np.mean(alpha * variances / (alpha * variances + 1 - alpha))

    denoiser = LinearDenoiser(torch.from_numpy(images).view(-1, 3, 2, 2))
    fresh = torch.from_numpy(gaussian_images(100_000, seed=1)[0]).view(-1, 3, 2, 2)
    noise = torch.randn(fresh.shape, generator=torch.Generator().manual_seed(0), dtype=fresh.dtype)
    predicted = denoiser.predict_noise(alpha**0.5 * fresh + (1 - alpha) ** 0.5 * noise, alpha)
    assert (predicted - noise).square().mean().item() == pytest.approx(theory, rel=0.01)
    assert denoiser.expected_error(fresh, [alpha]).item() == pytest.approx(theory, rel=0.01)


def test_the_linear_denoiser_is_the_least_squares_regression_of_noise_on_noisy_images():
    images, _ = gaussian_images(100_000)
    noise = np.random.default_rng(2).normal(size=images.shape)
    noisy = 0.8 * images + 0.6 * noise
    design = np.column_stack([noisy, np.ones(len(noisy))])
    regression = design @ np.linalg.lstsq(design, noise, rcond=None)[0]
    denoiser = LinearDenoiser(torch.from_numpy(images))
    predicted = denoiser.predict_noise(torch.from_numpy(noisy), 0.64).numpy()
    assert np.abs(predicted - regression).mean() < 0.01 * np.abs(regression).mean() + 0.005


def test_the_expected_error_is_the_average_over_noise_on_other_images_too():
    denoiser = LinearDenoiser(torch.from_numpy(gaussian_images(5_000)[0]))
    others = torch.rand(4_000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(others.shape, generator=torch.Generator().manual_seed(1), dtype=others.dtype)
    error = denoiser.predict_noise(0.5**0.5 * (others + noise), 0.5) - noise
    assert denoiser.expected_error(others, [0.5]).item() == pytest.approx(error.square().mean().item(), rel=0.02)


def test_a_gaussian_denoiser_in_the_place_of_the_network_measures_as_the_closed_form_says(pictures, tmp_path):
    crops = load_crops(configuration(pictures, tmp_path, crops=1500).data, 0, quiet)
    alphas = torch.tensor([0.9, 0.5, 0.1])
    denoiser = LinearDenoiser(to_network_scale(crops.train))
    predictor = NoisePredictor(lambda x, t: denoiser.predict_noise(x, float(alphas[t[0]])), alphas, resolution=SIDE)
    measured = loss_by_timestep(predictor, to_network_scale(crops.held_out), [0, 1, 2])
    assert measured == pytest.approx(linear_baseline(crops, alphas), rel=0.05)


# Steps


def test_the_average_of_the_weights_follows_its_formula(pictures, tmp_path):
    config = configuration(pictures, tmp_path, ema=0.6)
    trainer = training.Trainer(config, load_crops(config.data, 0, quiet), "cpu")
    name = "conv_in.weight"
    expected = trainer.network.state_dict()[name].clone()
    for step in range(8):
        trainer.train_step()
        decay = min(0.6, (1 + step) / (10 + step)) if step else 0.0  # EMAModel's: the first update is a copy
        expected = decay * expected + (1 - decay) * trainer.network.state_dict()[name]
    assert torch.allclose(trainer.average.state_dict()[name], expected, atol=1e-6)
    assert not torch.allclose(trainer.network.state_dict()[name], expected, atol=1e-4)


def test_every_crop_is_seen_once_an_epoch_in_an_order_that_changes():
    steps = [training.crop_indices(step, 6, 15, seed=0) for step in range(5)]  # two epochs of 15
    first, second = np.concatenate(steps)[:15], np.concatenate(steps)[15:]
    assert sorted(first) == sorted(second) == list(range(15))
    assert not np.array_equal(first, second)


def test_the_learning_rate_warms_up_stays_and_cools_down():
    options = Training(steps=100, warmup_steps=10, cooldown_steps=20)
    factors = [training.learning_rate_factor(step, options) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert set(factors[10:79]) == {1.0}
    assert np.all(np.diff(factors[80:]) < 0) and 0 < factors[-1] < 0.05


def test_a_run_learns_to_denoise_its_crops(pictures, tmp_path):
    config = configuration(pictures, tmp_path, crops=8, steps=100, learning_rate=5e-3, ema=0.9, flip=False)
    crops = load_crops(config.data, config.seed, quiet)
    trainer = training.Trainer(config, crops, "cpu")
    images, timesteps = to_network_scale(crops.train), [200, 500, 800]
    before = np.array(loss_by_timestep(trainer.predictor, images, timesteps))
    for _ in range(config.training.steps):
        trainer.train_step()
    assert np.mean(trainer.losses[-30:]) < 0.3 * np.mean(trainer.losses[:5])
    assert np.all(np.array(loss_by_timestep(trainer.predictor, images, timesteps)) < 0.3 * before)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_network_has_no_loss_whatever_it_predicts(pictures, tmp_path, kind):
    config = dataclasses.replace(configuration(pictures, tmp_path), schedule={"prediction_type": kind})
    trainer = training.Trainer(config, load_crops(config.data, 0, quiet), "cpu")
    images, noise, timesteps = trainer._batch()
    alphas = trainer.predictor.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * images + (1 - alphas).sqrt() * noise
    predictor = trainer.predictor
    predictor.network = lambda x, t: trainer._target(images, noise, timesteps)
    assert torch.allclose(predictor.predict_noise(noisy, timesteps), noise, atol=2e-3)


def test_bfloat16_follows_float32_closely(pictures, tmp_path):
    losses = []
    for dtype in ("float32", "bfloat16"):
        config = configuration(pictures, tmp_path, dtype=dtype)
        trainer = training.Trainer(config, load_crops(config.data, 0, quiet), "cpu")
        losses.append([trainer.train_step() for _ in range(4)])
        assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


# Checkpoints


def test_a_resumed_run_ends_with_the_same_weights_as_an_uninterrupted_one(pictures, tmp_path):
    network = {**TINY, "dropout": 0.1}
    whole = configuration(pictures, tmp_path / "whole", network=network, cooldown_steps=2, steps=8)
    train(whole, "cpu", log=quiet)

    parts = configuration(pictures, tmp_path / "parts", network=network, cooldown_steps=2, steps=8)
    first = training.Trainer(parts, load_crops(parts.data, parts.seed, quiet), "cpu")
    for _ in range(5):
        first.train_step()
    first.save_checkpoint()
    torch.manual_seed(99)  # another process would have another state
    lines = []
    train(parts, "cpu", log=lines.append)
    assert "goes on after step 5" in lines

    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    states = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts")]
    assert states[0]["losses"] == states[1]["losses"]
    for name, value in states[0]["optimizer"]["state"][0].items():
        assert torch.equal(value, states[1]["optimizer"]["state"][0][name])


def test_a_run_that_gets_more_steps_goes_on_at_the_learning_rate_of_the_longer_one(pictures, tmp_path):
    short = configuration(pictures, tmp_path, steps=4, cooldown_steps=2, warmup_steps=1)
    long = dataclasses.replace(short, training=dataclasses.replace(short.training, steps=20))
    first = training.Trainer(short, load_crops(short.data, short.seed, quiet), "cpu")
    for _ in range(4):
        first.train_step()
    assert first.optimizer.param_groups[0]["lr"] == 0
    first.save_checkpoint()
    second = training.Trainer(long, load_crops(long.data, long.seed, quiet), "cpu")
    second.load_checkpoint()
    assert second.optimizer.param_groups[0]["lr"] == long.training.learning_rate
    before = second.network.conv_in.weight.detach().clone()
    second.train_step()
    assert not torch.equal(second.network.conv_in.weight, before)


def test_a_checkpoint_of_version_0_1_0_goes_on(pictures, tmp_path):
    config = configuration(pictures, tmp_path, steps=8)
    crops = load_crops(config.data, config.seed, quiet)
    first, second = training.Trainer(config, crops, "cpu"), training.Trainer(config, crops, "cpu")
    for _ in range(4):
        first.train_step()
    first.save_checkpoint()
    path = training.checkpoint_path(config)
    state = torch.load(path, weights_only=True)
    assert set(state) == {
        "config",
        "network",
        "average",
        "optimizer",
        "step",
        "losses",
        "cpu_seconds",
        "seconds",
        "crops",
    }
    assert state["average"].keys() == state["network"].keys()
    for group in state["optimizer"]["param_groups"]:  # as that version left them: the rate of the step that was done
        del group["initial_lr"]
        group["lr"] = 0.0
    torch.save(state, path)
    second.load_checkpoint()
    assert [first.train_step() for _ in range(4)] == [second.train_step() for _ in range(4)]
    for kept, value in zip(second.average.parameters(), first.average.parameters()):
        assert torch.equal(kept, value)


def test_processor_time_ends_a_run_and_more_of_it_continues(pictures, tmp_path):
    config = configuration(pictures, tmp_path, steps=10_000, cpu_minutes=0.005)
    metrics = train(config, "cpu", log=quiet)
    assert 0 < metrics["steps"] < 10_000 and metrics["cpu_seconds"] >= 0.3
    assert train(config, "cpu", log=quiet)["steps"] == metrics["steps"]
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, cpu_minutes=0.01))
    assert train(longer, "cpu", log=quiet)["steps"] > metrics["steps"]


def test_an_interruption_ends_with_a_checkpoint_of_the_step_that_it_falls_in(pictures, tmp_path, monkeypatch):
    step = training.Trainer.train_step

    def interrupted_step(trainer):
        if trainer.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(trainer)

    monkeypatch.setattr(training.Trainer, "train_step", interrupted_step)
    before = signal.getsignal(signal.SIGTERM)
    metrics = train(configuration(pictures, tmp_path, steps=100, checkpoint_every=100), "cpu", log=quiet)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == metrics["steps"] == len(state["losses"]) == 3
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_checkpoint_of_another_configuration_is_refused_and_can_be_overwritten(pictures, tmp_path):
    train(configuration(pictures, tmp_path, steps=2), "cpu", log=quiet)
    other = configuration(pictures, tmp_path, steps=2, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"was made with another training.learning_rate"):
        train(other, "cpu", log=quiet)
    with pytest.raises(ValueError, match="another data"):
        train(configuration(pictures, tmp_path, steps=2, crops=32), "cpu", log=quiet)
    assert train(other, "cpu", restart=True, log=quiet)["steps"] == 2
    (tmp_path / "checkpoint.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"can't be read .* --restart"):
        train(other, "cpu", log=quiet)


# What a run leaves behind


def test_the_command_writes_a_model_that_the_method_reads(pictures, photos, tmp_path, capsys):
    from diffusers import DDPMPipeline

    folders = [{"path": str(pictures), "crops": 48, "source": "scikit-image's photographs", "licence": "CC0"}]
    table = {
        "output": "run",
        "seed": 5,
        "data": {"resolution": SIDE, "held_out": 0.2, "held_out_crops": 16, "folders": folders},
        "network": TINY,
        "training": {"steps": 3, "batch_size": 4, "samples": 5},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(table))
    assert main(["train", str(tmp_path / "tiny.json"), "--device", "cpu"]) == 0
    assert "step 3/3  loss" in capsys.readouterr().out

    folder = tmp_path / "run" / "model"
    result = diffpath.DiffPathV2(str(folder), device="cpu", num_timesteps=3).score_images(photos[:2])
    assert result.heatmaps.shape == (2, SIDE, SIDE) and np.isfinite(result.descriptor).all()
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(value, state["average"][name]) for name, value in pipeline.unet.state_dict().items())

    card = (folder / "README.md").read_text()
    for part in ("scikit-image's photographs", "CC0", "python -m diffpath train tiny.json", "seed 5", "git revision"):
        assert part in card
    assert str(tmp_path) not in card
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 3 and len(metrics["held_out_loss"]) == len(metrics["linear_loss"]) == 11
    for name in ("loss.png", "samples.png"):
        with Image.open(folder / name) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_training_starts_from_the_bundled_weights(pictures, tmp_path):
    config = configuration(pictures, tmp_path, network={}, start_from="bundled")
    crops = load_crops(config.data, 0, quiet)
    with pytest.raises(ValueError, match=r"data.resolution 16, got 3 channels of 32 pixels"):
        training.Trainer(config, crops, "cpu")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resolution=32))
    trainer = training.Trainer(config, crops, "cpu")
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([100, 500])
    expected = diffpath.load_model("bundled", "cpu", "float32").predict_noise(x, t)
    assert torch.allclose(trainer.predictor.predict_noise(x, t), expected, atol=1e-4)


@pytest.mark.parametrize(
    "kind, is_trained", [({"time_embedding_type": "fourier"}, False),
                         ({"time_embedding_type": "learned", "num_train_timesteps": 1000}, True)],
)  # fmt: skip
def test_of_the_time_embedding_only_what_diffusers_trains_is_trained(pictures, tmp_path, kind, is_trained):
    config = configuration(pictures, tmp_path / "first", network={**TINY, **kind}, steps=2)
    train(config, "cpu", log=quiet)
    start = configuration(pictures, tmp_path, network={}, start_from=str(tmp_path / "first" / "model"))
    crops = load_crops(config.data, config.seed, quiet)
    for trainer in (training.Trainer(config, crops, "cpu"), training.Trainer(start, crops, "cpu")):
        before = trainer.network.time_proj.weight.detach().clone()
        trainer.train_step()
        assert torch.equal(trainer.network.time_proj.weight, before) != is_trained
        frozen = [name for name, parameter in trainer.network.named_parameters() if not parameter.requires_grad]
        assert frozen == ([] if is_trained else ["time_proj.weight"])


@pytest.fixture
def converted(tmp_path):
    """A converted model that has all that diffusers' configurations cannot say, and learned variances."""
    architecture = Architecture(32, num_channels=32, channel_mult=(1, 1, 2), learn_sigma=True, diffusion_steps=4000)
    torch.save(openai_unet.random_state(architecture), tmp_path / "ema.pt")
    convert_checkpoint(tmp_path / "ema.pt", tmp_path / "converted", architecture)
    own = json.loads((tmp_path / "converted" / "diffpath.json").read_text())
    assert own == {"timestep_scale": 0.25, "num_attention_heads": 4}
    return tmp_path / "converted"


def test_a_training_from_a_converted_model_keeps_what_it_is(converted, pictures, tmp_path):
    config = configuration(
        pictures, tmp_path, network={}, start_from=str(converted), flip=False, crops=8, steps=2, learning_rate=1e-5
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, resolution=32))
    trainer = training.Trainer(config, load_crops(config.data, 0, quiet), "cpu")
    before = diffpath.load_model(str(converted), "cpu", "float32")
    images, noise, timesteps = trainer._batch()
    noisy = before.add_noise(images, noise, timesteps)
    expected = before.predict_noise(noisy, timesteps)  # its timesteps rescaled, its heads, without variances
    torch.testing.assert_close(trainer.predictor.predict_noise(noisy, timesteps), expected, rtol=1e-4, atol=1e-4)
    assert trainer.train_step() == pytest.approx((expected - noise).square().mean().item(), rel=1e-4)

    train(config, "cpu", log=quiet)
    saved = tmp_path / "model"
    assert json.loads((saved / "diffpath.json").read_text()) == json.loads((converted / "diffpath.json").read_text())
    after = diffpath.load_model(str(saved), "cpu", "float32")
    assert torch.equal(after.schedule.conditioning, before.schedule.conditioning)
    moved = (after.predict_noise(noisy, timesteps) - expected).abs().mean() / expected.abs().mean()
    assert 0 < moved < 0.1  # two small steps away, and no other kind of model


def test_a_training_starts_from_no_score_based_model(pictures, tmp_path):
    scheduler = dict(_class_name="ScoreSdeVeScheduler", num_train_timesteps=1000, sigma_min=0.01, sigma_max=50.0)
    folder = tiny.write(tmp_path / "score", tiny.score_unet(), scheduler)
    config = configuration(pictures, tmp_path, network={}, start_from=str(folder))
    with pytest.raises(ValueError, match="another kind of model; start from another"):
        training.build_network(config)


def test_a_card_names_no_folder_of_the_machine(pictures, tmp_path):
    config = configuration(pictures, tmp_path, network={}, start_from=str(tmp_path / "earlier"))
    crops = load_crops(config.data, 0, quiet)
    card = model_card(config, crops, METRICS)
    assert "from the weights of earlier" in card and str(tmp_path) not in card and str(pictures.parent) not in card


def test_a_grid_shows_every_image(tmp_path):
    images = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (10, 60, 110, 160, 210)])
    write_grid(images, tmp_path / "grid.png", gap=1, zoom=3)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (3 * 16, 3 * 11)
        assert set(np.unique(np.asarray(image))) == {10, 60, 110, 160, 210, 255}


def test_the_card_says_where_no_baseline_could_be_computed(pictures, tmp_path):
    config = configuration(pictures, tmp_path)
    crops = load_crops(config.data, 0, quiet)
    wide = dataclasses.replace(crops, train=np.zeros((2, 64, 64, 3), np.uint8))
    assert linear_baseline(wide, [0.5]) is None
    assert "| 0 | 0.5000 | – |" in model_card(config, crops, METRICS)


# The configuration


TOML = """
output = "out"
[data]
[[data.folders]]
path = "pictures"
crops = 10
{data}
[training]
{training}
{more}
"""


def toml(tmp_path, data="", training="", more=""):
    path = tmp_path / "c.toml"
    path.write_text(TOML.format(data=data, training=training, more=more))
    return path


def test_a_file_gives_a_configuration_with_folders_relative_to_it(tmp_path):
    config = read_config(toml(tmp_path, data="smallest = 48", training="learning_rate = 1\nbetas = [0.8, 0.9]"))
    assert config.data.folders == (Folder(str(tmp_path / "pictures"), 10, smallest=48),)
    assert config.output == str(tmp_path / "out") and config.data.cache == str(tmp_path / "out" / "crops")
    assert config.training == Training(learning_rate=1.0, betas=(0.8, 0.9))


@pytest.mark.parametrize(
    "given, sentence",
    [
        (dict(training="step = 3"), "unknown key 'training.step'; the keys are training.steps, training.batch_size"),
        (dict(training="steps = 0"), "training.steps must be at least 1, got 0"),
        (dict(training="steps = 2.5"), "training.steps must be a whole number, got 2.5"),
        (dict(training="compile = 1"), "training.compile must be true or false, got 1"),
        (dict(training="learning_rate = -1.0"), "training.learning_rate must be positive, got -1.0"),
        (dict(training="ema = 1.0"), r"training.ema must be in \[0, 1\), got 1.0"),
        (dict(training="betas = [0.9]"), r"training.betas must be two numbers in \[0, 1\), got \[0.9\]"),
        (dict(training="dtype = 'float16'"), "training.dtype must be one of auto, float32, bfloat16, got 'float16'"),
        (dict(data="largest = 1.5"), r"data.folders.largest must be in \(0, 1\], .* got 1.5"),
        (dict(data="scale = 2"), "unknown key 'data.folders.scale'"),
        (dict(more="[network]\nin_channels = 1"), "network.in_channels can't be set: images are RGB"),
        (
            dict(training="start_from = 'bundled'", more="[network]\ndropout = 0.1"),
            "read from the model in training.st",
        ),
        (dict(more="[network"), "c.toml is not valid TOML"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(tmp_path, given, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read_config(toml(tmp_path, **given))
    assert "\n" not in str(caught.value)


def test_a_configuration_without_pictures_is_refused(tmp_path, capsys):
    (tmp_path / "c.json").write_text('{"output": "out"}')
    with pytest.raises(ValueError, match=r"c.json has no \[\[data.folders\]\]"):
        read_config(tmp_path / "c.json")
    (tmp_path / "c.json").write_text('{"output": "out", "data": {"folders": [{"path": "pictures"}]}}')
    with pytest.raises(ValueError, match=r"the configuration lacks data.folders.crops"):
        read_config(tmp_path / "c.json")
    with pytest.raises(ValueError, match="can't be read"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ValueError, match=r"must be a .toml or .json file, got .*c.yaml"):
        read_config(tmp_path / "c.yaml")
    assert main(["train", str(toml(tmp_path))]) == 1
    assert "pictures is not a folder; correct it or gather the pictures first" in capsys.readouterr().err
    (tmp_path / "pictures").mkdir()
    assert main(["train", str(toml(tmp_path))]) == 1
    assert "holds 0 images; at least 2 files are needed" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Initializing zero-element:UserWarning")  # torch's, of what is refused then
@pytest.mark.parametrize(
    "network, sentence",
    [
        ({**TINY, "down_block_types": ["DownBlock2D"]}, "is not what diffusers accepts"),
        ({**TINY, "width": 3}, "is not what diffusers accepts: TypeError, .*'width'"),
        ({**TINY, "attention_head_dim": 32}, "is not what diffusers accepts"),
        (dict(block_out_channels=[8] * 6, down_block_types=["DownBlock2D"] * 6, up_block_types=["UpBlock2D"] * 6),
         "data.resolution must be a multiple of 32 for this network, got 16"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_built_is_one_sentence(pictures, tmp_path, network, sentence):
    config = configuration(pictures, tmp_path, network=network)
    with pytest.raises(ValueError, match=sentence):
        training.build_network(config)

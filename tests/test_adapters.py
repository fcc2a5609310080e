"""Every kind of diffusion model against theory, diffusers' own schedulers and its own modules."""

import copy
import json

import diffusers
import numpy as np
import pytest
import reference
import store_bundled
import tiny_models as tiny
import torch

from diffpath import DiffPathV2, load_model
from diffpath.method.features import six_features
from diffpath.method.trajectory import compute_trajectory
from diffpath.models import NoisePredictor, PixelSpace
from diffpath.models.schedule import read_schedule

BETAS = (np.linspace(0.01, 0.14, 1000) ** 2).tolist()
VARIANCE_PRESERVING = {
    "linear": dict(beta_schedule="linear"),
    "scaled linear": dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": dict(beta_schedule="squaredcos_cap_v2"),
    "trained betas": dict(trained_betas=BETAS),
}
EXPLODING = diffusers.ScoreSdeVeScheduler(num_train_timesteps=1000, sigma_min=0.01, sigma_max=50)
EDM_SOLVER = diffusers.EDMDPMSolverMultistepScheduler()
EDM = {kind: diffusers.EDMEulerScheduler(prediction_type=kind) for kind in ("epsilon", "v_prediction")}
FAMILIES = {
    **{
        f"{name}, {kind}": diffusers.DDPMScheduler(prediction_type=kind, **options)
        for name, options in VARIANCE_PRESERVING.items()
        for kind in ("epsilon", "sample", "v_prediction")
    },
    "variance exploding": EXPLODING,
    **{f"EDM, {kind}": scheduler for kind, scheduler in EDM.items()},
}


def noised(scheduler, clean, noise, timesteps):
    """x_t by the scheduler itself; EDM's counts noise levels downwards and names them by ln(σ)/4."""
    if isinstance(scheduler, diffusers.EDMEulerScheduler):
        return scheduler.add_noise(clean, noise, scheduler.timesteps.flip(0)[timesteps])
    return scheduler.add_noise(clean, noise, timesteps)


def levels(scheduler, timesteps):
    """(a, σ) of some timesteps, from the scheduler's own tables, as ``(N, 1, 1, 1)``."""
    if hasattr(scheduler, "alphas_cumprod"):
        alphas = scheduler.alphas_cumprod[timesteps].double()
        signal, sigma = alphas.sqrt(), (1 - alphas).sqrt()
    else:
        exploding = isinstance(scheduler, diffusers.ScoreSdeVeScheduler)
        ascending = scheduler.discrete_sigmas if exploding else scheduler.sigmas[:-1].flip(0)
        sigma = ascending[timesteps].double()
        signal = torch.ones_like(sigma)
    return signal.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


def output_that_means(scheduler, x, predicted_noise, signal, sigma):
    """What a network must say for a prediction ε̂, by each paper's definition of its output."""
    kind = scheduler.config.get("prediction_type")
    predicted_clean = (x - sigma * predicted_noise) / signal
    if isinstance(scheduler, diffusers.ScoreSdeVeScheduler):
        return -predicted_noise / sigma
    if isinstance(scheduler, diffusers.EDMEulerScheduler):
        data = scheduler.config.sigma_data
        c_skip = data**2 / (sigma**2 + data**2)
        c_out = sigma * data / (sigma**2 + data**2).sqrt() * (1 if kind == "epsilon" else -1)
        return (predicted_clean - c_skip * x) / c_out
    if kind == "sample":
        return predicted_clean
    return signal * predicted_noise - sigma * predicted_clean if kind == "v_prediction" else predicted_noise


def predictor_that_predicts(scheduler, predict, **options):
    """A model of a scheduler whose network says ε̂ = predict(x_t, a, σ) in its own terms."""
    schedule = read_schedule(dict(scheduler.config, _class_name=type(scheduler).__name__), "tiny")
    return NoisePredictor(network_that_predicts(scheduler, schedule.conditioning, predict), schedule, **options)


def network_that_predicts(scheduler, told, predict):
    """A network that is told one of ``told`` per timestep and says ε̂ = predict(x_t, a, σ) in its own terms."""

    def network(inputs, conditioning):
        rows = (told[None].double() - conditioning[:, None].double()).abs().argmin(1)
        signal, sigma = levels(scheduler, rows)
        x = inputs.double()
        if isinstance(scheduler, diffusers.EDMEulerScheduler):  # c_in undone
            x = x * (sigma**2 + scheduler.config.sigma_data**2).sqrt()
        return output_that_means(scheduler, x, predict(x, signal, sigma), signal, sigma).float()

    return network


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1
    return clean, torch.randn(2, 3, 8, 8, generator=generator)


TIMESTEPS = torch.tensor([10, 200, 400, 600, 800, 990])


@pytest.mark.parametrize("name", FAMILIES)
def test_noising_agrees_with_the_schedulers_own(name, samples):
    scheduler = FAMILIES[name]
    predictor = predictor_that_predicts(scheduler, lambda x, *_: x)
    clean, noise = samples[0].repeat(2, 1, 1, 1), samples[1].repeat(3, 1, 1, 1)
    actual = predictor.add_noise(clean, noise, TIMESTEPS)
    torch.testing.assert_close(actual, noised(scheduler, clean, noise, TIMESTEPS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheduler", [EDM_SOLVER, EDM["epsilon"]])
def test_noise_levels_of_edm_rise_as_karras_et_al_have_them(scheduler):
    schedule = read_schedule({**scheduler.config, "_class_name": type(scheduler).__name__}, "tiny")
    ramp = np.linspace(0, 1, len(schedule))
    expected = (0.002 ** (1 / 7) + ramp * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7  # equation 5
    np.testing.assert_allclose(schedule.sigma, expected, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_a_network_that_says_the_schedulers_velocity_knows_the_noise(name, samples):
    scheduler = FAMILIES[f"{name}, v_prediction"]
    clean, noise = samples[0].repeat(2, 1, 1, 1), samples[1].repeat(3, 1, 1, 1)
    velocity = scheduler.get_velocity(clean, noise, TIMESTEPS)
    schedule = read_schedule(dict(scheduler.config, _class_name="DDPMScheduler"), "tiny")
    predicted = NoisePredictor(lambda *_: velocity, schedule).predict(clean, noise, TIMESTEPS)
    torch.testing.assert_close(predicted.noise, noise, rtol=1e-4, atol=1e-4)
    few = TIMESTEPS < 900  # at the end of the schedule hardly any image is left to divide by
    torch.testing.assert_close(predicted.clean[few], clean[few], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_that_knows_the_noise_has_zero_features_and_the_image_as_reconstruction(name, samples):
    images, noise = samples
    scheduler = FAMILIES[name]
    space = PixelSpace(low=0.0 if scheduler is EXPLODING else -1.0)
    truth = noise[None, :, None].expand(3, 2, 6, -1, -1, -1).flatten(0, 2).double()
    predictor = predictor_that_predicts(scheduler, lambda *_: truth, space=space)
    timesteps = torch.tensor([10, 100, 200, 400, 600, 800])
    path = compute_trajectory(predictor, images, timesteps, noise, None)
    features = six_features(path.score_error, timesteps / 1000)
    assert features[:, :3].abs().max() < 2e-4
    assert features.abs().max() < 1e-2  # rates are errors of rounding over a tenth of the schedule
    expected = images[:, None, None].expand_as(path.reconstruction)
    visible = levels(scheduler, timesteps)[1].flatten() < 20  # beyond, float32 loses the image in the noise
    torch.testing.assert_close(path.reconstruction[:, :, visible], expected[:, :, visible], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_that_predicts_a_fraction_of_its_input_has_the_features_of_theory(name, samples):
    images, noise = samples
    fraction = 0.3
    predictor = predictor_that_predicts(FAMILIES[name], lambda x, *_: fraction * x)
    timesteps = torch.tensor([10, 100, 200, 400, 600])
    path = compute_trajectory(predictor, images, timesteps, noise, 7)
    actual = six_features(path.score_error, timesteps / 1000).numpy()
    signal, sigma = (value.view(1, -1, 1, 1, 1).numpy() for value in levels(FAMILIES[name], timesteps))
    for image, features in zip(images.double().numpy(), actual):
        noisy = signal * image + sigma * noise[:, None].double().numpy()
        error = fraction * noisy - noise[:, None].double().numpy()
        expected = np.array(reference.six_numbers(error, timesteps.numpy() / 1000, error_power="signed"))
        size = np.sqrt(np.abs(expected[[1, 1, 1, 4, 4, 4]])) ** [1, 2, 3, 1, 2, 3]
        np.testing.assert_array_less(np.abs(features - expected), 1e-4 * size)


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_parametrisations_of_one_function_agree(name, samples):
    images, noise = samples
    timesteps = torch.tensor([10, 100, 200, 400, 600])
    paths = [
        compute_trajectory(
            predictor_that_predicts(FAMILIES[f"{name}, {kind}"], lambda x, *_: torch.tanh(x) * 0.8),
            images,
            timesteps,
            noise,
            64,
        )
        for kind in ("epsilon", "sample", "v_prediction")
    ]
    for path in paths[1:]:
        torch.testing.assert_close(path.score_error, paths[0].score_error, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(path.reconstruction, paths[0].reconstruction, rtol=1e-4, atol=1e-4)


DDIM = dict(num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def write_pixel(folder):
    module = tiny.unet()
    tiny.write(folder, module, diffusers.DDIMScheduler())
    return dict(call=module, scheduler=diffusers.DDIMScheduler())


def write_learned_variance(folder):
    module = tiny.unet(out_channels=6)
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    tiny.write(folder, module, scheduler)
    return dict(call=module, scheduler=scheduler)


def write_grey(folder):
    module = tiny.unet(in_channels=1, out_channels=1)
    tiny.write(folder, module, diffusers.DDPMScheduler(prediction_type="v_prediction"))
    return dict(call=module, scheduler=diffusers.DDPMScheduler(prediction_type="v_prediction"))


def write_exploding(folder):
    module = tiny.score_unet()
    scheduler = diffusers.ScoreSdeVeScheduler(num_train_timesteps=1000, sigma_max=50)
    tiny.write(folder, module, scheduler)
    return dict(call=module, scheduler=scheduler)


def write_edm(folder):
    module = tiny.unet()
    tiny.write(folder, module, diffusers.EDMEulerScheduler())
    return dict(call=module, scheduler=diffusers.EDMEulerScheduler())


def write_class_conditional(folder):
    module = tiny.unet(num_class_embeds=4)
    tiny.write(folder, module, diffusers.DDPMScheduler())
    tiny.edit_json(folder / "diffpath.json", class_label=3)
    return dict(
        call=lambda x, t: module(x, t, class_labels=torch.full((len(x),), 3)), scheduler=diffusers.DDPMScheduler()
    )


def write_dit(folder):
    module, vae = tiny.dit(), tiny.autoencoder()
    tiny.write(folder, module, diffusers.DDIMScheduler(**DDIM), part="transformer", space=("vae", vae))
    null = 5  # the row after the five classes

    def call(x, t):
        return module(x, timestep=t, class_labels=torch.full((len(x),), null))

    return dict(call=call, scheduler=diffusers.DDIMScheduler(**DDIM), vae=vae)


def write_latent(folder):
    module, vae = tiny.unet(in_channels=4, out_channels=4, sample_size=8), tiny.quantised_autoencoder()
    tiny.write(folder, module, diffusers.DDIMScheduler(**DDIM), space=("vqvae", vae))
    return dict(call=module, scheduler=diffusers.DDIMScheduler(**DDIM), vae=vae)


def write_stable_diffusion(folder):
    pytest.importorskip("transformers")
    module, vae = tiny.text_unet(), tiny.autoencoder()
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=True, prediction_type="v_prediction", **DDIM)
    tiny.write(folder, module, scheduler, space=("vae", vae))
    encoder = tiny.write_text_encoder(folder)
    empty = torch.tensor([[2, 3, 3, 3, 3, 3, 3]])  # begin, end, and the end again as padding
    with torch.no_grad():
        text = encoder(empty)[0]
    return dict(
        call=lambda x, t: module(x, t, encoder_hidden_states=text.expand(len(x), -1, -1)),
        scheduler=diffusers.DDIMScheduler(prediction_type="v_prediction", **DDIM),
        vae=vae,
    )


ADAPTERS = {
    "pixel": write_pixel,
    "learned variance": write_learned_variance,
    "grey": write_grey,
    "variance exploding": write_exploding,
    "EDM": write_edm,
    "class-conditional": write_class_conditional,
    "DiT": write_dit,
    "unconditional latent": write_latent,
    "Stable Diffusion": write_stable_diffusion,
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_tiny_model_of_every_kind_predicts_what_diffusers_own_parts_do(kind, tmp_path):
    parts = ADAPTERS[kind](tmp_path)
    scheduler, vae = parts["scheduler"], parts.get("vae")
    model = load_model(str(tmp_path), "cpu", "float32")
    assert model.resolution == tiny.SIDE

    generator = torch.Generator().manual_seed(0)
    channels = 1 if kind == "grey" else 3
    images = torch.rand(2, channels, tiny.SIDE, tiny.SIDE, generator=generator) * 2 - 1
    timesteps = torch.tensor([300, 700])
    clean = model.encode(images)
    with torch.no_grad():
        expected_clean = images
        if isinstance(scheduler, diffusers.ScoreSdeVeScheduler):
            expected_clean = images / 2 + 0.5  # Song et al. keep images in [0, 1]
        elif kind == "unconditional latent":
            expected_clean = vae.encode(images).latents * vae.config.scaling_factor
        elif vae is not None:
            expected_clean = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
        torch.testing.assert_close(clean, expected_clean, rtol=1e-5, atol=1e-5)

        noise = torch.randn(clean.shape, generator=generator)
        x = noised(scheduler, clean, noise, timesteps)
        signal, sigma = (level.float() for level in levels(scheduler, timesteps))
        if kind == "variance exploding":
            predicted = -sigma * parts["call"](x, sigma.flatten()).sample
        elif kind == "EDM":
            output = parts["call"](scheduler.precondition_inputs(x, sigma), 0.25 * sigma.log().flatten()).sample
            predicted = (x - scheduler.precondition_outputs(x, output, sigma)) / sigma
        else:
            output = parts["call"](x, timesteps).sample[:, : clean.shape[1]]
            velocity = scheduler.config.prediction_type == "v_prediction"
            predicted = signal * output + sigma * x if velocity else output
        reconstruction = (x - sigma * predicted) / signal
        if kind == "variance exploding":
            reconstruction = reconstruction * 2 - 1
        elif vae is not None:
            reconstruction = vae.decode(reconstruction / vae.config.scaling_factor).sample
    actual = model.predict(clean, noise, timesteps)
    torch.testing.assert_close(actual.noise, predicted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.decode(actual.clean), reconstruction.clamp(-1, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_kind_has_no_error_where_its_network_knows_the_noise(kind, tmp_path):
    scheduler = ADAPTERS[kind](tmp_path)["scheduler"]
    model = load_model(str(tmp_path), "cpu", "float32")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, model.image_channels, tiny.SIDE, tiny.SIDE, generator=generator) * 2 - 1
    latents = model.encode(images)
    noise = torch.randn(1, *latents.shape[1:], generator=generator)
    timesteps = torch.tensor([50, 300, 600])
    truth = noise[None].expand(2, 3, *noise.shape[1:]).flatten(0, 1).double()
    perfect = copy.copy(model)
    perfect.network = network_that_predicts(scheduler, model.schedule.conditioning, lambda *_: truth)
    path = compute_trajectory(perfect, images, timesteps, noise, None)
    assert path.score_error.abs().max() < 2e-4
    expected = model.decode(latents)  # pixels come back as they were, latents as their autoencoder has them
    if kind not in ("DiT", "unconditional latent", "Stable Diffusion"):
        torch.testing.assert_close(expected, images)
    for step in range(3):
        torch.testing.assert_close(path.reconstruction[:, 0, step], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_tiny_model_of_every_kind_scores_photos(kind, preset, tmp_path, photos):
    ADAPTERS[kind](tmp_path)
    method = DiffPathV2(str(tmp_path), preset=preset, dtype="float32", num_timesteps=3, num_noise_draws=2)
    result = method.score_images(photos[:3])
    assert result.features.shape == (3, 6) and result.heatmaps.shape == (3, tiny.SIDE, tiny.SIDE)
    assert np.isfinite(result.descriptor).all() and result.features.std(axis=0).min() > 0
    larger = DiffPathV2(str(tmp_path), preset=preset, dtype="float32", num_timesteps=2, resolution=2 * tiny.SIDE)
    assert larger.score_images(photos[:1]).heatmaps.shape == (1, 2 * tiny.SIDE, 2 * tiny.SIDE)


def test_ssim_weights_of_a_latent_model_are_means_over_what_a_latent_covers(tmp_path, photos):
    write_latent(tmp_path)
    method = DiffPathV2(str(tmp_path), preset="paper", dtype="float32", num_timesteps=2)
    maps = torch.arange(16.0 * 16).view(1, 1, 1, 16, 16)
    pooled = method._at_network_side(maps)
    assert pooled.shape == (1, 1, 1, 8, 8)
    assert pooled[0, 0, 0, 0, 0] == (0 + 1 + 16 + 17) / 4


def test_timesteps_of_a_long_schedule_reach_the_network_rescaled(tmp_path):
    module = tiny.unet()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=4000, beta_schedule="squaredcos_cap_v2")
    tiny.write(tmp_path, module, scheduler)
    tiny.edit_json(tmp_path / "diffpath.json", timestep_scale=0.25)
    model = load_model(str(tmp_path), "cpu", "float32")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([10, 3001])
    with torch.no_grad():
        expected = module(x, torch.tensor([2.5, 750.25])).sample
    torch.testing.assert_close(model.predict_noise(x, timesteps), expected, rtol=1e-5, atol=1e-5)
    assert model.num_train_timesteps == 4000


def test_the_bundled_models_results_are_the_stored_ones_of_the_independent_implementation():
    stored = json.loads(store_bundled.STORED.read_text())
    assert stored["weights"] == store_bundled.weights_hash(), "new weights: run python tests/store_bundled.py"
    result = DiffPathV2(dtype="float32", **store_bundled.OPTIONS).score_images(store_bundled.pictures())
    np.testing.assert_allclose(result.profile, stored["profile"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(result.statistics, stored["statistics"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(result.heatmaps.mean(axis=2), stored["heatmap_rows"], rtol=0, atol=2e-6)
    expected = np.array(stored["features"])
    size = np.sqrt(np.abs(expected[:, [1, 1, 1, 4, 4, 4]])) ** [1, 2, 3, 1, 2, 3]
    np.testing.assert_array_less(np.abs(result.features - expected), 1e-5 * size)

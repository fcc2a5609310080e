"""The tensor code against an independent implementation, and the invariants of the method."""

import re
from dataclasses import fields

import numpy as np
import pytest
import reference
import torch
from diffusers import DDPMScheduler
from jaxtyping import TypeCheckError
from PIL import Image

from diffpath import DiffPathV2, ImageError, ModelError
from diffpath.images import prepare_image
from diffpath.method.descriptor import PARTS, used_parts
from diffpath.method.features import error_spectrum, six_features
from diffpath.method.ssim import dissimilarity_map
from diffpath.method.trajectory import compute_trajectory, spaced_timesteps
from diffpath.models import NoisePredictor, Schedule

STANDARD_C = (0.0004, 0.0036)
BUNDLED_SCHEDULE = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod


def in_network_scale(method, images):
    square = np.stack([prepare_image(image, method.resolution) for image in images])
    return torch.from_numpy(square).permute(0, 3, 1, 2).float() / 127.5 - 1


def predicted_noise(method, images):
    """What the network says, one noisy image at a time, noised in float64."""
    noisy = reference.noise_images(images.numpy(), method.noise.numpy(), method.timesteps, alphas(method))
    predictor = method.predictor
    out = np.empty_like(noisy)
    for index in np.ndindex(noisy.shape[:3]):
        x = torch.from_numpy(noisy[index]).float()[None]
        out[index] = predictor.predict_noise(x, method.timesteps[index[2]][None])[0].numpy()
    return out


def alphas(method):
    return BUNDLED_SCHEDULE.numpy()


def assert_results_close(a, b, rtol, atol=0.0):
    for field in fields(a):
        np.testing.assert_allclose(getattr(a, field.name), getattr(b, field.name), rtol=rtol, atol=atol)


def assert_features_close(actual, expected, rtol=1e-4):
    """Signed terms cancel in a sum, so that its rounding is relative to the size of the terms."""
    size = np.sqrt(np.abs(expected[:, [1, 1, 1, 4, 4, 4]])) ** [1, 2, 3, 1, 2, 3]
    np.testing.assert_array_less(np.abs(actual - expected), rtol * size)


@pytest.mark.parametrize(
    "options",
    [
        dict(error_power="signed", ssim_weighting=False, ssim_sigma=None, ssim_c=(0.2, 0.2)),
        dict(error_power="absolute", ssim_weighting=False, ssim_sigma=None, ssim_c=(0.2, 0.2)),
        dict(error_power="signed", ssim_weighting=True, ssim_sigma=None, ssim_c=STANDARD_C),
        dict(error_power="absolute", ssim_weighting=True, ssim_sigma=1.5, ssim_c=(0.2, 0.2)),
        dict(error_power="squared", ssim_weighting=True, ssim_sigma=1.5, ssim_c=STANDARD_C),
        dict(error_power="squared", ssim_weighting=True, ssim_sigma=1.5, ssim_c=STANDARD_C, ssim_window=11),
        dict(error_power="squared", ssim_weighting=False, ssim_sigma=None, ssim_c=(0.2, 0.2)),
        dict(error_power="signed", ssim_weighting=True, ssim_sigma=None, ssim_c=(0.2, 0.2), ssim_window=5),
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_tensor_code_agrees_with_the_independent_implementation(options, photos):
    method = DiffPathV2(dtype="float32", num_timesteps=4, num_noise_draws=2, **options)
    result = method.score_images(photos[:2])
    images = in_network_scale(method, photos[:2])
    expected = reference.reference_method(
        images,
        predicted_noise(method, images),
        method.noise,
        method.timesteps,
        alphas(method),
        error_power=options["error_power"],
        weighted=options["ssim_weighting"],
        window=options.get("ssim_window", 7),
        sigma=options["ssim_sigma"],
        c=options["ssim_c"],
    )
    assert_features_close(result.features, expected["features"])
    np.testing.assert_allclose(result.profile, expected["profile"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.statistics, expected["statistics"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.error_maps, expected["error_maps"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.heatmaps, expected["heatmaps"], rtol=1e-4, atol=1e-5)


def test_the_heatmap_keeps_constants_that_localise_whatever_the_weights_use(photos, method):
    paper = DiffPathV2(preset="paper", dtype="float32").score_images(photos[:2])
    np.testing.assert_allclose(paper.heatmaps, method.score_images(photos[:2]).heatmaps, rtol=1e-4, atol=1e-5)


def test_the_paper_preset_is_squared_weighted_and_six_dimensional(photos):
    paper = DiffPathV2(preset="paper", dtype="float32", num_timesteps=4)
    spelled_out = DiffPathV2(
        dtype="float32",
        num_timesteps=4,
        error_power="squared",
        ssim_weighting=True,
        ssim_sigma=1.5,
        ssim_c=STANDARD_C,
        use_profile=False,
        use_statistics=False,
    )
    result = paper.score_images(photos[:2])
    assert result.descriptor.shape == (2, 6)
    np.testing.assert_array_equal(result.descriptor, result.features)
    assert_results_close(result, spelled_out.score_images(photos[:2]), rtol=1e-6)


@pytest.mark.parametrize("error_power", ["signed", "absolute", "squared"])
@pytest.mark.parametrize("weighted", [True, False])
def test_a_model_that_returns_the_true_noise_gives_zero_features(error_power, weighted, photos):
    perfect = NoisePredictor(lambda noisy, timesteps: noisy, Schedule.variance_preserving(BUNDLED_SCHEDULE))
    method = DiffPathV2(perfect, error_power=error_power, ssim_weighting=weighted, num_noise_draws=2)
    images = in_network_scale(method, photos)

    def network(noisy, timesteps):
        counts = len(photos), 2, len(method.timesteps)
        return method.noise[None, :, None].expand(*counts, *method.noise.shape[1:]).reshape(noisy.shape)

    perfect.network = network
    method.max_evaluations = 10_000
    method.evaluations_per_pass = len(photos) * 2 * len(method.timesteps)
    result = method.score_images(photos)
    np.testing.assert_array_equal(result.features, 0)
    assert result.heatmaps.max() < 1e-3
    path = compute_trajectory(perfect, images, method.timesteps, method.noise, None)
    torch.testing.assert_close(
        path.reconstruction, images[:, None, None].expand_as(path.reconstruction), rtol=0, atol=2e-3
    )


@pytest.fixture
def errors():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 2, 4, 3, 6, 5, generator=generator)


TIME = torch.tensor([0.0, 0.1, 0.4, 0.9])


@pytest.mark.parametrize("error_power, degree", [("signed", 1), ("absolute", 1), ("squared", 2)])
def test_scaling_the_error_scales_each_sum_by_its_power(errors, error_power, degree):
    factor = 1.7
    before = six_features(errors, TIME, error_power=error_power)
    after = six_features(errors * factor, TIME, error_power=error_power)
    powers = torch.tensor([1.0, 2, 3, 1, 2, 3]) * degree
    torch.testing.assert_close(after, before * factor**powers, rtol=1e-4, atol=1e-6)


def test_shifting_a_signed_error_moves_the_level_sums_and_leaves_the_rate_sums(errors):
    shift = 0.6
    mean, square, cube, *rates = six_features(errors.double(), TIME.double()).T
    after = six_features(errors.double() + shift, TIME.double()).T
    torch.testing.assert_close(after[0], mean + shift)
    torch.testing.assert_close(after[1], square + 2 * shift * mean + shift**2)
    torch.testing.assert_close(after[2], cube + 3 * shift * square + 3 * shift**2 * mean + shift**3)
    torch.testing.assert_close(after[3:], torch.stack(rates))


def test_an_error_that_grows_linearly_in_time_has_a_constant_rate():
    slope = -3.0
    errors = (slope * TIME.double()).view(1, 1, -1, 1, 1, 1).expand(1, 2, -1, 3, 4, 4)
    rates = six_features(errors, TIME.double())[0, 3:]
    torch.testing.assert_close(rates, torch.tensor([slope, slope**2, slope**3], dtype=torch.float64))


def test_changing_the_sign_of_the_error_changes_the_odd_signed_sums_only(errors):
    signs = torch.tensor([-1.0, 1, -1, -1, 1, -1])
    torch.testing.assert_close(six_features(-errors, TIME), six_features(errors, TIME) * signs)
    for power in ("absolute", "squared"):
        torch.testing.assert_close(
            six_features(-errors, TIME, error_power=power), six_features(errors, TIME, error_power=power)
        )


def test_features_do_not_scale_with_resolution(errors):
    larger = errors.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(six_features(larger, TIME), six_features(errors, TIME), rtol=1e-4, atol=1e-6)


def test_an_image_does_not_depend_on_its_companions_order_or_batch(photos):
    method = DiffPathV2(dtype="float32", num_timesteps=3)
    together = method.score_images(photos)
    order = [3, 0, 7, 5, 1, 6, 2, 4]
    shuffled = method.score_images([photos[i] for i in order])
    alone = method.score_images([photos[2]])
    chunked = DiffPathV2(dtype="float32", num_timesteps=3, max_evaluations=7).score_images(photos)
    for other, positions in ((shuffled, order), (alone, [2]), (chunked, range(8))):
        assert_features_close(other.features, together.features[positions])
        np.testing.assert_allclose(other.profile, together.profile[positions], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(other.heatmaps, together.heatmaps[positions], rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_close_to_float32(photos, method):
    exact = method.score_images(photos)
    fast = DiffPathV2(dtype="bfloat16").score_images(photos)
    assert np.abs(fast.profile - exact.profile).max() < 0.02
    assert np.abs(fast.heatmaps - exact.heatmaps).mean() < 0.02
    even = [1, 4]
    np.testing.assert_allclose(fast.features[:, even], exact.features[:, even], rtol=0.1)
    # the spread between images is what the density sees
    spread = exact.descriptor.std(axis=0)
    assert np.median(np.abs(fast.descriptor - exact.descriptor) / spread) < 0.1


def test_the_same_seed_repeats_and_another_seed_differs(photos, method):
    again = DiffPathV2(dtype="float32").score_images(photos[:2])
    assert_results_close(again, method.score_images(photos[:2]), rtol=1e-6)
    other = DiffPathV2(dtype="float32", seed=1).score_images(photos[:2])
    assert np.abs(other.features - again.features).max() > 1e-4


def test_the_global_random_state_is_neither_used_nor_changed(photos):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = DiffPathV2(dtype="float32", num_timesteps=2).score_images(photos[:1])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert_results_close(DiffPathV2(dtype="float32", num_timesteps=2).score_images(photos[:1]), first, rtol=0)


def test_float_images_equal_their_8_bit_originals(photos, method):
    as_float = [image / 255 for image in photos[:2]]
    assert_results_close(method.score_images(as_float), method.score_images(photos[:2]), rtol=1e-6)


def test_pil_images_arrays_and_tensors_of_one_picture_agree(photos):
    method = DiffPathV2(dtype="float32", num_timesteps=2)
    image = photos[0]
    expected = method.score_images([image])
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for same in (Image.fromarray(image), tensor, tensor.float() / 255, image):
        assert_results_close(method.score_images([same]), expected, rtol=1e-6)
        assert_results_close(method.score_images(same), expected, rtol=1e-6)
    assert_results_close(method.score_images(image[None]), expected, rtol=1e-6)
    assert_results_close(method.score_images(tensor[None]), expected, rtol=1e-6)


def test_results_have_the_documented_shapes_types_and_ranges(photos):
    result = DiffPathV2(num_timesteps=4, num_noise_draws=2).score_images(photos)
    shapes = {
        "features": (8, 6),
        "profile": (8, 4),
        "statistics": (8, 21),
        "descriptor": (8, 31),
        "heatmaps": (8, 32, 32),
        "error_maps": (8, 32, 32),
    }
    for name, shape in shapes.items():
        values = getattr(result, name)
        assert values.shape == shape and values.dtype == np.float32 and np.isfinite(values).all()
    for maps in (result.heatmaps, result.error_maps):
        assert maps.min() >= 0 and maps.max() <= 1
    assert result.profile.min() >= 0 and result.profile.max() <= 2
    np.testing.assert_array_equal(result.descriptor, np.hstack([result.features, result.profile, result.statistics]))


def test_white_noise_has_the_same_power_in_every_frequency_band():
    errors = torch.randn(4, 3, 6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert error_spectrum(errors).abs().max() < 0.2
    for scale in (1e-3, 1e3):
        torch.testing.assert_close(error_spectrum(scale * errors), error_spectrum(errors), atol=1e-4, rtol=0)


@pytest.mark.parametrize("period, band", [(32, 0), (12, 1), (6, 2), (3, 3)])
def test_a_wave_in_the_early_errors_is_found_in_the_band_of_its_frequency(period, band):
    wave = torch.sin(2 * torch.pi / period * torch.arange(96)).expand(1, 1, 6, 3, 96, 96)
    assert error_spectrum(wave).argmax() == band
    late = torch.randn(1, 1, 6, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    late[:, :, 3:] = wave[:, :, 3:]
    assert error_spectrum(late).abs().max() < 0.4


def test_the_spectrum_of_a_tiny_image_or_of_no_error_is_finite():
    for errors in (torch.randn(2, 1, 1, 1, 4, 4), torch.zeros(2, 1, 3, 3, 8, 8)):
        assert error_spectrum(errors).isfinite().all()


def test_both_doors_give_the_same_numbers(method, photos):
    for seen in (method, DiffPathV2(dtype="float32", num_timesteps=2, zoom=2, max_evaluations=8)):
        prepared = np.stack([prepare_image(photo, seen.sides) for photo in photos[:3]])
        prepared.flags.writeable = False  # as a mapped file is
        assert_results_close(seen.score_prepared(prepared), seen.score_images(photos[:3]), rtol=0)
        assert_results_close(seen.score_prepared(prepared[::-1][:0]), seen.score_images([]), rtol=0)


@pytest.mark.parametrize(
    "prepared", [np.zeros((2, 16, 16, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3))]
)
def test_prepared_images_of_another_shape_or_type_are_refused(method, prepared):
    given = re.escape(f"{prepared.dtype} {prepared.shape}")
    with pytest.raises(ImageError, match=rf"uint8 array of shape \(N, 32, 32, 3\), got {given}"):
        method.score_prepared(prepared)


def test_the_descriptor_is_its_parts_in_their_order(photos):
    for options in (dict(), dict(preset="paper"), dict(zoom=2), dict(preset="paper", zoom=2, use_profile=True)):
        method = DiffPathV2(dtype="float32", num_timesteps=2, **options)
        result = method.score_images(photos[:1])
        parts = used_parts(method.options)
        np.testing.assert_array_equal(
            result.descriptor, np.concatenate([getattr(result, part.name) for part in parts], axis=1)
        )
        for part in PARTS:
            assert part.length(method.options) == (getattr(result, part.name).shape[1] if part in parts else 0)


def test_no_images_give_empty_results(method):
    result = method.score_images([])
    assert len(result) == 0 and result.features.shape == (0, 6) and result.heatmaps.shape == (0, 32, 32)


def test_a_bad_image_is_named_by_its_position(photos, method):
    with pytest.raises(ImageError, match="image 1"):
        method.score_images([photos[0], np.full((4, 4), np.nan)])


def test_shapes_hold_on_the_meta_device():
    images = torch.empty(2, 3, 16, 16, device="meta")
    schedule = Schedule.variance_preserving(torch.linspace(0.99, 0.01, 100))
    predictor = NoisePredictor(lambda noisy, timesteps: noisy.clone(), schedule, device="meta")
    timesteps = torch.empty(5, dtype=torch.long, device="meta")
    noise = torch.empty(4, 3, 16, 16, device="meta")
    path = compute_trajectory(predictor, images, timesteps, noise, max_evaluations=7)
    assert path.score_error.shape == path.reconstruction.shape == (2, 4, 5, 3, 16, 16)
    unlike = dissimilarity_map(images[:, None, None], path.reconstruction)
    assert unlike.shape == (2, 4, 5, 16, 16)
    time = torch.empty(5, device="meta")
    assert six_features(path.score_error, time, weights=unlike).shape == (2, 6)


def test_ten_timesteps_are_those_of_ddim10():
    assert spaced_timesteps(10, (0.0, 0.9), 1000).tolist() == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert spaced_timesteps(3, (0.0, 1.0), 1000).tolist() == [0, 500, 999]


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_every_prediction_type_recovers_the_true_noise(prediction_type):
    schedule = torch.linspace(0.999, 0.01, 1000)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 6, 3, 8, 8, generator=generator)
    timesteps = torch.tensor([10, 200, 400, 600, 800, 990])
    signal = schedule[timesteps].sqrt().view(-1, 1, 1, 1)
    spread = (1 - schedule[timesteps]).sqrt().view(-1, 1, 1, 1)
    target = {"sample": clean, "v_prediction": signal * noise - spread * clean}[prediction_type]
    predictor = NoisePredictor(lambda *_: target, Schedule.variance_preserving(schedule, prediction_type))
    torch.testing.assert_close(
        predictor.predict_noise(signal * clean + spread * noise, timesteps), noise, rtol=1e-3, atol=1e-4
    )


def test_learned_variances_are_dropped():
    schedule = Schedule.variance_preserving(torch.linspace(0.9, 0.1, 10))
    predictor = NoisePredictor(lambda x, t: torch.cat([x, x + 1], 1), schedule)
    noisy = torch.ones(1, 3, 4, 4)
    torch.testing.assert_close(predictor.predict_noise(noisy, torch.tensor([3])), noisy)


def test_ssim_is_one_for_equal_images_and_symmetric(photos, method):
    images = in_network_scale(method, photos)
    assert dissimilarity_map(images, images).abs().max() < 1e-5
    other = images.flip(0)
    torch.testing.assert_close(dissimilarity_map(images, other), dissimilarity_map(other, images), rtol=1e-4, atol=1e-5)


def test_other_resolutions_work_and_impossible_ones_say_what_to_try(photos):
    result = DiffPathV2(resolution=48, num_timesteps=2).score_images(photos[:1])
    assert result.heatmaps.shape == (1, 48, 48)
    with pytest.raises(ModelError, match="got 100 .*try 96 or 104"):
        DiffPathV2(resolution=100)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_timesteps=1), "num_timesteps must be at least 2"),
        (dict(num_noise_draws=0), "num_noise_draws must be at least 1"),
        (dict(timestep_range=(0.5, 0.2)), "timestep_range"),
        (dict(timestep_range=(0.0, 0.001), num_timesteps=10), "does not fit"),
        (dict(error_power="cubed"), "signed, absolute, squared"),
        (dict(ssim_window=4), "ssim_window must be odd"),
        (dict(ssim_c=(0, 0.2)), "positive"),
        (dict(preset="fast"), "default, paper"),
        (dict(timesteps=3), "unknown option 'timesteps'"),
        (dict(model="/no/such/model"), "folder"),
        (dict(dtype="float64"), "float32, bfloat16 or float16"),
    ],
)
def test_an_impossible_option_is_refused_with_the_way_out(options, message):
    with pytest.raises(ValueError, match=message):
        DiffPathV2(**options)


def test_the_tests_check_the_shapes_that_the_tensor_code_promises():
    error = torch.zeros(2, 1, 3, 3, 8, 8)
    assert six_features(error, torch.tensor([0.1, 0.2, 0.3])).shape == (2, 6)
    with pytest.raises(TypeCheckError, match="time"):
        six_features(error, torch.tensor([0.1, 0.2]))  # two times of three timesteps
    with pytest.raises(TypeCheckError, match="score_error"):
        six_features(error[0], torch.tensor([0.1, 0.2, 0.3]))

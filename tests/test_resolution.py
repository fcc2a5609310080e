"""Tiles, larger resolutions and equal resampling."""

import diffusers
import numpy as np
import pytest
import tiny_models as tiny
import torch
from PIL import Image

from diffpath import DiffPathV2, ModelError
from diffpath.images import load_image, prepare_image
from diffpath.models import NoisePredictor, Tiles

ALPHAS = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod


def convolutional(layers):
    """A network whose output at a pixel depends on at most ``layers`` pixels to each side."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, 3, 3, 3, generator=generator) / 5 for _ in range(layers)]

    def network(inputs, conditioning):
        for weight in weights:
            inputs = torch.tanh(torch.nn.functional.conv2d(inputs, weight, padding=1))
        return inputs + conditioning.view(-1, 1, 1, 1) / 5000

    return NoisePredictor(network, ALPHAS, resolution=256)


def pointwise():
    return NoisePredictor(lambda x, t: torch.tanh(x) + t.view(-1, 1, 1, 1) / 5000, ALPHAS, resolution=64)


@pytest.fixture(scope="module")
def large_photo():
    """A real photograph of 1024 × 1024 pixels."""
    from skimage import data

    return np.asarray(Image.fromarray(data.astronaut()).resize((1024, 1024), Image.Resampling.BICUBIC))


def test_a_large_image_in_tiles_agrees_with_the_whole_where_tiles_do_not_touch_borders(large_photo):
    radius, options = 2, dict(num_timesteps=2, timestep_range=(0.2, 0.5), resolution=1024)
    whole = DiffPathV2(convolutional(radius), **options)
    tiled = DiffPathV2(convolutional(radius), tile=256, **options)
    assert len(tiled.tiles) == 25
    expected, actual = whole.score_images(large_photo), tiled.score_images(large_photo)

    # A tile's inner edge reaches as far as the network sees and, in the map, as the SSIM window does
    reach = radius + 3
    untouched = np.ones(1024, bool)
    for start in tiled.tiles.starts:
        for edge in (start, start + 256):
            if 0 < edge < 1024:
                untouched[edge - reach : edge + reach] = False
    mask = np.outer(untouched, untouched)
    assert mask.mean() > 0.8
    difference = np.abs(actual.heatmaps[0] - expected.heatmaps[0])
    assert difference[mask].max() < 1e-5
    assert difference[~mask].max() < 0.05  # seams are blended, not cut
    even = [1, 4]
    np.testing.assert_allclose(actual.features[:, even], expected.features[:, even], rtol=2e-3)


def test_tiles_of_a_network_that_sees_one_pixel_change_nothing_at_all(photos):
    options = dict(num_timesteps=3, resolution=64, num_noise_draws=2)
    whole = DiffPathV2(pointwise(), **options).score_images(photos[:3])
    for tile, overlap in ((32, 0.25), (24, 0.5), (40, 0.0)):
        tiled = DiffPathV2(pointwise(), tile=tile, tile_overlap=overlap, max_evaluations=5, **options)
        result = tiled.score_images(photos[:3])
        for name in ("descriptor", "heatmaps"):
            np.testing.assert_allclose(getattr(result, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, tile, overlap", [(64, 32, 8), (100, 32, 16), (33, 32, 0), (32, 32, 8), (97, 24, 5)])
def test_tiles_cover_everything_and_their_weights_sum_to_one(size, tile, overlap):
    tiles = Tiles(size, tile, overlap)
    total = torch.zeros(size, size)
    for (top, left), weights in zip(tiles.corners, tiles.weights):
        assert 0 <= top <= size - tile and 0 <= left <= size - tile and weights.min() > 0
        total[top : top + tile, left : left + tile] += weights
    torch.testing.assert_close(total, torch.ones(size, size))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert tiles.cut(images).shape == (2 * len(tiles), 3, tile, tile)
    torch.testing.assert_close(tiles.blend(tiles.cut(images)), images, rtol=1e-5, atol=1e-5)


def test_blending_is_smooth_where_tiles_disagree():
    tiles = Tiles(64, 32, 16)
    levels = torch.arange(float(len(tiles))).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    blended = tiles.blend(levels)[0, 0]
    row = blended[0]
    assert row.diff().abs().max() < 2.5 / 16 * 1.1  # the steepest of a sin² over the overlap is π/2 of its mean slope
    assert (row.diff() >= 0).all()


def test_a_large_image_needs_no_more_memory_per_pass_than_its_tiles():
    sides, counts = set(), set()

    def network(inputs, conditioning):
        sides.add(inputs.shape[-1])
        counts.add(len(inputs))
        return inputs

    method = DiffPathV2(
        NoisePredictor(network, ALPHAS, resolution=32), num_timesteps=2, resolution=128, tile=32, max_evaluations=6
    )
    method.score_images(np.zeros((128, 128, 3), np.uint8))
    assert sides == {32} and max(counts) <= 6


def test_latent_tiles_are_cut_from_latents(tmp_path, photos):
    unet = tiny.unet(in_channels=4, out_channels=4, sample_size=8)
    tiny.write(tmp_path, unet, diffusers.DDPMScheduler(), space=("vae", tiny.autoencoder()))
    method = DiffPathV2(str(tmp_path), dtype="float32", num_timesteps=2, resolution=32, tile=16)
    assert method.tiles.tile == 8 and method.tiles.size == 16
    result = method.score_images(photos[:1])
    assert result.heatmaps.shape == (1, 32, 32) and np.isfinite(result.descriptor).all()


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_bundled_model_runs_above_its_training_size_with_maps_to_match(resolution, photos):
    result = DiffPathV2(resolution=resolution, num_timesteps=2, dtype="float32").score_images(photos[:1])
    assert result.heatmaps.shape == (1, resolution, resolution) and result.heatmaps.std() > 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(resolution=64, tile=20), "tile must be a multiple of 8.*try 16 or 24"),
        (dict(tile=64), "tile must be at most the resolution, got 64 of 32"),
        (dict(tile=32, tile_overlap=0.7), r"tile_overlap must be a fraction of a tile in \[0, 0.5\]"),
        (dict(equalise_resampling=0), "equalise_resampling must be a side in pixels"),
        (dict(zoom=0), "zoom must be a whole number of at least 1"),
    ],
)
def test_impossible_tiles_are_refused_with_the_way_out(options, message):
    with pytest.raises((ModelError, ValueError), match=message):
        DiffPathV2(**options)


def test_equal_resampling_makes_images_alike_whatever_they_were_resized_from(photos):
    sharp = prepare_image(photos[0], 64)
    from_small = prepare_image(prepare_image(photos[0], 32), 64)  # the same photo, once 32 × 32

    def distance(a, b):
        return np.abs(a.astype(float) - b.astype(float)).mean()

    before = distance(prepare_image(sharp, 64), prepare_image(from_small, 64))
    after = distance(prepare_image(sharp, (32, 64)), prepare_image(from_small, (32, 64)))
    assert after < before / 3


def test_equal_resampling_takes_files_and_images_in_memory_the_same_way(photos, tmp_path):
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    method = DiffPathV2(equalise_resampling=16, num_timesteps=2)
    assert method.sides == (16, 32) and DiffPathV2(num_timesteps=2).sides == (32,)
    from_file = load_image(tmp_path / "photo.png", method.sides)
    np.testing.assert_array_equal(from_file, prepare_image(photos[0], method.sides))
    np.testing.assert_array_equal(from_file, prepare_image(prepare_image(photos[0], 16), 32))
    direct = DiffPathV2(num_timesteps=2, dtype="float32").score_images(from_file)
    equalised = DiffPathV2(equalise_resampling=16, num_timesteps=2, dtype="float32").score_images(photos[0])
    np.testing.assert_allclose(equalised.descriptor, direct.descriptor, rtol=1e-5, atol=1e-6)


def test_zoom_puts_the_larger_image_in_tiles_beside_the_whole(photos):
    options = dict(num_timesteps=2, dtype="float32", device="cpu")
    method = DiffPathV2(zoom=2, **options)
    assert method.sides == (64,) and [view.side for view in method.views] == [32, 64]
    result = method.score_images(photos[:3])

    larger = [prepare_image(photo, 64) for photo in photos[:3]]
    whole = DiffPathV2(**options).score_images([prepare_image(image, 32) for image in larger])
    tiled = DiffPathV2(resolution=64, tile=32, tile_overlap=0, **options).score_images(larger)
    same = dict(rtol=1e-4, atol=1e-5)
    for name in ("features", "profile", "statistics"):
        np.testing.assert_allclose(getattr(result, name), getattr(whole, name), **same)
    np.testing.assert_allclose(result.zoomed, tiled.descriptor, **same)
    np.testing.assert_allclose(result.descriptor, np.hstack([whole.descriptor, tiled.descriptor]), **same)
    for name in ("heatmaps", "error_maps"):
        np.testing.assert_allclose(getattr(result, name), getattr(tiled, name), **same)

    assert method.score_images([]).descriptor.shape == (0, result.descriptor.shape[1])
    assert method.score_images([]).heatmaps.shape == (0, 64, 64)


def test_zoom_sees_damage_that_a_small_image_hides(large_photo):
    """A checkerboard of single pixels at 64×64 is an even grey at 32×32."""
    image = prepare_image(large_photo, 64)
    fine = np.indices((64, 64)).sum(0) % 2 * 24 - 12
    damaged = np.clip(image.astype(int) + fine[:, :, None], 0, 255).astype(np.uint8)
    result = DiffPathV2(zoom=2, num_timesteps=3, dtype="float32").score_images([image, damaged])
    length = result.descriptor.shape[1] - result.zoomed.shape[1]
    whole, larger = result.descriptor[:, :length], result.zoomed
    moved = np.abs(np.diff(larger, axis=0)).max(), np.abs(np.diff(whole, axis=0)).max()
    assert moved[0] > 5 * moved[1]


def test_zoom_of_a_latent_model(tmp_path, photos):
    unet = tiny.unet(in_channels=4, out_channels=4, sample_size=8)
    tiny.write(tmp_path, unet, diffusers.DDPMScheduler(), space=("vae", tiny.autoencoder()))
    result = DiffPathV2(str(tmp_path), dtype="float32", num_timesteps=2, resolution=16, zoom=2).score_images(photos[:1])
    assert result.heatmaps.shape == (1, 32, 32) and result.zoomed.shape[1] * 2 == result.descriptor.shape[1]
    assert np.isfinite(result.descriptor).all()


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(resolution=0), "resolution must be a side in pixels of at least 1, .* got 0"),
        (dict(tile=0), "tile must be a side in pixels of at least 1, .* got 0"),
        (dict(equalise_resampling=0), "equalise_resampling .* got 0"),
        (dict(max_evaluations=0), "max_evaluations must be at least 1, got 0"),
    ],
)
def test_zero_is_not_taken_for_the_default(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        DiffPathV2(**options)


def test_zero_images_together_are_refused(method, photos):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        method.images_per_pass = 0
    with pytest.raises(ValueError, match="max_evaluations must be at least 1, got 0"):
        method.predictor.predict_noise(torch.zeros(1, 3, 32, 32), torch.tensor([5]), max_evaluations=0)

"""Every file either becomes the picture that a viewer shows or a clear error."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bad_files import SCORABLE, UNREADABLE, picture
from PIL import Image

from diffpath import ImageError
from diffpath.images import load_image, prepare_image

SIZE = 32


def resized(rgb):
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def mean_difference(a, b):
    return np.abs(a.astype(float) - b.astype(float)).mean()


@pytest.mark.parametrize("kind", SCORABLE)
def test_an_awkward_file_decodes_to_what_a_viewer_shows(kind, tmp_path):
    path, expected = SCORABLE[kind](tmp_path)
    image = load_image(path, SIZE)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    if expected is not None:
        # 5 levels of 255 leave room for JPEG and palettes; a wrong frame, orientation,
        # inversion or channel order differs by tens
        assert mean_difference(image, resized(expected)) < 5
        assert mean_difference(image, resized(255 - expected)) > 20


def test_a_huge_single_colour_picture_keeps_its_colour(tmp_path):
    path, _ = SCORABLE["9000x9000"](tmp_path)
    assert np.abs(load_image(path, SIZE).astype(int) - (10, 120, 230)).max() <= 3


def test_an_elongated_picture_keeps_its_gradient(tmp_path):
    path, _ = SCORABLE["3000x2"](tmp_path)
    row = load_image(path, SIZE)[SIZE // 2, :, 0].astype(float)
    # each of 32 columns averages its own 1/32 of a ramp from 0 to 255
    assert np.abs(row - (np.arange(SIZE) + 0.5) / SIZE * 255).max() < 3


@pytest.fixture(params=["photo.png", "photo.tif", "photo.jpg", "photo.gif"])
def photo(request, tmp_path):
    """The path of a picture of 7680 pixels."""
    Image.fromarray(picture()).save(tmp_path / request.param)
    return tmp_path / request.param


@pytest.mark.filterwarnings("error")
def test_large_pictures_are_read_without_a_warning(photo, monkeypatch):
    expected = load_image(photo, SIZE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7680 // 2)
    np.testing.assert_array_equal(load_image(photo, SIZE), expected)
    with pytest.raises(Image.DecompressionBombWarning), Image.open(photo) as image:  # whoever else reads it is warned
        image.load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(load_image(photo, SIZE), expected)


def test_pictures_of_over_twice_the_limit_are_refused_with_a_sentence(photo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7680 // 2 - 1)
    with pytest.raises(ImageError, match=r"photo\.\w+ is too large to decode safely .*PIL\.Image\.MAX_IMAGE_PIXELS"):
        load_image(photo, SIZE)


def test_decoding_in_threads_leaves_the_warning_filters_alone(photo):
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: load_image(photo, SIZE), range(100)))
    assert warnings.filters == before


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_file_is_an_image_error_that_names_it(kind, tmp_path):
    path = UNREADABLE[kind](tmp_path)
    with pytest.raises(ImageError) as caught:
        load_image(path, SIZE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_rotated_photo_reads_like_its_upright_twin(orientation, tmp_path):
    rotated, _ = SCORABLE[f"EXIF orientation {orientation}"](tmp_path)
    upright, _ = SCORABLE["EXIF orientation 1"](tmp_path)
    assert mean_difference(load_image(rotated, SIZE), load_image(upright, SIZE)) < 2


def test_a_file_and_the_same_picture_in_memory_agree(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(load_image(tmp_path / "photo.png", SIZE), prepare_image(picture(), SIZE))


@pytest.mark.parametrize("side", [300, 512, 2000])
def test_a_jpeg_and_the_same_pixels_as_png_are_resampled_alike(side, tmp_path):
    from skimage import data

    photo = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.jpg", quality=95)
    Image.open(tmp_path / "photo.jpg").convert("RGB").save(tmp_path / "photo.png")
    jpeg, png = (load_image(tmp_path / name, SIZE).astype(int) for name in ("photo.jpg", "photo.png"))
    assert np.abs(jpeg - png).max() <= 1


@pytest.mark.parametrize(
    "array, message",
    [
        (np.full((8, 8, 3), np.nan), "finite"),
        (np.full((8, 8, 3), 2.0), r"\[0, 1\]"),
        (np.zeros((8, 8, 5), np.uint8), r"\(8, 8, 5\)"),
        (np.zeros((0, 8, 3), np.uint8), "at least one pixel"),
        (np.full((8, 8), 300), r"\[0, 255\]"),
        (np.zeros((8, 8), complex), "complex"),
    ],
)
def test_an_array_that_is_no_image_is_refused_with_its_reason(array, message):
    with pytest.raises(ImageError, match=message):
        prepare_image(array, SIZE)

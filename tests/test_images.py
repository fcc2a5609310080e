"""Every file either becomes the picture that a viewer shows or a clear error."""

import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from bad_files import SCORABLE, UNREADABLE, picture
from PIL import Image, UnidentifiedImageError

from diffpath import ImageError
from diffpath.formats import can_open
from diffpath.images import load_image, prepare_image, stored_values
from diffpath.values import estimate_value_range

SIZE = 32


def resized(rgb):
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def mean_difference(a, b):
    return np.abs(a.astype(float) - b.astype(float)).mean()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own word for it
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


def ramp(low, high, dtype):
    """A picture of 64×256 numbers from ``low`` to ``high``."""
    return np.tile(np.linspace(low, high, 256), (64, 1)).astype(dtype)


def tiff(array, folder):
    Image.fromarray(array).save(folder / "picture.tif")
    return folder / "picture.tif"


KNOWN = {
    "8 bits": ramp(0, 255, np.uint8),
    "8 bits in 32": ramp(0, 255, np.int32),
    "16 bits": ramp(0, 65535, np.uint16),
    "floats": ramp(0, 1, np.float32),
}
UNKNOWN = {
    "Hounsfield units": ramp(-1500, 1560, np.int32),
    "12 bits in 32": ramp(0, 4095, np.int32),
    "32 bits": ramp(0, 2e9, np.int32),
    "floats of degrees": ramp(-20, 45, np.float32),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_file_and_the_same_numbers_in_memory_give_the_same_picture(kind, tmp_path):
    array = KNOWN[kind]
    loaded = load_image(tiff(array, tmp_path), SIZE)
    np.testing.assert_array_equal(loaded, prepare_image(array, SIZE))
    assert loaded.min() < 5 and loaded.max() > 250


@pytest.mark.parametrize("kind", UNKNOWN)
def test_numbers_of_an_unknown_range_are_refused_and_read_once_it_is_said(kind, tmp_path):
    array = UNKNOWN[kind]
    path = tiff(array, tmp_path)
    with pytest.raises(ImageError, match=r"picture\.tif: .*give value_range=\(low, high\)"):
        load_image(path, SIZE)
    with pytest.raises(ImageError, match=r"give value_range=\(low, high\)"):
        prepare_image(array, SIZE)
    middle = (float(array.min() + array.max()) / 2, float(array.max()))
    loaded = load_image(path, SIZE, middle)
    np.testing.assert_array_equal(loaded, prepare_image(array, SIZE, middle))
    row = loaded[SIZE // 2, :, 0]
    assert (row[: SIZE // 2 - 2] == 0).all() and row[-1] > 245 and (np.diff(row[SIZE // 2 + 2 :].astype(int)) > 0).all()


def test_12_bits_in_16_keep_their_levels_once_the_range_is_known(tmp_path):
    array = ramp(0, 4095, np.uint16)
    path = tmp_path / "twelve.png"
    Image.fromarray(array).save(path)
    assert load_image(path, SIZE).max() <= 16  # as the type says, and no viewer shows it otherwise
    value_range = estimate_value_range([stored_values(path)])
    assert value_range == (0, 4095)
    whole = load_image(tiff(KNOWN["16 bits"], tmp_path), SIZE)
    np.testing.assert_array_equal(load_image(path, SIZE, value_range), whole)


@pytest.mark.parametrize("name", ["colour.png", "colour.tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_12_bits_in_16_keep_their_levels(name, channels, tmp_path):
    import cv2

    rng = np.random.default_rng(0)
    colours = rng.integers(0, 4096, (SIZE, SIZE, channels)).astype(np.uint16)
    colours[..., 3:] = 65535
    bgr = colours[..., [2, 1, 0, 3][:channels]]
    cv2.imwrite(str(tmp_path / name), bgr)
    np.testing.assert_array_equal(stored_values(tmp_path / name), colours)
    expected = np.round(colours[..., :3] / 4095 * 255).astype(np.uint8)
    np.testing.assert_array_equal(load_image(tmp_path / name, SIZE, (0, 4095)), expected)
    np.testing.assert_array_equal(prepare_image(colours, SIZE, (0, 4095)), expected)
    np.testing.assert_array_equal(load_image(tmp_path / name, SIZE), prepare_image(colours, SIZE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_of_16_bits_are_upright(orientation, tmp_path):
    import cv2

    path, expected = SCORABLE[f"EXIF orientation {orientation}"](tmp_path)
    with Image.open(path) as image:
        stored, exif = np.asarray(image), image.getexif()
    cv2.imwrite(str(tmp_path / "sixteen.png"), stored[:, :, ::-1].astype(np.uint16) * 257)
    with Image.open(tmp_path / "sixteen.png") as image:
        chunks = (tmp_path / "sixteen.png").read_bytes()
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + body
    chunk = len(body).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "sixteen.png").write_bytes(chunks[:33] + chunk + chunks[33:])
    assert mean_difference(load_image(tmp_path / "sixteen.png", SIZE, (0, 65535)), resized(expected)) < 5


def test_a_range_says_nothing_of_pictures_of_8_bits(photo):
    np.testing.assert_array_equal(load_image(photo, SIZE, (0, 4095)), load_image(photo, SIZE))
    assert stored_values(photo) is None


def test_numbers_that_are_not_finite_are_refused_with_a_range_too():
    with pytest.raises(ImageError, match="finite"):
        prepare_image(np.full((4, 4), np.nan, np.float32), SIZE, (0, 1))


@pytest.mark.parametrize(
    "pictures, expected",
    [
        ([], None),
        ([ramp(0, 255, np.uint16)], (0, 255)),
        ([ramp(0, 200, np.uint16), ramp(0, 1023, np.uint16)], (0, 1023)),
        ([ramp(0, 4095, np.int32)], (0, 4095)),
        ([ramp(0, 16383, np.uint16)], (0, 16383)),
        ([ramp(0, 16384, np.uint16)], (0, 65535)),
        ([ramp(0, 70000, np.int32)], None),
        ([ramp(0, 4095, np.int32), ramp(-1, 5, np.int32)], None),
        ([ramp(0, 4095, np.float32)], None),
    ],
)
def test_the_fewest_bits_that_hold_all_numbers_are_the_range(pictures, expected):
    assert estimate_value_range(pictures) == expected


def ftyp(brand):
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(3000)


FORMATS = {
    "a.avif.mp4": (ftyp(b"isom"), "video.*to_frames"),
    "a.jxl": (b"\xff\x0a" + bytes(100), "JPEG XL.*pillow-jxl-plugin"),
    "a.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG.*PNG"),
    "a.dcm": (bytes(128) + b"DICM" + bytes(100), "DICOM.*pydicom"),
    "a.dng": (b"II*\0" + bytes(100), "camera raw.*rawpy"),
    "a.raf": (b"FUJIFILMCCD-RAW " + bytes(100), "camera raw.*rawpy"),
    "a.exr": (b"v/1\x01" + bytes(100), "OpenEXR"),
    "a.hdr": (b"#?RADIANCE\n" + bytes(100), "Radiance"),
    "a.npy": (b"\x93NUMPY\x01\0" + bytes(100), "NumPy.*fromarray"),
    "a.pdf": (b"%PDF-1.7\n" + bytes(100), "PDF.*pdf2image"),
    "a.nii": (bytes(344) + b"n+1\0" + bytes(100), "NIfTI.*nibabel"),
    "a.mkv": (b"\x1aE\xdf\xa3" + bytes(100), "video"),
    "lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page.jpg": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page.*download"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_pillow_does_not_read_is_named_with_what_reads_it(name, tmp_path):
    content, message = FORMATS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=f"{name} is .*{message}"):
        load_image(tmp_path / name, SIZE)


def test_a_raw_file_is_not_taken_for_its_thumbnail(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.nef")
    with pytest.raises(ImageError, match="camera raw"):
        load_image(tmp_path / "a.nef", SIZE)


def test_heic_is_read_where_its_package_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    heif = pillow_heif.from_pillow(Image.fromarray(picture()))
    heif.save(tmp_path / "photo.heic", quality=95)
    code = "import sys; from diffpath.images import load_image; print(load_image(sys.argv[1], 32).mean().round(2))"
    # In a process of its own, in which nobody has registered the package
    command = [sys.executable, "-c", code, tmp_path / "photo.heic"]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    assert abs(float(out.stdout) - resized(picture()).mean()) < 1


def test_heic_says_what_reads_it_where_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    can_open.cache_clear()
    monkeypatch.setattr(Image, "open", Mock(side_effect=UnidentifiedImageError))
    (tmp_path / "a.heic").write_bytes(ftyp(b"heic"))
    with pytest.raises(ImageError, match="HEIC.*pip install pillow-heif"):
        load_image(tmp_path / "a.heic", SIZE)
    can_open.cache_clear()

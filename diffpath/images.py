"""Any image in, one upright 8-bit RGB image at the model's resolution out.

Reference and query images take the same path through this module: decode → upright →
RGB → one antialiased resize of the whole picture to a square. The aspect ratio is not
kept, so that every pixel is seen and a heatmap covers the whole picture.

Images that were resized before they came here differ from others in sharpness, which a
diffusion model notices more than what they show. To equalise that, all can be brought
down to a small square first, and from there to the one that the model wants.

The network's scale, [−1, 1], is applied later, by the method.
"""

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from .addresses import Fetched, File, fetched, open_file
from .decoding import decoding, open_picture
from .errors import ImageError
from .formats import can_open, find_format, pixels_of_png
from .values import ValueRange, to_uint8

# Recorded with every reference; changed whenever the same file would give other pixels
PREPROCESSING = "upright RGB, bicubic square, 2"
DOES_NOT_FIT = "does not fit in memory; downscale it"  # the end of that sentence
CHANNEL_COUNTS = (1, 2, 3, 4)

_UINT16_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # EXIF's number
_COLOUR_OF_16_BITS = re.compile(r"(RGBA?|LA);16[BLN]?")  # of which Pillow reads 8
# How EXIF's orientations are undone, as ImageOps.exif_transpose does it with pictures of 8 bits
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
_BACKGROUND = (255, 255, 255)


@runtime_checkable
class Array(Protocol):
    """What is needed of an array: NumPy's, torch's or another that NumPy can read."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __iter__(self) -> Iterator[Any]: ...


@runtime_checkable
class Tensor(Array, Protocol):
    """What tells torch's from others: reading files needs no torch."""

    def detach(self) -> Any: ...


BLOCK = 8  # pixels of JPEG's


@dataclass(frozen=True)
class CropPlan:
    """Where parts of a picture are taken from, at its own pixels: the same places in all pictures of one size.

    Attributes:
        per_side: how many lie beside each other, spread evenly from edge to edge; the square of it in all
        side: of a crop, in pixels. A picture with a shorter side is enlarged to it
        step: pixels, of whose multiples the places are: JPEG's blocks stay what they are
    """

    per_side: int
    side: int
    step: int = BLOCK

    def cut(self, image: Image.Image) -> UInt8[np.ndarray, "k side side 3"]:
        """The crops of an RGB picture, row by row."""
        if min(image.size) < self.side:
            scale = self.side / min(image.size)
            larger = [max(self.side, round(scale * length)) for length in image.size]
            image = image.resize((larger[0], larger[1]), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        rows, columns = (self._places(length) for length in pixels.shape[:2])
        return np.stack([pixels[y : y + self.side, x : x + self.side] for y in rows for x in columns])

    def _places(self, length: int) -> list[int]:
        room = length - self.side
        middle = [room / 2] if self.per_side == 1 else np.linspace(0, room, self.per_side)
        return [int(place) // self.step * self.step for place in middle]


Size: TypeAlias = int | Sequence[int]  # a side in pixels, or several
Picture: TypeAlias = UInt8[np.ndarray, "size size 3"]


class Looks(NamedTuple):
    """A picture as the method sees it: the whole, made small, and crops of its own pixels ``(K, S, S, 3)``, or none."""

    whole: Picture
    crops: UInt8[np.ndarray, "k side side 3"] | None


AnyImage: TypeAlias = Image.Image | Array
_Result = TypeVar("_Result")


def load_looks(
    path: str | os.PathLike[str], size: Size, value_range: ValueRange | None = None, plan: CropPlan | None = None
) -> Looks:
    """:func:`load_image`, with crops where a plan asks for them: the file is then decoded at its full size."""

    def looks(image: Image.Image, file: File) -> Looks:
        if plan is None:
            # JPEG can be decoded at a fraction of its size. Eight times the target leaves
            # the antialiasing to the resize below: no pixel differs by more than a grey
            # level from the same picture as PNG, where twice the target gives up to 12
            enough = 8 * _sides(size)[0]
            image.draft(None, (enough, enough))
        with decoding(image):
            return _looks(_with_all_bits(image, file), size, value_range, plan)

    return _read(path, looks)


def prepare_looks(
    image: AnyImage, size: Size, value_range: ValueRange | None = None, plan: CropPlan | None = None
) -> Looks:
    """:func:`prepare_image`, with crops where a plan asks for them."""
    if plan is None:
        return Looks(prepare_image(image, size, value_range), None)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(_to_uint8_array(image, value_range))
    return _looks(picture, size, value_range, plan)


def load_image(path: str | os.PathLike[str], size: Size, value_range: ValueRange | None = None) -> Picture:
    """Reads an image file and resizes it to a square.

    Args:
        path: the path of an image file, or an address such as ``s3://bucket/a.jpg``, of any
            format and mode that Pillow decodes, HEIC among them where pillow-heif is installed.
            The first frame of an animation is taken, EXIF orientation is applied, and
            transparency is composited over white
        size: the side of the square, in pixels; or several, through which the image
            passes one after the other
        value_range: what is black and white in files of more than 8 bits, as in
            :func:`prepare_image`

    Returns:
        a uint8 array of shape ``(size, size, 3)``, of the last size

    Raises:
        ImageError: if the file is missing, empty, truncated, not an image or too large, or the
            range of its numbers is not known
    """

    return load_looks(path, size, value_range).whole


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a picture file in pixels, from its header.

    Raises:
        ImageError: as :func:`load_image`
    """
    return _read(path, lambda image, file: image.size)


def stored_values(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The numbers of a file of more than 8 bits, as they are stored; None, quickly, for all others.

    Raises:
        ImageError: as :func:`load_image`
    """

    def values(image: Image.Image, file: File) -> np.ndarray | None:
        if not _is_colour_of_16_bits(image) and image.mode not in (*_UINT16_MODES, "I", "F"):
            return None
        with decoding(image):
            if not _is_colour_of_16_bits(image):
                return _values_of(image)
            deep = _with_all_bits(image, file)
            return deep if isinstance(deep, np.ndarray) else None

    return _read(path, values)


def _read(path: str | os.PathLike[str], use: Callable[[Image.Image, File], _Result]) -> _Result:
    """Opens a file, here or at an address, and uses the picture; whatever goes wrong becomes one sentence."""
    file: File = path
    try:
        with fetched(path) as file, _large_pictures_allowed():
            _check_file(file, path)
            try:
                with open_picture(file) as image:
                    return use(image, file)
            except (ImageError, Image.DecompressionBombError, MemoryError):
                raise
            except Exception:
                pixels = pixels_of_png(file)
                if pixels is None:
                    raise
                with open_picture(pixels) as image:
                    return use(image, file)
    except ImageError as error:
        said = str(error)
        if said.startswith("is "):
            raise ImageError(f"{path} {said}") from error
        raise error if str(path) in said else ImageError(f"{path}: {said}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} is too large to decode safely ({error}); downscale it, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except UnidentifiedImageError as error:
        kind = find_format(file)
        if kind is not None:
            raise ImageError(f"{path} is {kind.name}, which Pillow does not read; {kind.way_out}") from error
        raise ImageError(f"{path} is not an image that Pillow can identify; replace or remove the file") from error
    except MemoryError as error:
        raise ImageError(f"{path} {DOES_NOT_FIT}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(
            f"{path} cannot be decoded: {error or type(error).__name__}; replace or remove the file"
        ) from error


def prepare_image(image: AnyImage, size: Size, value_range: ValueRange | None = None) -> Picture:
    """Resizes an image that is in memory to a square.

    Args:
        image: a PIL image of any mode, or an array or tensor of numbers: ``(H, W)``,
            ``(H, W, C)`` or ``(C, H, W)`` with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB,
            alpha) channels. Where both readings are possible, arrays are channels-last and tensors channels-first
        size: the side of the square, in pixels; or several, through which the image
            passes one after the other
        value_range: what is black and white in numbers of more than 8 bits, those beyond are
            cut off. None for uint16 of the type's whole range, floats in [0, 1] and
            other whole numbers in [0, 255]

    Returns:
        a uint8 array of shape ``(size, size, 3)``, of the last size

    Raises:
        ImageError: if the image's shape, type or value range is not one of these
    """
    if not isinstance(image, Image.Image):
        array = _to_uint8_array(image, value_range)
        if all(array.shape == (side, side, 3) for side in _sides(size)):
            return array.copy()
        image = Image.fromarray(array)
    return to_rgb_square(image, size, value_range)


def split_images(images: AnyImage | Iterable[AnyImage]) -> Iterable[AnyImage]:
    """Splits what a caller passes as "images" into single images.

    Args:
        images: an iterable of images as in :func:`prepare_image`, a batch array or
            tensor ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, or a single image

    Returns:
        an iterable of single images
    """
    if isinstance(images, (str, bytes, os.PathLike)):
        raise ImageError(f"images must be images, not a path, got {images!r} (open it with PIL.Image.open first)")
    if isinstance(images, Image.Image):
        return [images]
    if not isinstance(images, Array):
        return images
    axes = len(images.shape)
    if axes not in (2, 3, 4):
        raise ImageError(f"images must have 2, 3 or 4 axes, got shape {tuple(images.shape)}")
    return [images] if axes == 2 or _channel_axis(images) is not None else images


def to_rgb_square(image: Image.Image | np.ndarray, size: Size, value_range: ValueRange | None = None) -> Picture:
    """Converts a PIL image, or the numbers of one, to an upright uint8 RGB array of shape ``(size, size, 3)``."""
    return _looks(image, size, value_range, None).whole


def _looks(image: Image.Image | np.ndarray, size: Size, value_range: ValueRange | None, plan: CropPlan | None) -> Looks:
    rgb = small = _to_rgb(image, value_range)
    for side in _sides(size):
        if small.size != (side, side):
            small = small.resize((side, side), Image.Resampling.BICUBIC)
    return Looks(np.asarray(small), None if plan is None else plan.cut(rgb))


@contextmanager
def _large_pictures_allowed() -> Iterator[None]:
    """Pillow warns of pictures of more than MAX_IMAGE_PIXELS and raises on twice that: only the latter stops us here.

    A warning filter would hold for the whole process, in whose other threads images are
    decoded too, and stay when two threads undo theirs in the wrong order.
    """
    token = _LARGE_ALLOWED.set(True)
    try:
        yield
    finally:
        _LARGE_ALLOWED.reset(token)


_LARGE_ALLOWED = ContextVar("large pictures allowed", default=False)  # each thread's own
_warn_or_raise = Image._decompression_bomb_check


def _check_size(size: tuple[int, int], *args: Any, **options: Any) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if not _LARGE_ALLOWED.get() or limit is None or math.prod(size) > 2 * limit:
        _warn_or_raise(size, *args, **options)


# Pillow's formats all call it by this name, on opening, decoding, or both; nothing changes for others
Image._decompression_bomb_check = _check_size


def _sides(size: Size) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


def _check_file(file: File, path: str | os.PathLike[str]) -> None:
    if isinstance(file, Fetched):
        size = file.getbuffer().nbytes
    else:
        if not Path(path).exists():
            raise ImageError(f"{path} does not exist; correct the sample's filepath")
        if not Path(path).is_file():
            raise ImageError(f"{path} is not a file; correct the sample's filepath")
        size = Path(path).stat().st_size
    if size == 0:
        raise ImageError(f"{path} is empty (0 bytes); replace or remove the file")
    kind = find_format(file)
    if kind is not None and not can_open(kind):
        raise ImageError(f"{path} is {kind.name}, which Pillow does not read; {kind.way_out}")


def _to_rgb(image: Image.Image | np.ndarray, value_range: ValueRange | None) -> Image.Image:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(to_uint8(image, value_range))
    elif image.mode in (*_UINT16_MODES, "I", "F"):
        image = Image.fromarray(to_uint8(_values_of(image), value_range))
    else:
        image.load()
        image = _upright(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        image = Image.alpha_composite(background, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # of which exif_transpose would make a copy
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raise nearly anything, and leave the pixels as they are
        return image


def _values_of(image: Image.Image) -> np.ndarray:
    """The numbers of a picture of one channel of more than 8 bits, upright, of the type that they are stored in."""
    # Before Pillow 11.3, 16-bit PNG files were opened as 32-bit numbers
    of_16_bits = image.mode in _UINT16_MODES or image.format == "PNG" or _raw_mode(image).startswith("I;16")
    image.load()
    values = np.asarray(_upright(image))
    return values.astype(np.uint16) if of_16_bits else values


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of a file that is not decoded yet are stored; empty where that is not said."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if arguments and isinstance(arguments[0], str):
            return arguments[0]
    return ""


def _is_colour_of_16_bits(image: Image.Image) -> bool:
    return _COLOUR_OF_16_BITS.fullmatch(_raw_mode(image)) is not None


def _with_all_bits(image: Image.Image, file: File) -> Image.Image | np.ndarray:
    """A picture, or the numbers of one whose colours have 16 bits, of which Pillow reads 8: OpenCV reads all."""
    if not _is_colour_of_16_bits(image):
        return image
    try:
        import cv2
    except ImportError:
        return image
    with open_file(file) as opened:
        stored = np.frombuffer(opened.read(), np.uint8)
    bgr = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    if bgr is None or bgr.dtype != np.uint16 or bgr.ndim != 3:
        return image
    colours = cv2.cvtColor(bgr, cv2.COLOR_BGRA2RGBA if bgr.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    orientation = 1
    with contextlib.suppress(Exception):  # as above
        orientation = image.getexif().get(_ORIENTATION, 1)
    return np.ascontiguousarray(_UPRIGHT.get(orientation, _UPRIGHT[1])(colours))


def _to_uint8_array(image: Array, value_range: ValueRange | None) -> UInt8[np.ndarray, "h w *c"]:
    """An array or tensor as uint8 ``(H, W)`` or ``(H, W, C)`` with 2 to 4 channels, contiguous."""
    if not isinstance(image, Array):
        raise ImageError(f"an image must be a PIL image, an array or a tensor, got {type(image).__name__}")
    axis = _channel_axis(image)
    array = _to_numpy(image)
    if array.ndim == 3 and axis is not None:
        array = np.moveaxis(array, axis, -1)
    if not (array.ndim == 2 or (array.ndim == 3 and axis is not None)):
        raise ImageError(
            f"an image must have shape (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels, got {array.shape}"
        )
    if 0 in array.shape:
        raise ImageError(f"an image must have at least one pixel, got shape {array.shape}")
    array = to_uint8(array, value_range)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return np.ascontiguousarray(array)


def _to_numpy(image: Array) -> np.ndarray:
    if isinstance(image, Tensor):
        detached = image.detach().cpu()
        return (detached.float() if detached.is_floating_point() else detached).numpy()  # NumPy has no bfloat16
    return np.asarray(image)


def _channel_axis(image: Array) -> int | None:
    """The channel axis of a single three-axis image, or None."""
    if len(image.shape) != 3:
        return None
    order = (0, -1) if isinstance(image, Tensor) else (-1, 0)
    return next((axis for axis in order if image.shape[axis] in CHANNEL_COUNTS), None)

"""Writes the awkward files that a real dataset holds.

``SCORABLE`` maps a name to a function ``(folder) -> (path, expected)``, where ``expected``
is the picture that a viewer shows, uint8 ``(H, W, 3)``, or None where only the decoding
matters. ``UNREADABLE`` maps a name to a function ``(folder) -> path``.
"""

import struct
import zlib

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from skimage import data

EXIF_ORIENTATION = 0x0112
_PROFILE = np.random.default_rng(0).bytes(100) * 20_000
# An orientation of a type that there is none of, at an offset beyond the end
_DAMAGED_EXIF = (
    b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\xff\xff\xff\xff\xff\0\x0f\0\0\x87i\0\x04\0\0\0\x01\xff\0\0\0\0\0"
)
# How a viewer undoes each orientation; the file holds the inverse
_UNDO = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
_REDO = {**_UNDO, 6: _UNDO[8], 8: _UNDO[6]}


def picture():
    """A photograph without symmetry, 96×80."""
    return np.ascontiguousarray(data.astronaut()[20:116, 180:260])


def _grey():
    return np.asarray(Image.fromarray(picture()).convert("L"))


def _as_rgb(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def _over_white(rgb, alpha):
    share = alpha[..., None] / 255
    return np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)


def _alpha():
    """Opaque on the left, half transparent in the middle, transparent on the right."""
    return np.repeat(np.array([255, 128, 0], np.uint8).repeat((30, 20, 30))[None], 96, axis=0)


def _save(image, path, **options):
    image.save(path, **options)
    return path


def _photo(name, **options):
    return lambda folder: (_save(Image.fromarray(picture()), folder / name, **options), picture())


def _palette(folder):
    image = Image.fromarray(picture()).quantize(64)
    return _save(image, folder / "palette.png"), np.asarray(image.convert("RGB"))


def _palette_transparent(folder):
    image = Image.fromarray(picture()).quantize(64)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 5] = 255
    return _save(image, folder / "palette_transparent.png", transparency=5), expected


def _cmyk(folder):
    image = Image.fromarray(picture()).convert("CMYK")
    return _save(image, folder / "cmyk.jpg", quality=95), picture()


def _grey16(folder):
    image = Image.fromarray(_grey().astype(np.uint16) * 257)
    return _save(image, folder / "grey16.png"), _as_rgb(_grey())


def _tiff16(folder):
    image = Image.fromarray(_grey().astype(np.uint16) * 257)
    return _save(image, folder / "grey16.tiff"), _as_rgb(_grey())


def _tiff_float(folder):
    image = Image.fromarray(_grey().astype(np.float32) / 255)
    return _save(image, folder / "float32.tiff"), _as_rgb(_grey())


def _grey16_int32(folder):
    """The values of 8 bits in 32, as scientific cameras' software saves them."""
    return _save(Image.fromarray(_grey().astype(np.int32)), folder / "int32.tiff"), _as_rgb(_grey())


def _colour16(name):
    def build(folder):
        import cv2

        path = folder / name
        cv2.imwrite(str(path), picture()[:, :, ::-1].astype(np.uint16) * 257)
        return path, picture()

    return build


def _photo_with(name, **metadata):
    """A photograph with metadata that are long, or damaged, and none of its pixels' business."""

    def build(folder):
        return _save(Image.fromarray(picture()), folder / name, **metadata), picture()

    return build


def _long_text(folder):
    info = PngInfo()
    info.add_text("history", "edited and edited again " * 200_000, zip=True)
    info.add_itxt("xmp", "<x>" * 900_000, zip=True)
    return _save(Image.fromarray(picture()), folder / "text.png", pnginfo=info), picture()


def _damaged_text(folder):
    """A chunk of text whose checksum is wrong."""
    info = PngInfo()
    info.add_text("author", "nobody")
    path = _save(Image.fromarray(picture()), folder / "damaged.png", pnginfo=info)
    path.write_bytes(path.read_bytes().replace(b"nobody", b"nobodY"))
    return path, picture()


def _one_bit(folder):
    image = Image.fromarray(_grey() > 100)
    return _save(image, folder / "one_bit.png"), _as_rgb((_grey() > 100) * np.uint8(255))


def _grey_alpha(folder):
    image = Image.fromarray(np.dstack([_grey(), _alpha()]))
    return _save(image, folder / "grey_alpha.png"), _over_white(_as_rgb(_grey()), _alpha())


def _rgba(folder):
    image = Image.fromarray(np.dstack([picture(), _alpha()]))
    return _save(image, folder / "rgba.png"), _over_white(picture(), _alpha())


def _animated(name, **options):
    def build(folder):
        frames = [Image.fromarray(frame) for frame in (picture(), picture()[::-1].copy(), 255 - picture())]
        path = folder / name
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
        return path, picture()

    return build


def _rotated(orientation):
    def build(folder):
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        stored = Image.fromarray(np.ascontiguousarray(_REDO[orientation](picture())))
        path = folder / f"orientation_{orientation}.jpg"
        return _save(stored, path, quality=97, subsampling=0, exif=exif), picture()

    return build


def _one_pixel(folder):
    image = Image.new("RGB", (1, 1), (200, 30, 60))
    return _save(image, folder / "one_pixel.png"), np.full((1, 1, 3), (200, 30, 60), np.uint8)


def _huge(folder):
    return _save(Image.new("RGB", (9000, 9000), (10, 120, 230)), folder / "huge.jpg"), None


def _elongated(folder):
    stripe = np.linspace(0, 255, 3000).astype(np.uint8)
    return _save(Image.fromarray(np.repeat(stripe[None], 2, axis=0)), folder / "elongated.png"), None


def _colour_profile(folder):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return _save(Image.fromarray(picture()), folder / "icc.png", icc_profile=profile), picture()


SCORABLE = {
    "palette": _palette,
    "palette with transparency": _palette_transparent,
    "CMYK JPEG": _cmyk,
    "16-bit grey PNG": _grey16,
    "16-bit TIFF": _tiff16,
    "float TIFF": _tiff_float,
    "8-bit values in a 32-bit TIFF": _grey16_int32,
    "16-bit colour PNG": _colour16("colour16.png"),
    "16-bit colour TIFF": _colour16("colour16.tiff"),
    "PNG with a profile of 2 MB": _photo_with("profile.png", icc_profile=_PROFILE),
    "JPEG with a profile of 2 MB": _photo_with("profile.jpg", icc_profile=_PROFILE, quality=95),
    "WebP with a profile of 2 MB": _photo_with("profile.webp", icc_profile=_PROFILE, lossless=True),
    "TIFF with a profile of 2 MB": _photo_with("profile.tiff", icc_profile=_PROFILE),
    "PNG with long text": _long_text,
    "PNG with damaged text": _damaged_text,
    **{
        f"{suffix} with damaged EXIF data": _photo_with(f"exif.{suffix}", exif=_DAMAGED_EXIF, **options)
        for suffix, options in {"jpg": {"quality": 95}, "png": {}, "webp": {"lossless": True}}.items()
    },
    "1-bit": _one_bit,
    "grey with alpha": _grey_alpha,
    "RGBA": _rgba,
    "animated GIF": _animated("animated.gif"),
    "animated WebP": _animated("animated.webp", lossless=True),
    "animated PNG": _animated("animated.png"),
    "one pixel": _one_pixel,
    "9000x9000": _huge,
    "3000x2": _elongated,
    "progressive JPEG": _photo("progressive.jpg", progressive=True, quality=95),
    "BMP": _photo("photo.bmp"),
    "ICC profile": _colour_profile,
    "JPEG named .png": _photo("really_a_jpeg.png", format="JPEG", quality=95),
    **{f"EXIF orientation {o}": _rotated(o) for o in _UNDO},
}


def _truncated(format, share=0.5):
    def build(folder):
        path = folder / f"truncated.{format}"
        Image.fromarray(data.astronaut()).save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return build


def _content(name, content):
    def build(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return build


def _directory(folder):
    path = folder / "folder.png"
    path.mkdir()
    return path


def _png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + _png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    + _png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    + _png_chunk(b"IEND", b"")
)

UNREADABLE = {
    "truncated JPEG": _truncated("jpg"),
    "JPEG truncated in its header": _truncated("jpeg", share=0.005),
    "truncated PNG": _truncated("png"),
    "empty file": _content("empty.jpg", b""),
    "text file named .png": _content("notes.png", b"This is not an image.\n" * 50),
    "random bytes": _content("random.jpg", np.random.default_rng(0).bytes(5000)),
    "missing file": lambda folder: folder / "missing.jpg",
    "folder instead of a file": _directory,
    "decompression bomb": _content("bomb.png", _BOMB),
}

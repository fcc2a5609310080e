"""Files that are nearly what they should be: bytes flipped, cut, repeated, and headers that promise the impossible."""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

SUFFIXES = {
    "png": {},
    "jpg": {"quality": 85},
    "webp": {"lossless": True},
    "tif": {},
    "bmp": {},
    "gif": {},
    "ppm": {},
    "tga": {},
    "ico": {},
    "jp2": {},
    "qoi": {},
    "dds": {},
    "pcx": {},
    "sgi": {},
    "avif": {},
}


def mutate(content, chance):
    """A file's bytes with one to eight faults, of ``random.Random``."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if not content:
            break
        # Half of the faults are where headers are
        place = chance.randrange(min(len(content), 64) if chance.random() < 0.5 else len(content))
        kind = chance.randrange(6)
        if kind == 0:
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[place] = chance.choice((0, 1, 127, 128, 254, 255))
        elif kind == 2:
            del content[place:]
        elif kind == 3:
            content[place : place + 4] = struct.pack(
                chance.choice("<>") + "I", chance.choice((0, 1, 2**31 - 1, 2**32 - 1))
            )
        elif kind == 4:
            content[place:place] = content[place : place + chance.randrange(1, 64)]
        else:
            del content[place : place + chance.randrange(1, 64)]
    return bytes(content)


def pictures():
    """One small picture in each format that Pillow writes here, as bytes by suffix."""
    grey = np.linspace(0, 255, 24 * 20).reshape(20, 24).astype(np.uint8)
    picture = Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2))
    made = {}
    for suffix, options in SUFFIXES.items():
        content = io.BytesIO()
        try:
            picture.save(content, Image.registered_extensions()[f".{suffix}"], **options)
        except (KeyError, OSError):
            continue
        made[suffix] = content.getvalue()
    for name, image in {"16.png": grey.astype(np.uint16) * 257, "p.png": None, "a.png": None}.items():
        content = io.BytesIO()
        special = Image.fromarray(image) if image is not None else picture.convert({"p": "P", "a": "LA"}[name[0]])
        special.save(content, "PNG")
        made[name] = content.getvalue()
    return made


def png_that_promises(width, height, mode=2):
    """A PNG file of a few dozen bytes whose header says that it is this large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def mutate_json(value, chance, depth=0):
    """JSON with one value replaced by another kind of value."""
    others = (
        None,
        -1,
        0,
        1e308,
        10**12,
        "",
        "x" * 50,
        [],
        {},
        True,
        float("nan"),
        [1, "a"],
        {"__class__": "os.system"},
    )
    if isinstance(value, dict) and value and (depth == 0 or chance.random() < 0.7):
        name = chance.choice(list(value))
        if chance.random() < 0.15:
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: mutate_json(value[name], chance, depth + 1)}
    if isinstance(value, list) and value and chance.random() < 0.5:
        place = chance.randrange(len(value))
        return [*value[:place], mutate_json(value[place], chance, depth + 1), *value[place + 1 :]]
    return chance.choice(others)


def split_safetensors(content):
    """The header, as a dict, and the rest of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(header, data):
    """A safetensors file."""
    said = json.dumps(header).encode()
    return struct.pack("<Q", len(said)) + said + data


def model_folders(folder):
    """Small models of several kinds, each a folder that diffusers wrote: paths by name."""
    import diffusers
    from tiny_models import score_unet, unet

    made = {}
    for name, module, scheduler in (
        ("ddpm", unet(), diffusers.DDPMScheduler()),
        ("score", score_unet(), diffusers.ScoreSdeVeScheduler(num_train_timesteps=100)),
    ):
        made[name] = folder / name
        module.save_pretrained(made[name])
        scheduler.save_pretrained(made[name] / "scheduler")
    return made

"""Damaged files: each is one sentence of ours, in bounded time and memory, and starts nothing.

Some of each by default; ``DIFFPATH_SOAK=full`` takes thousands.
"""

import json
import os
import random
import resource
import shutil
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import read_demo
from soak.mutations import (
    join_safetensors,
    model_folders,
    mutate,
    mutate_json,
    pictures,
    png_that_promises,
    split_safetensors,
)

from diffpath import DiffPathV2, Reference, load_reference
from diffpath.errors import ImageError, ModelError, ReferenceSetError
from diffpath.images import load_image

FULL = os.environ.get("DIFFPATH_SOAK") == "full"
LONGEST = 20.0  # seconds, for one file
MOST_MEMORY = 1.5e9  # bytes


def test_no_damaged_picture_is_more_than_a_sentence(tmp_path):
    chance, made = random.Random(0), pictures()
    read = refused = 0
    for number in range(5000 if FULL else 300):
        suffix = chance.choice(list(made))
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(mutate(made[suffix], chance))
        began, said = time.monotonic(), None
        try:
            pixels = load_image(path, 32)
        except ImageError as error:
            said = str(error)
        assert str(path) in said if said else pixels.shape == (32, 32, 3)
        read, refused = read + (said is None), refused + (said is not None)
        assert time.monotonic() - began < LONGEST, f"{path} took too long"
        path.unlink()
    print(f"pictures: {read} read, {refused} refused, none failed otherwise")


def test_pictures_that_promise_the_impossible_stay_within_the_budget(tmp_path):
    promised = [(1, 170_000_000), (170_000_000, 1), (13_000, 13_000), (2**31 - 1, 2**31 - 1), (9_000, 9_000)]
    paths = []
    for mode in (0, 2, 3, 4, 6):
        for width, height in promised:
            paths.append(tmp_path / f"{width}x{height}-{mode}.png")
            paths[-1].write_bytes(png_that_promises(width, height, mode))
    before = _peak()

    def load(path):
        with pytest.raises(ImageError):
            load_image(path, 32)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, paths))
    assert _peak() - before < MOST_MEMORY


def test_a_picture_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    for name in ("gs", "gswin64c", "convert"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {ran}\n")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for head in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n",):
        for name in ("cat.png", "cat.eps", "cat.jpg"):
            (tmp_path / name).write_bytes(head)
            with pytest.raises(ImageError, match="EPS or PostScript.*convert it to PNG"):
                load_image(tmp_path / name, 32)
    assert not ran.exists()


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Saved references of every kind, as bytes, and an image's descriptor for each."""
    folder, images = tmp_path_factory.mktemp("references"), list(read_demo("reference", 14))
    made = {}
    for name, method, options in (
        ("kde", DiffPathV2(num_timesteps=2), {}),
        ("gmm", DiffPathV2(num_timesteps=2), {"density": "gmm"}),
        ("mahalanobis", DiffPathV2(num_timesteps=2), {"density": "mahalanobis", "trim": 0.3}),
        ("looks", DiffPathV2(num_timesteps=2, detail=2), {}),
    ):
        Reference.fit(method, images, **options).save(folder / name)
        made[name] = (folder / name).read_bytes(), method.score_images(images[:1]).descriptor
    result = DiffPathV2(num_timesteps=2).score_images(images)
    vectors = np.random.default_rng(0).normal(size=(14, 5)).astype(np.float32)
    fused = np.hstack([result.descriptor, vectors])
    provenance = {**DiffPathV2(num_timesteps=2).provenance, "embedding_length": 5}
    Reference.of(fused, provenance).save(folder / "fused")
    made["fused"] = (folder / "fused").read_bytes(), fused[:1]
    return made


def test_no_damaged_reference_is_more_than_a_sentence(references, tmp_path):
    chance, path = random.Random(1), tmp_path / "damaged.safetensors"
    read = refused = 0
    for _ in range(2000 if FULL else 150):
        content, descriptor = references[chance.choice(list(references))]
        path.write_bytes(_damage_reference(content, chance))
        try:
            detector = load_reference(path).detector
        except ReferenceSetError as error:
            said = str(error)
            assert str(path) in said
            assert len(said) < 2000
            refused += 1
        else:
            assert np.isfinite(detector.score_samples(descriptor)).all()
            assert np.isfinite(detector.p_values(descriptor)).all()
            read += 1
    print(f"references: {read} read, {refused} refused, none failed otherwise")
    assert refused > 0.8 * (read + refused)


def test_every_flipped_bit_of_a_reference_is_noticed(references, tmp_path):
    chance, path = random.Random(2), tmp_path / "flipped.safetensors"
    content, _ = references["kde"]
    for _ in range(400 if FULL else 60):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(ReferenceSetError):
            load_reference(path)


def _damage_reference(content, chance):
    """Bytes at random, or a file that is sound in form: other numbers, names, sizes or parameters, no checksum."""
    kind = chance.randrange(4)
    if kind == 0:
        return mutate(content, chance)
    header, data = split_safetensors(content)
    metadata = header["__metadata__"]
    metadata.pop("checksum")
    name = chance.choice([each for each in header if each != "__metadata__"])
    if kind == 1:
        about = mutate_json(json.loads(metadata["about"]), chance)
        metadata["about"] = chance.choice((json.dumps(about), json.dumps(about), "", "[" * 5000))
    elif kind == 2:
        begin, end = header[name]["data_offsets"]
        if header[name]["dtype"] == "F64" and end > begin:
            value = np.array([chance.choice((np.nan, np.inf, -np.inf))]).tobytes()
            place = begin + 8 * chance.randrange((end - begin) // 8)
            data = data[:place] + value + data[place + 8 :]
        else:
            del header[name]
    else:
        other = chance.choice(("__class__", "score_samples", "calibration_", f"{name}.x"))
        shape = header[name]["shape"]
        changed = {**header[name], "shape": [int(np.prod(shape)), *([1] * chance.randrange(2))]}
        header = {other if each == name and chance.random() < 0.5 else each: made for each, made in header.items()}
        if name in header:
            header[name] = changed
    return join_safetensors(header, data)


def _peak():
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_no_damaged_model_is_more_than_a_sentence(tmp_path):
    chance, folders = random.Random(3), model_folders(tmp_path)
    image = [np.zeros((20, 20, 3), np.uint8)]
    loaded = refused = 0
    for number in range(2000 if FULL else 60):
        name = chance.choice(list(folders))
        folder = tmp_path / "damaged" / str(number)
        shutil.copytree(folders[name], folder)
        file = chance.choice(("config.json", "scheduler/scheduler_config.json", "diffusion_pytorch_model.safetensors"))
        _damage_model(folder / file, chance)
        began = time.monotonic()
        try:
            method = DiffPathV2(folder, num_timesteps=2)
        except ValueError as error:  # a ModelError, or an option that does not suit what is left of the schedule
            assert len(str(error)) < 2000  # noqa: PT017
            refused += 1
        else:
            assert method.score_images(image).descriptor.shape[0] == 1
            loaded += 1
        assert time.monotonic() - began < LONGEST, f"{file} of {folder} took too long"
        shutil.rmtree(folder)
    print(f"models: {loaded} loaded, {refused} refused, none failed otherwise")


@pytest.mark.parametrize(
    "file, key, value",
    [
        ("config.json", "layers_per_block", 10**6),
        ("config.json", "block_out_channels", [10**9, 10**9]),
        ("config.json", "sample_size", -4),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**12),
        ("scheduler/scheduler_config.json", "beta_end", float("nan")),
        ("scheduler/scheduler_config.json", "trained_betas", [[]]),
    ],
)
def test_a_model_that_asks_for_the_impossible_is_refused_before_it_is_built(tmp_path, file, key, value):
    folder = model_folders(tmp_path)["ddpm"]
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, key: value}))
    before, began = _peak(), time.monotonic()
    with pytest.raises(ModelError):
        DiffPathV2(folder, num_timesteps=2)
    assert time.monotonic() - began < LONGEST and _peak() - before < MOST_MEMORY


def _damage_model(path, chance):
    if path.suffix == ".json":
        config = mutate_json(json.loads(path.read_text()), chance)
        path.write_text(chance.choice((json.dumps(config),) * 9 + ("[" * 50_000,)))
    elif chance.random() < 0.5:
        path.write_bytes(mutate(path.read_bytes(), chance))
    else:
        header, data = split_safetensors(path.read_bytes())
        name = chance.choice([each for each in header if each != "__metadata__"])
        changed = {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}
        header = {each: made for each, made in header.items() if each != name or chance.random() < 0.3}
        if name in header:
            header[name] = {**header[name], **{key: changed[key] for key in chance.sample(list(changed), 1)}}
        path.write_bytes(join_safetensors(header, data))

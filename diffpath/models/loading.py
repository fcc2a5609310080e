"""Loads a model onto a device; schedule and prediction type are read from the checkpoint, never guessed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch

from ..errors import ModelError
from .cards import find_card
from .folder import AUTOENCODERS, BUNDLED_MODEL, ModelFolder, find_folder
from .memory import is_out_of_memory
from .networks import Network, load_module, load_network
from .predictor import NoisePredictor
from .schedule import VARIANCE_EXPLODING, Schedule, read_schedule
from .spaces import LatentSpace, PixelSpace, Space

# Weakly: a model that nobody uses any more leaves its device
_IN_USE: WeakValueDictionary[tuple, NoisePredictor] = WeakValueDictionary()
_LOADING = Lock()
_LARGE = 64**2 * 320  # numbers in a feature map, as Stable Diffusion's


def load_model(
    model: str | os.PathLike[str] | NoisePredictor = BUNDLED_MODEL,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    prediction_type: str | None = None,
    latent_scaling: float | None = None,
    class_label: int | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    compile: bool = False,
) -> NoisePredictor:
    """Loads a pretrained diffusion model.

    Args:
        model: ``"bundled"``, the path of a diffusers folder, a hub id such as
            ``"google/ddpm-cifar10-32"``, or a :class:`NoisePredictor`, which is
            returned as it is
        device: a torch device; by default CUDA, then MPS, then the CPU
        dtype: the network's autocast type, a torch dtype or its name; by default
            bfloat16 (float16 on older GPUs) where the device computes it faster than
            float32, else float32
        prediction_type: ``"epsilon"``, ``"sample"`` or ``"v_prediction"``, for a
            scheduler that does not say it
        latent_scaling: for an autoencoder that does not say its ``scaling_factor``
        class_label: the class that a class-conditional ``UNet2DModel`` knows as "none"
        revision: a hub branch, tag or commit; by default the main branch
        allow_pickle: whether pickled weights may be read, as tensors only, where there
            are no safetensors
        compile: whether ``torch.compile`` compiles the network when it is first called

    Returns:
        a :class:`NoisePredictor`: the same one for the same arguments and files, as long as somebody
        uses it

    Raises:
        ModelError: if the model is missing, incomplete, of another architecture, or
            cannot be fetched
    """
    given = dict(prediction_type=prediction_type, latent_scaling=latent_scaling, class_label=class_label)
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(model, NoisePredictor):
        return model
    folder = find_folder(model, revision=revision, allow_pickle=allow_pickle)
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    key = folder, folder.stamp(), device, dtype, compile, tuple(given.items())
    with _LOADING:
        predictor = _IN_USE.get(key)
        if predictor is None:
            try:
                predictor = _IN_USE[key] = _load(folder, device, dtype, compile, given)
            except (ModelError, MemoryError):
                raise
            except Exception as error:  # a configuration that nobody foresaw
                said = f"{type(error).__name__}: {str(error)[:160]}"
                raise ModelError(f"model {folder.name!r} cannot be loaded ({said}); choose another model") from error
        return predictor


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The given device, or the best one that this machine has."""
    if device is not None:
        return _check_device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _check_device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device must be one such as 'cpu', 'cuda:1' or 'mps', got {name!r}") from error
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= counts.get(device.type, 1):
        raise ModelError(
            f"there is no device {name!r} here, but {counts[device.type]} of its kind; use another or 'cpu'"
        )
    return device


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The given autocast type, or the fastest one that the device computes well."""
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)  # an unknown name is refused below
    if dtype is None:
        return _fast_dtype(device)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ModelError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    return dtype


def _fast_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        # Without these instructions bfloat16 is emulated and slower than float32
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, check, bool)() for check in checks):
            return torch.bfloat16
    return torch.float32


@dataclass(frozen=True)
class ModelParts:
    """What a model is made of, on the CPU.

    Attributes:
        network: its network
        schedule: the noise levels that it was trained with, and what the network's output says of the noise
        space: the space in which it diffuses
        image_channels: of the images that it knows
    """

    network: Network
    schedule: Schedule
    space: Space
    image_channels: int


def load_parts(folder: ModelFolder, given: Mapping[str, Any] | None = None) -> ModelParts:
    """Loads a model's parts from its folder: for :func:`load_model`, and for training, which changes the network.

    Args:
        folder: of the model
        given: what its checkpoint does not say: ``prediction_type``, ``latent_scaling``, ``class_label``

    Raises:
        ModelError: as :func:`load_model`
    """
    given = given or {}
    card = find_card(folder.name)
    known = card.settings if card else {}  # of keys that its checkpoint may leave out
    own = folder.own_config()
    config = folder.read_json(folder.scheduler)
    unsaid = None if "prediction_type" in config else known.get("prediction_type")
    schedule = read_schedule(
        config,
        folder.name,
        prediction_type=given.get("prediction_type", unsaid),
        timestep_scale=own.get("timestep_scale", 1),
    )
    network = load_network(folder, class_label=given.get("class_label", own.get("class_label")))
    space: Space
    if part := folder.part(AUTOENCODERS):
        scaling = given.get("latent_scaling", known.get("latent_scaling"))
        space, image_channels = _load_latent_space(folder, part, scaling)
    else:
        space = PixelSpace(low=0.0 if config["_class_name"] == VARIANCE_EXPLODING else -1.0)
        image_channels = network.channels
    if image_channels not in (1, 3):
        raise ModelError(
            f"model {folder.name!r} denoises {image_channels} channels, images have 1 or 3, and it has no autoencoder "
            f"({' or '.join(AUTOENCODERS)}) in its folder; choose another model or give the whole pipeline"
        )
    return ModelParts(network, schedule, space, image_channels)


def _load(
    folder: ModelFolder, device: torch.device, dtype: torch.dtype, compile: bool, given: Mapping[str, Any]
) -> NoisePredictor:
    parts = load_parts(folder, given)
    network, space = parts.network, parts.space
    predictor = NoisePredictor(
        _place(folder, network, space, device, compile),
        parts.schedule,
        space=space,
        channels=network.channels,
        image_channels=parts.image_channels,
        resolution=network.sample_size * space.factor,
        resolution_multiple=network.multiple * space.factor,
        width=network.width,
        device=device,
        dtype=dtype,
        name=folder.name,
        revision=folder.revision,
        fingerprint=folder.fingerprint(given),
        # Compiled code has its number of threads built in, and one evaluation of a large network fills all cores
        concurrent=not compile and network.sample_size**2 * network.width < _LARGE,
    )
    if not compile:
        _try_out(predictor, network)
    return predictor


def _try_out(predictor: NoisePredictor, network: Network) -> None:
    """Asks a network once, of nothing: what its configuration leaves out or contradicts raises now, not amid images."""
    side, middle = network.sample_size, len(predictor.schedule) // 2
    nothing = torch.zeros(1, predictor.channels, side, side, device=predictor.device)
    try:
        predictor.predict_noise(nothing, torch.tensor([middle], device=predictor.device))
    except Exception as error:
        if not is_out_of_memory(error):  # which is met, and said, when there are images
            raise


def _place(folder: ModelFolder, network: Network, space: Space, device: torch.device, compile: bool) -> Network:
    """The network on a device, in the layout that is fastest there, and its space beside it."""
    try:
        module: Any = network.module.to(device)  # torch's types know no memory_format
        if device.type == "cuda":
            module = module.to(memory_format=torch.channels_last)
        extras = {name: value.to(device) for name, value in network.extras.items()}
        space.to(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"model {folder.name!r} does not fit into the memory of {device}; choose a smaller one"
        ) from error
    if compile:
        module = torch.compile(module)
    return replace(network, module=module, extras=extras)


def _load_latent_space(folder: ModelFolder, part: Path, scaling: float | None) -> tuple[LatentSpace, int]:
    import diffusers

    config = folder.read_json(part / "config.json")
    kind = config.get("_class_name")
    if kind not in ("AutoencoderKL", "VQModel"):
        raise ModelError(
            f"the autoencoder of model {folder.name!r} must be an AutoencoderKL or VQModel, got {kind}; "
            "choose another model"
        )
    folder.require(part, config, ("block_out_channels", "in_channels"))
    said = config.get("scaling_factor")
    scaling = scaling if said is None else said
    if scaling is None:
        raise ModelError(
            f"{part.name}/config.json of model {folder.name!r} does not say 'scaling_factor'; add the key, or pass "
            "latent_scaling"
        )
    space = LatentSpace(
        load_module(folder, part, getattr(diffusers, kind)),
        factor=2 ** (len(config["block_out_channels"]) - 1),
        scaling=scaling,
        shift=config.get("shift_factor") or 0.0,
    )
    return space, config["in_channels"]

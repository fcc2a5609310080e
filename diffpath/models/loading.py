"""Loads a diffusers model folder; the schedule is read from the checkpoint, never guessed."""

import functools
import hashlib
import json
from pathlib import Path

import torch

from ..errors import ModelError
from .predictor import NoisePredictor

BUNDLED_MODEL = "bundled"
_BUNDLED_FOLDER = Path(__file__).parent / "bundled"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCHEDULE_KEYS = ("num_train_timesteps", "beta_schedule", "prediction_type")


def load_model(model=BUNDLED_MODEL, device=None, dtype=None):
    """Loads a pretrained diffusion model.

    Args:
        model: ``"bundled"``, the path of a diffusers pipeline folder (``unet/`` with a
            ``UNet2DModel`` in safetensors and ``scheduler/``), or a
            :class:`NoisePredictor`, which is returned as it is
        device: a torch device; by default CUDA, then MPS, then the CPU
        dtype: the network's autocast type, a torch dtype or its name; by default
            bfloat16 (float16 on older GPUs) where the device computes it faster than
            float32, else float32

    Returns:
        a :class:`NoisePredictor`; loaded once per process for the same arguments

    Raises:
        ModelError: if the folder is missing, incomplete or holds another architecture
    """
    if isinstance(model, NoisePredictor):
        return model
    folder = _BUNDLED_FOLDER if model == BUNDLED_MODEL else Path(model).expanduser().resolve()
    device = resolve_device(device)
    return _load_folder(folder, str(model), device, resolve_dtype(dtype, device))


def resolve_device(device=None):
    """The given device, or the best one that this machine has."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def resolve_dtype(dtype, device):
    """The given autocast type, or the fastest one that the device computes well."""
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    if dtype is None:
        return _fast_dtype(device)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ModelError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    return dtype


def _fast_dtype(device):
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        # Without these instructions bfloat16 is emulated and slower than float32
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if any(getattr(torch.cpu, check, bool)() for check in checks):
            return torch.bfloat16
    return torch.float32


@functools.lru_cache(maxsize=2)
def _load_folder(folder, name, device, dtype):
    from diffusers import DDPMScheduler, UNet2DModel

    schedule = _read_schedule(folder, name)
    config = _read_json(folder / "unet" / "config.json", name)
    if config.get("_class_name") != "UNet2DModel":
        raise ModelError(f"the network of model {name!r} must be a UNet2DModel, got {config.get('_class_name')}")
    if config.get("in_channels") not in (1, 3) or not config.get("sample_size"):
        raise ModelError(
            f"unet/config.json of model {name!r} must give in_channels 1 or 3 and a sample_size, "
            f"got {config.get('in_channels')} and {config.get('sample_size')}"
        )
    if not (folder / "unet" / _WEIGHTS).is_file():
        raise ModelError(
            f"model {name!r} has no unet/{_WEIGHTS}; save it with save_pretrained(safe_serialization=True)"
        )

    network = UNet2DModel.from_pretrained(
        folder, subfolder="unet", use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
    )
    network = network.eval().requires_grad_(False).to(device)
    return NoisePredictor(
        lambda noisy, timesteps: network(noisy, timesteps, return_dict=False)[0],
        DDPMScheduler.from_config(schedule).alphas_cumprod,
        prediction_type=schedule["prediction_type"],
        channels=config["in_channels"],
        resolution=config["sample_size"],
        resolution_multiple=2 ** (len(config["block_out_channels"]) - 1),
        device=device,
        dtype=dtype,
        name=name,
        fingerprint=_fingerprint(folder),
    )


def _read_schedule(folder, name):
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is neither {BUNDLED_MODEL!r} nor a folder; give the path of a diffusers folder"
        )
    schedule = _read_json(folder / "scheduler" / "scheduler_config.json", name)
    for key in _SCHEDULE_KEYS:
        if schedule.get(key) is None:
            raise ModelError(f"scheduler/scheduler_config.json of model {name!r} does not say {key!r}; add the key")
    return schedule


def _read_json(path, name):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {name!r} has no readable {path.parent.name}/{path.name}; give the path of a diffusers folder"
        ) from error


def _fingerprint(folder):
    digest = hashlib.sha256()
    for part in ("unet/config.json", f"unet/{_WEIGHTS}", "scheduler/scheduler_config.json"):
        digest.update((folder / part).read_bytes())
    return digest.hexdigest()[:16]

"""What a run leaves behind: the model folder, its card, the figures and the numbers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from jaxtyping import Float, UInt8
from torch import Tensor

from .. import __version__
from ..method.trajectory import noise_bank
from ..models import NoisePredictor
from ..models.folder import OWN_CONFIG, let_others_read
from .config import Config
from .crops import Crops
from .linear import MAX_DIMENSIONS, LinearDenoiser

if TYPE_CHECKING:
    from .trainer import Trainer

TIMESTEP_FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_BATCH = 128
_SAMPLING_STEPS = 50
_LINEAR_IMAGES = 40_000


def loss_by_timestep(
    predictor: NoisePredictor, images: Float[Tensor, "n c h w"], timesteps: Sequence[int]
) -> list[float]:
    """Mean squared noise error of a model on images.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        images: x₀, float32 ``(N, C, H, W)`` in [−1, 1]
        timesteps: whole numbers ``(T,)``

    Returns:
        a list of T floats; every image has noise of its own, the same at all timesteps
    """
    noise = noise_bank(len(images), images.shape[1], images.shape[2], seed=0)
    alphas, losses = _alphas_cumprod(predictor), []
    for timestep in timesteps:
        alpha = alphas[timestep]
        total = 0.0
        for x, e in zip(images.split(_BATCH), noise.split(_BATCH)):
            x, e = x.to(predictor.device), e.to(predictor.device)
            steps = torch.full((len(x),), timestep, device=predictor.device)
            predicted = predictor.predict_noise(alpha.sqrt() * x + (1 - alpha).sqrt() * e, steps)
            total += (predicted - e).square().mean().item() * len(x)
        losses.append(total / len(images))
    return losses


def _alphas_cumprod(predictor: NoisePredictor) -> Float[Tensor, " t"]:
    if predictor.alphas_cumprod is None:
        raise ValueError("only a variance-preserving model is measured by the powers of signal and noise")
    return predictor.alphas_cumprod


def linear_baseline(crops: Crops, alphas_cumprod: Float[Tensor, " t"]) -> list[float] | None:
    """What the optimal linear denoiser of the training crops leaves on the held-out ones.

    Args:
        crops: a :class:`diffpath.training.crops.Crops`
        alphas_cumprod: ᾱ ``(T,)``

    Returns:
        a list of T floats, or None where an image has too many values for a covariance
    """
    if np.prod(crops.train.shape[1:]) > MAX_DIMENSIONS:
        return None
    step = max(1, len(crops.train) // _LINEAR_IMAGES)
    denoiser = LinearDenoiser(to_network_scale(crops.train[::step]))
    return denoiser.expected_error(to_network_scale(crops.held_out), alphas_cumprod).tolist()


def to_network_scale(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """uint8 ``(N, H, W, 3)`` to float32 ``(N, 3, H, W)`` in [−1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class Reporter:
    """Measures a run on its held-out crops and writes what a person or a program reads."""

    def __init__(self, config: Config, crops: Crops, command: str) -> None:
        self.config, self.crops, self.command = config, crops, command
        self.folder = Path(config.output) / "model"
        self._linear: list[float] | None = None

    def write(self, trainer: Trainer) -> dict[str, Any]:
        """Writes the model folder, ``metrics.json``, ``loss.png``, ``samples.png`` and the card.

        Returns:
            the metrics
        """
        predictor = trainer.predictor
        timesteps = [int(fraction * predictor.num_train_timesteps) for fraction in TIMESTEP_FRACTIONS]
        if self._linear is None:
            self._linear = linear_baseline(self.crops, _alphas_cumprod(predictor)[timesteps].cpu())
        metrics: dict[str, Any] = dict(
            steps=trainer.step,
            images_seen=trainer.step * self.config.training.batch_size,
            parameters=sum(parameter.numel() for parameter in trainer.average.parameters()),
            training_loss=float(np.mean(trainer.losses[-100:])),
            timesteps=timesteps,
            held_out_loss=loss_by_timestep(predictor, to_network_scale(self.crops.held_out), timesteps),
            linear_loss=self._linear,
            cpu_seconds=round(trainer.cpu_seconds, 1),
            seconds=round(trainer.seconds, 1),
            device=str(trainer.device),
            dtype=str(trainer.dtype).removeprefix("torch."),
            seed=self.config.seed,
            command=self.command,
            revision=revision(),
            crops=self.crops.fingerprint,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        save_pipeline(trainer, self.folder)
        (self.folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        draw_losses(trainer.losses, metrics, self.folder / "loss.png")
        if self.config.training.samples:
            samples = draw_samples(trainer, self.config.training.samples)
            write_grid(samples, self.folder / "samples.png")
        ModelCard(model_card(self.config, self.crops, metrics)).save(self.folder / "README.md")
        return metrics


def save_pipeline(trainer: Trainer, folder: Path) -> None:
    """The averaged weights as a diffusers ``DDPMPipeline`` folder in safetensors."""
    from diffusers import DDPMPipeline

    DDPMPipeline(unet=trainer.average, scheduler=trainer.scheduler).save_pretrained(folder, safe_serialization=True)
    let_others_read(folder)
    if trainer.own_config:  # of the model that the training started from
        (folder / OWN_CONFIG).write_text(json.dumps(trainer.own_config, indent=2) + "\n")


@torch.inference_mode()
def draw_samples(trainer: Trainer, count: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Samples of the averaged network by DDIM, uint8 ``(count, side, side, 3)``."""
    from diffusers import DDIMScheduler

    predictor, side = trainer.predictor, trainer.config.data.resolution
    scheduler = DDIMScheduler.from_config({**trainer.scheduler.config, "prediction_type": "epsilon"})
    scheduler.set_timesteps(_SAMPLING_STEPS)
    images = noise_bank(count, 3, side, trainer.config.seed).to(predictor.device)
    for timestep in scheduler.timesteps:
        steps = torch.full((count,), int(timestep), device=predictor.device)
        images = scheduler.step(predictor.predict_noise(images, steps), timestep, images).prev_sample
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def write_grid(images: UInt8[np.ndarray, "n s s 3"], path: Path, gap: int = 2, zoom: int = 2) -> None:
    """Images ``(N, side, side, 3)`` side by side in a PNG that is nearly square."""
    from PIL import Image

    columns = int(np.ceil(np.sqrt(len(images))))
    rows, side = -(-len(images) // columns), images.shape[1] + gap
    sheet = np.full((rows * side + gap, columns * side + gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = gap + number // columns * side, gap + number % columns * side
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    height, width = sheet.shape[0] * zoom, sheet.shape[1] * zoom
    Image.fromarray(sheet).resize((width, height), Image.Resampling.NEAREST).save(path)


def draw_losses(losses: Sequence[float], metrics: dict[str, Any], path: Path) -> None:
    """The training loss by step, and the held-out loss by timestep beside the linear baseline."""
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    window = max(1, min(50, len(losses) // 4))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    left.plot(np.arange(1, len(losses) + 1), losses, color="0.85", linewidth=0.8, label="each step")
    left.plot(np.arange(len(smooth)) + window, smooth, color="C0", label=f"mean of {window} steps")
    left.set(yscale="log", xlabel="step", ylabel="mean squared error", title="Training loss")
    right.plot(metrics["timesteps"], metrics["held_out_loss"], "o-", color="C0", label="network (averaged weights)")
    if metrics["linear_loss"]:
        right.plot(metrics["timesteps"], metrics["linear_loss"], "s--", color="C1", label="optimal linear denoiser")
    right.set(yscale="log", xlabel="timestep", ylabel="mean squared noise error", title="Held-out pictures")
    for axes in (left, right):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def model_card(config: Config, crops: Crops, metrics: dict[str, Any]) -> str:
    """The model's README: data, command, seed, revision, measurements."""
    sources = [
        f"| {folder.source or Path(folder.path).name} | {files['train']} | {files['held out']} | {files['crops']} | "
        f"{folder.smallest} px – {folder.largest:g} | {folder.licence or 'not given'} |"
        for folder, files in zip(config.data.folders, crops.files)
    ]
    baseline = metrics["linear_loss"] or [None] * len(metrics["timesteps"])
    losses = [
        f"| {t} | {network:.4f} | {f'{linear:.4f}' if linear is not None else '–'} |"
        for t, network, linear in zip(metrics["timesteps"], metrics["held_out_loss"], baseline)
    ]
    start = f", from the weights of {Path(config.training.start_from).name}" if config.training.start_from else ""
    lines = [
        "# A diffusion model for diffpath\n",
        *([config.description + "\n"] if config.description else []),
        f"A `DDPMPipeline` folder of {metrics['parameters'] / 1e6:.2f} M parameters for images of "
        f"{config.data.resolution}×{config.data.resolution} RGB, trained by diffpath {__version__}. "
        "`diffpath.DiffPathV2(model=…)` reads it.\n",
        f"**Training.** {metrics['steps']} steps of batch {config.training.batch_size}{start}; "
        f"AdamW, learning rate {config.training.learning_rate:g}, average of the weights up to "
        f"{config.training.ema:g}; {metrics['dtype']} on {metrics['device']}, "
        f"{metrics['cpu_seconds'] / 60:.1f} minutes of processor time. Training loss {metrics['training_loss']:.4f} "
        "(mean of the last 100 steps).\n",
        f"**To repeat it.** `{metrics['command']}`, seed {metrics['seed']}, git revision {metrics['revision']}.\n",
        "**Data.** Split by picture; box-filtered square crops, side log-uniform between the pixels and the share "
        "of the shorter side given; nearly flat ones mostly dropped.\n",
        "\n".join(
            ["| source | pictures | held out | crops | side | licence |", "|---|---|---|---|---|---|", *sources, ""]
        ),
        f"**Measured.** Mean squared noise error on {len(crops.held_out)} crops of held-out pictures, beside the "
        "optimal linear denoiser of the training crops:\n",
        "\n".join(["| timestep | network | linear |", "|---|---|---|", *losses, ""]),
        "![Loss](loss.png)\n",
        *(["![Samples](samples.png)\n"] if config.training.samples else []),
        "**Configuration.**\n",
        f"```json\n{json.dumps(_shown(config), indent=1, ensure_ascii=False)}\n```\n",
    ]
    data = ModelCardData(license="other", library_name="diffusers")
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines)


def _shown(config: Config) -> dict[str, Any]:
    """The configuration without the paths of one machine."""
    content = config.to_dict()
    content.pop("output")
    content["data"].pop("cache")
    content["training"]["start_from"] = Path(content["training"]["start_from"]).name
    for folder in content["data"]["folders"]:
        folder["path"] = Path(folder["path"]).name
    return content


def revision() -> str:
    """The git revision of this code, with ``-dirty`` where it was changed; else the version."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"unknown (diffpath {__version__})"
    return done.stdout.strip()

"""Noised trajectories and score errors.

Symbols (DiffPathV2, arXiv 2507.22692, and DiffPath, arXiv 2405.11881), and their names
in the code:

    x₀                              images           (N, C, H, W) in [−1, 1]
    τ₁ < … < τ_T                    timesteps        (T,)
    ε ~ N(0, I)                     noise            (D, c, h, w)
    x_t = a_t x₀ + σ_t ε            noisy            (N, D, T, c, h, w)
    ε̂ = model(x_t, t)               predicted_noise  (N, D, T, c, h, w)
    e_t = ε̂ − ε                     score_error      (N, D, T, c, h, w)
    x̂₀ = (x_t − σ_t ε̂) / a_t        reconstruction   (N, D, T, C, H, W), clipped

a_t = √ᾱ_t and σ_t = √(1−ᾱ_t) for most models. A latent model does all of this to the latent
of x₀, c channels of h × w, and decodes the reconstruction; for others c, h, w are C, H, W.

One bank of D noise draws is shared by all images and all timesteps: features then depend
on nothing but the image, and the temporal derivative of e_t does not measure resampled
noise.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..models import NoisePredictor, Tiles


@dataclass(frozen=True)
class Trajectory:
    """What a model makes of a batch, float32.

    Attributes:
        score_error: e ``(N, D, T, c, h, w)`` in the model's space
        reconstruction: x̂₀ ``(N, D, T, C, H, W)``, images in [−1, 1]
    """

    score_error: Float[Tensor, "n d t c h w"]
    reconstruction: Float[Tensor, "n d t channels height width"]


def spaced_timesteps(
    num_timesteps: int, timestep_range: tuple[float, float], num_train_timesteps: int
) -> Int64[Tensor, " {num_timesteps}"]:
    """Timesteps evenly spaced over a range of the schedule.

    Args:
        num_timesteps: T
        timestep_range: first and last timestep, as fractions of the schedule in [0, 1]
        num_train_timesteps: the length of the schedule

    Returns:
        int64 tensor ``(T,)``, strictly increasing

    Raises:
        ValueError: if T distinct timesteps do not fit in the range
    """
    first, last = timestep_range
    if not 0 <= first < last <= 1:
        raise ValueError(f"timestep_range must be two increasing fractions in [0, 1], got {timestep_range}")
    if num_timesteps < 2:
        raise ValueError(f"num_timesteps must be at least 2 for a temporal derivative, got {num_timesteps}")
    fractions = torch.linspace(first, last, num_timesteps, dtype=torch.float64)
    timesteps = (fractions * num_train_timesteps).round().long().clamp(max=num_train_timesteps - 1)
    if len(timesteps.unique()) < num_timesteps:
        raise ValueError(
            f"num_timesteps={num_timesteps} does not fit in timestep_range={timestep_range} of a schedule of "
            f"{num_train_timesteps} steps; use fewer timesteps or a wider range"
        )
    return timesteps


def noise_bank(
    num_noise_draws: int, channels: int, resolution: int, seed: int
) -> Float[Tensor, "{num_noise_draws} {channels} {resolution} {resolution}"]:
    """The seeded noise ε that all images share, float32 ``(D, C, H, W)`` on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_noise_draws, channels, resolution, resolution, generator=generator)


def compute_trajectory(
    predictor: NoisePredictor,
    images: Float[Tensor, "n channels height width"],
    timesteps: Int64[Tensor, " t"],
    noise: Float[Tensor, "d c h w"],
    max_evaluations: int | None,
    tiles: Tiles | None = None,
) -> Trajectory:
    """Noises images at every timestep and compares predicted with true noise.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        images: x₀, float32 ``(N, C, H, W)`` in [−1, 1]
        timesteps: τ, int64 ``(T,)``
        noise: ε, float32 ``(D, c, h, w)``
        max_evaluations: as many noisy images, or tiles of them, enter each forward pass, the last one filled up
        tiles: a :class:`diffpath.models.Tiles` of side h, or None for whole images

    Returns:
        a :class:`Trajectory`
    """
    counts = len(images), len(noise), len(timesteps)
    clean = predictor.encode(images, max_evaluations)
    clean = clean[:, None, None].expand(*counts, *clean.shape[1:])
    noise = noise[None, :, None]
    layout = torch.channels_last  # the one that convolutions are fastest on
    predicted = predictor.predict(
        clean.flatten(0, 2).contiguous(memory_format=layout),
        noise.expand(clean.shape).flatten(0, 2).contiguous(memory_format=layout),
        timesteps.repeat(counts[0] * counts[1]),
        max_evaluations=max_evaluations,
        tiles=tiles,
    )
    reconstruction = predictor.decode(predicted.clean, max_evaluations)
    return Trajectory(predicted.noise.unflatten(0, counts) - noise, reconstruction.unflatten(0, counts))

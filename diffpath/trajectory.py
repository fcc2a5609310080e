"""Noised trajectories and score errors.

Symbols (DiffPathV2, arXiv 2507.22692, and DiffPath, arXiv 2405.11881), and their names
in the code:

    x₀                                      images           (N, C, H, W) in [−1, 1]
    τ₁ < … < τ_T                            timesteps        (T,)
    ᾱ_t                                     alphas_cumprod   (num_train_timesteps,)
    ε ~ N(0, I)                             noise            (D, C, H, W)
    x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε              noisy            (N, D, T, C, H, W)
    ε̂ = model(x_t, t)                       predicted_noise  (N, D, T, C, H, W)
    e_t = ε̂ − ε                             score_error      (N, D, T, C, H, W)
    x̂₀ = (x_t − √(1−ᾱ_t) ε̂) / √ᾱ_t         reconstruction   (N, D, T, C, H, W), clipped

One bank of D noise draws is shared by all images and all timesteps: features then depend
on nothing but the image, and the temporal derivative of e_t does not measure resampled
noise.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Trajectory:
    """Score errors and reconstructions of a batch, each ``(N, D, T, C, H, W)`` float32."""

    score_error: torch.Tensor
    reconstruction: torch.Tensor


def spaced_timesteps(num_timesteps, timestep_range, num_train_timesteps):
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


def noise_bank(num_noise_draws, channels, resolution, seed):
    """The seeded noise ε that all images share, float32 ``(D, C, H, W)`` on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_noise_draws, channels, resolution, resolution, generator=generator)


def compute_trajectory(predictor, images, timesteps, noise, max_evaluations):
    """Noises images at every timestep and compares predicted with true noise.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        images: x₀, float32 ``(N, C, H, W)`` in [−1, 1]
        timesteps: τ, int64 ``(T,)``
        noise: ε, float32 ``(D, C, H, W)``
        max_evaluations: at most this many noisy images enter one forward pass

    Returns:
        a :class:`Trajectory`
    """
    alphas = predictor.alphas_cumprod[timesteps].view(1, 1, -1, 1, 1, 1)
    signal, spread = alphas.sqrt(), (1 - alphas).sqrt()
    noise = noise[None, :, None]
    noisy = signal * images[:, None, None] + spread * noise

    draws_and_images = noisy.shape[0] * noisy.shape[1]
    predicted_noise = torch.cat(
        [
            predictor.predict_noise(chunk, chunk_timesteps)
            for chunk, chunk_timesteps in zip(
                noisy.flatten(0, 2).split(max_evaluations),
                timesteps.repeat(draws_and_images).split(max_evaluations),
            )
        ]
    ).view_as(noisy)

    reconstruction = ((noisy - spread * predicted_noise) / signal).clamp_(-1, 1)
    return Trajectory(predicted_noise - noise, reconstruction)

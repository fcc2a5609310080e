"""The detail look: what the network makes of parts of a picture at the picture's own pixels.

A picture of hundreds of pixels is made small for the whole look, and what noise, blur,
compression or pixelation did to it is gone. The detail look takes crops of the network's own
size, adds weak noise and asks what it errs in:

    e                                       the score error of one crop at an early timestep
    log P_b(e)        ``DETAIL_BANDS`` numbers     its power in bands of spatial frequency
    ρ₁(e)             2                     its correlation with itself one pixel to the right, one below
    log J(e) − log I(e)   2                 its steps across the edges of 8-pixel blocks, over those within
    E|e| / √E e²      1                     its flatness: low where few places hold most of it

each averaged over the crops of a picture. Nine numbers: every further one costs more, in a density
of some hundred pictures, than it says. At a weak noise e is what is left of the picture when
the network has taken away what it expects: blur leaves no fine detail in it, noise leaves
grain, JPEG the edges of its blocks. Averages over crops are better than their quantiles. Crops are noised
in turn at the earlier timestep, which shows blur, and the later, which shows blocks: as good as
both on every crop, at half the cost. ``python -m benchmarks.accuracy photographs``.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ..images import BLOCK
from ..models import NoisePredictor
from .descriptor import DETAIL_BANDS

TIMES = (0.015, 0.06)  # of the schedule, in turn from crop to crop
_TINY = 1e-8


def crop_errors(
    predictor: NoisePredictor,
    crops: Float[Tensor, "n k channels height width"],
    noise: Float[Tensor, "d c h w"],
    max_evaluations: int | None,
) -> Float[Tensor, "n kd c h w"]:
    """The score errors of crops, which are noised at one of ``TIMES`` each, in turn.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        crops: float32 ``(N, K, C, H, W)`` in [−1, 1]
        noise: ε, float32 ``(D, c, h, w)``
        max_evaluations: as in :func:`diffpath.method.trajectory.compute_trajectory`

    Returns:
        e, float32 ``(N, K D, c, h, w)``
    """
    counts = *crops.shape[:2], len(noise)
    clean = predictor.encode(crops.flatten(0, 1), max_evaluations)
    clean = clean.unflatten(0, counts[:2])[:, :, None].expand(*counts, *clean.shape[1:])
    rows = torch.tensor([round(time * predictor.num_train_timesteps) for time in TIMES], device=crops.device)
    timesteps = rows[torch.arange(counts[1], device=crops.device) % len(TIMES)]
    layout = torch.channels_last
    noises = noise.expand(clean.shape).flatten(0, 2).contiguous(memory_format=layout)
    predicted = predictor.predict(
        clean.flatten(0, 2).contiguous(memory_format=layout),
        noises,
        timesteps[:, None].expand(counts).flatten(),
        max_evaluations=max_evaluations,
    )
    return (predicted.noise - noises).unflatten(0, (counts[0], counts[1] * counts[2]))


def detail_numbers(score_error: Float[Tensor, "n k c h w"]) -> Float[Tensor, "n detail"]:
    """Pools what the errors of a picture's crops look like.

    Args:
        score_error: e of K crops of each of N pictures at one timestep, float32 ``(N, K, C, h, w)``

    Returns:
        float32 ``(N, 9)`` in the order of ``diffpath.method.descriptor.DETAIL_NAMES``
    """
    error = score_error.float()
    energy = error.square().mean(dim=(2, 3, 4)) + _TINY
    across = (error[..., 1:] * error[..., :-1]).mean(dim=(2, 3, 4)) / energy
    down = (error[..., 1:, :] * error[..., :-1, :]).mean(dim=(2, 3, 4)) / energy
    flatness = error.abs().mean(dim=(2, 3, 4)) / energy.sqrt()
    steps = _block_steps(error, -1), _block_steps(error, -2)
    numbers = torch.stack([*_band_powers(error), across, down, *steps, flatness], dim=-1)
    return numbers.mean(dim=1)


def _band_powers(error: Float[Tensor, "n k c h w"]) -> list[Float[Tensor, "n k"]]:
    """log of the mean |DFT|² per pixel in each of ``DETAIL_BANDS``."""
    power = torch.fft.fft2(error).abs().square().mean(dim=2) / (error.shape[-2] * error.shape[-1])
    down = torch.fft.fftfreq(error.shape[-2], device=error.device).abs()
    across = torch.fft.fftfreq(error.shape[-1], device=error.device).abs()
    frequency = torch.maximum(down[:, None], across[None, :])
    bounds = [*DETAIL_BANDS, float("inf")]
    masks = [(frequency >= low) & (frequency < high) for low, high in pairwise(bounds)]
    return [((power * mask).sum(dim=(-2, -1)) / mask.sum().clamp_min(1) + _TINY).log() for mask in masks]


def _block_steps(error: Float[Tensor, "n k c h w"], axis: int) -> Float[Tensor, "n k"]:
    """How much larger steps are across the edges of blocks than within, logarithmic; 0 where there is no such edge."""
    steps = error.diff(dim=axis).square().mean(dim=(2, 3 if axis == -1 else 4))
    at_edge = torch.arange(1, steps.shape[-1] + 1, device=error.device) % BLOCK == 0
    if not at_edge.any() or at_edge.all():
        return torch.zeros_like(steps[..., 0])
    return (steps[..., at_edge].mean(dim=-1) + _TINY).log() - (steps[..., ~at_edge].mean(dim=-1) + _TINY).log()

"""The six-dimensional feature.

    p(e)      the score error, its absolute value or its square   ``error_power``
    ẽ_t       w_t ⊙ p(e_t), w_t = 1 − SSIM(x₀, x̂₀) or 1            weighted_error
    Δ_k       (ẽ_{τₖ₊₁} − ẽ_{τₖ}) / (uₖ₊₁ − uₖ)                    error_rate
    φ         (Σẽ, Σẽ², Σẽ³, ΣΔ, ΣΔ², ΣΔ³)                        features

uₖ = τₖ / num_train_timesteps is time as a fraction of the schedule. The sums run over
draws, timesteps, channels and pixels, and are divided by their number of terms, so that
they do not scale with the resolution.

Beside the six numbers stand statistics and a map from the same network evaluations: the
six sum over time and space, and lose where on the path, where in the image and at which
frequencies it is unusual.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .descriptor import FREQUENCY_BANDS, QUADRANTS
from .ssim import local_mean

CORRELATION_LAG = 4  # pixels
HEATMAP_TIMES = (0.15, 0.75)  # fractions of the schedule
ERROR_MAP_WINDOW = 7  # pixels
ERROR_MAP_DECADES = 3
TINY = 1e-12  # below any mean square of errors that a network makes
_LEAST_SHARE = 1e-8  # of a band in the error's power: what float32 tells from none
ERROR_POWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda error: error,
    "absolute": torch.abs,
    "squared": torch.square,
}


def six_features(
    score_error: Float[Tensor, "n d t c h w"],
    time: Float[Tensor, " t"],
    *,
    error_power: str = "signed",
    weights: Float[Tensor, "n d t h w"] | None = None,
) -> Float[Tensor, "n 6"]:
    """Sums powers of the weighted score error and of its temporal derivative.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``
        time: u, float32 ``(T,)``, increasing, as a fraction of the schedule
        error_power: ``"signed"``, ``"absolute"`` or ``"squared"``
        weights: w, ``(N, D, T, H, W)``, or None for no weighting

    Returns:
        φ, float32 ``(N, 6)`` in the order of ``diffpath.options.FEATURE_NAMES``
    """
    weighted_error = ERROR_POWERS[error_power](score_error)
    if weights is not None:
        weighted_error = weighted_error * weights.unsqueeze(-3)
    interval = (time[1:] - time[:-1]).view(-1, 1, 1, 1)
    error_rate = weighted_error.diff(dim=2) / interval
    return torch.cat([_power_means(weighted_error), _power_means(error_rate)], dim=1)


def path_statistics(
    score_error: Float[Tensor, "n d t c h w"], fine_dissimilarity: Float[Tensor, "n d t height width"]
) -> Float[Tensor, "n statistics"]:
    """What the six sums lose of where on the path and where in the image it is unusual.

    Per timestep, over draws, channels and pixels:

        mean(e) / √mean(e²)         whether errors lean to one side, whatever their size
        ½ Σ mean(e e′) / mean(e²)   their correlation over ``CORRELATION_LAG`` pixels, e′ lying
                                    to the right of and below e: errors of structure, unlike
                                    those of noise, hang together
        mean(1 − SSIM)              with its standard constants: faint structure counts

    then the logarithmic size of the error in each quadrant, averaged over timesteps, and its
    :func:`error_spectrum`. Chosen by ``python -m benchmarks.accuracy ablations``.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``
        fine_dissimilarity: 1 − SSIM with its standard constants, ``(N, D, T, H, W)``

    Returns:
        float32 ``(N, 3 T + 9)`` in the order of :func:`diffpath.method.descriptor.statistic_names`
    """
    lag = min(CORRELATION_LAG, min(score_error.shape[-2:]) - 1)
    energy = _by_timestep(score_error**2).clamp_min(TINY)
    across = _by_timestep(score_error[..., lag:] * score_error[..., :-lag])
    down = _by_timestep(score_error[..., lag:, :] * score_error[..., :-lag, :])
    relative_error = _by_timestep(score_error) / energy.sqrt()
    fine = fine_dissimilarity.mean(dim=(1, 3, 4))
    by_quadrant = adaptive_avg_pool2d(_error_decades(score_error), len(QUADRANTS) // 2).flatten(1)
    correlation = (across + down) / 2 / energy
    return torch.cat([relative_error, correlation, fine, by_quadrant, error_spectrum(score_error)], dim=1)


def error_spectrum(score_error: Float[Tensor, "n d t c h w"]) -> Float[Tensor, "n bands"]:
    """Which spatial frequencies the score error is made of at the first half of the timesteps, where noise is weak.

    There the network sees the image's fine structure and errs where that is unlike what it
    learned: too sharp, too smooth, of the wrong grain.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``

    Returns:
        float32 ``(N, B)``, one number for each band of ``FREQUENCY_BANDS``: the natural
        logarithm of |DFT(e)|² on average over the band, relative to its average over all
        frequencies, averaged over timesteps; 0 in all bands for white noise. A band without
        a frequency, in a tiny image, is a constant
    """
    early = score_error[:, :, : (score_error.shape[2] + 1) // 2]
    power = torch.fft.fft2(early).abs().square().mean(dim=(1, 3))
    bands = _frequency_bands(power.shape[-2], power.shape[-1], like=power)
    by_band = [(power * band).sum(dim=(-2, -1)) / band.sum().clamp_min(1) for band in bands]
    relative = torch.stack(by_band, dim=-1) / power.mean(dim=(-2, -1)).clamp_min(TINY).unsqueeze(-1)
    return relative.clamp_min(_LEAST_SHARE).log().mean(dim=1)


def heatmaps(dissimilarity: Float[Tensor, "n d t h w"], time: Float[Tensor, " t"]) -> Float[Tensor, "n h w"]:
    """Where the reconstruction differs in structure.

    The middle of the path shows it best: early on the reconstruction is the image itself,
    late it is what the model makes of noise.

    Args:
        dissimilarity: 1 − SSIM with ``HEATMAP_C``, float32 ``(N, D, T, H, W)``
        time: u, float32 ``(T,)``, as a fraction of the schedule

    Returns:
        float32 ``(N, H, W)`` in [0, 1]: the mean over draws and the timesteps within
        ``HEATMAP_TIMES``, or over all where none is, clipped
    """
    middle = (time >= HEATMAP_TIMES[0]) & (time <= HEATMAP_TIMES[1])
    chosen = dissimilarity[:, :, middle] if middle.any() else dissimilarity
    return chosen.mean(dim=(1, 2)).clamp(0, 1)


def error_maps(score_error: Float[Tensor, "n d t c h w"]) -> Float[Tensor, "n h w"]:
    """How large the score error is around each pixel, on a logarithmic scale.

    e² is averaged over channels and a window of 7×7 pixels; its logarithm is averaged over
    draws and timesteps, so that none outweighs the others, and smoothed over the same
    window.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``

    Returns:
        float32 ``(N, H, W)`` in [0, 1]: 1 where the network finds nothing of the noise
        (e² is 1 on average), 0 where e² is at most a thousandth
    """
    decades = local_mean(_error_decades(score_error), ERROR_MAP_WINDOW)
    return (1 + decades / ERROR_MAP_DECADES).clamp(0, 1)


def _error_decades(score_error: Float[Tensor, "n d t c h w"]) -> Float[Tensor, "n h w"]:
    """Decimal logarithm of e² around each pixel, averaged over draws and timesteps, ``(N, H, W)``."""
    energy = local_mean(score_error.square().mean(dim=3), ERROR_MAP_WINDOW)
    return energy.clamp_min(TINY).log10().mean(dim=(1, 2))


def _frequency_bands(height: int, width: int, like: Tensor) -> list[Float[Tensor, "{height} {width}"]]:
    """Which frequencies of a DFT lie in each band, as zeros and ones ``(H, W)``; the same on every device."""
    frequency = torch.hypot(torch.fft.fftfreq(height).unsqueeze(1), torch.fft.fftfreq(width).unsqueeze(0))
    upper = (*FREQUENCY_BANDS[1:], math.inf)
    return [((frequency >= a) & (frequency < b)).to(like) for a, b in zip(FREQUENCY_BANDS, upper)]


def _by_timestep(values: Float[Tensor, "n d t c h w"]) -> Float[Tensor, "n t"]:
    return values.mean(dim=(1, 3, 4, 5))


def _power_means(values: Float[Tensor, " n *terms"]) -> Float[Tensor, "n 3"]:
    values = values.flatten(1)
    squares = values**2
    return torch.stack([values.mean(1), squares.mean(1), (squares * values).mean(1)], dim=1)

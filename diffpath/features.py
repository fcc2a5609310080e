"""The six-dimensional feature.

    p(e)      the score error, its absolute value or its square   ``error_power``
    ẽ_t       w_t ⊙ p(e_t), w_t = 1 − SSIM(x₀, x̂₀) or 1            weighted_error
    Δ_k       (ẽ_{τₖ₊₁} − ẽ_{τₖ}) / (uₖ₊₁ − uₖ)                    error_rate
    φ         (Σẽ, Σẽ², Σẽ³, ΣΔ, ΣΔ², ΣΔ³)                        features

uₖ = τₖ / num_train_timesteps is time as a fraction of the schedule. The sums run over
draws, timesteps, channels and pixels, and are divided by their number of terms, so that
they do not scale with the resolution.

Beside the six numbers stand statistics from the same network evaluations: the six sum
over time and space, and lose where on the path and where in the image it is unusual.
"""

import torch
from torch.nn.functional import adaptive_avg_pool2d

QUADRANTS = ("upper left", "upper right", "lower left", "lower right")
ERROR_POWERS = {
    "signed": lambda error: error,
    "absolute": torch.abs,
    "squared": torch.square,
}


def six_features(score_error, time, *, error_power="signed", weights=None):
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


def statistic_names(num_timesteps):
    """What each of the statistics of :func:`path_statistics` is, in their order."""
    kinds = ("error", "absolute error", "offset", "fine dissimilarity")
    names = [f"{kind}, timestep {k + 1}" for kind in kinds for k in range(num_timesteps)]
    return names + [f"dissimilarity, {quadrant}" for quadrant in QUADRANTS]


def path_statistics(score_error, offset, fine_dissimilarity, dissimilarity):
    """Means per timestep over draws, channels and pixels, and means per quadrant over timesteps.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``
        offset: x̂₀ − x₀, likewise: how much brighter the reconstruction is
        fine_dissimilarity: 1 − SSIM with its standard constants, ``(N, D, T, H, W)``:
            unlike with raised constants, faint structure counts
        dissimilarity: 1 − SSIM with raised constants, likewise

    Returns:
        float32 ``(N, 4 T + 4)`` in the order of :func:`statistic_names`
    """
    kinds = (score_error, score_error.abs(), offset, fine_dissimilarity.unsqueeze(-3))
    by_timestep = torch.cat([kind.mean(dim=(1, 3, 4, 5)) for kind in kinds], dim=1)
    by_quadrant = adaptive_avg_pool2d(dissimilarity.mean(dim=(1, 2)), len(QUADRANTS) // 2).flatten(1)
    return torch.cat([by_timestep, by_quadrant], dim=1)


def _power_means(values):
    values = values.flatten(1)
    squares = values**2
    return torch.stack([values.mean(1), squares.mean(1), (squares * values).mean(1)], dim=1)

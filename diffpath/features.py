"""The six-dimensional feature.

    p(e)      the score error, its absolute value or its square   ``error_power``
    ẽ_t       w_t ⊙ p(e_t), w_t = 1 − SSIM(x₀, x̂₀) or 1            weighted_error
    Δ_k       (ẽ_{τₖ₊₁} − ẽ_{τₖ}) / (uₖ₊₁ − uₖ)                    error_rate
    φ         (Σẽ, Σẽ², Σẽ³, ΣΔ, ΣΔ², ΣΔ³)                        features

uₖ = τₖ / num_train_timesteps is time as a fraction of the schedule. The sums run over
draws, timesteps, channels and pixels, and are divided by their number of terms, so that
they do not scale with the resolution.

Beside the six numbers stand statistics for each timestep from the same network
evaluations: the six sum over time, and where on the path an image is unusual is lost.
"""

import torch

FEATURE_NAMES = ("error", "error²", "error³", "rate", "rate²", "rate³")
STATISTIC_NAMES = ("error", "absolute error", "offset", "fine dissimilarity")
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
        φ, float32 ``(N, 6)`` in the order of ``FEATURE_NAMES``
    """
    weighted_error = ERROR_POWERS[error_power](score_error)
    if weights is not None:
        weighted_error = weighted_error * weights.unsqueeze(-3)
    interval = (time[1:] - time[:-1]).view(-1, 1, 1, 1)
    error_rate = weighted_error.diff(dim=2) / interval
    return torch.cat([_power_means(weighted_error), _power_means(error_rate)], dim=1)


def timestep_statistics(score_error, offset, fine_dissimilarity):
    """Means over draws, channels and pixels for each timestep.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``
        offset: x̂₀ − x₀, likewise: how much brighter the reconstruction is
        fine_dissimilarity: 1 − SSIM with its standard constants, ``(N, D, T, H, W)``:
            unlike with raised constants, faint structure counts

    Returns:
        float32 ``(N, 4, T)`` in the order of ``STATISTIC_NAMES``
    """
    columns = (score_error, score_error.abs(), offset, fine_dissimilarity.unsqueeze(-3))
    return torch.stack([column.mean(dim=(1, 3, 4, 5)) for column in columns], dim=1)


def _power_means(values):
    values = values.flatten(1)
    squares = values**2
    return torch.stack([values.mean(1), squares.mean(1), (squares * values).mean(1)], dim=1)

"""The method once more, in float64 NumPy, SciPy and scikit-image, without torch.

Written from the definitions, to check ``diffpath`` against; symbols as in
``diffpath/method/trajectory.py``.
"""

import itertools
import math

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.metrics import structural_similarity

DATA_RANGE = 2.0


def noise_images(images, noise, timesteps, alphas_cumprod):
    """x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε, ``(N, D, T, C, H, W)``."""
    alphas = np.asarray(alphas_cumprod, np.float64)[np.asarray(timesteps)]
    out = np.empty((len(images), len(noise), len(alphas), *images.shape[1:]))
    for n, image in enumerate(images):
        for d, draw in enumerate(noise):
            for t, alpha in enumerate(alphas):
                out[n, d, t] = np.sqrt(alpha) * image + np.sqrt(1 - alpha) * draw
    return out


def reconstruct(noisy, predicted_noise, timesteps, alphas_cumprod):
    """x̂₀ = (x_t − √(1−ᾱ_t) ε̂) / √ᾱ_t, clipped to [−1, 1]."""
    alphas = np.asarray(alphas_cumprod, np.float64)[np.asarray(timesteps)]
    out = np.empty_like(noisy)
    for t, alpha in enumerate(alphas):
        out[:, :, t] = (noisy[:, :, t] - np.sqrt(1 - alpha) * predicted_noise[:, :, t]) / np.sqrt(alpha)
    return np.clip(out, -1, 1)


def ssim_map(x, y, *, window, sigma, c):
    """SSIM of two ``(H, W)`` planes in [−1, 1], by scikit-image where it has the window."""
    if sigma is None or window == 2 * int(3.5 * sigma + 0.5) + 1:
        k1, k2 = (np.sqrt(value) / DATA_RANGE for value in c)
        weights = {"win_size": window} if sigma is None else {"gaussian_weights": True, "sigma": sigma}
        _, full = structural_similarity(
            x, y, data_range=DATA_RANGE, use_sample_covariance=False, K1=k1, K2=k2, full=True, **weights
        )
        return full

    def mean(values):
        return gaussian_filter(values, sigma, mode="reflect", radius=window // 2)

    c1, c2 = c
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * structure


def dissimilarity(images, reconstruction, *, window, sigma, c):
    """1 − SSIM, mean over channels, ``(N, D, T, H, W)``."""
    n_images, n_draws, n_steps, n_channels = reconstruction.shape[:4]
    out = np.empty(reconstruction.shape[:3] + reconstruction.shape[4:])
    for n in range(n_images):
        for d in range(n_draws):
            for t in range(n_steps):
                planes = [
                    1 - ssim_map(images[n, k], reconstruction[n, d, t, k], window=window, sigma=sigma, c=c)
                    for k in range(n_channels)
                ]
                out[n, d, t] = sum(planes) / n_channels
    return out


def six_numbers(score_error, times, *, error_power, weights=None):
    """(mean z, z², z³, Δ, Δ², Δ³) of one image's score errors ``(D, T, C, H, W)``."""
    z = {"signed": score_error, "absolute": np.abs(score_error), "squared": score_error * score_error}[error_power]
    if weights is not None:
        z = z * weights[:, :, None]
    rates = [(z[:, k + 1] - z[:, k]) / (times[k + 1] - times[k]) for k in range(len(times) - 1)]
    delta = np.stack(rates, axis=1)
    return [np.mean(values**power) for values in (z, delta) for power in (1, 2, 3)]


def relative_errors(errors):
    """mean(e) / √mean(e²) per timestep of one image's errors ``(D, T, C, H, W)``."""
    return [np.mean(errors[:, t]) / np.sqrt(np.mean(errors[:, t] ** 2)) for t in range(errors.shape[1])]


def correlations(errors, lag=4):
    """Autocorrelation at a lag along rows and along columns, averaged, per timestep of ``(D, T, C, H, W)``."""
    out = []
    for t in range(errors.shape[1]):
        planes = errors[:, t].reshape(-1, *errors.shape[-2:])
        along_rows = np.mean([plane[:, lag:] * plane[:, :-lag] for plane in planes])
        along_columns = np.mean([plane[lag:] * plane[:-lag] for plane in planes])
        out.append((along_rows + along_columns) / 2 / np.mean(planes**2))
    return out


def error_decades(errors, window=7):
    """log₁₀ of the local mean square of one image's errors ``(D, T, C, H, W)``, mean over draws and timesteps."""
    logs = [
        np.log10(uniform_filter(np.mean(draw[t] ** 2, axis=0), window, mode="reflect"))
        for draw in errors
        for t in range(errors.shape[1])
    ]
    return np.mean(logs, axis=0)


def error_map(errors, window=7, decades=3):
    """The same, smoothed, from −decades to 0, onto [0, 1]."""
    return np.clip(1 + uniform_filter(error_decades(errors, window), window, mode="reflect") / decades, 0, 1)


def quadrants(map_):
    """Means of the four quadrants of ``(H, W)``, row by row."""
    return [part.mean() for half in np.vsplit(map_, 2) for part in np.hsplit(half, 2)]


def spectrum(errors, bounds=(0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 9)):
    """Log of the periodogram's mean over each annulus, relative to its mean, of one image's errors ``(D, T, C, H, W)``.

    The periodogram is computed from the definition of the discrete Fourier transform; the
    mean is over the first half of the timesteps.
    """
    height, width = errors.shape[-2:]
    rows, columns = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (height, width))
    signed = [np.where(np.arange(n) < n / 2, np.arange(n), np.arange(n) - n) / n for n in (height, width)]
    radius = np.sqrt(signed[0][:, None] ** 2 + signed[1][None, :] ** 2)
    logs = []
    for t in range(math.ceil(errors.shape[1] / 2)):
        planes = errors[:, t].reshape(-1, height, width)
        periodogram = np.mean([np.abs(rows @ plane @ columns) ** 2 for plane in planes], axis=0)
        annuli = [periodogram[(radius >= low) & (radius < high)] for low, high in itertools.pairwise(bounds)]
        logs.append([np.log(annulus.mean() / periodogram.mean()) for annulus in annuli])
    return list(np.mean(logs, axis=0))


def heatmaps(images, reconstruction, times):
    """1 − SSIM over 7×7 pixels, mean over draws and the times from 0.15 to 0.75."""
    unlike = dissimilarity(images, reconstruction, window=7, sigma=None, c=(1.0, 1.0))
    chosen = [k for k, time in enumerate(times) if 0.15 <= time <= 0.75] or range(len(times))
    return np.clip(np.mean([unlike[:, :, k] for k in chosen], axis=(0, 2)), 0, 1)


def reference_method(
    images, predicted_noise, noise, timesteps, alphas_cumprod, *, error_power, weighted, window, sigma, c
):
    """Everything the method says of N images.

    Args:
        images: x₀ ``(N, C, H, W)`` in [−1, 1]
        predicted_noise: ε̂ ``(N, D, T, C, H, W)``
        noise: ε ``(D, C, H, W)``

    Returns:
        a dict with ``features (N, 6)``, ``profile (N, T)``, ``statistics (N, 3 T + 9)``,
        ``heatmaps`` and ``error_maps (N, H, W)``
    """
    images, predicted_noise, noise = (np.asarray(a, np.float64) for a in (images, predicted_noise, noise))
    timesteps = np.asarray(timesteps)
    noisy = noise_images(images, noise, timesteps, alphas_cumprod)
    reconstruction = reconstruct(noisy, predicted_noise, timesteps, alphas_cumprod)
    unlike = dissimilarity(images, reconstruction, window=window, sigma=sigma, c=c)
    fine = dissimilarity(images, reconstruction, window=window, sigma=sigma, c=(0.02**2, 0.06**2))
    errors = predicted_noise - noise[None, :, None]
    times = timesteps / len(alphas_cumprod)
    features = [
        six_numbers(error, times, error_power=error_power, weights=w if weighted else None)
        for error, w in zip(errors, unlike)
    ]
    return {
        "features": np.array(features),
        "profile": unlike.mean(axis=(1, 3, 4)),
        "statistics": np.array(
            [
                relative_errors(error)
                + correlations(error)
                + list(unlike.mean(axis=(0, 2, 3)))
                + quadrants(error_decades(error))
                + spectrum(error)
                for error, unlike in zip(errors, fine)
            ]
        ),
        "heatmaps": heatmaps(images, reconstruction, times),
        "error_maps": np.stack([error_map(error) for error in errors]),
    }

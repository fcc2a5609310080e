"""diffpath's descriptor and its variants, all from the same score errors.

:func:`statistics` computes every statistic that a variant may use, once for a set;
:func:`descriptor` puts some of them beside one another.
"""

import hashlib

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from diffpath.method.features import ERROR_POWERS, path_statistics, six_features
from diffpath.method.ssim import RECONSTRUCTION_C, STANDARD_C, LocalMoments

from .evaluations import cached, to_network_scale
from .packages import cache_folder

VERSION = 4  # of the statistics; a change makes the cached ones void
SCALES = (2, 4, 8, 16)  # pixels over which errors are averaged before they are squared
CONSTANTS = {"standard": STANDARD_C, "0.02": (0.02, 0.02), "0.1": (0.1, 0.1), "0.2": (0.2, 0.2), "0.5": (0.5, 0.5)}
_CHUNK = 40


def statistics(evaluations, images):
    """Every statistic of a set for one noise draw, from the cache if it was computed before.

    Args:
        evaluations: an :class:`benchmarks.accuracy.evaluations.Evaluations`
        images: uint8 ``(N, 32, 32, 3)``

    Returns:
        a dict of float32 arrays ``(N, k)``
    """
    name = f"{VERSION}{evaluations.key}{images.shape}".encode() + images.tobytes()
    path = cache_folder() / "statistics" / f"{hashlib.sha256(name).hexdigest()[:24]}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return dict(stored)
    whole = evaluations.trajectory(images)
    parts = []
    for k in range(0, len(images), _CHUNK):
        chunk = slice(k, k + _CHUNK)
        x0 = to_network_scale(images[chunk])[:, None, None]
        parts.append(_statistics(x0, whole.score_error[chunk], whole.reconstruction[chunk], evaluations))
    joined = {name: np.concatenate([part[name] for part in parts]).astype(np.float32) for name in parts[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **joined)
    return joined


def default_descriptor(evaluations, images):
    """The default preset's descriptor ``(N, k)`` of uint8 images ``(N, H, W, 3)``, for any side and draws; cached."""

    def compute():
        parts = []
        for k in range(0, len(images), _CHUNK):
            chunk = images[k : k + _CHUNK]
            path = evaluations.trajectory(chunk)
            parts.append(of_trajectory(to_network_scale(chunk), path, evaluations.time))
        return np.concatenate(parts)

    return cached("descriptors", (VERSION, evaluations.key, images), compute)


def of_trajectory(x0, path, time):
    """The default preset's descriptor, float32 ``(N, k)``, of images ``(N, C, H, W)`` and their trajectory."""
    moments = LocalMoments(x0[:, None, None], path.reconstruction, window=7, sigma=None)
    parts = [
        six_features(path.score_error, time),
        moments.dissimilarity(RECONSTRUCTION_C).mean(dim=(1, 3, 4)),
        path_statistics(path.score_error, moments.dissimilarity(STANDARD_C)),
    ]
    return torch.cat(parts, dim=1).numpy()


def descriptor(stats, names):
    """The named statistics beside one another, ``(N, D)``."""
    return np.hstack([stats[name] for name in names])


def _statistics(x0, error, reconstruction, evaluations):
    """x₀ ``(N, 1, 1, C, H, W)``; e and x̂₀ ``(N, 1, T, C, H, W)``."""
    time, noise = evaluations.time, evaluations.noise[None, :, None]
    moments = LocalMoments(x0, reconstruction, window=7, sigma=None)
    gaussian = LocalMoments(x0, reconstruction, window=7, sigma=1.5)
    maps = {name: moments.dissimilarity(c) for name, c in CONSTANTS.items()}
    offset = reconstruction - x0
    out = {}

    for power in ERROR_POWERS:
        out[f"six {power}"] = six_features(error, time, error_power=power)
        for name, w in {"raised": maps["0.2"], "standard": gaussian.dissimilarity(STANDARD_C)}.items():
            out[f"six {power}, {name} weight"] = six_features(error, time, error_power=power, weights=w)
    out["six of raw score"] = six_features(error + noise, time)

    for name, map_ in maps.items():
        out[f"profile {name}"] = map_.mean(dim=(1, 3, 4))
        out[f"pooled 2 {name}"] = adaptive_avg_pool2d(map_.mean(dim=(1, 2)), 2).flatten(1)
        out[f"pooled 4 {name}"] = adaptive_avg_pool2d(map_.mean(dim=(1, 2)), 4).flatten(1)
    out["library statistics"] = path_statistics(error, maps["standard"])

    def by_timestep(values):
        return values.mean(dim=(1, 3, 4, 5))

    out["mean"] = by_timestep(error)
    out["absolute"] = by_timestep(error.abs())
    out["square"] = by_timestep(error**2)
    out["cube"] = by_timestep(error**3)
    out["fourth"] = by_timestep(error**4)
    out["offset"] = by_timestep(offset)
    out["absolute offset"] = by_timestep(offset.abs())
    out["mean by channel"] = error.mean(dim=(1, 4, 5)).flatten(1)
    out["square by channel"] = (error**2).mean(dim=(1, 4, 5)).flatten(1)
    out["along noise"] = by_timestep(error * noise)
    out["along image"] = by_timestep(error * x0)
    flat = error[:, 0]
    for scale in SCALES:
        pooled = avg_pool2d(flat.flatten(0, 1), scale).view(*flat.shape[:3], -1)
        out[f"square over {scale}"] = (pooled**2).mean(dim=(2, 3))
    out["square, pooled 2"] = adaptive_avg_pool2d((flat**2).mean(dim=(1, 2)), 2).flatten(1)
    out["square, pooled 4"] = adaptive_avg_pool2d((flat**2).mean(dim=(1, 2)), 4).flatten(1)
    rate = error.diff(dim=2)
    out["rate square"] = by_timestep(rate**2)
    out["rate absolute"] = by_timestep(rate.abs())
    grey = flat.mean(dim=2)
    out["across"] = (flat - grey.unsqueeze(2)).square().mean(dim=(2, 3, 4))
    out["neighbours"] = torch.cat(
        [(flat[..., 1:] * flat[..., :-1]).mean((2, 3, 4)), (flat[..., 1:, :] * flat[..., :-1, :]).mean((2, 3, 4))], 1
    )
    return {name: values.numpy() for name, values in out.items()}

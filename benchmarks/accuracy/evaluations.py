"""The network's evaluations of every image, kept on disk so that each is made once.

What is kept is the score error e (float16), from which every descriptor that shares these
evaluations follows without the network: with x₀ and ε it gives the reconstruction

    x̂₀ = x₀ − √(1−ᾱ_t)/√ᾱ_t · e_t,  clipped.
"""

import hashlib
import os

import numpy as np
import torch

from diffpath import DiffPathV2
from diffpath.trajectory import Trajectory, compute_trajectory, noise_bank, spaced_timesteps

from .packages import cache_folder

_CHUNK = 20  # images of one file in the cache


def load_predictor(model="bundled"):
    """The model in float32, since a benchmark must not depend on a machine's fast type."""
    torch.set_num_threads(1)  # more lose under other load; start several processes instead
    return DiffPathV2(model, device="cpu", dtype="float32").predictor


class Evaluations:
    """Score errors of images for one model, timesteps and noise draw.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        num_timesteps: T
        timestep_range: as fractions of the schedule
        noise_seed: of the noise bank; the first is the library's own
        draw: which draw of that bank; ``"-0"`` is the mirrored first draw, −ε
    """

    def __init__(self, predictor, num_timesteps=10, timestep_range=(0.0, 0.9), noise_seed=0, draw=0):
        self.predictor = predictor
        self.timesteps = spaced_timesteps(num_timesteps, timestep_range, predictor.num_train_timesteps)
        mirrored = str(draw).startswith("-")
        number = int(str(draw).lstrip("-"))
        bank = noise_bank(number + 1, predictor.channels, predictor.resolution, noise_seed)
        self.noise = bank[number:] * (-1 if mirrored else 1)
        self.key = f"{predictor.fingerprint or predictor.name}/{num_timesteps}-{timestep_range}-{noise_seed}-{draw}"

    @property
    def time(self):
        """u, the timesteps as fractions of the schedule."""
        return self.timesteps / self.predictor.num_train_timesteps

    def trajectory(self, images):
        """The :class:`diffpath.trajectory.Trajectory` of uint8 images ``(N, 32, 32, 3)``, D = 1."""
        error = torch.from_numpy(self.score_errors(images)).float()[:, None]
        alphas = self.predictor.alphas_cumprod[self.timesteps].view(-1, 1, 1, 1)
        reconstruction = to_network_scale(images)[:, None, None] - ((1 - alphas) / alphas).sqrt() * error
        return Trajectory(error, reconstruction.clamp_(-1, 1))

    def score_errors(self, images):
        """e, float16 ``(N, T, C, H, W)``; from the cache as far as it goes."""
        parts = [self._chunk(images[k : k + _CHUNK]) for k in range(0, len(images), _CHUNK)]
        return np.concatenate(parts)

    def _chunk(self, images):
        return cached("errors", (self.key, images), lambda: self._evaluate(images))

    @torch.inference_mode()
    def _evaluate(self, images):
        path = compute_trajectory(self.predictor, to_network_scale(images), self.timesteps, self.noise, 160)
        return path.score_error[:, 0].half().numpy()


def cached(kind, key, compute):
    """The array that ``compute()`` returns, from the cache if it was kept there under this key before.

    Args:
        kind: a folder of the cache
        key: strings, numbers and arrays that determine the result
        compute: returns an array
    """
    digest = hashlib.sha256()
    for part in key:
        digest.update(part.tobytes() + str(part.shape).encode() if isinstance(part, np.ndarray) else str(part).encode())
        digest.update(b"|")
    path = cache_folder() / kind / f"{digest.hexdigest()[:24]}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.npy")  # another process may compute the same
        np.save(part, compute())
        part.replace(path)
    return np.load(path)


def to_network_scale(images):
    """uint8 ``(N, H, W, 3)`` to float32 ``(N, 3, H, W)`` in [−1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1

"""The network's evaluations of every image, kept on disk so that each is made once.

What is kept is the score error e (float16), from which every descriptor that shares these
evaluations follows without the network: with x₀ and ε it gives the reconstruction

    x̂₀ = x₀ − √(1−ᾱ_t)/√ᾱ_t · e_t,  clipped.
"""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import torch

import diffpath.models
from diffpath import DiffPathV2
from diffpath.method.trajectory import Trajectory, compute_trajectory, noise_bank, spaced_timesteps
from diffpath.models import Tiles

from .packages import cache_folder

_CHUNK = 20  # images of one file in the cache
_EVALUATIONS_AT_ONCE = 16  # small images; what fits a core's caches is a third faster than large batches


def load_predictor(model="bundled"):
    """The model in float32, since a benchmark must not depend on a machine's fast type."""
    torch.set_num_threads(1)  # more lose under other load; start several processes instead
    return DiffPathV2(model, device="cpu", dtype="float32").predictor


def random_weights(seed=0):
    """The folder of a model of the bundled one's shape and schedule whose weights were never trained."""
    from diffusers import DDPMScheduler, UNet2DModel

    folder = cache_folder() / "models" / f"random-weights-{seed}"
    if not folder.is_dir():
        bundled = Path(diffpath.models.__file__).parent / "bundled"
        torch.manual_seed(seed)
        part = folder.with_suffix(f".{os.getpid()}")
        UNet2DModel.from_config(UNet2DModel.load_config(bundled / "unet")).save_pretrained(part / "unet")
        DDPMScheduler.from_pretrained(bundled / "scheduler").save_pretrained(part / "scheduler")
        shutil.copy(bundled / "model_index.json", part)
        part.replace(folder)
    return str(folder)


class Evaluations:
    """Score errors of images for one model, side, timesteps and noise draws.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        num_timesteps: T
        timestep_range: as fractions of the schedule
        noise_seed: of the noise bank; the first is the library's own
        draws: which draws of that bank, D; ``"-0"`` is the mirrored first draw, −ε
        resolution: side of the images; None for the model's own
        tile: side of the tiles, side by side, in which the network sees them; None for the whole
    """

    def __init__(
        self,
        predictor,
        num_timesteps=10,
        timestep_range=(0.0, 0.9),
        noise_seed=0,
        draws=(0,),
        resolution=None,
        tile=None,
    ):
        self.predictor = predictor
        self.timesteps = spaced_timesteps(num_timesteps, timestep_range, predictor.num_train_timesteps)
        self.resolution = resolution or predictor.resolution
        self.tiles = Tiles(self.resolution, tile, 0) if tile else None
        self.noise = torch.cat([self._draw(draw, noise_seed) for draw in draws])
        place = "" if self.resolution == predictor.resolution else f"-{self.resolution}-{tile}"
        model = predictor.fingerprint or predictor.name
        self.keys = [f"{model}/{num_timesteps}-{timestep_range}-{noise_seed}-{draw}{place}" for draw in draws]
        self.key = "+".join(self.keys)

    def _draw(self, draw, seed):
        number = int(str(draw).lstrip("-"))
        noise = noise_bank(number + 1, self.predictor.channels, self.resolution, seed)[number:]
        return -noise if str(draw).startswith("-") else noise

    @property
    def time(self):
        """u, the timesteps as fractions of the schedule."""
        return self.timesteps / self.predictor.num_train_timesteps

    def trajectory(self, images):
        """The :class:`diffpath.method.trajectory.Trajectory` of uint8 images ``(N, H, W, 3)``."""
        error = torch.from_numpy(self.score_errors(images)).float()
        alphas = self.predictor.alphas_cumprod[self.timesteps].view(-1, 1, 1, 1)
        reconstruction = to_network_scale(images)[:, None, None] - ((1 - alphas) / alphas).sqrt() * error
        return Trajectory(error, reconstruction.clamp_(-1, 1))

    def score_errors(self, images):
        """e, float16 ``(N, D, T, C, H, W)``; from the cache as far as it goes."""
        draws = [
            np.concatenate([self._chunk(k, images[n : n + _CHUNK]) for n in range(0, len(images), _CHUNK)])
            for k in range(len(self.keys))
        ]
        return np.stack(draws, axis=1)

    def _chunk(self, k, images):
        return cached("errors", (self.keys[k], images), lambda: self._evaluate(images, self.noise[k : k + 1]))

    @torch.inference_mode()
    def _evaluate(self, images, noise):
        side = self.tiles.tile if self.tiles else self.resolution
        at_once = max(1, _EVALUATIONS_AT_ONCE * 32**2 // side**2)
        x0 = to_network_scale(images)
        path = compute_trajectory(self.predictor, x0, self.timesteps, noise, at_once, tiles=self.tiles)
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

"""DiffPathV2: images in, features and heatmaps out (arXiv 2507.22692)."""

from dataclasses import dataclass, fields
from itertools import islice

import numpy as np
import torch

from .errors import ModelError
from .features import path_statistics, six_features, statistic_names
from .images import prepare_image, split_images
from .models import BUNDLED_MODEL, load_model
from .options import MethodOptions
from .ssim import RECONSTRUCTION_C, STANDARD_C, LocalMoments
from .trajectory import compute_trajectory, noise_bank, spaced_timesteps

HEATMAP_WINDOW = dict(window=7, sigma=None)

# Noisy 32×32 images per forward pass: large enough to fill the device, small enough for
# its memory and caches; scaled by the number of pixels
_MAX_EVALUATIONS = {"cpu": 160, "mps": 320, "cuda": 2560}


@dataclass(frozen=True)
class DiffPathResult:
    """What the method says of N images.

    Attributes:
        features: float32 ``(N, 6)``: means of ẽ, ẽ², ẽ³ and of their temporal derivative
        profile: float32 ``(N, T)``: mean 1 − SSIM per timestep, in [0, 2]
        statistics: float32 ``(N, 4 T + 4)``: means per timestep of the score error, its
            absolute value, the reconstruction's offset, and 1 − SSIM with its standard
            constants; then mean 1 − SSIM of each quadrant.
            ``diffpath.features.statistic_names(T)`` names them
        descriptor: float32 ``(N, D)``: what the density is fitted on: ``features``,
            followed by ``profile`` and by ``statistics`` where the preset uses them
        heatmaps: float32 ``(N, H, W)`` in [0, 1]: 1 − SSIM averaged over timesteps,
            clipped, at the method's resolution; high where the model's reconstruction
            differs in structure
    """

    features: np.ndarray
    profile: np.ndarray
    statistics: np.ndarray
    descriptor: np.ndarray
    heatmaps: np.ndarray

    def __len__(self):
        return len(self.features)

    def __getitem__(self, index):
        """The same of one image (without the axis N) or of some."""
        return DiffPathResult(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concatenate(cls, results):
        """Joins results along the images."""
        return cls(**{f.name: np.concatenate([getattr(r, f.name) for r in results]) for f in fields(cls)})


class DiffPathV2:
    """Computes DiffPathV2 features with a pretrained diffusion model.

    Features depend on the image, the model and the options only: not on the batch, its
    order or the other images in it.

    Args:
        model: ``"bundled"``, the path of a diffusers folder, or a
            :class:`diffpath.models.NoisePredictor`
        preset: ``"default"`` or ``"paper"``
        device: a torch device; by default CUDA, then MPS, then the CPU
        dtype: the network's autocast type; by default the fastest that the device
            computes well. Errors, SSIM and sums are always float32
        max_evaluations: at most this many noisy images enter one forward pass; by
            default chosen by device and resolution
        **options: the fields of :class:`diffpath.MethodOptions`

    Raises:
        ModelError: if the model cannot be loaded
        ValueError: if an option's value is not valid

    Example::

        import numpy as np
        from diffpath import DiffPathV2

        images = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
        result = DiffPathV2().score_images(images)
        result.features.shape, result.heatmaps.shape  # (4, 6), (4, 32, 32)
    """

    def __init__(
        self,
        model=BUNDLED_MODEL,
        *,
        preset="default",
        num_timesteps=10,
        timestep_range=(0.0, 0.9),
        num_noise_draws=1,
        seed=0,
        device=None,
        dtype=None,
        max_evaluations=None,
        **options,
    ):
        self.options = MethodOptions.from_preset(
            preset,
            num_timesteps=num_timesteps,
            timestep_range=timestep_range,
            num_noise_draws=num_noise_draws,
            seed=seed,
            **options,
        )
        self.predictor = load_model(model, device, dtype)
        self.resolution = self.options.resolution or self.predictor.resolution
        multiple = self.predictor.resolution_multiple
        if self.resolution % multiple or self.resolution < multiple:
            lower = max(self.resolution // multiple, 1) * multiple
            raise ModelError(
                f"resolution must be a multiple of {multiple} for this model, got {self.resolution} "
                f"(try {lower} or {lower + multiple})"
            )
        self.timesteps = spaced_timesteps(
            self.options.num_timesteps, self.options.timestep_range, self.predictor.num_train_timesteps
        )
        self.noise = noise_bank(
            self.options.num_noise_draws, self.predictor.channels, self.resolution, self.options.seed
        )
        self.max_evaluations = max_evaluations or self._default_max_evaluations()

    @property
    def images_per_pass(self):
        """How many images one forward pass holds."""
        return max(1, self.max_evaluations // self.options.evaluations_per_image)

    def score_images(self, images):
        """Computes features, profiles, descriptors and heatmaps.

        Args:
            images: an iterable of PIL images, arrays or tensors of any size and mode, a
                batch array, or a single image. Values are uint8 in [0, 255], uint16 in
                [0, 65535], bool or float in [0, 1]; arrays are channels-last, tensors
                channels-first

        Returns:
            a :class:`DiffPathResult`

        Raises:
            ImageError: if an image's shape, type or value range is not supported; the
                message names its position
        """
        images = iter(split_images(images))
        results = []
        while chunk := list(islice(images, self.images_per_pass)):
            first = len(results) * self.images_per_pass
            results.append(self._score_chunk(np.stack([self._prepare(x, first + i) for i, x in enumerate(chunk)])))
        return DiffPathResult.concatenate(results) if results else self._empty_result()

    def _prepare(self, image, position):
        try:
            return prepare_image(image, self.resolution)
        except ValueError as error:
            raise type(error)(f"image {position}: {error}") from error

    @torch.inference_mode()
    def _score_chunk(self, images):
        options, device = self.options, self.predictor.device
        images = self._to_network_scale(torch.from_numpy(images).to(device))
        timesteps = self.timesteps.to(device)
        path = compute_trajectory(self.predictor, images, timesteps, self.noise.to(device), self.max_evaluations)

        originals = images[:, None, None]
        window = dict(window=options.ssim_window, sigma=options.ssim_sigma)
        moments = LocalMoments(originals, path.reconstruction, **window)
        dissimilarity = moments.dissimilarity(options.ssim_c)
        # Weights and profile may follow the paper; a heatmap must point at what is wrong
        if window != HEATMAP_WINDOW:
            heatmaps = LocalMoments(originals, path.reconstruction, **HEATMAP_WINDOW).dissimilarity(RECONSTRUCTION_C)
        elif options.ssim_c != RECONSTRUCTION_C:
            heatmaps = moments.dissimilarity(RECONSTRUCTION_C)
        else:
            heatmaps = dissimilarity
        features = six_features(
            path.score_error,
            timesteps / self.predictor.num_train_timesteps,
            error_power=options.error_power,
            weights=dissimilarity if options.ssim_weighting else None,
        )
        profile = dissimilarity.mean(dim=(1, 3, 4))
        statistics = path_statistics(
            path.score_error, path.reconstruction - originals, moments.dissimilarity(STANDARD_C), heatmaps
        )
        parts = [features, *[profile] * options.use_profile, *[statistics] * options.use_statistics]
        return DiffPathResult(
            features=features.cpu().numpy(),
            profile=profile.cpu().numpy(),
            statistics=statistics.cpu().numpy(),
            descriptor=torch.cat(parts, dim=1).cpu().numpy(),
            heatmaps=heatmaps.mean(dim=(1, 2)).clamp(0, 1).cpu().numpy(),
        )

    def _to_network_scale(self, images):
        """uint8 ``(N, H, W, 3)`` to float32 ``(N, C, H, W)`` in [−1, 1]."""
        images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.predictor.channels == 1:
            red_green_blue = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
            images = (images * red_green_blue).sum(1, keepdim=True)
        return images

    def _default_max_evaluations(self):
        small_images = _MAX_EVALUATIONS.get(self.predictor.device.type, 160)
        return max(1, small_images * 32**2 // self.resolution**2)

    def _empty_result(self):
        options, steps, side = self.options, self.options.num_timesteps, self.resolution
        statistics = len(statistic_names(steps))
        length = 6 + steps * options.use_profile + statistics * options.use_statistics
        shapes = ((0, 6), (0, steps), (0, statistics), (0, length), (0, side, side))
        return DiffPathResult(*(np.zeros(shape, np.float32) for shape in shapes))

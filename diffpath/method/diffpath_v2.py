"""DiffPathV2: images in, features and heatmaps out (arXiv 2507.22692)."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..errors import ImageError, ModelError
from ..images import PREPROCESSING, AnyImage, CropPlan, Looks, prepare_image, prepare_looks, split_images
from ..models import BUNDLED_MODEL, NoisePredictor, Tiles, load_model
from ..models.memory import is_out_of_memory, release_memory
from ..options import MethodOptions, ModelOptions
from .descriptor import DESCRIPTOR, LOCAL_KINDS, LOCAL_STRIDE, PARTS, join_parts
from .detail import crop_errors, detail_numbers
from .features import error_maps, heatmaps, path_statistics, six_features
from .local import GROUPS, local_evidence
from .ssim import HEATMAP_C, STANDARD_C, LocalMoments
from .trajectory import compute_trajectory, noise_bank, spaced_timesteps
from .workers import run_side_by_side

HEATMAP_WINDOW = 7  # pixels, of a uniform window

Device: TypeAlias = str | torch.device | None

# Noisy 32×32 images per forward pass of a network with 32 channels at full resolution: large
# enough to fill the device, small enough for its memory and caches; scaled by both
_MAX_EVALUATIONS = {"cpu": 80, "mps": 320, "cuda": 2560}
# Of these, in one forward pass: few enough for a single image, which costs as much as a pass
_PASSES = {"cpu": 4, "mps": 2, "cuda": 2}


@dataclass(frozen=True)
class DiffPathResult:
    """What the method says of N images.

    Attributes:
        features: float32 ``(N, 6)``: means of ẽ, ẽ², ẽ³ and of their temporal derivative
        profile: float32 ``(N, T)``: mean 1 − SSIM per timestep, in [0, 2]
        statistics: float32 ``(N, 3 T + 9)``: per timestep the mean score error relative to its
            size, its correlation over some pixels, and 1 − SSIM with its standard
            constants; then the error's size in each quadrant and its power in bands of spatial
            frequency. ``diffpath.method.descriptor.statistic_names(T)`` names them
        zoomed: float32 ``(N, Z)``: the same numbers, as far as the preset uses them, of the
            image ``zoom`` times as large; none without ``zoom``
        detail: float32 ``(N, 9)``: what the error looks like in crops at the image's own pixels;
            none without ``detail``
        descriptor: float32 ``(N, D)``: what the density is fitted on: the parts above that the
            options use, one after the other, as :mod:`diffpath.method.descriptor` lists them
        heatmaps: float32 ``(N, H, W)`` in [0, 1]: 1 − SSIM averaged over the middle of the
            path, clipped, at the method's resolution times ``zoom``; high where the model's
            reconstruction differs in structure
        error_maps: float32 ``(N, H, W)`` in [0, 1]: the size of the score error around each
            pixel, on a logarithmic scale; finds small foreign parts better than 1 − SSIM.
            A latent model's are at its latent's side
        local: float16 ``(N, K, y, x)``: what the network errs in around every second pixel of those
            maps, the evidence of an anomaly map: see :mod:`diffpath.method.local`
    """

    features: Float32[np.ndarray, "*n 6"]
    profile: Float32[np.ndarray, "*n t"]
    statistics: Float32[np.ndarray, "*n s"]
    zoomed: Float32[np.ndarray, "*n z"]
    detail: Float32[np.ndarray, "*n l"]
    descriptor: Float32[np.ndarray, "*n d"]
    heatmaps: Float32[np.ndarray, "*n h h"]
    error_maps: Float32[np.ndarray, "*n e e"]
    local: Float16[np.ndarray, "*n k y y"]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> "DiffPathResult":
        """The same of one image (without the axis N) or of some."""
        return DiffPathResult(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concatenate(cls, results: Sequence["DiffPathResult"]) -> "DiffPathResult":
        """Joins results along the images."""
        return cls(**{f.name: np.concatenate([getattr(r, f.name) for r in results]) for f in fields(cls)})


Prepared: TypeAlias = UInt8[np.ndarray, "n side side 3"]
Crops: TypeAlias = UInt8[np.ndarray, "n k s s 3"]


class _Piece(NamedTuple):
    """Some images that a worker scores together: squares and, with ``detail``, crops."""

    images: Prepared
    crops: Crops | None

    @classmethod
    def of(cls, looks: Sequence[Looks]) -> "_Piece":
        crops = [each.crops for each in looks if each.crops is not None]
        return cls(np.stack([each.whole for each in looks]), np.stack(crops) if crops else None)

    def split(self, count: int) -> "Iterator[_Piece]":
        """The same in pieces of so many images."""
        for first in range(0, len(self.images), count):
            part = slice(first, first + count)
            yield _Piece(self.images[part], None if self.crops is None else self.crops[part])


class _View(NamedTuple):
    """How the network sees an image: at which side in pixels, in which tiles, and the noise (D, c, h, w)."""

    side: int
    tiles: Tiles | None
    noise: Float[Tensor, "d c h w"]


class DiffPathV2:
    """Computes DiffPathV2 features with a pretrained diffusion model.

    Features depend on the image, the model and the options only: not on the batch, its
    size, its order or the other images in it, to the last digit on one machine. Every forward
    pass of the network is of one size, the last one filled up, as kernels round by size.

    Args:
        model: ``"bundled"``, the path of a diffusers folder, a hub id such as
            ``"google/ddpm-cifar10-32"``, or a :class:`diffpath.models.NoisePredictor`
        preset: ``"default"`` or ``"paper"``
        device: a torch device; by default CUDA, then MPS, then the CPU. A list of them,
            or their names separated by commas, splits the images among them
        dtype: the network's autocast type; by default the fastest that the device
            computes well. Errors, SSIM and sums are always float32
        max_evaluations: at most this many noisy images, or tiles, are in a device's memory at once;
            by default chosen by device, resolution and network. Halved where memory does not suffice: then, and
            where it is less than a forward pass is by default, features round otherwise
        model_options: further arguments of :func:`diffpath.load_model`, such as
            ``{"revision": "…"}`` or ``{"prediction_type": "epsilon"}``
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
        model: str | os.PathLike[str] | NoisePredictor = BUNDLED_MODEL,
        *,
        preset: str = "default",
        num_timesteps: int = 10,
        timestep_range: Sequence[float] = (0.0, 0.9),
        num_noise_draws: int = 1,
        seed: int = 0,
        device: Device | Sequence[Device] = None,
        dtype: str | torch.dtype | None = None,
        max_evaluations: int | None = None,
        model_options: ModelOptions | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.options = MethodOptions.from_preset(
            preset,
            num_timesteps=num_timesteps,
            timestep_range=timestep_range,
            num_noise_draws=num_noise_draws,
            seed=seed,
            **options,
        )
        if self.options.detail is None:
            self.options = replace(self.options, detail=0)
        self.model_options = ModelOptions.from_dict(model_options or {}).to_dict()
        self.predictors = [load_model(model, each, dtype, **self.model_options) for each in _split_devices(device)]
        self.predictor = self.predictors[0]
        if self.predictor.revision:
            self.model_options["revision"] = self.predictor.revision  # a branch moves, a commit does not
        self.resolution = self.predictor.resolution if self.options.resolution is None else self.options.resolution
        self._check_side("resolution", self.resolution)
        self.timesteps = spaced_timesteps(
            self.options.num_timesteps, self.options.timestep_range, self.predictor.num_train_timesteps
        )
        self._check_timesteps()
        self.views = self._views()
        self.crop_plan = self._crop_plan()
        if max_evaluations is not None and max_evaluations < 1:
            raise ValueError(f"max_evaluations must be at least 1, got {max_evaluations}")
        default = self._default_max_evaluations()
        self.max_evaluations = default if max_evaluations is None else max_evaluations
        passes = _PASSES.get(self.predictor.device.type, 1)
        self.evaluations_per_pass = min(max(1, default // passes), max_evaluations or default)

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of the squares that an image is resized to, one after the other, in pixels."""
        last = self.views[-1].side
        return (last,) if self.options.equalise_resampling is None else (self.options.equalise_resampling, last)

    @property
    def provenance(self) -> dict[str, Any]:
        """What determines descriptors: model, options and preprocessing, as JSON-ready values."""
        return {
            "model": self.predictor.name,
            "model_fingerprint": self.predictor.fingerprint,
            "model_options": self.model_options,
            "options": self.options.to_dict(),
            "resolution": self.resolution,
            "dtype": str(self.predictor.dtype).removeprefix("torch."),
            "preprocessing": PREPROCESSING,
            "descriptor": DESCRIPTOR,
        }

    @property
    def images_per_pass(self) -> int:
        """How many images a worker scores together: there is one for each device, several on a CPU."""
        return self._images_at_once(self.max_evaluations)

    @images_per_pass.setter
    def images_per_pass(self, images: int) -> None:
        if images < 1:
            raise ValueError(f"batch_size must be at least 1, got {images}")
        self.max_evaluations = images * self._passes_per_image

    @property
    def _passes_per_image(self) -> int:
        pieces = sum(1 if view.tiles is None else len(view.tiles) for view in self.views)
        passes = self.options.num_timesteps * pieces + (self.options.detail or 0) ** 2
        return self.options.num_noise_draws * passes

    def _images_at_once(self, max_evaluations: int) -> int:
        """How many images so many evaluations are enough for."""
        return max(1, max_evaluations // self._passes_per_image)

    @property
    def tiles(self) -> Tiles | None:
        """The :class:`diffpath.models.Tiles` of the network's space, or None for whole images."""
        return self.views[0].tiles

    @property
    def noise(self) -> Float[Tensor, "d c h w"]:
        """ε, float32 ``(D, c, h, w)``."""
        return self.views[0].noise

    def score_images(self, images: AnyImage | Iterable[AnyImage]) -> DiffPathResult:
        """Computes features, profiles, descriptors and maps.

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
        looks = (self._prepare(image, position) for position, image in enumerate(split_images(images)))
        results = list(self.score_batches(iter(lambda: list(islice(looks, self.images_per_pass)), [])))
        return DiffPathResult.concatenate(results) if results else self._empty_result()

    def score_batches(self, batches: Iterable[Sequence[Looks]]) -> Generator[DiffPathResult, None, None]:
        """:meth:`score_prepared` of what readers of files hand over batch by batch, none of them empty.

        The next batches are taken, and scored, while one's result is used.
        """
        return run_side_by_side(self.predictors, self._score_piece, map(_Piece.of, batches))

    def score_prepared(self, images: np.ndarray, crops: np.ndarray | None = None) -> DiffPathResult:
        """Does the same with images that are resized already, as readers of files hand them over.

        Args:
            images: uint8 ``(N, S, S, 3)`` with S the last of :attr:`sides`, as
                :func:`diffpath.images.load_image` gives for
                ``(path, method.sides, method.options.value_range)``
            crops: uint8 ``(N, K, s, s, 3)``, as :attr:`crop_plan` cuts them; None without
                ``detail``

        Returns:
            a :class:`DiffPathResult`

        Raises:
            ImageError: if it is an array of another shape or type
        """
        side = self.sides[-1]
        if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (side, side, 3)):
            given = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
            raise ImageError(
                f"prepared images must be a uint8 array of shape (N, {side}, {side}, 3), got {given}; "
                "score_images takes any"
            )
        plan = self.crop_plan
        wanted = None if plan is None else (len(images), plan.per_side**2, plan.side, plan.side, 3)
        if (None if crops is None else crops.shape) != wanted:
            shape = None if crops is None else crops.shape
            raise ImageError(f"crops must be of shape {wanted}, got {shape}; score_images takes whole images")
        pieces = _Piece(images, crops).split(self.images_per_pass)
        results = list(run_side_by_side(self.predictors, self._score_piece, pieces))
        return DiffPathResult.concatenate(results) if results else self._empty_result()

    def _prepare(self, image: AnyImage, position: int) -> Looks:
        try:
            return prepare_looks(image, self.sides, self.options.value_range, self.crop_plan)
        except ValueError as error:
            raise type(error)(f"image {position}: {error}") from error

    def _score_piece(self, predictor: NoisePredictor, piece: _Piece) -> DiffPathResult:
        """Scores a worker's images, in smaller and smaller parts until they fit into its device's memory."""
        while True:
            tried, count = self._most_evaluations(), self._images_at_once(self.max_evaluations)
            try:
                size = self.evaluations_per_pass
                parts = [self._score_chunk(predictor, part, size) for part in piece.split(count)]
                return DiffPathResult.concatenate(parts)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if tried == 1:
                    raise ModelError(
                        f"one image at resolution {self.resolution} does not fit into the memory of "
                        f"{predictor.device}; use a smaller resolution, tile or model"
                    ) from error
            # Outside of the handler, whose exception holds on to the tensors that were too many
            self.max_evaluations = min(self.max_evaluations, tried // 2)
            self.evaluations_per_pass = min(self.evaluations_per_pass, tried // 2)
            release_memory(predictor.device)

    def _most_evaluations(self) -> int:
        return max(self.max_evaluations, self.evaluations_per_pass)

    @torch.inference_mode()
    def _score_chunk(self, predictor: NoisePredictor, piece: _Piece, max_evaluations: int) -> DiffPathResult:
        whole, *larger = (
            self._see(predictor, _resized(piece.images, view.side), view, max_evaluations) for view in self.views
        )
        for seen in larger:
            maps = {"heatmaps": seen.heatmaps, "error_maps": seen.error_maps, "local": seen.local}
            whole = replace(whole, zoomed=seen.descriptor, **maps)
        if piece.crops is not None:
            whole = replace(whole, detail=self._see_detail(predictor, piece.crops, max_evaluations))
        return replace(whole, descriptor=join_parts(vars(whole), self.options))

    def _see_detail(
        self, predictor: NoisePredictor, crops: Crops, max_evaluations: int
    ) -> Float32[np.ndarray, "n detail"]:
        """The numbers of the detail look, of crops uint8 ``(N, K, s, s, 3)``."""
        pixels = _on_device(crops.reshape(-1, *crops.shape[2:]), predictor.device)
        clean = self._to_network_scale(pixels).unflatten(0, crops.shape[:2])
        errors = crop_errors(predictor, clean, self.detail_noise.to(predictor.device), max_evaluations)
        return detail_numbers(errors).cpu().numpy()

    def _see(self, predictor: NoisePredictor, images: Prepared, view: _View, max_evaluations: int) -> DiffPathResult:
        """The result of one view alone, of images uint8 ``(N, H, W, 3)`` of its side."""
        options, device = self.options, predictor.device
        clean = self._to_network_scale(_on_device(images, device))
        timesteps = self.timesteps.to(device)
        noise = view.noise.to(device)
        path = compute_trajectory(predictor, clean, timesteps, noise, max_evaluations, tiles=view.tiles)

        originals = clean[:, None, None]
        window, sigma = options.ssim_window, options.ssim_sigma
        moments = LocalMoments(originals, path.reconstruction, window=window, sigma=sigma)
        dissimilarity = moments.dissimilarity(options.ssim_c)
        # Weights and profile may follow the paper; a heatmap must point at what is wrong
        of_map = moments
        if (window, sigma) != (HEATMAP_WINDOW, None):
            of_map = LocalMoments(originals, path.reconstruction, window=HEATMAP_WINDOW, sigma=None)
        time = timesteps / predictor.num_train_timesteps
        features = six_features(
            path.score_error,
            time,
            error_power=options.error_power,
            weights=self._at_network_side(dissimilarity) if options.ssim_weighting else None,
        )
        profile = dissimilarity.mean(dim=(1, 3, 4))
        statistics = path_statistics(path.score_error, moments.dissimilarity(STANDARD_C))
        tensors = {"features": features, "profile": profile, "statistics": statistics}
        parts = {name: values.cpu().numpy() for name, values in tensors.items()}
        of_structure = of_map.dissimilarity(HEATMAP_C)
        return DiffPathResult(
            **parts,
            zoomed=np.zeros((len(images), 0), np.float32),
            detail=np.zeros((len(images), 0), np.float32),
            descriptor=join_parts(parts, replace(options, zoom=1, detail=0)),
            heatmaps=heatmaps(of_structure, time).cpu().numpy(),
            error_maps=error_maps(path.score_error).cpu().numpy(),
            local=local_evidence(path.score_error, of_structure).half().cpu().numpy(),
        )

    def _to_network_scale(self, pixels: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n c h w"]:
        """uint8 ``(N, H, W, 3)`` to float32 ``(N, C, H, W)`` in [−1, 1]."""
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.predictor.image_channels == 1:
            red_green_blue = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
            images = (images * red_green_blue).sum(1, keepdim=True)
        return images

    def _at_network_side(self, maps: Float[Tensor, "n d t height width"]) -> Float[Tensor, "n d t h w"]:
        """Maps ``(N, D, T, H, W)`` of the image as means over what each of the network's pixels covers."""
        factor = self.predictor.space.factor
        return maps if factor == 1 else avg_pool2d(maps.flatten(0, 1), factor).unflatten(0, maps.shape[:2])

    def _default_max_evaluations(self) -> int:
        small_images = _MAX_EVALUATIONS.get(self.predictor.device.type, 80)
        view = self.views[0]
        side = view.tiles.tile if view.tiles else view.side // self.predictor.space.factor
        return max(1, small_images * 32**3 // (side**2 * max(self.predictor.width, 32)))

    def _check_side(self, name: str, side: int) -> None:
        multiple = self.predictor.resolution_multiple
        if side % multiple or side < multiple:
            lower = max(side // multiple, 1) * multiple
            nearest = f"try {lower} or {lower + multiple}"
            raise ModelError(f"{name} must be a multiple of {multiple} for this model, got {side} ({nearest})")

    def _views(self) -> list[_View]:
        """The image at the method's resolution, and where ``zoom`` asks for it, larger."""
        options, tile = self.options, self.options.tile
        if tile is not None:
            self._check_side("tile", tile)
            if tile > self.resolution:
                raise ModelError(
                    f"tile must be at most the resolution, got {tile} of {self.resolution}; "
                    "pass a larger resolution, or no tile"
                )
        views = [self._view(self.resolution, tile, options.tile_overlap)]
        if options.zoom > 1:
            views.append(self._view(options.zoom * self.resolution, tile or self.resolution, 0))
        return views

    def _crop_plan(self) -> CropPlan | None:
        """Crops of the side at which the model was trained."""
        if not self.options.detail:
            return None
        return CropPlan(self.options.detail, self.predictor.resolution)

    @property
    def detail_noise(self) -> Float[Tensor, "d c h w"]:
        """ε of the crops, float32 ``(D, c, h, w)``."""
        side = self.predictor.resolution // self.predictor.space.factor
        return noise_bank(self.options.num_noise_draws, self.predictor.channels, side, self.options.seed)

    def _view(self, side: int, tile: int | None, overlap: float) -> _View:
        """The image at a side, in tiles that share this fraction of their side, or whole where ``tile`` is None."""
        factor = self.predictor.space.factor
        noise = noise_bank(self.options.num_noise_draws, self.predictor.channels, side // factor, self.options.seed)
        tiles = Tiles(side // factor, tile // factor, round(overlap * tile / factor)) if tile else None
        return _View(side, tiles, noise)

    def _check_timesteps(self) -> None:
        rows = self.timesteps.to(self.predictor.device)
        for name in ("signal", "sigma"):
            values = getattr(self.predictor.schedule, name)[rows]
            if values.device.type != "meta" and (values == 0).any():
                raise ModelError(
                    f"at some timestep of timestep_range={self.options.timestep_range} this model has no "
                    f"{'image left' if name == 'signal' else 'noise yet'}; use a range further inside of [0, 1]"
                )

    def _empty_result(self) -> DiffPathResult:
        side, places = self.views[-1].side, -(-self.views[-1].noise.shape[-1] // LOCAL_STRIDE)
        lengths = {part.name: len(part.computed_names(self.options)) for part in PARTS}
        parts = {name: np.zeros((0, length), np.float32) for name, length in lengths.items()}
        return DiffPathResult(
            **parts,
            descriptor=join_parts(parts, self.options),
            heatmaps=np.zeros((0, side, side), np.float32),
            error_maps=np.zeros((0, *self.views[-1].noise.shape[-2:]), np.float32),
            local=np.zeros((0, LOCAL_KINDS * min(GROUPS, len(self.timesteps)), places, places), np.float16),
        )


def _on_device(pixels: UInt8[np.ndarray, "n h w 3"], device: torch.device) -> UInt8[Tensor, "n h w 3"]:
    # As writable and contiguous memory: torch warns of the former and refuses the latter
    there = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return there.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else there.to(device)


def _resized(images: Prepared, side: int) -> UInt8[np.ndarray, "n {side} {side} 3"]:
    """uint8 images ``(N, H, W, 3)`` brought to another side."""
    return images if images.shape[1] == side else np.stack([prepare_image(image, side) for image in images])


def _split_devices(device: Device | Sequence[Device]) -> Sequence[Device]:
    if isinstance(device, str):
        return [name.strip() for name in device.split(",")]
    return [device] if device is None or isinstance(device, torch.device) else list(device)

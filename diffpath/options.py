"""The method's options, presets and bounds, free of torch: one table for the library and the form."""

from dataclasses import asdict, dataclass, fields, replace

MIN_REFERENCE_SIZE = 3
FEATURE_NAMES = ("error", "error²", "error³", "rate", "rate²", "rate³")
ERROR_POWER_NAMES = ("signed", "absolute", "squared")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
# How a model is loaded, beside its name, device and dtype: arguments of ``load_model``
MODEL_OPTIONS = ("prediction_type", "latent_scaling", "class_label", "revision", "allow_pickle", "compile")

PRESETS = {
    # Chosen by measurement: the sign of the error is kept, and 1 − SSIM and other
    # statistics of the path stand beside the six numbers instead of weighting them
    "default": dict(
        error_power="signed",
        ssim_weighting=False,
        ssim_sigma=None,
        ssim_c=(0.2, 0.2),
        use_profile=True,
        use_statistics=True,
    ),
    # As the paper describes it: squared error, multiplied by 1 − SSIM with the usual
    # constants K₁ = 0.01, K₂ = 0.03 for a data range of 2
    "paper": dict(
        error_power="squared",
        ssim_weighting=True,
        ssim_sigma=1.5,
        ssim_c=(0.0004, 0.0036),
        use_profile=False,
        use_statistics=False,
    ),
}


def evaluations_per_image(num_timesteps, num_noise_draws, zoom):
    """How often the network sees as many pixels as one image has at the method's resolution."""
    return num_timesteps * num_noise_draws * (1 + zoom**2 if zoom > 1 else 1)


@dataclass(frozen=True)
class MethodOptions:
    """What determines an image's features, besides the model.

    Attributes:
        preset: ``"default"`` or ``"paper"``: values for the options that are not given
        num_timesteps: T, network evaluations per image and noise draw
        timestep_range: first and last timestep, as fractions of the schedule in [0, 1]
        num_noise_draws: D, independent noise draws that are averaged
        error_power: ``"signed"``, ``"absolute"`` or ``"squared"`` score error
        ssim_weighting: whether 1 − SSIM multiplies the score error
        ssim_window: side of the SSIM window in pixels, odd
        ssim_sigma: standard deviation of a Gaussian SSIM window, or None for a uniform one
        ssim_c: the SSIM constants (C₁, C₂) of weights and profile, for a data range of 2
        use_profile: whether the descriptor holds the SSIM profile beside the six features
        use_statistics: whether it holds the statistics per timestep, quadrant and frequency band
        seed: of the noise bank
        resolution: side of the square that images are resized to, in pixels; None for
            the model's own
        tile: side of the overlapping tiles, in pixels, in which the network sees an image
            of a larger ``resolution``; None for the whole image at once
        tile_overlap: how much of a tile's side neighbours share, in [0, 0.5]
        equalise_resampling: a side, in pixels, that every image is first brought to: what
            images were resized from before then no longer tells them apart; None to leave
            this out
        zoom: from 2 on, the network also sees the image that many times larger, in tiles side
            by side: the descriptor holds what it makes of both, and maps are the larger
            one's. Each image costs 1 + zoom² times as much. For images of at least that size
    """

    preset: str = "default"
    num_timesteps: int = 10
    timestep_range: tuple = (0.0, 0.9)
    num_noise_draws: int = 1
    error_power: str = "signed"
    ssim_weighting: bool = False
    ssim_window: int = 7
    ssim_sigma: float | None = None
    ssim_c: tuple = (0.2, 0.2)
    use_profile: bool = True
    use_statistics: bool = True
    seed: int = 0
    resolution: int | None = None
    tile: int | None = None
    tile_overlap: float = 0.25
    equalise_resampling: int | None = None
    zoom: int = 1

    @classmethod
    def from_preset(cls, preset="default", **options):
        """Options of a preset, with the given ones in place of the preset's.

        Raises:
            ValueError: if the preset, an option or a value is not known
        """
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"unknown option {name!r}; the options are {', '.join(known)}")
        return replace(cls(preset=preset, **PRESETS[preset]), **options)

    def __post_init__(self):
        object.__setattr__(self, "timestep_range", tuple(self.timestep_range))
        object.__setattr__(self, "ssim_c", tuple(self.ssim_c))
        if self.error_power not in ERROR_POWER_NAMES:
            raise ValueError(f"error_power must be one of {', '.join(ERROR_POWER_NAMES)}, got {self.error_power!r}")
        if self.num_timesteps < 2:
            raise ValueError(f"num_timesteps must be at least 2 for a temporal derivative, got {self.num_timesteps}")
        if self.num_noise_draws < 1:
            raise ValueError(f"num_noise_draws must be at least 1, got {self.num_noise_draws}")
        first, last = self.timestep_range
        if not 0 <= first < last <= 1:
            raise ValueError(f"timestep_range must be two increasing fractions in [0, 1], got {self.timestep_range}")
        if self.ssim_window < 3 or self.ssim_window % 2 == 0:
            raise ValueError(f"ssim_window must be odd and at least 3, got {self.ssim_window}")
        if self.ssim_sigma is not None and self.ssim_sigma <= 0:
            raise ValueError(f"ssim_sigma must be positive, or None for a uniform window, got {self.ssim_sigma}")
        if not 0 <= self.tile_overlap <= 0.5:
            raise ValueError(f"tile_overlap must be a fraction of a tile in [0, 0.5], got {self.tile_overlap}")
        if self.equalise_resampling is not None and self.equalise_resampling < 1:
            raise ValueError(f"equalise_resampling must be a side in pixels, got {self.equalise_resampling}")
        if self.zoom < 1 or self.zoom != int(self.zoom):
            raise ValueError(f"zoom must be a whole number of at least 1, which leaves it out, got {self.zoom}")
        if len(self.ssim_c) != 2 or min(self.ssim_c) <= 0:
            raise ValueError(f"ssim_c must be two positive constants (C1, C2), got {self.ssim_c}")

    def to_dict(self):
        """The options as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def complete_options(named):
    """Options that were recorded by name, with the defaults of those that came after the record was made."""
    return {**MethodOptions().to_dict(), **named}

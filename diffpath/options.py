"""The method's options, presets and bounds, free of torch: said once, for the library, its forms and its errors."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Any, get_args, get_type_hints

MIN_REFERENCE_SIZE = 3
FEATURE_NAMES = ("error", "error²", "error³", "rate", "rate²", "rate³")
ERROR_POWER_NAMES = ("signed", "absolute", "squared")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
_POSITIVE = math.nextafter(0, 1)

PRESETS: dict[str, dict[str, Any]] = {
    # Chosen by measurement: the sign of the error is kept, and 1 − SSIM and other
    # statistics of the path stand beside the six numbers instead of weighting them
    "default": {
        "error_power": "signed",
        "ssim_weighting": False,
        "ssim_sigma": None,
        "ssim_c": (0.2, 0.2),
        "use_profile": True,
        "use_statistics": True,
    },
    # As the paper describes it: squared error, multiplied by 1 − SSIM with the usual
    # constants K₁ = 0.01, K₂ = 0.03 for a data range of 2
    "paper": {
        "error_power": "squared",
        "ssim_weighting": True,
        "ssim_sigma": 1.5,
        "ssim_c": (0.0004, 0.0036),
        "use_profile": False,
        "use_statistics": False,
    },
}


@dataclass(frozen=True)
class Option:
    """What is known of an option beside its default and its type.

    Attributes:
        label: what a form shows; None where forms have no input for it
        help: what a form says of it
        must: what its value must be, for an error
        low, high: bounds of a number, inclusive
        choices: all that it can be, where these are few
    """

    label: str | None = None
    help: str = ""
    must: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()


def option_of(each: Field[Any]) -> Option:
    """The :class:`Option` of a field of :class:`MethodOptions` or :class:`ModelOptions`."""
    return each.metadata["option"]


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence that says which names there are, and which is meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {name!r}{guess}; the {what}s are {', '.join(known)}"


def is_number(value: object) -> bool:
    """Whether this is a finite number, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def evaluations_per_image(num_timesteps: int, num_noise_draws: int, zoom: int, detail: int | None) -> int:
    """How often the network sees as many pixels as one image has at the method's resolution."""
    return num_noise_draws * (num_timesteps * (1 + zoom**2 if zoom > 1 else 1) + (detail or 0) ** 2)


def _option(default: Any, **about: Any) -> Any:
    return field(default=default, metadata={"option": Option(**about)})


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
        value_range: what is black and what is white in images of more than 8 bits, such as ``(0,
            4095)`` or ``(-1000, 1000)``: numbers beyond are cut off. None for 16 bits of the
            type's whole range and floats in [0, 1]; a run then looks at its reference, and takes
            the fewest of 8, 10, 12, 14 and 16 bits that hold its numbers
        zoom: from 2 on, the network also sees the image that many times larger, in tiles side
            by side: the descriptor holds what it makes of both, and maps are the larger
            one's. Each image costs 1 + zoom² times as much. For images of at least that size
        detail: from 1 on, the network also sees detail² crops of the image at its own pixels,
            once each, beside ``num_timesteps`` times the whole: finds noise, blur and
            compression in images that are much larger than the model, as a score of its own. 0
            leaves it out. None: a run looks at its reference, and takes 3 where images are on
            average at least four times as large as the model's; nothing with the preset
            ``"paper"``, nor outside of a run
    """

    preset: str = _option(
        "default",
        label="Preset",
        help="'paper' weights squared errors by 1 - SSIM as published; 'default' measured better",
        choices=tuple(PRESETS),
    )
    num_timesteps: int = _option(
        10, label="Timesteps", help="Time grows with it", low=2, must="at least 2 for a temporal derivative"
    )
    timestep_range: tuple[float, float] = _option(
        (0.0, 0.9),
        label="timestep",  # two inputs: First timestep, Last timestep
        help="As a fraction of the schedule",
        must="two increasing fractions in [0, 1]",
        low=0,
        high=1,
    )
    num_noise_draws: int = _option(1, label="Noise draws", help="Time grows with it", low=1, must="at least 1")
    error_power: str = _option("signed", label="Error power", choices=ERROR_POWER_NAMES)
    ssim_weighting: bool = _option(False, label="Weight errors by 1 - SSIM", must="true or false")
    ssim_window: int = _option(7, label="SSIM window", help="In pixels, odd", low=3, must="odd and at least 3")
    ssim_sigma: float | None = _option(
        None,
        label="SSIM sigma",
        help="Of a Gaussian window, in pixels; empty for the preset's",
        low=_POSITIVE,
        must="positive, or None for a uniform window",
    )
    ssim_c: tuple[float, float] = _option((0.2, 0.2), low=_POSITIVE, must="two positive constants (C1, C2)")
    use_profile: bool = _option(True, must="true or false")
    use_statistics: bool = _option(True, must="true or false")
    seed: int = _option(0, label="Seed", help="Of the noise", must="a whole number")
    resolution: int | None = _option(
        None,
        label="Resolution",
        help="In pixels; empty for the model's own",
        low=1,
        must="a side in pixels of at least 1, or None for the model's own",
    )
    tile: int | None = _option(
        None,
        label="Tile",
        help="Side in pixels of the tiles in which a larger resolution is seen; empty for whole images",
        low=1,
        must="a side in pixels of at least 1, or None for whole images",
    )
    tile_overlap: float = _option(0.25, low=0, high=0.5, must="a fraction of a tile in [0, 0.5]")
    equalise_resampling: int | None = _option(
        None,
        label="Equalise resampling",
        help="Bring every image to this side first, so that earlier resizing does not count; empty to leave out",
        low=1,
        must="a side in pixels",
    )
    value_range: tuple[float, float] | None = _option(
        None,
        label="value",  # two inputs: Black, White
        help="Of images of more than 8 bits; empty for what the reference's numbers need",
        must="two increasing numbers, or None",
    )
    zoom: int = _option(
        1,
        label="Zoom",
        help="From 2 on, also see each image that many times larger, in tiles: finds what is lost when a large "
        "image is made small, in 1 + zoom² times the time",
        low=1,
        must="a whole number of at least 1, which leaves it out",
    )

    detail: int | None = _option(
        None,
        label="Detail",
        help="Also see detail² crops of each image at its own pixels: finds noise, blur and compression in large "
        "images. 3 takes about twice the time, 0 leaves it out; empty for 3 where the reference's images are large",
        low=0,
        high=32,
        must="a whole number from 0, which leaves it out, to 32, or None to choose by the reference",
    )

    @classmethod
    def from_preset(cls, preset: str = "default", **options: Any) -> MethodOptions:
        """Options of a preset, with the given ones in place of the preset's.

        Raises:
            ValueError: if the preset, an option or a value is not known
        """
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(unknown_name("option", name, known))
        return replace(cls(preset=preset, **PRESETS[preset]), **options)

    def __post_init__(self) -> None:
        _check_values(self)
        first, last = self.timestep_range
        if first >= last:
            raise ValueError(f"timestep_range must be two increasing fractions in [0, 1], got {self.timestep_range}")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"value_range must be two increasing numbers, or None, got {self.value_range}")
        if self.ssim_window % 2 == 0:
            raise ValueError(f"ssim_window must be odd and at least 3, got {self.ssim_window}")

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON-ready values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class ModelOptions:
    """How a model is loaded, beside its name, device and dtype.

    Attributes:
        prediction_type: one of ``PREDICTION_TYPES``, for a scheduler that does not say it
        latent_scaling: for an autoencoder that does not say its ``scaling_factor``
        class_label: the class that a class-conditional network knows as "none"
        revision: a hub branch, tag or commit
        allow_pickle: whether pickled weights may be read, as tensors only
        compile: whether ``torch.compile`` compiles the network when it is first called
    """

    prediction_type: str | None = _option(
        None,
        label="Prediction type",
        help="Only for a model whose scheduler does not say it",
        choices=PREDICTION_TYPES,
    )
    latent_scaling: float | None = _option(
        None,
        label="Latent scaling",
        help="Only for an autoencoder that does not say its scaling_factor",
        must="a number",
    )
    class_label: int | None = _option(
        None, label="Null class", help="Only for a class-conditional U-Net", low=0, must="a whole number of at least 0"
    )
    revision: str | None = _option(
        None, label="Revision", help="Hub branch, tag or commit; empty for main", must="a branch, tag or commit"
    )
    allow_pickle: bool = _option(
        False,
        label="Allow pickled weights",
        help="Read tensors from a .bin file where there are no safetensors",
        must="true or false",
    )
    compile: bool = _option(
        False, label="Compile", help="Minutes at first, then faster; for large runs", must="true or false"
    )

    @classmethod
    def from_dict(cls, options: Mapping[str, Any] | ModelOptions) -> ModelOptions:
        """The options of a mapping by name.

        Raises:
            ValueError: if a name or a value is not known
        """
        if isinstance(options, ModelOptions):
            return options
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(unknown_name("model option", name, known))
        return cls(**options)

    def __post_init__(self) -> None:
        _check_values(self)

    def to_dict(self) -> dict[str, Any]:
        """The options that differ from their defaults, JSON-ready: arguments of ``load_model``."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {each.name: given[each.name] for each in fields(self) if given[each.name] != each.default}


def complete_options(named: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were recorded by name, with the defaults of those that came after the record was made."""
    return {**MethodOptions(detail=0).to_dict(), **named}


def _check_values(options: Any) -> None:
    """Refuses values that are not of their option, and makes plain numbers of the others."""
    hints = get_type_hints(type(options))
    for each in fields(options):
        hint, about = hints[each.name], option_of(each)
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        value = getattr(options, each.name)
        if value is None and type(None) in kinds:
            continue
        kind = kinds[0]
        checked = _checked_pair(value, about) if kind not in (int, float, bool, str) else _checked(value, kind, about)
        if checked is None:
            must = about.must or f"one of {', '.join(about.choices)}"
            raise ValueError(f"{each.name} must be {must}, got {value!r}")
        object.__setattr__(options, each.name, checked)


def _checked(value: Any, kind: type, about: Option) -> Any:
    """A value as a plain one of its kind; None where it is none, or outside of the bounds."""
    if kind is bool or kind is str:
        is_one = isinstance(value, kind) and (not about.choices or value in about.choices)
        return value if is_one else None
    if not is_number(value) or not about.low <= value <= about.high:
        return None
    return None if kind is int and value != int(value) else kind(value)


def _checked_pair(value: Any, about: Option) -> tuple[Any, ...] | None:
    if not isinstance(value, Iterable) or isinstance(value, str):
        return None
    pair = tuple(_checked(item, float, about) for item in value)
    return pair if len(pair) == 2 and None not in pair else None

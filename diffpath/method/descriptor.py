"""The descriptor, on which the density is fitted: its parts, their order and what each number is. Free of torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..options import FEATURE_NAMES, MethodOptions

DESCRIPTOR = "with spectrum"  # another name when other numbers are computed
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")
FREQUENCY_BANDS = (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)  # lower bounds, in cycles per pixel
LOCAL_KINDS = 3  # of local evidence at each part of the path, the size of the error first
LOCAL_STRIDE = 2  # pixels from one place of it to the next


# Likewise, of the higher of both directions, in the detail look
DETAIL_BANDS = (0, 1 / 4, 3 / 8, 1 / 2)
DETAIL_NAMES = (
    *(f"error's power from {bound:g} cycles per pixel" for bound in DETAIL_BANDS),
    *(f"error's correlation, {way}" for way in ("across", "down")),
    *(f"steps across block edges, {way}" for way in ("across", "down")),
    "flatness of the error",
)


@dataclass(frozen=True)
class DescriptorPart:
    """One part of the descriptor.

    Attributes:
        name: the attribute of :class:`diffpath.method.diffpath_v2.DiffPathResult` that holds
            it, and the kind of field that it is written to
        description: what its numbers are, in words for that field
        computed_names: what each number is, in their order, of options by which it is computed,
            whether or not the descriptor holds it
        is_used: whether the descriptor holds it by some options
    """

    name: str
    description: str
    computed_names: Callable[[MethodOptions], tuple[str, ...]]
    is_used: Callable[[MethodOptions], bool]

    def names(self, options: MethodOptions) -> tuple[str, ...]:
        """What each of its numbers in the descriptor is; none where the options leave it out."""
        return self.computed_names(options) if self.is_used(options) else ()

    def length(self, options: MethodOptions) -> int:
        """How many numbers of the descriptor are its own; 0 where the options leave it out."""
        return len(self.names(options))


def statistic_names(num_timesteps: int) -> tuple[str, ...]:
    """What each number of :func:`diffpath.method.features.path_statistics` is, in their order."""
    kinds = ("relative error", "error's correlation", "fine dissimilarity")
    names = [f"{kind}, timestep {k + 1}" for kind in kinds for k in range(num_timesteps)]
    names += [f"size of the error, {quadrant}" for quadrant in QUADRANTS]
    names += [f"error's power from {bound:g} cycles per pixel" for bound in FREQUENCY_BANDS]
    return tuple(names)


def _profile_names(options: MethodOptions) -> tuple[str, ...]:
    return tuple(f"dissimilarity, timestep {k + 1}" for k in range(options.num_timesteps))


def _zoomed_names(options: MethodOptions) -> tuple[str, ...]:
    """The other parts once more."""
    names = [name for part in _SEEN for name in part.names(options)]
    return tuple(f"{name}, seen larger" for name in names) if options.zoom > 1 else ()


# What is computed of the image at one size
_SEEN = (
    DescriptorPart(
        "features",
        "DiffPath features: means of the score error, its square and cube, and of its rate over time likewise",
        computed_names=lambda options: FEATURE_NAMES,
        is_used=lambda options: True,
    ),
    DescriptorPart(
        "profile",
        "Mean 1 - SSIM between image and reconstruction for each timestep, in [0, 2]",
        computed_names=_profile_names,
        is_used=lambda options: options.use_profile,
    ),
    DescriptorPart(
        "statistics",
        "For each timestep, one kind after the other: mean score error relative to its size, its "
        "correlation over 4 pixels, mean 1 - SSIM with its standard constants; then the error's logarithmic size in "
        "each quadrant, and its power in bands of spatial frequency",
        computed_names=lambda options: statistic_names(options.num_timesteps),
        is_used=lambda options: options.use_statistics,
    ),
)


def detail_length(options: MethodOptions) -> int:
    """How many of a descriptor's numbers, at its end, are the detail look's."""
    return len(DETAIL_NAMES) if options.detail else 0


PARTS = (
    *_SEEN,
    DescriptorPart(
        "zoomed",
        "Features, profile and statistics, as far as the run has them, of the image seen larger, in tiles",
        computed_names=_zoomed_names,
        is_used=lambda options: options.zoom > 1,
    ),
    DescriptorPart(
        "detail",
        "What the model's error looks like in crops at the image's own pixels: its logarithmic power in bands of "
        "spatial frequency, its correlation, its steps across the edges of 8-pixel blocks, and its flatness",
        computed_names=lambda options: DETAIL_NAMES if options.detail else (),
        is_used=lambda options: bool(options.detail),
    ),
)


def used_parts(options: MethodOptions) -> tuple[DescriptorPart, ...]:
    """The parts that the descriptor holds, in its order."""
    return tuple(part for part in PARTS if part.is_used(options))


def join_parts(
    parts: Mapping[str, Float[np.ndarray, "n _"]], options: MethodOptions
) -> Float[np.ndarray, "n descriptor"]:
    """The descriptor of parts by name."""
    return np.concatenate([parts[part.name] for part in used_parts(options)], axis=1)

"""What pictures larger than the model lose when they are made small, and what ``zoom`` brings back.

Every method sees the same pictures. diffpath brings them to 96×96, sees them in nine tiles,
and makes its whole view of 32×32 from that, as ``DiffPathV2(zoom=3)`` does; the frozen
network sees them at its own 112×112, or made small first.
"""

from functools import partial

import numpy as np

from diffpath.images import prepare_image

from . import peers
from .datasets import SIDE, ZOOM
from .descriptors import default_descriptor
from .evaluations import Evaluations
from .methods import METHODS, Method, density, fused

CORRUPTED_SETS = ("solar cells", "drawings", "photos")
LARGE = ZOOM * SIDE
_FROZEN_SIDE = 112
_EVALUATIONS = 10


def methods(predictor, zooms=(ZOOM,), draws=()):
    """The rows of the tables, by name.

    Args:
        predictor: the base model
        zooms: how many times larger the second view is
        draws: of noise, for the small view at the cost of a larger one

    Returns:
        :class:`benchmarks.accuracy.methods.Method` by name; its features take images alone, uint8 ``(N, H, W, 3)``
        of 96 pixels or more
    """
    whole = Evaluations(predictor)
    tiled = {zoom: Evaluations(predictor, resolution=zoom * SIDE, tile=SIDE) for zoom in zooms}
    drawn = {count: Evaluations(predictor, draws=tuple(range(count))) for count in draws}
    frozen = METHODS["frozen features"].detector

    def small_view(images, by=LARGE, evaluations=whole):
        return default_descriptor(evaluations, resized(images, by, SIDE))

    def large_view(images, zoom=ZOOM):
        return default_descriptor(tiled[zoom], resized(images, zoom * SIDE))

    def both(images, zoom):
        return np.hstack([small_view(images, zoom * SIDE), large_view(images, zoom)])

    def frozen_features(images):
        return peers.frozen_features(resized(images, _FROZEN_SIDE))

    return {
        "diffpath, default": Method(_EVALUATIONS, small_view, density, "diffpath"),
        **{
            f"diffpath, zoom={zoom}": Method(
                _EVALUATIONS * (1 + zoom**2), partial(both, zoom=zoom), density, "diffpath"
            )
            for zoom in zooms
        },
        **{
            f"diffpath, {count} draws of noise": Method(
                _EVALUATIONS * count, partial(small_view, evaluations=drawn[count]), density, "diffpath"
            )
            for count in draws
        },
        f"diffpath, {LARGE} pixels in tiles": Method(_EVALUATIONS * ZOOM**2, large_view, density, "diffpath"),
        f"diffpath, zoom={ZOOM}, fused with frozen features": Method(
            _EVALUATIONS * (1 + ZOOM**2),
            lambda images: np.hstack([both(images, ZOOM), frozen_features(images)]),
            fused,
            "diffpath",
        ),
        "frozen features": Method(0, frozen_features, frozen, "floor"),
        f"frozen features of {SIDE} pixels": Method(
            0, lambda images: peers.frozen_features(resized(images, LARGE, SIDE)), frozen, "floor"
        ),
        "image quality": Method(0, peers.image_quality, METHODS["image quality"].detector, "floor"),
    }


def resized(images, *sides):
    """uint8 images ``(N, H, W, 3)`` brought to these sides, one after the other, as the library does."""
    return np.stack([prepare_image(image, sides) for image in images])

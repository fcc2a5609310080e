"""What the network errs in around each place of an image: the evidence of the anomaly map.

Three kinds of numbers at each of G parts of the path, in windows of 7×7 pixels, kept at every
second pixel:

    log₁₀ mean e²              how large the score error is
    log₁₀ (1 − SSIM + 0.003)   how far the reconstruction's structure is from the image's
    mean e                     which way the error leans

They say how hard a place is for the model. How *unusual* that is, a reference says:
:class:`diffpath.detection.local.LocalReference`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from .descriptor import LOCAL_STRIDE
from .features import ERROR_MAP_WINDOW, TINY
from .ssim import local_mean

GROUPS = 5  # parts of the path, at most
_LEAST_DISSIMILARITY = 0.003


def local_evidence(
    score_error: Float[Tensor, "n d t c h w"], dissimilarity: Float[Tensor, "n d t height width"]
) -> Float[Tensor, "n k y x"]:
    """The numbers above.

    Args:
        score_error: e, float32 ``(N, D, T, C, H, W)``
        dissimilarity: 1 − SSIM, ``(N, D, T, H′, W′)``, of an image that may be larger than e

    Returns:
        float32 ``(N, 3 G, ⌈H/2⌉, ⌈W/2⌉)``, G = min(T, 5): first all G of the first kind
    """
    height, width = score_error.shape[-2:]
    energy = local_mean(score_error.square().mean(dim=3), ERROR_MAP_WINDOW).clamp_min(TINY).log10().mean(dim=1)
    structure = dissimilarity.mean(dim=1).clamp_min(0)
    if structure.shape[-2:] != (height, width):
        structure = adaptive_avg_pool2d(structure, (height, width))
    lean = local_mean(score_error.mean(dim=(1, 3)), ERROR_MAP_WINDOW)
    parts = torch.arange(energy.shape[1]).tensor_split(min(GROUPS, energy.shape[1]))
    by_part = [torch.stack([kind[:, part].mean(dim=1) for part in parts], dim=1) for kind in (energy, structure, lean)]
    by_part[1] = (by_part[1] + _LEAST_DISSIMILARITY).log10()
    return avg_pool2d(torch.cat(by_part, dim=1), LOCAL_STRIDE, ceil_mode=True)

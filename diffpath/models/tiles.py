"""Large images in overlapping tiles.

The network sees one tile at a time; its outputs are blended into one for the whole image
with weights that fall smoothly, as sin², towards a tile's inner edges, where the network
knows least of the surroundings, and that sum to one. Errors, features and maps are then
computed from the blended output exactly as they are from an untiled one: a feature is the
same mean over the same pixels.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class Tiles:
    """A regular cover of a square by square tiles; the last row and column end at the border.

    Args:
        size: side of the square
        tile: side of a tile, at most ``size``
        overlap: how much neighbours share at least, less than ``tile``
    """

    def __init__(self, size: int, tile: int, overlap: int) -> None:
        if not 0 <= overlap < tile <= size:
            raise ValueError(f"tiles need 0 <= overlap < tile <= size, got {overlap}, {tile} and {size}")
        count = 1 + math.ceil((size - tile) / (tile - overlap))
        last = size - tile
        self.size, self.tile = size, tile
        self.starts = [min(i * (tile - overlap), last) for i in range(count)]
        self.corners = [(top, left) for top in self.starts for left in self.starts]
        along = [_ramps(tile, overlap, start > 0, start < last) for start in self.starts]
        total = torch.zeros(size, dtype=torch.float64)
        for start, weights in zip(self.starts, along):
            total[start : start + tile] += weights
        along = [(w / total[start : start + tile]).float() for start, w in zip(self.starts, along)]
        self.weights = [rows[:, None] * columns for rows in along for columns in along]

    def __len__(self) -> int:
        return len(self.corners)

    def cut(
        self, images: Float[Tensor, "n c {self.size} {self.size}"]
    ) -> Float[Tensor, "n*{len(self)} c {self.tile} {self.tile}"]:
        """Tiles of images, ``(N, C, size, size)`` to ``(N · len, C, tile, tile)``, an image's tiles side by side."""
        side = self.tile
        pieces = [images[..., top : top + side, left : left + side] for top, left in self.corners]
        return torch.stack(pieces, dim=1).flatten(0, 1)

    def blend(
        self, pieces: Float[Tensor, "n_tiles c {self.tile} {self.tile}"]
    ) -> Float[Tensor, "n_tiles//{len(self)} c {self.size} {self.size}"]:
        """The inverse of :meth:`cut`, as the weighted mean where tiles overlap."""
        pieces = pieces.unflatten(0, (-1, len(self)))
        blended = pieces.new_zeros(len(pieces), pieces.shape[2], self.size, self.size)
        for position, ((top, left), weights) in enumerate(zip(self.corners, self.weights)):
            part = pieces[:, position] * weights.to(pieces.device)
            blended[..., top : top + self.tile, left : left + self.tile] += part
        return blended


def _ramps(tile: int, overlap: int, rises: bool, falls: bool) -> Float64[Tensor, " {tile}"]:
    weights = torch.ones(tile, dtype=torch.float64)
    ramp = torch.sin(math.pi / 2 * (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(overlap, 1)) ** 2
    if rises and overlap:
        weights[:overlap] *= ramp
    if falls and overlap:
        weights[tile - overlap :] *= ramp.flip(0)
    return weights

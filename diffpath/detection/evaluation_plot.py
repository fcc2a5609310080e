"""The picture of an evaluation: two histograms of scores and the threshold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

IN_COLOUR, OOD_COLOUR = "#3274B5", "#E1701A"  # told apart by colour-blind eyes as well
_BINS = 40
_LONG_TAIL = 8  # where the scores reach this many interquartile ranges beyond the upper quartile, the axis is bent


def write_histogram(
    path: Path,
    negative: np.ndarray,
    positive: np.ndarray,
    *,
    threshold: float,
    negative_class: str,
    positive_class: str,
    title: str,
) -> None:
    """Draws the scores of two classes as overlapping histograms, each of unit area in the bins shown.

    Args:
        path: the PNG to write
        negative: float ``(n,)``: scores of in-distribution images
        positive: float ``(m,)``: scores of out-of-distribution images
        threshold: the score from which images are flagged
        negative_class: what the former are, in words
        positive_class: what the latter are
        title: of the picture
    """
    scores = np.concatenate([negative, positive])
    lower, median, upper = np.quantile(negative, [0.25, 0.5, 0.75])
    spread = max(upper - lower, 1e-9)
    bent = scores.max() > upper + _LONG_TAIL * spread

    def forward(values: Any) -> Any:
        return np.arcsinh((values - median) / spread) if bent else values

    def backward(values: Any) -> Any:
        return np.sinh(values) * spread + median if bent else values

    edges = backward(np.linspace(forward(scores.min()), forward(scores.max()) + 1e-9, _BINS + 1))
    figure = Figure(figsize=(8, 4.5), layout="constrained", facecolor="white")
    axis = figure.subplots()
    for values, colour, name in ((negative, IN_COLOUR, negative_class), (positive, OOD_COLOUR, positive_class)):
        share = np.full(len(values), 100 / len(values))
        axis.hist(values, edges, weights=share, color=colour, alpha=0.6, label=f"{name} ({len(values):,})")
    axis.axvline(threshold, color="black", linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3g}")
    if bent:
        axis.set_xscale("function", functions=(forward, backward))
        axis.set_xticks(_ticks(scores.min(), scores.max(), forward, backward))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.minorticks_off()
    axis.set(xlabel="anomaly score (higher = more anomalous)", ylabel="images of the class, %")
    axis.set_xlim(edges[0], edges[-1])
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.suptitle(title, fontweight="bold")
    figure.savefig(path, dpi=110)


def _ticks(low: float, high: float, forward: Callable[[Any], Any], backward: Callable[[Any], Any]) -> np.ndarray:
    """Rounded numbers about evenly spaced along the bent axis."""
    ticks = backward(np.linspace(forward(low), forward(high), 7))
    digits = np.floor(np.log10(np.maximum(np.abs(ticks), 1))) - 1
    return np.unique(np.clip(np.round(ticks / 10**digits) * 10**digits, low, high))

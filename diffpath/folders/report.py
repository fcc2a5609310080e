"""Verdicts as one HTML file that opens without a network: ranked pictures, what is unusual in them, a histogram."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..addresses import fetched, name_of
from ..decoding import open_picture
from .scoring import Verdicts

_SHOWN = 96  # pictures, the most anomalous
_SIDE = 220  # pixels
_BINS = 48
_MAP = "anomaly_map"
_CLEAR, _GLOWING = (68, 1, 84), (253, 231, 37)  # the two ends of viridis
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --odd: #d1495b; --usual: #30638e; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.counts { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1rem 0 }
.counts b { display: block; font-size: 1.7rem; line-height: 1.1 }
.odd { color: var(--odd) } .usual { color: var(--usual) }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 14px }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden }
.picture { position: relative; height: 180px; display: flex; justify-content: center; background: #8882 }
.picture span { position: relative; display: block; height: 100% }
.picture img { height: 100%; max-width: 100%; display: block }
.picture img.map { position: absolute; inset: 0; width: 100%; image-rendering: pixelated; opacity: .65 }
body:has(#maps:not(:checked)) img.map { display: none }
figcaption { padding: 8px 10px; font-size: 13px; overflow-wrap: anywhere }
figcaption small { opacity: .75; display: block } .flagged { border-color: var(--odd) }
table { border-collapse: collapse; font-size: 14px }
td { border-top: 1px solid var(--line); padding: 4px 14px 4px 0 }
svg { max-width: 100%; height: auto } svg text { fill: currentColor; font-size: 12px }
"""


def write_report(verdicts: Verdicts, path: Path, title: str) -> None:
    """Writes the report.

    Args:
        verdicts: of files; their anomaly maps are laid over the pictures where there are some
        path: the HTML file
        title: what was scored against what
    """
    partial = path.with_name(f"{path.name}.partial.html")
    partial.write_text(_page(verdicts, title), encoding="utf-8", errors="xmlcharrefreplace")
    partial.replace(path)


def _page(verdicts: Verdicts, title: str) -> str:
    ranked = verdicts.ranked()
    flagged = int(verdicts.flagged.sum())
    unreadable = [(path, error) for path, error in zip(verdicts.paths, verdicts.errors) if error]
    shown = ranked[:_SHOWN]
    heading = "The most anomalous first" if shown == ranked else f"The {len(shown):,} most anomalous"
    toggle = '<label><input type="checkbox" id="maps" checked> show what is unlike the reference</label>'
    counts = [
        ("", f"{verdicts.num_scored:,}", "pictures scored"),
        ("odd", f"{flagged:,}", f"flagged ({verdicts.share_flagged:.1%}): score from {verdicts.threshold:.4g}"),
        ("", f"{len(unreadable):,}", "files could not be read"),
    ]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Which pictures don't belong</h1><div>{html.escape(title)}</div>",
        "<div class='counts'>",
        *(f"<div class='{kind}'><b>{number}</b>{words}</div>" for kind, number, words in counts),
        "</div>",
        _histogram(verdicts),
        f"<h2>{heading}</h2>{toggle if _MAP in verdicts.maps else ''}<div class='grid'>",
        *(_figure(verdicts, place) for place in shown),
        "</div>",
    ]
    if unreadable:
        rows = (f"<tr><td>{html.escape(path)}</td><td>{html.escape(error)}</td></tr>" for path, error in unreadable)
        parts += ["<h2>Files that could not be read</h2><table>", *rows, "</table>"]
    return "\n".join([*parts, "</body></html>"])


def _figure(verdicts: Verdicts, place: int) -> str:
    path, score, p_value = verdicts.paths[place], verdicts.scores[place], verdicts.p_values[place]
    made = verdicts.maps.get(_MAP)
    picture = _thumbnail(path)
    laid_over = _overlay(made[place]) if made else ""
    image = f"<img src='{picture}' alt=''>" if picture else ""
    return (
        f"<figure class='{'flagged' if verdicts.flagged[place] else ''}'>"
        f"<div class='picture'><span>{image}{laid_over}</span></div>"
        f"<figcaption><b>{html.escape(name_of(path))}</b><br>score {score:.4g}, p-value {p_value:.2g}"
        f"<small>{html.escape(verdicts.explanations[place])}</small></figcaption></figure>"
    )


def _thumbnail(path: str) -> str:
    try:
        with fetched(path) as file, open_picture(file) as image:
            small = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # Pillow's decoders raise nearly anything; it was read in another way
        return ""
    small.thumbnail((_SIDE * 2, _SIDE))
    return _as_data(small, "JPEG", quality=82)


def _overlay(path: str | None) -> str:
    """A map as a picture that is transparent where nothing is unusual."""
    if path is None or not Path(path).is_file():
        return ""
    with Image.open(path) as made:
        levels = np.asarray(made.convert("L"))
    share = levels[..., None] / 255
    colours = (1 - share) * np.array(_CLEAR) + share * np.array(_GLOWING)
    rgba = np.concatenate([colours, 255.0 * (levels > 0)[..., None]], axis=2).astype(np.uint8)
    return f"<img class='map' src='{_as_data(Image.fromarray(rgba), 'PNG')}' alt=''>"


def _as_data(image: Image.Image, kind: str, **how: int) -> str:
    content = io.BytesIO()
    image.save(content, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def _histogram(verdicts: Verdicts) -> str:
    """Scores of the pictures and of the reference's, as SVG, on a scale that a few large ones do not fill."""
    scores = verdicts.scores[np.isfinite(verdicts.scores)]
    if not len(scores):
        return ""
    usual = float(np.median(verdicts.calibration))
    unit = max(verdicts.threshold - usual, 1e-6)

    def place(values: Any) -> np.ndarray:
        return np.arcsinh((np.asarray(values, np.float64) - usual) / unit)

    both = np.concatenate([scores, verdicts.calibration])
    ends = place([both.min(), max(both.max(), verdicts.threshold)])
    edges = np.linspace(ends[0], ends[1] + 1e-6, _BINS + 1)
    width, height, bar = 960, 150, 960 / _BINS
    drawn = []
    for values, colour, opacity in ((verdicts.calibration, "var(--usual)", 0.45), (scores, "var(--odd)", 0.6)):
        counts, _ = np.histogram(place(values), edges)
        tallest = max(counts.max(), 1)
        drawn += [
            f"<rect x='{k * bar:.1f}' y='{height * (1 - n / tallest):.1f}' width='{bar - 1:.1f}' "
            f"height='{height * n / tallest:.1f}' fill='{colour}' opacity='{opacity}'/>"
            for k, n in enumerate(counts)
            if n
        ]
    x = float((place(verdicts.threshold) - edges[0]) / (edges[-1] - edges[0])) * width
    drawn.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='0' y2='{height}' stroke='currentColor' stroke-dasharray='4 3'/>")
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img' aria-label='Histogram of scores'>"
        f"{''.join(drawn)}</svg><p><small>Scores from {both.min():.3g} to {both.max():.3g}, large ones drawn together. "
        "<span class='usual'>Blue</span>: the reference's own pictures; <span class='odd'>red</span>: these, each to "
        f"its own height. From the line at {verdicts.threshold:.4g} on they are flagged.</small></p>"
    )

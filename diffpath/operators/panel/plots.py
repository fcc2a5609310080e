"""Plotly traces and layouts for the panel, readable on the App's dark and light backgrounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...dataset.appearance import color_scale
from ...folders.maps import MAPS
from ...options import FEATURE_NAMES
from .data import COMPONENT_NAMES, Axis, Histogram, Picture, Points

Traces: TypeAlias = list[dict[str, Any]]
Layout: TypeAlias = dict[str, Any]

# Middle tones: distinct from each other and from both backgrounds, for colour-blind eyes as well
REFERENCE_COLOR, QUERY_COLOR, FLAGGED_COLOR = "#4a90d9", "#e8892b", "#e64980"
_MARGIN = {"t": 12, "l": 56, "r": 12, "b": 44}
_UNUSUAL = 3  # robust standard deviations
_CLEAR = "rgba(0, 0, 0, 0)"
_OUTLINE = ({"color": "#000000", "width": 4}, {"color": "#ffffff", "width": 2})  # seen on every picture
_OVER_PICTURE = 0.65  # of a map that lies over it


def histogram_traces(histogram: Histogram) -> Traces:
    """Bars of the view with the reference's outline, as percentages of each; the hover text gives counts."""
    edges = histogram.positions
    spans = [f"{low:.4g} to {high:.4g}" for low, high in zip(histogram.edges, histogram.edges[1:])]
    traces: Traces = []
    if histogram.query.any():
        traces.append(
            {
                **_shared("this view", histogram.query, spans),
                "type": "bar",
                "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
                "width": np.diff(edges).tolist(),
                "marker": {"color": QUERY_COLOR},
            }
        )
    if histogram.reference.any():
        traces.append(
            {
                **_shared("reference", histogram.reference, spans),
                "type": "scatter",
                "mode": "lines",
                "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
                "line": {"color": REFERENCE_COLOR, "width": 2, "shape": "hvh"},
            }
        )
    return traces


def _shared(name: str, counts: np.ndarray, spans: Iterable[str]) -> dict[str, Any]:
    return {
        "name": name,
        "y": (100 * counts / counts.sum()).tolist(),
        "customdata": [[int(count), span] for count, span in zip(counts, spans)],
        "hovertemplate": "%{customdata[0]} images<br>score %{customdata[1]}<extra>%{fullData.name}</extra>",
    }


def histogram_layout(bins: dict[str, Any], threshold: float) -> Layout:
    """The histogram's layout, with the threshold marked.

    Args:
        bins: ``Histogram.to_dict()``
        threshold: where the threshold stands on the axis
    """
    x: Layout = {"title": {"text": "anomaly score"}, "fixedrange": True, "zeroline": False}
    if bins["ticks"]:
        x.update(tickvals=bins["ticks"][0], ticktext=bins["ticks"][1])
    y = {"title": {"text": "% of images"}, "fixedrange": True, "type": "log" if bins["log_counts"] else "linear"}
    place, end = float(np.clip(threshold, *bins["reach"])), bins["reach"][1]
    area = {"type": "rect", "x0": place, "x1": end, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    line = {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"}
    shapes = [
        {**area, "fillcolor": FLAGGED_COLOR, "opacity": 0.08, "line": {"width": 0}},
        {**line, "line": {"color": FLAGGED_COLOR, "width": 3}},
    ]
    return {
        "barmode": "overlay",
        "bargap": 0,
        "dragmode": "select",
        "selectdirection": "h",
        "hovermode": "x",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        "xaxis": x,
        "yaxis": y,
        "shapes": shapes,
        "margin": {**_MARGIN, "t": 30},
    }


def scatter_traces(points: Points, threshold: float) -> Traces:
    """Points below the threshold and flagged ones, on axes that are compressed where outliers need it."""
    columns = [_axis(points, column).place(points.xy[:, column]) for column in (0, 1)]
    flagged = points.scores >= threshold
    groups = (("below the threshold", ~flagged, QUERY_COLOR), ("flagged", flagged, FLAGGED_COLOR))
    return [
        {
            "type": "scattergl",
            "mode": "markers",
            "name": name,
            "x": [float(f"{value:.5g}") for value in columns[0][chosen]],
            "y": [float(f"{value:.5g}") for value in columns[1][chosen]],
            "ids": [sample_id for sample_id, is_in in zip(points.ids, chosen) if is_in],
            "marker": {"color": color, "size": 6, "opacity": 0.75},
            "hoverinfo": "none",
        }
        for name, chosen, color in groups
        if chosen.any()
    ]


def scatter_layout(points: Points, x: str, y: str) -> Layout:
    """The scatter plot's layout; x and y are the names of its axes."""
    axes = [_scatter_axis(points, column, name) for column, name in enumerate((x, y))]
    return {
        "dragmode": "lasso",
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        "xaxis": axes[0],
        "yaxis": axes[1],
        "margin": {**_MARGIN, "t": 30},
    }


def z_score_traces(z: np.ndarray) -> Traces:
    """Bars of the six z-scores, unusual ones in the colour of flagged images."""
    compressed = np.arcsinh(z)
    return [
        {
            "type": "bar",
            "orientation": "h",
            "y": list(FEATURE_NAMES),
            "x": compressed.tolist(),
            "text": [f"{value:+.1f}" for value in z],
            "textposition": "auto",
            "hoverinfo": "none",
            "marker": {"color": [FLAGGED_COLOR if abs(value) > _UNUSUAL else REFERENCE_COLOR for value in z]},
        }
    ]


def z_score_layout() -> Layout:
    """Their layout: logarithmic beyond one standard deviation."""
    marks = [-100, -10, -3, 0, 3, 10, 100]
    x = {
        "title": {"text": "robust standard deviations from the reference"},
        "tickvals": np.arcsinh(marks).tolist(),
        "ticktext": [f"{mark:+d}" if mark else "0" for mark in marks],
        "range": np.arcsinh([-300, 300]).tolist(),
        "fixedrange": True,
    }
    return {"xaxis": x, "yaxis": {"autorange": "reversed", "fixedrange": True}, "margin": {**_MARGIN, "l": 70}}


def map_traces(values: np.ndarray, kind: str, scale: tuple[float, float], picture: Picture | None) -> Traces:
    """A map of the sample in the run's colours, on the run's scale, as large as its picture."""
    height, width = values.shape
    across, down = (width, height) if picture is None else (picture.width, picture.height)
    steps = [list(step) for step in color_scale()]
    if MAPS[kind].transparent:
        steps = [[0, _CLEAR], [1e-6, steps[0][1]], *steps[1:]]
    return [
        {
            "type": "heatmap",
            "z": np.round(values, 3).tolist(),
            "x0": across / width / 2,
            "dx": across / width,
            "y0": down / height / 2,
            "dy": down / height,
            "zmin": scale[0],
            "zmax": scale[1],
            "zsmooth": False,
            "opacity": 1 if picture is None else _OVER_PICTURE,
            "colorscale": steps,
            "colorbar": {"title": {"text": MAPS[kind].unit}, "thickness": 10, "len": 0.9, **MAPS[kind].ticks},
            "hovertemplate": "%{z}<extra></extra>",
        }
    ]


def map_layout(kind: str, picture: Picture | None, outline: Sequence[float] | None = None) -> Layout:
    """Its layout: the picture beneath it, and the most unusual place outlined.

    Args:
        kind: of ``MAPS``
        picture: the sample's
        outline: left, top, width and height as shares of the picture, or None
    """
    hidden = {"visible": False, "fixedrange": True}
    layout: Layout = {
        "xaxis": {**hidden, "constrain": "domain"},
        "yaxis": {**hidden, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        "title": {"text": MAPS[kind].title, "font": {"size": 12}},
        "margin": {"t": 30, "l": 6, "r": 6, "b": 6},
    }
    if picture is not None:
        place = {"x": 0, "y": 0, "sizex": picture.width, "sizey": picture.height, "xref": "x", "yref": "y"}
        layout["images"] = [{"source": picture.source, "layer": "below", "sizing": "stretch", **place}]
    if picture is not None and outline is not None:
        left, top, width, height = outline
        corners = {
            "x0": picture.width * left,
            "x1": picture.width * (left + width),
            "y0": picture.height * top,
            "y1": picture.height * (top + height),
        }
        layout["shapes"] = [{"type": "rect", **corners, "line": line} for line in _OUTLINE]
    return layout


def _axis(points: Points, column: int) -> Axis:
    return Axis(points.xy[:, column])


def _scatter_axis(points: Points, column: int, name: str) -> Layout:
    title = name if name in COMPONENT_NAMES else f"{name} (robust sd)"
    layout: Layout = {"title": {"text": title}, "zeroline": False}
    ticks = _axis(points, column).ticks(points.xy[:, column]) if len(points.ids) else None
    if ticks:
        layout.update(tickvals=ticks[0], ticktext=ticks[1])
    return layout

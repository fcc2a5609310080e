"""How the App draws maps: one colour scale, added to the dataset's colour scheme and taken out again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import fiftyone as fo

from ..folders.maps import MAPS

# Perceptually uniform. It is also the App's own: FiftyOne 1.22 was seen to draw it in the grid
# whatever scale a field has
_COLOR_MAP = "viridis"
_COLOR_STEPS = 9
_OURS_ALONE = "value"  # ``color_by`` of a scheme that is made here


@functools.cache
def color_scale() -> tuple[tuple[float, str], ...]:
    """Colours of a map from the lowest, 0, to the highest, 1, of its scale: dark where an image is as expected."""
    from matplotlib import colormaps

    places = [step / (_COLOR_STEPS - 1) for step in range(_COLOR_STEPS)]
    rows = [colormaps[_COLOR_MAP](place, bytes=True)[:3] for place in places]
    return tuple((place, "rgb({}, {}, {})".format(*row)) for place, row in zip(places, rows))


def color_maps(dataset: fo.Dataset, fields: Mapping[str, str]) -> bool:
    """Gives a run's maps their colour scale in the dataset's colour scheme.

    The user's own scheme keeps everything, ``color_by`` included. Where there is none, one
    is made that colours by value: only then does the App draw heatmaps in a scale.

    Args:
        dataset: a ``fo.Dataset``
        fields: names of a run's fields by kind

    Returns:
        whether a scheme was made; :func:`uncolor_maps` is to be told
    """
    scheme = dataset.app_config.color_scheme
    made = scheme is None
    if made:
        scheme = fo.ColorScheme(color_by=_OURS_ALONE)
    _forget(scheme, fields)
    steps = [{"value": value, "color": color} for value, color in color_scale()]
    for kind, name in _maps(fields):
        scheme.colorscales = [*(scheme.colorscales or ()), {"path": name, "list": steps}]
        scheme.fields = [*(scheme.fields or ()), {"path": name, "fieldColor": MAPS[kind].colour}]
    dataset.app_config.color_scheme = scheme
    dataset.save()
    return made


def has_color_scheme(dataset: fo.Dataset) -> bool:
    """Whether the dataset has a colour scheme already."""
    return dataset.app_config.color_scheme is not None


def uncolor_maps(dataset: fo.Dataset, fields: Mapping[str, str], made: bool) -> None:
    """Undoes :func:`color_maps`.

    Args:
        dataset: a ``fo.Dataset``
        fields: names of a run's fields by kind
        made: whether the scheme was made by it; it then goes, if nothing else is in it
    """
    scheme = dataset.app_config.color_scheme
    if scheme is None:
        return
    _forget(scheme, fields)
    if made and scheme.color_by == _OURS_ALONE and not _has_more(scheme):
        scheme = None
    dataset.app_config.color_scheme = scheme
    dataset.save()


def heatmap_colors(dataset: fo.Dataset) -> dict[str, Any] | None:
    """What the App is to be told, since it reads a dataset's colour scheme only when it opens it.

    Returns:
        arguments of the App's ``set_color_scheme``, or None where the dataset's scheme does
        not colour by value
    """
    scheme = dataset.app_config.color_scheme
    if scheme is None or scheme.color_by != _OURS_ALONE:
        return None
    return {"color_by": scheme.color_by, "colorscales": scheme.colorscales or [], "fields": scheme.fields or []}


def _maps(fields: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(kind, fields[kind]) for kind in MAPS if kind in fields]


def _forget(scheme: fo.ColorScheme, fields: Mapping[str, str]) -> None:
    names = [name for _, name in _maps(fields)]
    for name in ("colorscales", "fields"):
        entries = getattr(scheme, name)
        if entries:
            setattr(scheme, name, [entry for entry in entries if entry.get("path") not in names] or None)


def _has_more(scheme: fo.ColorScheme) -> bool:
    return any(value for name, value in scheme.to_dict().items() if name not in ("_id", "id", "_cls", "color_by"))

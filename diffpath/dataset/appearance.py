"""How the App draws maps: one colour scale, added to the dataset's colour scheme and taken out again."""

import fiftyone as fo

from .maps import MAPS

# A map from the lowest to the highest of its scale: dark where an image is as expected, bright where not.
# matplotlib's "viridis" (CC0), perceptually uniform. It is also the App's own: FiftyOne 1.22
# was seen to draw it in the grid whatever scale a field has.
COLORSCALE = (
    (0.0, "rgb(68, 1, 84)"),
    (0.125, "rgb(71, 45, 123)"),
    (0.25, "rgb(59, 82, 139)"),
    (0.375, "rgb(44, 114, 142)"),
    (0.5, "rgb(33, 145, 140)"),
    (0.625, "rgb(40, 174, 128)"),
    (0.75, "rgb(94, 201, 98)"),
    (0.875, "rgb(173, 220, 48)"),
    (1.0, "rgb(253, 231, 37)"),
)
_OURS_ALONE = "value"  # ``color_by`` of a scheme that is made here


def color_maps(dataset, fields):
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
    steps = [{"value": value, "color": color} for value, color in COLORSCALE]
    for kind, name in _maps(fields):
        scheme.colorscales = [*(scheme.colorscales or ()), {"path": name, "list": steps}]
        scheme.fields = [*(scheme.fields or ()), {"path": name, "fieldColor": MAPS[kind].colour}]
    dataset.app_config.color_scheme = scheme
    dataset.save()
    return made


def uncolor_maps(dataset, fields, made):
    """Undoes :func:`color_maps`.

    Args:
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


def heatmap_colors(dataset):
    """What the App is to be told, since it reads a dataset's colour scheme only when it opens it.

    Returns:
        arguments of the App's ``set_color_scheme``, or None where the dataset's scheme does
        not colour by value
    """
    scheme = dataset.app_config.color_scheme
    if scheme is None or scheme.color_by != _OURS_ALONE:
        return None
    return {"color_by": scheme.color_by, "colorscales": scheme.colorscales or [], "fields": scheme.fields or []}


def _maps(fields):
    return [(kind, fields[kind]) for kind in MAPS if kind in fields]


def _forget(scheme, fields):
    names = [name for _, name in _maps(fields)]
    for name in ("colorscales", "fields"):
        entries = getattr(scheme, name)
        if entries:
            setattr(scheme, name, [entry for entry in entries if entry.get("path") not in names] or None)


def _has_more(scheme):
    return any(value for name, value in scheme.to_dict().items() if name not in ("_id", "id", "_cls", "color_by"))

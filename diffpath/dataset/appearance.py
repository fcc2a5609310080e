"""How the App draws heatmaps: one colour scale, added to the dataset's colour scheme and taken out again."""

import fiftyone as fo

# 1 − SSIM from its lowest to its highest: dark where an image is as expected, bright where not.
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
TINT = "#ff5a1f"  # where the App colours by field: the stronger, the more unusual
_OURS_ALONE = "value"  # ``color_by`` of a scheme that is made here


def color_heatmaps(dataset, field):
    """Gives a heatmap field its colour scale in the dataset's colour scheme.

    The user's own scheme keeps everything, ``color_by`` included. Where there is none, one
    is made that colours by value: only then does the App draw heatmaps in a scale.

    Args:
        dataset: a ``fo.Dataset``
        field: the name of a heatmap field

    Returns:
        whether a scheme was made; :func:`uncolor_heatmaps` is to be told
    """
    scheme = dataset.app_config.color_scheme
    made = scheme is None
    if made:
        scheme = fo.ColorScheme(color_by=_OURS_ALONE)
    _forget(scheme, field)
    steps = [{"value": value, "color": color} for value, color in COLORSCALE]
    scheme.colorscales = [*(scheme.colorscales or ()), {"path": field, "list": steps}]
    scheme.fields = [*(scheme.fields or ()), {"path": field, "fieldColor": TINT}]
    dataset.app_config.color_scheme = scheme
    dataset.save()
    return made


def uncolor_heatmaps(dataset, field, made):
    """Undoes :func:`color_heatmaps`.

    Args:
        made: whether the scheme was made by it; it then goes, if nothing else is in it
    """
    scheme = dataset.app_config.color_scheme
    if scheme is None:
        return
    _forget(scheme, field)
    if made and scheme.color_by == _OURS_ALONE and not _has_more(scheme):
        scheme = None
    dataset.app_config.color_scheme = scheme
    dataset.save()


def _forget(scheme, field):
    for name in ("colorscales", "fields"):
        entries = getattr(scheme, name)
        if entries:
            setattr(scheme, name, [entry for entry in entries if entry.get("path") != field] or None)


def _has_more(scheme):
    return any(value for name, value in scheme.to_dict().items() if name not in ("_id", "id", "_cls", "color_by"))

"""A field by which samples belong together: frames of one video, crops of one picture, slides of one patient."""

from __future__ import annotations

import fiftyone as fo

from .internals import Samples

_SINGLE_VALUES = (fo.StringField, fo.IntField, fo.ObjectIdField, fo.BooleanField, fo.DateField, fo.DateTimeField)
_TAKEN_TOO = (*_SINGLE_VALUES, fo.FloatField)  # but not offered: most are measures, and differ everywhere
_OF_EVERY_SAMPLE = ("id", "filepath", "created_at", "last_modified_at")


def group_fields(samples: Samples) -> list[str]:
    """Names of the fields that can say what belongs together, and the labels of classifications."""
    names = []
    for name, field in samples.get_field_schema().items():
        if name in _OF_EVERY_SAMPLE:
            continue
        if isinstance(field, _SINGLE_VALUES):
            names.append(name)
        elif isinstance(field, fo.EmbeddedDocumentField) and issubclass(field.document_type, fo.Classification):
            names.append(f"{name}.label")
        elif isinstance(field, fo.EmbeddedDocumentField) and issubclass(field.document_type, fo.Group):
            names.append(f"{name}.id")
    return names


def read_groups(samples: Samples, field: str) -> dict[str, int]:
    """The group of each sample, as small numbers.

    Args:
        samples: a ``fo.Dataset`` or ``fo.DatasetView``
        field: a field of single values, such as ``"video"`` or ``"scene.label"``

    Returns:
        ``{sample id: int}``; a sample without a value is a group of its own

    Raises:
        ValueError: if there is no such field, it holds something else, or its groups are too few
    """
    from ..detection.detector import check_groups

    name = samples.name or samples.dataset_name
    found = samples.get_field(field)
    if not isinstance(found, _TAKEN_TOO):
        what = "is not there" if found is None else f"holds {_held(found)}, no single values"
        choices = ", ".join(map(repr, group_fields(samples))) or "none"
        raise ValueError(f"the groups field {field!r} of {name!r} {what}; its fields of single values are {choices}")
    numbers: dict[object, int] = {}
    groups = {
        sample_id: numbers.setdefault(
            ("without", sample_id) if value is None or value != value else value, len(numbers)
        )
        for sample_id, value in zip(*samples.values(["id", field]))
    }
    check_groups(list(groups.values()))
    return groups


def _held(field: fo.Field) -> str:
    if isinstance(field, fo.EmbeddedDocumentField):
        return field.document_type.__name__
    return type(field).__name__.removesuffix("Field").lower() + "s"

"""The tag that a run gives to the images that it flags: what a person has done about it stays.

The run remembers in a field of its own which images it has given its tag to. As long as nobody has
added or removed the tag on any image, it follows the flags and goes with the run. From then on
it is the person's: the run gives it to images that it had not tagged before, and takes it from none.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from .internals import every_image
from .record import RunRecord
from .schema import create_field, flagged_view

_GIVEN = "tagged"  # the kind of field


def given_by_run(dataset: fo.Dataset, record: RunRecord) -> fo.DatasetView | None:
    """The images that have their tag of this run; None where a person has changed the tag, or there is none."""
    if not record.tag or not _remembers(dataset, record):
        return None
    given = _given(dataset, record)
    if len(given.match_tags(record.tag, bool=False)) or _count_of_others(dataset, record) != record.tags_of_others:
        return None
    return given


def give_tag(dataset: fo.Dataset, record: RunRecord, tag: str | None) -> dict[str, Any]:
    """Lets the tag follow the flags.

    Args:
        dataset: the dataset that holds the run
        record: of the run, as it was before the flags were changed
        tag: the tag; another one than before takes its place

    Returns:
        what the run's record is to hold of it
    """
    ours = given_by_run(dataset, record)
    if record.tag and tag != record.tag:
        if ours is not None:
            ours.untag_samples(record.tag)
        if _remembers(dataset, record):
            _given(dataset, record).set_field(record.fields[_GIVEN], None).save(record.fields[_GIVEN])
        ours = None
    if not tag:
        return {"tag": tag}
    if _GIVEN not in record.fields or not dataset.has_sample_field(record.fields[_GIVEN]):
        name = create_field(dataset, record.run_key, _GIVEN)
        record = record.patch_item(dataset, "fields", _GIVEN, name)
    given = record.fields[_GIVEN]
    if ours is not None:
        no_more = ours.match(F(record.fields["is_ood"]) != True)  # noqa: E712
        ids = no_more.values("id")
        every_image(dataset).select(ids).untag_samples(tag)
        dataset.set_values(given, dict.fromkeys(ids), key_field="id")
    new = flagged_view(dataset, record.fields).match(F(given) != True).match_tags(tag, bool=False)  # noqa: E712
    ids = new.values("id")
    every_image(dataset).select(ids).tag_samples(tag)
    dataset.set_values(given, dict.fromkeys(ids, True), key_field="id")
    is_touched = ours is None and record.tag == tag
    return {"tag": tag, "tags_of_others": None if is_touched else _count_of_others(dataset, record, tag)}


def _remembers(dataset: fo.Dataset, record: RunRecord) -> bool:
    return _GIVEN in record.fields and dataset.has_sample_field(record.fields[_GIVEN])


def _given(dataset: fo.Dataset, record: RunRecord) -> fo.DatasetView:
    return every_image(dataset).match(F(record.fields[_GIVEN]) == True)  # noqa: E712


def _count_of_others(dataset: fo.Dataset, record: RunRecord, tag: str | None = None) -> int:
    """How many images have the tag that the run has not given it to."""
    tagged = every_image(dataset).match_tags(tag or record.tag)
    return len(tagged.match(F(record.fields[_GIVEN]) != True))  # noqa: E712

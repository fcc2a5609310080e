"""The tag that a run gives to the images that it flags: what a person has done about it stays.

The run remembers in a field of its own which images it has given its tag to. As long as nobody has
added or removed the tag on any image, it follows the flags and goes with the run. From then on
it is the person's: the run gives it to images that it had not tagged before, and takes it from none.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from .internals import count_images, every_image, update_images
from .record import RunRecord
from .schema import create_field

_GIVEN = "tagged"  # the kind of field


def given_by_run(dataset: fo.Dataset, record: RunRecord) -> fo.DatasetView | None:
    """The images that have their tag of this run; None where a person has changed the tag, or there is none."""
    if not record.tag or not _remembers(dataset, record):
        return None
    given = _given(dataset, record)
    if len(given.match_tags(record.tag, bool=False)) or _count_of_others(dataset, record) != record.tags_of_others:
        return None
    return given


def is_tag_ours(dataset: fo.Dataset, record: RunRecord) -> bool:
    """Whether nobody but the run has given the run's tag, or taken it away."""
    return given_by_run(dataset, record) is not None


def give_tag(dataset: fo.Dataset, record: RunRecord, tag: str | None, ours: bool | None = None) -> dict[str, Any]:
    """Lets the tag follow the flags; done again after it was interrupted, it goes on.

    Args:
        dataset: the dataset that holds the run
        record: of the run, as it was before the flags were changed
        tag: the tag; another one than before takes its place
        ours: whether the run's tag was its own when this was begun; None where it is begun now

    Returns:
        what the run's record is to hold of it
    """
    ours = is_tag_ours(dataset, record) if ours is None else ours
    if record.tag and tag != record.tag:
        if _remembers(dataset, record):
            given = record.fields[_GIVEN]
            if ours:
                update_images(dataset, {given: True}, {"$pull": {"tags": record.tag}})
            update_images(dataset, {given: True}, {"$unset": {given: ""}})
        record = record.patch(dataset, tag=None, tags_of_others=None)
    if not tag:
        return {"tag": tag}
    if not _remembers(dataset, record):
        name = create_field(dataset, record.run_key, _GIVEN)
        record = record.patch_item(dataset, "fields", _GIVEN, name)
    given = record.fields[_GIVEN]
    if record.tag != tag:  # noted before it is given: until then nobody can have touched it
        ours, record = True, record.patch(dataset, tag=tag, tags_of_others=_count_of_others(dataset, record, tag))
    new = {record.fields["is_ood"]: True, given: {"$ne": True}, "tags": {"$ne": tag}}
    if not ours:
        update_images(dataset, new, {"$addToSet": {"tags": tag}, "$set": {given: True}})
        return {"tag": tag, "tags_of_others": None}
    no_more = {given: True, record.fields["is_ood"]: {"$ne": True}}
    update_images(dataset, no_more, {"$pull": {"tags": tag}, "$unset": {given: ""}})
    update_images(dataset, new, {"$addToSet": {"tags": tag}, "$set": {given: True}})
    return {"tag": tag, "tags_of_others": _count_of_others(dataset, record, tag)}


def _remembers(dataset: fo.Dataset, record: RunRecord) -> bool:
    return _GIVEN in record.fields and dataset.has_sample_field(record.fields[_GIVEN])


def _given(dataset: fo.Dataset, record: RunRecord) -> fo.DatasetView:
    return every_image(dataset).match(F(record.fields[_GIVEN]) == True)  # noqa: E712


def _count_of_others(dataset: fo.Dataset, record: RunRecord, tag: str | None = None) -> int:
    """How many images have the tag that the run has not given it to."""
    return count_images(dataset, {"tags": tag or record.tag, record.fields[_GIVEN]: {"$ne": True}})

"""The tag of a run's flagged images: the run's as long as nobody touches it, a person's from then on."""

import fiftyone as fo
import pytest
from conftest import demo_samples
from fiftyone import ViewField as F

from diffpath import compute_diffpath, delete_diffpath, rename_diffpath, set_diffpath_threshold
from diffpath.dataset.inventory import run_contents

FAST = dict(num_timesteps=2, num_workers=2, progress=False)


@pytest.fixture
def dataset(make_dataset):
    dataset = make_dataset(demo_samples("clean", 16))
    compute_diffpath(dataset, run_key="k", **FAST)
    return dataset


def ranked(dataset):
    return dataset.sort_by("k_score", reverse=True).values("id")


def tagged(dataset, tag="review"):
    return set(dataset.match_tags(tag).values("id"))


def flag(dataset, count, tag=None):
    return set_diffpath_threshold(dataset, "k", "count", count, tag=tag)


def test_an_untouched_tag_follows_the_flags_and_goes_with_the_run(dataset):
    order = ranked(dataset)
    flag(dataset, 6, "review")
    assert tagged(dataset) == set(order[:6])
    flag(dataset, 3)
    assert tagged(dataset) == set(order[:3])
    flag(dataset, 8)
    assert tagged(dataset) == set(order[:8])
    assert run_contents(dataset, "k").tag == "'review' is taken from the 8 images that the run gave it to"
    delete_diffpath(dataset, "k")
    assert tagged(dataset) == set() and not dataset.has_sample_field("k_tagged")


def test_what_a_reviewer_untagged_is_not_tagged_again_and_what_was_kept_stays(dataset):
    order = ranked(dataset)
    flag(dataset, 6, "review")
    dataset.select(order[:2]).untag_samples("review")
    flag(dataset, 8)
    assert tagged(dataset) == set(order[2:8])
    flag(dataset, 3)
    assert tagged(dataset) == set(order[2:8])
    assert run_contents(dataset, "k").tag == "'review' stays on all images: it was changed by hand"
    delete_diffpath(dataset, "k")
    assert tagged(dataset) == set(order[2:8])


def test_a_tag_that_a_person_added_makes_all_of_them_theirs(dataset):
    order = ranked(dataset)
    flag(dataset, 4, "review")
    dataset.select(order[10]).tag_samples("review")
    flag(dataset, 2)
    assert tagged(dataset) == {*order[:4], order[10]}
    delete_diffpath(dataset, "k")
    assert tagged(dataset) == {*order[:4], order[10]}


def test_tags_of_before_the_run_stay_whether_flagged_or_not(dataset):
    order = ranked(dataset)
    before = {order[0], order[12]}
    dataset.select(list(before)).tag_samples("review")
    flag(dataset, 4, "review")
    assert tagged(dataset) == {*order[:4], order[12]}
    flag(dataset, 2)
    assert tagged(dataset) == {*order[:2], order[12]}
    delete_diffpath(dataset, "k")
    assert tagged(dataset) == before


def test_another_tag_takes_the_place_of_an_untouched_one(dataset):
    order = ranked(dataset)
    flag(dataset, 4, "review")
    flag(dataset, 2, "drop")
    assert tagged(dataset) == set() and tagged(dataset, "drop") == set(order[:2])
    dataset.select(order[0]).untag_samples("drop")
    flag(dataset, 3, "look")
    assert tagged(dataset, "drop") == {order[1]} and tagged(dataset, "look") == set(order[:3])


def test_two_runs_with_one_tag_do_not_take_each_others(dataset):
    compute_diffpath(dataset, run_key="n", num_timesteps=3, num_workers=2, progress=False)
    flag(dataset, 4, "review")
    first = tagged(dataset)
    set_diffpath_threshold(dataset, "n", "count", 6, tag="review")
    both = tagged(dataset)
    assert len(both) >= 6
    delete_diffpath(dataset, "n")
    assert first <= tagged(dataset) <= both


def test_deleting_images_does_not_lose_the_others_tags(dataset):
    order = ranked(dataset)
    dataset.select(order[12]).tag_samples("review")
    flag(dataset, 4, "review")
    dataset.delete_samples([order[12], order[0]])
    flag(dataset, 2)
    assert set(order[1:3]) <= tagged(dataset)


def test_the_run_remembers_under_its_new_key(dataset):
    order = ranked(dataset)
    flag(dataset, 4, "review")
    rename_diffpath(dataset, "k", "m")
    set_diffpath_threshold(dataset, "m", "count", 2)
    assert tagged(dataset) == set(order[:2])
    delete_diffpath(dataset, "m")
    assert tagged(dataset) == set()


def test_a_tag_that_an_early_version_gave_stays(dataset):
    """It did not remember which images it had given it to."""
    flag(dataset, 4, "review")
    order = ranked(dataset)
    dataset.delete_sample_field("k_tagged")
    flag(dataset, 2)
    assert tagged(dataset) == set(order[:4])
    delete_diffpath(dataset, "k")
    assert tagged(dataset) == set(order[:4])


def test_a_tag_in_another_slice_is_seen(make_dataset):
    dataset = fo.Dataset()
    dataset.add_group_field("group", default="left")
    samples = []
    for left, right in zip(demo_samples("clean", 6), demo_samples("drawings", 6)):
        group = fo.Group()
        left["group"], right["group"] = group.element("left"), group.element("right")
        samples += [left, right]
    dataset.add_samples(samples, progress=False)
    flat = dataset.select_group_slices("right")
    compute_diffpath(flat, run_key="k", rule="count", level=3, tag="odd", **FAST)
    assert flat.count_sample_tags() == {"odd": 3}
    assert len(flat.match(F("k_is_ood") == True)) == 3  # noqa: E712
    delete_diffpath(dataset, "k")
    assert flat.count_sample_tags() == {}
    dataset.delete()

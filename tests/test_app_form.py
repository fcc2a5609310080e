"""A user of the real App sets what the form offers beside the usual: a larger view of each image, groups."""

import fiftyone as fo
import pytest
from app import SECONDS, expect_grid, open_app, open_operator
from conftest import demo_samples
from PIL import Image
from playwright.sync_api import expect

from diffpath import DiffPathRun

pytestmark = pytest.mark.app


def choose(page, label, value):
    """Types a value into one of the form's inputs with suggestions, and takes the suggestion."""
    box = page.get_by_text(label, exact=True).first.locator("xpath=following::input[1]")
    box.click()
    box.fill(value)
    page.get_by_role("option", name=value, exact=True).click()


def test_zoom_is_set_in_the_form_which_then_expects_more_time(make_dataset, screenshots):
    dataset = make_dataset(demo_samples("photos", 40))
    with open_app(dataset, height=1100) as page:
        open_operator(page, "Compute DiffPath OOD scores")
        expect(page.get_by_text("40 images, about 2 s")).to_be_visible()
        page.get_by_role("checkbox").last.click()  # Advanced
        page.get_by_text("Zoom", exact=True).locator("xpath=following::input[1]").fill("3")
        expect(page.get_by_text("40 images, about 20 s")).to_be_visible()
        page.get_by_text("Zoom", exact=True).scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "zoom-1-form.png")

        page.get_by_role("button", name="Execute").first.click()
        page.get_by_text("DiffPath scored 40 images", exact=False).first.wait_for(timeout=120 * SECONDS)
        page.get_by_role("button", name="Done").click()
        expect_grid(page, 40)
        page.wait_for_timeout(3 * SECONDS)  # thumbnails and heatmaps are drawn
        page.screenshot(path=screenshots / "zoom-2-maps.png")

    dataset.reload()
    run = DiffPathRun.load(dataset, "diffpath")
    assert run.config["made_by"]["options"]["zoom"] == 3
    assert dataset.count("diffpath_zoomed") == 40
    heatmap = fo.load_dataset(dataset.name).first().diffpath_heatmap
    with Image.open(heatmap.map_path) as picture:
        assert picture.size == (96, 96)


def test_groups_are_chosen_among_the_fields_of_the_reference(make_dataset, screenshots):
    dataset = make_dataset(demo_samples("reference", 40, tags=["normal"]), demo_samples("clean", 20))
    dataset.set_values("video", [f"video {k // 4}" for k in range(60)])
    with open_app(dataset, height=1100) as page:
        open_operator(page, "Compute DiffPath OOD scores")
        page.get_by_text("Samples with a tag").click()
        expect(page.get_by_text("Tag", exact=True)).to_be_visible()
        choose(page, "Tag", "normal")
        choose(page, "Groups", "video")
        page.wait_for_timeout(2 * SECONDS)
        page.screenshot(path=screenshots / "groups-1-form.png")
        page.get_by_role("button", name="Execute").first.click()
        page.get_by_text("DiffPath scored 60 images", exact=False).first.wait_for(timeout=120 * SECONDS)
        page.get_by_role("button", name="Done").click()
        expect_grid(page, 60)
    dataset.reload()
    run = DiffPathRun.load(dataset, "diffpath")
    assert run.config["made_by"]["reference"] == {"kind": "tag", "tag": "normal", "groups": "video"}

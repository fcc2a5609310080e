"""The real App in a headless browser: the story of one user, from the first run to the last deletion.

The tests are the steps of that user, in order; each leaves a screenshot.
"""

import csv
import io
import re
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from app import SECONDS, bars, click_mark, drag, expect_grid, flagged_points, open_app, open_operator, plot
from conftest import ROOT
from fiftyone import ViewField as F
from PIL import Image
from playwright.sync_api import expect
from test_runs import state

from diffpath import DiffPathRun
from diffpath.dataset import ScoringRequest, iterate_scoring

pytestmark = pytest.mark.app
LABEL = "Compute DiffPath OOD scores"


@pytest.fixture(scope="module")
def dataset():
    (Path(fo.config.default_dataset_dir) / "diffpath").mkdir(parents=True, exist_ok=True)
    dataset = fo.Dataset("diffpath-app-test", overwrite=True)
    for kind, count in (("reference", 60), ("clean", 30), ("photos", 15), ("drawings", 15)):
        paths = sorted((ROOT / "demo" / "data" / kind).glob("*.png"))[:count]
        dataset.add_samples([fo.Sample(filepath=str(path), tags=[kind]) for path in paths], progress=False)
    dataset.add_sample(fo.Sample(filepath=str(ROOT / "demo" / "data" / "missing.png"), tags=["missing"]))
    dataset.save_view("my own view", dataset.match_tags("clean"))
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def before(dataset):
    return state(dataset)


@pytest.fixture(scope="module")
def page(dataset, before):
    with open_app(dataset, width=1600, height=1000) as page:
        yield page


@pytest.fixture
def screenshot(page, screenshots):
    return lambda name: page.screenshot(path=screenshots / f"{name}.png")


def flagged(page):
    """The panel's live count, as ``(flagged, scored, threshold)``."""
    text = page.get_by_text(re.compile("images flagged")).first.inner_text()
    numbers = re.match(r"([\d,]+) of ([\d,]+) images flagged .* score from (-?[\d.]+)", text).groups()
    return int(numbers[0]), int(numbers[1]), float(numbers[2])


def wait_until(page, condition, seconds=60):
    """Waits until the page shows what is expected of it."""
    for _ in range(4 * seconds):
        if condition():
            return
        page.wait_for_timeout(SECONDS / 4)
    raise AssertionError(f"the page did not change within {seconds} s")


def scores(dataset):
    return np.array(dataset.exists("diffpath_score").values("diffpath_score"))


def press(page, name):
    page.get_by_role("button", name=name, exact=True).last.click()


def open_panel(page):
    """Opens the panel with the + beside the samples."""
    page.get_by_text("121 samples").first.wait_for()
    page.get_by_test_id("panel-tab-samples").locator("xpath=../..").get_by_role("button").last.click()
    page.get_by_text("DiffPath", exact=True).last.click()


def test_a_user_opens_the_operator_runs_it_and_sees_progress_and_the_ranked_view(page, dataset, screenshots):
    page.keyboard.press("`")
    page.get_by_placeholder("Search operations by name...").wait_for()
    page.keyboard.type(LABEL)
    page.get_by_text(LABEL).first.wait_for()
    page.screenshot(path=screenshots / "1-browser.png")
    page.keyboard.press("Enter")

    page.get_by_text("Run key").wait_for()
    page.get_by_text("121 images, about").wait_for()
    page.screenshot(path=screenshots / "2-form.png")

    page.get_by_role("button", name="Execute").first.click()
    page.get_by_text("Scoring images:", exact=False).first.wait_for()
    page.screenshot(path=screenshots / "3-progress.png")

    page.get_by_text("DiffPath scored 120 images", exact=False).first.wait_for(timeout=120 * SECONDS)
    page.screenshot(path=screenshots / "4-notice.png")
    page.get_by_role("button", name="Done").click()
    ranked = dataset.load_saved_view("diffpath: most anomalous first").values("diffpath_score")
    assert len(ranked) == 120
    # the grid shows the scores of the most anomalous, the highest of all among them
    for score in ranked[:3]:
        shown = f"{score:.3f}".rstrip("0").rstrip(".")
        expect(page.get_by_text(shown, exact=True).first).to_be_visible(timeout=60 * SECONDS)
    page.wait_for_timeout(3 * SECONDS)  # thumbnails and heatmaps are drawn
    page.screenshot(path=screenshots / "5-ranked.png")
    expect_grid(page, 120)
    grid = page.screenshot(clip={"x": 320, "y": 150, "width": 1200, "height": 700})
    red, green, blue = np.moveaxis(np.asarray(Image.open(io.BytesIO(grid)).convert("RGB"), float), 2, 0)
    assert (blue - red > 20).mean() > 0.15  # of the heatmaps: the images are grey
    assert (green - red > 20).mean() > 0.05  # in a scale: one tint would be violet or orange alone


def test_the_form_then_warns_that_the_run_exists(page, dataset, screenshots):
    page.keyboard.press("`")
    page.get_by_placeholder("Search operations by name...").wait_for()
    page.keyboard.type(LABEL)
    page.keyboard.press("Enter")
    page.get_by_text("Run 'diffpath' exists").wait_for()
    page.screenshot(path=screenshots / "6-warning.png")
    press(page, "Cancel")


def test_the_workspace_opens_the_panel_beside_the_grid(page, dataset, screenshot):
    open_operator(page, "Save DiffPath workspace")
    press(page, "Save")
    plot(page, 1)
    dataset.reload()
    run = DiffPathRun.load(dataset, "diffpath")
    assert flagged(page) == (run.num_likely_ood, 120, pytest.approx(run.threshold, rel=1e-3))
    assert sum(bar["count"] for bar in bars(page)) == 120
    assert dataset.list_workspaces() == ["diffpath: workspace"]
    page.wait_for_timeout(2 * SECONDS)
    screenshot("07-panel")


def test_moving_the_threshold_changes_the_count_at_once(page, dataset, screenshot):
    number, _, threshold = flagged(page)
    slider = page.locator(".MuiSlider-root").last.bounding_box()
    page.mouse.click(slider["x"] + 0.8 * slider["width"], slider["y"] + slider["height"] / 2)
    wait_until(page, lambda: flagged(page)[0] > number)
    more, _, lower = flagged(page)
    assert lower < threshold and more == (scores(dataset) >= 0.9999 * lower).sum()
    page.locator("input[type=number]").first.fill("0.5")
    wait_until(page, lambda: flagged(page)[0] > more)
    page.get_by_text("False-positive rate").click()
    page.get_by_role("option", name="Count").click()
    number = page.locator("input[type=number]").first
    # the number of this rule, which begins with what the run has flagged
    expect(number).to_have_value(str(DiffPathRun.load(dataset, "diffpath").num_likely_ood))
    number.fill("12")
    expect(page.get_by_text(re.compile("12 of 120 images flagged"))).to_be_visible()
    for count in ("1", "15", "150", "20", "12"):  # faster than the panel answers
        number.fill(count)
        page.wait_for_timeout(0.3 * SECONDS)
    page.wait_for_timeout(5 * SECONDS)
    expect(page.get_by_text(re.compile("12 of 120 images flagged"))).to_be_visible()
    expect(number).to_have_value("12")
    screenshot("08-threshold")


def test_clicking_a_bar_and_dragging_over_a_range_show_those_images(page, screenshot):
    bar = max(bars(page), key=lambda bar: bar["count"])
    click_mark(page, bar)
    expect_grid(page, bar["count"])
    page.get_by_text("The grid shows").wait_for()
    page.wait_for_timeout(2 * SECONDS)
    screenshot("09-bar")
    chosen = bars(page)[-25:]
    drag(page, (chosen[0]["x"] - 3, chosen[0]["y"]), (chosen[-1]["x"] + 3, chosen[0]["y"]))
    expect_grid(page, sum(bar["count"] for bar in chosen))
    page.wait_for_timeout(2 * SECONDS)
    screenshot("10-range")
    press(page, "Clear")
    expect_grid(page, 120)


def test_a_lasso_around_points_shows_their_images(page, screenshot):
    box = plot(page, 1).bounding_box()
    left, right = (box["x"] + share * box["width"] for share in (0.55, 0.97))
    top, bottom = (box["y"] + share * box["height"] for share in (0.15, 0.8))
    drag(page, (left, top), (right, top), (right, bottom), (left, bottom), (left, top + 4))
    text = page.get_by_text(re.compile("chosen images"))
    text.wait_for()
    number = int(re.search(r"(\d+) chosen", text.first.inner_text())[1])
    assert 0 < number < 120
    expect_grid(page, number)
    page.wait_for_timeout(2 * SECONDS)
    screenshot("11-lasso")
    press(page, "Clear")
    expect_grid(page, 120)


def test_flagged_images_are_tagged_exported_and_saved_as_a_view(page, dataset, screenshot):
    most = sorted(scores(dataset).tolist(), reverse=True)[:12]
    press(page, "Tag flagged")
    page.get_by_text("12 images have the tag").first.wait_for()
    dataset.reload()
    assert sorted(dataset.match_tags("diffpath flagged").values("diffpath_score"), reverse=True) == most
    with page.expect_download() as download:
        press(page, "Export list (CSV)")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert download.value.suggested_filename == "diffpath.csv"
    assert [float(row["diffpath_score"]) for row in rows] == most
    press(page, "Save view")
    page.get_by_text("Saved the view").first.wait_for()
    dataset.reload()
    (name,) = [name for name in dataset.list_saved_views() if name.startswith("diffpath: score from")]
    assert sorted(dataset.load_saved_view(name).values("diffpath_score"), reverse=True) == most
    screenshot("12-tagged")


def test_applying_the_threshold_writes_it_to_the_run(page, dataset):
    press(page, "Apply threshold")
    page.get_by_text("12 images are flagged now").first.wait_for()
    dataset.reload()
    run = DiffPathRun.load(dataset, "diffpath")
    assert (run.rule, run.level, run.num_likely_ood) == ("count", 12, 12)
    assert dataset.match(F("diffpath_is_ood")).count() == 12 == len(dataset.load_saved_view("diffpath: likely OOD"))


def test_a_point_selects_its_image_and_shows_its_features_and_heatmap_in_both_themes(page, screenshot):
    click_mark(page, flagged_points(page)[0])
    page.get_by_text("Selected image:").wait_for()
    assert plot(page, 3).evaluate("element => element.data[0].z.length") == 32
    assert plot(page, 2).evaluate("element => element.data[0].x.length") == 6
    page.wait_for_timeout(2 * SECONDS)
    screenshot("13-sample")
    page.mouse.click(1455, 37)  # light
    page.wait_for_timeout(3 * SECONDS)
    plot(page, 0)
    screenshot("14-light")
    page.mouse.click(1455, 37)  # dark again


def test_the_panel_follows_the_view_of_the_user(page, screenshot):
    open_operator(page, "Load DiffPath view")
    page.get_by_text("Flagged images").click()
    press(page, "Show")
    expect_grid(page, 12)
    expect(page.get_by_text(re.compile("12 of 12 images flagged"))).to_be_visible()
    assert sum(bar["count"] for bar in bars(page)) == 12
    screenshot("15-view")


def test_a_run_is_looked_up_and_renamed_with_all_that_belongs_to_it(page, dataset, screenshot):
    open_operator(page, "Get DiffPath info")
    page.get_by_text("images/s on").first.wait_for()
    page.wait_for_timeout(3 * SECONDS)
    screenshot("16-info")
    press(page, "Done")
    page.get_by_text("images/s on").first.wait_for(state="detached")
    open_operator(page, "Rename DiffPath run")
    page.get_by_text("New key").wait_for()
    page.get_by_text("New key").locator("xpath=following::input[1]").fill("renamed")
    page.wait_for_timeout(2 * SECONDS)
    screenshot("17-rename")
    press(page, "Rename")
    page.get_by_text("is now 'renamed'").first.wait_for()
    dataset.reload()
    assert dataset.list_runs() == ["renamed"] and dataset.count("renamed_score") == 120
    assert not [name for name in dataset.list_saved_views() if name.startswith("diffpath")]
    assert dataset.list_workspaces() == ["renamed: workspace"]


def test_deleting_the_run_leaves_the_dataset_as_it_was(page, dataset, before, screenshot):
    open_operator(page, "Delete DiffPath run")
    page.get_by_text("cannot be undone").first.wait_for()
    page.get_by_text("renamed_heatmap").first.wait_for()
    page.wait_for_timeout(3 * SECONDS)
    screenshot("18-delete")
    press(page, "Delete")
    page.get_by_text("'renamed' is deleted").first.wait_for()
    expect_grid(page, 121)
    dataset.untag_samples("diffpath flagged")  # the user's own, on purpose
    assert state(dataset) == before
    page.wait_for_timeout(2 * SECONDS)
    screenshot("19-clean")


def test_an_interrupted_run_is_shown_as_such_and_goes_on(page, dataset, screenshot):
    request = ScoringRequest.of(dataset, reference="reference", run_key="stopped", batch_size=20, num_timesteps=2)
    steps = iterate_scoring(request)
    for step in steps:
        if step.done >= 40:
            break
    steps.close()  # as a closed tab does
    page.reload()
    page.get_by_text("was interrupted").wait_for()
    screenshot("20-interrupted")
    press(page, "Continue")
    page.get_by_text("images are done already").wait_for()
    press(page, "Continue")
    page.get_by_text("DiffPath scored 120 images", exact=False).first.wait_for(timeout=120 * SECONDS)
    press(page, "Done")
    dataset.reload()
    assert DiffPathRun.load(dataset, "stopped").num_scored == 120


def test_a_run_that_lost_fields_is_shown_as_such_and_can_be_deleted(page, dataset, screenshot):
    dataset.delete_sample_field("stopped_features")
    page.reload()
    page.get_by_text("has lost stopped_features").wait_for()
    screenshot("21-damaged")
    press(page, "Delete")
    page.get_by_text("cannot be undone").first.wait_for()
    press(page, "Delete")
    page.get_by_text("'stopped' is deleted").first.wait_for()
    page.get_by_text("No image has a score yet").wait_for()
    screenshot("22-none")


def test_an_empty_dataset_opens_without_the_panel(page, dataset):
    dataset.clear()
    page.reload()
    page.get_by_text("No samples yet").wait_for()  # the App's own page, in place of all panels

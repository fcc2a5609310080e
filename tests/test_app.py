"""The real App in a headless browser: open the operator, run it, see progress and ranking."""

import contextlib
import os
import shutil
import socket
from pathlib import Path

import fiftyone as fo
import pytest
from conftest import ROOT
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import expect, sync_playwright

LABEL = "Compute DiffPath OOD scores"
SECONDS = 1000  # playwright counts in milliseconds
_BROWSER_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    folder = os.environ.get("DIFFPATH_SCREENSHOTS")
    folder = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def dataset():
    dataset = fo.Dataset("diffpath-app-test", overwrite=True)
    for kind, count in (("reference", 60), ("clean", 30), ("photos", 15), ("drawings", 15)):
        paths = sorted((ROOT / "demo" / "data" / kind).glob("*.png"))[:count]
        dataset.add_samples([fo.Sample(filepath=str(path), tags=[kind]) for path in paths], progress=False)
    dataset.add_sample(fo.Sample(filepath=str(ROOT / "demo" / "data" / "missing.png"), tags=["missing"]))
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def page(dataset):
    port = free_port()
    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    chromium = (
        os.environ.get("DIFFPATH_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_ARGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60 * SECONDS)
        page.goto(f"http://127.0.0.1:{port}/datasets/{dataset.name}")
        page.get_by_text("121 samples", exact=False).first.wait_for()
        with contextlib.suppress(PlaywrightTimeoutError):  # FiftyOne's advertisement, where there is one
            page.get_by_text("Dismiss", exact=True).click(timeout=10 * SECONDS)
        yield page
        browser.close()
    session.close()


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


def test_the_form_then_warns_that_the_run_exists(page, dataset, screenshots):
    page.keyboard.press("`")
    page.get_by_placeholder("Search operations by name...").wait_for()
    page.keyboard.type(LABEL)
    page.keyboard.press("Enter")
    page.get_by_text("Run 'diffpath' exists").wait_for()
    page.screenshot(path=screenshots / "6-warning.png")

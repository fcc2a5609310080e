"""The real App in a headless browser, and what tests do in it again and again."""

import contextlib
import os
import re
import shutil
import socket

import fiftyone as fo
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import expect, sync_playwright

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


expect.set_options(timeout=60 * SECONDS)


@contextlib.contextmanager
def open_app(dataset, width=1500, height=950):
    """The App on a dataset, as a playwright page; FiftyOne's advertisement is dismissed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    chromium = (
        os.environ.get("DIFFPATH_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_BROWSER_ARGS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60 * SECONDS)
        page.goto(f"http://127.0.0.1:{port}/datasets/{dataset.name}")
        page.get_by_text(f"{len(dataset)} samples", exact=False).first.wait_for()
        with contextlib.suppress(PlaywrightTimeoutError):  # the advertisement, where there is one
            page.get_by_text("Dismiss", exact=True).click(timeout=10 * SECONDS)
        yield page
        browser.close()
    session.close()


def open_operator(page, label):
    """Opens an operator's form as a user does: backquote, its name, Enter."""
    search = page.get_by_placeholder("Search operations by name...")
    for _ in range(4):
        page.keyboard.press("`")  # lost where another dialog is still closing
        with contextlib.suppress(PlaywrightTimeoutError):
            search.wait_for(timeout=15 * SECONDS)
            break
    page.keyboard.type(label)
    page.get_by_text(label).first.wait_for()
    page.keyboard.press("Enter")


def expect_grid(page, count):
    """Waits until the grid says that it shows this many samples."""
    words = "sample" if count == 1 else "samples"
    expect(page.get_by_text(re.compile(rf"^{count:,} {words}$")).first).to_be_visible()


def plot(page, number):
    """One of the panel's plots, drawn."""
    locator = page.locator(".js-plotly-plot").nth(number)
    locator.locator(".main-svg").first.wait_for()
    locator.page.wait_for_timeout(SECONDS)  # the App may draw it once more
    locator.evaluate("element => element.scrollIntoView({block: 'nearest'})")
    return locator


def bars(page):
    """The histogram's bars of the view: their counts, and where they stand on the page."""
    return plot(page, 0).evaluate(
        """element => {
            const {left, top, height} = element.getBoundingClientRect();
            const {xaxis} = element._fullLayout;
            const trace = element.data.find(trace => trace.name === "this view");
            return trace.x.map((x, k) => ({
                count: trace.customdata[k][0],
                x: left + xaxis._offset + xaxis.d2p(x),
                y: top + height / 2,
            }));
        }"""
    )


def flagged_points(page):
    """Where the flagged images stand in the scatter plot, on the page."""
    return plot(page, 1).evaluate(
        """element => {
            const {left, top} = element.getBoundingClientRect();
            const {xaxis, yaxis} = element._fullLayout;
            const trace = element.data.find(trace => trace.name === "flagged");
            return trace.x.map((x, k) => ({
                x: left + xaxis._offset + xaxis.d2p(x),
                y: top + yaxis._offset + yaxis.d2p(trace.y[k]),
            }));
        }"""
    )


def click_mark(page, mark):
    """Clicks a bar or point of a plot."""
    page.mouse.move(mark["x"] - 3, mark["y"])
    page.mouse.move(mark["x"], mark["y"])
    page.wait_for_timeout(0.5 * SECONDS)  # plotly looks what is under the mouse
    page.mouse.down()
    page.mouse.up()


def drag(page, *places):
    """Drags the mouse along places ``(x, y)``."""
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()

"""The scripts of the task pages do what the pages say: each is read from its page and run."""

import re
import shutil

import fiftyone as fo
import pytest
from conftest import ROOT
from fiftyone.operators.delegated import DelegatedOperationService

from diffpath import delete_diffpath
from diffpath.folders.maps import MAPS

PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if "```python\nimport fiftyone" in path.read_text())
KINDS = {"verified": ("reference", 16), "new": ("clean", 6), "odd": ("photos", 4)}


def script(page):
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return code


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    dataset = fo.Dataset("my-images")
    for tag, (kind, count) in KINDS.items():
        paths = sorted((ROOT / "demo" / "data" / kind).glob("*.png"))[:count]
        dataset.add_samples([fo.Sample(filepath=str(path), tags=[tag]) for path in paths], progress=False)
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "missing.png")))
    shutil.copytree(ROOT / "diffpath" / "models" / "bundled", tmp_path / "models" / "my-model")
    monkeypatch.chdir(tmp_path)
    yield dataset
    for run_key in dataset.list_runs():
        delete_diffpath(dataset, run_key)
    dataset.delete()


def test_there_is_a_page_for_each_task():
    names = {page.stem for page in PAGES}
    assert names == {
        "calibrate-with-a-reference",
        "clean-before-training",
        "find-corrupted-images",
        "find-ood-images",
        "run-delegated",
        "use-another-model",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_script_of_a_page_runs(page, dataset, capsys):
    code = script(page)
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from"))]) <= 12
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    expected = {
        "find-ood-images": "flagged, from a score of",
        "find-corrupted-images": "unreadable: ",
        "clean-before-training": "27 images: 10 to review, 1 unreadable, 16 kept",
        "calibrate-with-a-reference": "after two more images: 8",
        "use-another-model": "bundled bundled",
        "run-delegated": "queued",
    }
    assert expected[page.stem] in printed
    if page.stem == "run-delegated":
        DelegatedOperationService().execute_queued_operations(limit=1)
        dataset.reload()
        assert dataset.count("nightly_score") == 26


def test_every_picture_and_page_that_is_linked_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_the_scale_of_anomaly_maps_is_said_as_it_is():
    low, high = MAPS["anomaly_map"].scale
    for page in ("README.md", "docs/find-ood-images.md"):
        text = (ROOT / page).read_text()
        assert round(10**low) == 20 and re.search(r"dark violet[^.]*\b1 in 20\b", text), page
        assert round(10**high) == 10_000 and re.search(r"yellow[^.]*\b1 in 10,000\b", text), page


def test_the_demo_leaves_the_colours_that_its_run_made():
    assert "color_scheme" not in (ROOT / "demo" / "run.py").read_text()


def test_pictures_are_small():
    for picture in (ROOT / "docs").rglob("*.png"):
        assert picture.stat().st_size < 300_000, picture.name

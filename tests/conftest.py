"""Isolates FiftyOne from the user's database and plugins, and gives the tests real images."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook

# Array shapes and types that the tensor code promises are checked whenever a test calls it;
# in this process alone, and only of modules that were not imported before
install_import_hook(["diffpath.method", "diffpath.models"], "array_checks.check")

ROOT = Path(__file__).resolve().parents[1]
_HOME = Path(tempfile.mkdtemp(prefix="diffpath-tests-"))


def _isolate_fiftyone():
    """FiftyOne reads its settings once, when it is imported."""
    plugins = _HOME / "plugins"
    plugins.mkdir()
    (plugins / "diffpath").symlink_to(ROOT)
    os.environ.update(
        FIFTYONE_DATABASE_DIR=str(_HOME / "db"),
        FIFTYONE_PLUGINS_DIR=str(plugins),
        FIFTYONE_DEFAULT_DATASET_DIR=str(_HOME / "datasets"),
        FIFTYONE_DO_NOT_TRACK="1",
        FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS="true",
        FIFTYONE_SHOW_PROGRESS_BARS="false",
        FIFTYONE_OPERATOR_TIMEOUT="3",  # seconds; short, so that a run can outlast it
    )


# Registered before FiftyOne's own, so that it runs after the database has stopped
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
_isolate_fiftyone()


def read_demo(kind, count):
    """The first ``count`` demo images of a kind, uint8 ``(N, 28, 28)``."""
    from PIL import Image

    paths = sorted((ROOT / "demo" / "data" / kind).glob("*.png"))[:count]
    assert len(paths) == count, f"demo/data/{kind} holds fewer than {count} images"
    return np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])


def demo_samples(kind, count, skip=0, **fields):
    """FiftyOne samples of demo images, with their kind."""
    import fiftyone as fo

    paths = sorted((ROOT / "demo" / "data" / kind).glob("*.png"))[skip : skip + count]
    assert len(paths) == count, f"demo/data/{kind} holds too few images"
    return [fo.Sample(filepath=str(path), kind=kind, **fields) for path in paths]


@pytest.fixture
def make_dataset():
    """Makes FiftyOne datasets of lists of samples, which are deleted after the test."""
    import fiftyone as fo

    made = []

    def make(*groups):
        dataset = fo.Dataset()
        made.append(dataset)
        dataset.add_samples([sample for group in groups for sample in group], progress=False)
        return dataset

    yield make
    for dataset in made:
        dataset.delete()


@pytest.fixture(scope="session")
def photos():
    """Eight colour photographs of different sizes, as uint8 arrays."""
    from skimage import data

    astronaut, coffee, cat = data.astronaut(), data.coffee(), data.chelsea()
    return [
        astronaut[:128, 160:288],
        astronaut[300:400, 100:220],
        coffee[40:240, 100:300],
        coffee[200:264, 300:400],
        cat[50:250, 80:330],
        cat[100:164, 150:230],
        np.repeat(data.camera()[100:260, 150:310, None], 3, axis=2),
        np.repeat(data.coins()[20:120, 20:120, None], 3, axis=2),
    ]


@pytest.fixture(scope="session")
def method():
    """The bundled model in float32, where results can be compared closely."""
    from diffpath import DiffPathV2

    return DiffPathV2(dtype="float32")


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    """Where the App tests leave screenshots: ``DIFFPATH_SCREENSHOTS``, or a folder that goes."""
    folder = os.environ.get("DIFFPATH_SCREENSHOTS")
    folder = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

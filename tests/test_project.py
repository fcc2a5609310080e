"""What is stated in two places is the same in both, and the library works without FiftyOne."""

import importlib
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

import diffpath

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Only what the library requires can be imported, as if nothing else were installed
ALONE = """
import importlib.metadata as metadata
import sys
from importlib.machinery import PathFinder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIRED, DISTRIBUTIONS = set(), metadata.packages_distributions()

def require(requirements):
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        if name not in REQUIRED and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            try:
                further = metadata.requires(name)
            except metadata.PackageNotFoundError:
                continue
            REQUIRED.add(name)
            require(further or ())

class Alone(PathFinder):
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        owners = {canonicalize_name(owner) for owner in DISTRIBUTIONS.get(name.split(".")[0], ())}
        if owners <= {"diffpath"} or owners & REQUIRED:
            found = (finder.find_spec(name, path, target) for finder in self.finders)
            return next((spec for spec in found if spec), None)

require(DEPENDENCIES)
sys.meta_path[:] = [Alone(list(sys.meta_path))]
"""


def run_alone(script, *arguments):
    """Runs a script where nothing can be imported that the library alone does not require."""
    script = ALONE.replace("DEPENDENCIES", repr(PROJECT["dependencies"]), 1) + script
    return subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_what_the_library_does_not_require_is_hidden_from_these_tests():
    for name in ("fiftyone", "bson", "transformers", "pytest", "pandas"):
        assert f"No module named '{name}'" in run_alone(f"import {name}").stderr


def test_without_fiftyone_the_library_scores_images_and_fits_a_reference():
    script = """
import numpy as np
from diffpath import AnomalyDetector, DiffPathV2, Reference

method = DiffPathV2(num_timesteps=2)
images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
reference = Reference.fit(method, images)
assert np.isfinite(reference.detector.score_samples(method.score_images(images[:1]).descriptor)).all()
AnomalyDetector().fit(method.score_images(images).descriptor)
print("fiftyone" in sys.modules)
"""
    done = run_alone(script)
    assert done.stdout == "False\n", done.stderr


def test_without_fiftyone_the_commands_run():
    script = "import runpy; runpy.run_module('diffpath', run_name='__main__')"
    for arguments in (["--help"], ["--version"], ["models"], ["convert", "--help"], ["train", "--help"]):
        done = run_alone(script, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


def test_without_fiftyone_folders_are_scored(tmp_path):
    script = "import runpy; runpy.run_module('diffpath', run_name='__main__')"
    reference, pictures = str(tmp_path / "r.safetensors"), ROOT / "demo" / "data"
    done = run_alone(script, "fit", str(pictures / "clean" / "00*.png"), "-o", reference, "--num-timesteps", "2")
    assert done.returncode == 0 and "wrote" in done.stdout, done.stderr
    flags = ("--reference", reference, "--report", str(tmp_path / "r.html"), "--fail-above", "0.5")
    done = run_alone(script, "score", str(pictures / "photos" / "00*.png"), *flags)
    assert done.returncode == 3 and "10 scored" in done.stderr, done.stderr


def test_without_fiftyone_its_functions_say_how_to_install_it():
    done = run_alone("from diffpath import compute_diffpath")
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: diffpath.compute_diffpath works on FiftyOne's datasets, but FiftyOne is not installed; "
        'run: pip install "diffpath[fiftyone]"'
    )


def test_the_plugin_requires_the_library_and_its_fiftyone_extra():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = [str(Requirement(line)) for line in lines if not line.startswith("#")]
    stated = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["fiftyone"]]
    assert sorted(listed) == sorted(line for line in map(str, map(Requirement, stated)) if ";" not in line)


def test_the_plugin_and_the_library_are_of_one_version():
    plugin = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
    assert plugin["version"] == diffpath.__version__
    assert "version" in PROJECT["dynamic"]
    assert plugin["license"] == PROJECT["license"]
    (fiftyone,) = [Requirement(line) for line in PROJECT["optional-dependencies"]["fiftyone"] if "fiftyone" in line]
    assert plugin["fiftyone"]["version"] == str(fiftyone.specifier)


def test_the_changelog_has_the_present_version():
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased" and diffpath.__version__ in versions


@pytest.mark.parametrize("name", diffpath.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(diffpath, name).__doc__

"""What is imported when, and what a wheel carries."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


def loaded_after(statement, *names):
    code = f"{statement}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import diffpath", "torch", "fiftyone", "diffusers", "sklearn", "numpy") == []


def test_the_method_needs_no_fiftyone():
    statement = (
        "import numpy as np; from diffpath import DiffPathV2, AnomalyDetector\n"
        "result = DiffPathV2(num_timesteps=2).score_images(np.zeros((4, 8, 8, 3), np.uint8))\n"
        "AnomalyDetector().fit(result.descriptor)"
    )
    assert loaded_after(statement, "torch", "fiftyone") == ["torch"]


@pytest.mark.parametrize("module", ["dataset", "operators"])
def test_the_fiftyone_side_imports_no_torch_by_itself(module):
    added = loaded_after(f"import diffpath.{module}", "fiftyone", "torch", "diffusers")
    by_fiftyone = loaded_after("import fiftyone, fiftyone.operators", "fiftyone", "torch", "diffusers")
    assert added == by_fiftyone and "diffusers" not in added


def test_a_wheel_carries_the_bundled_weights_and_nothing_of_the_repository_root(tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", "--no-local", str(ROOT), str(copy)], check=True)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            str(copy),
            "--no-deps",
            "--no-build-isolation",
            "-q",
            "-w",
            str(tmp_path),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("diffpath*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    bundled = "diffpath/models/bundled/"
    for part in ("unet/diffusion_pytorch_model.safetensors", "unet/config.json", "scheduler/scheduler_config.json"):
        assert bundled + part in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"diffpath"}

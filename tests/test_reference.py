"""A reference that is fitted once: the same scores after a restart, and none for other descriptors."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from safetensors import safe_open
from safetensors.numpy import save_file

from diffpath import AnomalyDetector, DiffPathV2, Reference, load_reference
from diffpath.detection.densities import DENSITIES
from diffpath.errors import ReferenceSetError

MADE_BY = {
    "model": "bundled",
    "model_fingerprint": "0123",
    "options": {"preset": "default", "num_timesteps": 10, "seed": 0, "resolution": None},
    "resolution": 32,
    "dtype": "float32",
    "preprocessing": "1",
}
SCORE_IT = """
import sys, numpy as np
from diffpath import load_reference
detector = load_reference(sys.argv[1]).detector
query = np.load(sys.argv[2])
np.savez(sys.argv[3], scores=detector.score_samples(query), p_values=detector.p_values(query))
"""


def samples(count, seed, dimensions=16):
    return np.random.default_rng(seed).standard_t(4, (count, dimensions))


@pytest.mark.parametrize("options", [*({"density": d} for d in DENSITIES), {"calibration": "split"}, {"trim": 0.3}])
def test_a_saved_reference_gives_identical_scores_after_a_restart(options, tmp_path):
    detector = AnomalyDetector(**options).fit(samples(150, 0))
    file, query, answer = (tmp_path / name for name in ("r.safetensors", "query.npy", "answer.npz"))
    Reference(detector, MADE_BY, {"note": "öffentlich"}).save(file)
    np.save(query, samples(40, 1))
    subprocess.run([sys.executable, "-c", SCORE_IT, file, query, answer], cwd=ROOT, check=True)
    with np.load(answer) as result:
        np.testing.assert_array_equal(result["scores"], detector.score_samples(samples(40, 1)))
        np.testing.assert_array_equal(result["p_values"], detector.p_values(samples(40, 1)))
    loaded = load_reference(file)
    assert loaded.provenance == MADE_BY and loaded.description == {"note": "öffentlich"}
    assert loaded.detector.threshold_ == detector.threshold_
    assert loaded.detector.get_params() == detector.get_params()
    for name in ("reference_scores_", "reference_p_values_", "calibration_scores_", "feature_scale_"):
        np.testing.assert_array_equal(getattr(loaded.detector, name), getattr(detector, name))


def test_the_file_holds_arrays_and_json_and_no_pickle(tmp_path):
    Reference(AnomalyDetector().fit(samples(30, 0)), MADE_BY).save(tmp_path / "r.safetensors")
    with safe_open(tmp_path / "r.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["about"])["made_by"] == MADE_BY
        assert "feature_centre_" in file.keys()


@pytest.mark.parametrize(
    "change, named",
    [
        ({"model": "other", "model_fingerprint": "4567"}, "its model is 'bundled (0123)', here it is 'other (4567)'"),
        ({"options": {**MADE_BY["options"], "num_timesteps": 5}}, "its num_timesteps is 10, here it is 5"),
        ({"resolution": 64}, "its resolution is 32, here it is 64"),
        ({"dtype": "bfloat16"}, "its dtype is 'float32', here it is 'bfloat16'"),
        ({"preprocessing": "2"}, "its preprocessing is '1', here it is '2'"),
        ({"descriptor": "new"}, "its descriptor is None, here it is 'new' (make the reference again"),
    ],
)
def test_descriptors_made_otherwise_are_refused_and_the_difference_named(change, named):
    reference = Reference(AnomalyDetector().fit(samples(30, 0)), MADE_BY)
    with pytest.raises(ReferenceSetError) as refused:
        reference.checked({**MADE_BY, **change})
    assert named in str(refused.value)
    assert str(refused.value).count("here it is") == 1


def test_a_model_moved_to_another_folder_and_a_preset_spelled_out_are_the_same():
    reference = Reference(AnomalyDetector().fit(samples(30, 0)), MADE_BY)
    moved = {**MADE_BY, "model": "/elsewhere", "options": {**MADE_BY["options"], "preset": "x", "resolution": 32}}
    assert reference.checked(moved) is reference.detector


def test_an_option_that_an_older_reference_does_not_name_had_its_default():
    reference = Reference(AnomalyDetector().fit(samples(30, 0)), MADE_BY)
    assert "zoom" not in MADE_BY["options"]
    assert reference.checked({**MADE_BY, "options": {**MADE_BY["options"], "zoom": 1}}) is reference.detector
    with pytest.raises(ReferenceSetError, match="its zoom is 1, here it is 2"):
        reference.checked({**MADE_BY, "options": {**MADE_BY["options"], "zoom": 2}})


def test_a_method_makes_a_reference_and_another_method_may_not_use_it(photos):
    method = DiffPathV2(num_timesteps=3, dtype="float32")
    reference = Reference.fit(method, photos)
    scores = reference.checked(method.provenance).score_samples(method.score_images(photos).descriptor)
    assert scores.shape == (len(photos),)
    with pytest.raises(ReferenceSetError, match="seed is 0, here it is 1"):
        reference.checked(DiffPathV2(num_timesteps=3, dtype="float32", seed=1).provenance)


def test_what_is_no_reference_is_refused_by_its_path(tmp_path):
    text, other = tmp_path / "text.safetensors", tmp_path / "other.safetensors"
    text.write_text("nothing of the kind")
    save_file({"x": np.zeros(3)}, str(other))
    for path in (text, other, tmp_path / "missing.safetensors"):
        with pytest.raises(ReferenceSetError, match=path.name):
            load_reference(path)

"""A score is the image's: not its batch's, its place's, its thread's, nor of how often a run was interrupted."""

import numpy as np
import pytest
from conftest import demo_samples, read_demo
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from diffpath import DiffPathV2, Reference, compute_diffpath, delete_diffpath, get_diffpath_info, load_reference
from diffpath.dataset.scoring import iterate_diffpath

COUNT = 12
KINDS = ("score", "p_value", "is_ood", "features", "profile", "statistics")
few = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # nothing is learnt from a smaller example that takes seconds to find
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
orders = st.permutations(range(COUNT))
cuts = st.sets(st.integers(1, COUNT - 1)).map(sorted)  # where a sequence is cut into batches, or shards


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def method(request):
    return DiffPathV2(device="cpu", dtype=request.param, num_timesteps=2)


@pytest.fixture(scope="module")
def images():
    return np.concatenate([read_demo("clean", COUNT - 3), read_demo("drawings", 3)])


@pytest.fixture(scope="module")
def alone(method, images):
    return np.concatenate([method.score_images(image[None]).descriptor for image in images])


@few
@given(orders, cuts)
def test_neither_batch_nor_order_changes_a_digit(method, images, alone, order, cuts):
    parts = np.split(np.array(order), cuts)
    batched = np.concatenate([method.score_images(list(images[part])).descriptor for part in parts])
    np.testing.assert_array_equal(batched, alone[order])


@few
@given(st.integers(1, 400))
def test_nor_how_many_are_in_memory_at_once(images, alone, method, most):
    dtype = str(method.predictor.dtype).removeprefix("torch.")
    most += method.evaluations_per_pass
    other = DiffPathV2(device="cpu", dtype=dtype, num_timesteps=2, max_evaluations=most)
    np.testing.assert_array_equal(other.score_images(images).descriptor, alone)


@few
@given(cuts)
def test_shards_get_what_the_whole_gets(method, images, alone, tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("shards") / "r.safetensors"
    whole = Reference.fit(method, read_demo("reference", 40))
    whole.save(path)
    parts = np.split(images, cuts)
    p_values = [load_reference(path).detector.p_values(method.score_images(list(part)).descriptor) for part in parts]
    np.testing.assert_array_equal(np.concatenate(p_values), whole.detector.p_values(alone))


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(demo_samples("reference", 9, tags=["reference"]), demo_samples("drawings", 3))


def compute(dataset, run_key, **how):
    return compute_diffpath(dataset, reference="reference", run_key=run_key, num_timesteps=2, progress=False, **how)


def results(dataset, run_key):
    return {kind: np.array(dataset.values(f"{run_key}_{kind}"), float).tolist() for kind in KINDS}


@few
@given(num_workers=st.integers(1, 6), batch_size=st.integers(1, COUNT))
def test_neither_workers_nor_batch_size_change_a_run(dataset, num_workers, batch_size):
    if not dataset.has_run("k"):
        compute(dataset, "k", num_workers=1, batch_size=1)
    compute(dataset, "other", num_workers=num_workers, batch_size=batch_size, overwrite=dataset.has_run("other"))
    assert results(dataset, "other") == results(dataset, "k")


@few
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_nor_where_it_is_interrupted(dataset, stops):
    if not dataset.has_run("k"):
        compute(dataset, "k")
    how = dict(reference="reference", run_key="other", num_timesteps=2, batch_size=2)
    if dataset.has_run("other"):
        delete_diffpath(dataset, "other")
    for stop in stops:
        steps = iterate_diffpath(dataset, **how)
        for _ in zip(range(stop), steps):
            pass
        steps.close()
        if get_diffpath_info(dataset, "other")["status"] == "complete":
            break
    else:
        compute(dataset, "other", batch_size=3)
    assert results(dataset, "other") == results(dataset, "k")

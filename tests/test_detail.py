"""The detail look: crops at a picture's own pixels, what their errors look like, and a score of its own."""

import io

import fiftyone as fo
import numpy as np
import pytest
import torch
from conftest import demo_samples
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from diffpath import DiffPathV2, ImageError, Reference, compute_diffpath, continue_diffpath, update_diffpath
from diffpath.dataset import iterate_diffpath
from diffpath.detection.explanation import BLOCKS, FINE_GRAIN, LITTLE_DETAIL, words_of_detail
from diffpath.detection.fusion import FusedDetector
from diffpath.detection.looks import LooksDetector
from diffpath.images import CropPlan, load_image, load_looks, prepare_looks
from diffpath.method.descriptor import DETAIL_BANDS, DETAIL_NAMES
from diffpath.method.detail import detail_numbers
from diffpath.operators.panel.data import describe_report, export_csv, sample_report

SIDE, LARGE = 32, 160
PLAN = CropPlan(3, SIDE)


def picture(width, height):
    """A picture whose pixels say where they are: red across, green down, in steps of two pixels."""
    across, down = np.meshgrid(np.arange(width) // 2, np.arange(height) // 2)
    return Image.fromarray(np.stack([across, down, 0 * down], axis=-1).astype(np.uint8))


@pytest.fixture(scope="module")
def photographs():
    """Parts of photographs at their own pixels, uint8 ``(N, 160, 160, 3)``, not blurred and not flat."""
    parts = [
        image[y : y + LARGE, x : x + LARGE]
        for image in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.immunohistochemistry())
        for y in range(0, image.shape[0] - LARGE + 1, LARGE // 2)
        for x in range(0, image.shape[1] - LARGE + 1, LARGE // 2)
    ]
    return np.stack(parts)


def blurred(images, sigma=2.5):
    return gaussian_filter(images.astype(float), (0, sigma, sigma, 0)).round().astype(np.uint8)


# Where crops are


@pytest.mark.parametrize("width, height", [(320, 320), (481, 321), (100, 500), (33, 32)])
def test_crops_lie_on_blocks_from_edge_to_edge(width, height):
    crops = PLAN.cut(picture(width, height))
    assert crops.shape == (9, SIDE, SIDE, 3)
    corners = 2 * crops[:, 0, 0, :2].astype(int)
    assert (corners % 8 == 0).all() and corners.min() == 0
    assert width - SIDE - corners[:, 0].max() < 8 and height - SIDE - corners[:, 1].max() < 8
    np.testing.assert_array_equal(PLAN.cut(picture(width, height)), crops)


def test_one_crop_is_the_middle():
    (crop,) = CropPlan(1, SIDE).cut(picture(320, 240))
    np.testing.assert_array_equal(2 * crop[0, 0, :2].astype(int), [144, 104])


@pytest.mark.parametrize("size", [(20, 200), (7, 7), (31, 64)])
def test_a_smaller_picture_is_enlarged_to_one_crop(size):
    crops = PLAN.cut(Image.new("RGB", size, (10, 20, 30)))
    assert crops.shape == (9, SIDE, SIDE, 3) and (crops == (10, 20, 30)).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_files_and_memory_give_the_same_looks(name, tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        decoded = np.asarray(image)
    looks = load_looks(tmp_path / name, SIDE, None, PLAN)
    assert looks.crops.shape == (9, SIDE, SIDE, 3)
    for ours, other in zip(looks, prepare_looks(decoded, SIDE, None, PLAN)):
        np.testing.assert_array_equal(ours, other)
    np.testing.assert_array_equal(looks.crops[0], decoded[:SIDE, :SIDE])
    # Without crops a JPEG may be decoded at a fraction of its size
    assert np.abs(load_image(tmp_path / name, SIDE).astype(int) - looks.whole).max() <= 3
    assert load_looks(tmp_path / name, SIDE).crops is None


# What is computed of them


def numbers_of(error):
    return dict(zip(DETAIL_NAMES, detail_numbers(torch.as_tensor(error, dtype=torch.float32))[0].tolist()))


def test_white_noise_has_no_structure():
    error = np.random.default_rng(0).normal(size=(1, 64, 3, SIDE, SIDE))
    found = numbers_of(error)
    for bound in DETAIL_BANDS:
        assert found[f"error's power from {bound:g} cycles per pixel"] == pytest.approx(0, abs=0.1)
    assert found["error's correlation, across"] == pytest.approx(0, abs=0.01)
    assert found["flatness of the error"] == pytest.approx(np.sqrt(2 / np.pi), abs=0.005)  # of a normal distribution
    assert found["steps across block edges, down"] == pytest.approx(0, abs=0.05)


def test_each_number_moves_with_what_it_is_named_for():
    chance = np.random.default_rng(0)
    noise = chance.normal(size=(1, 16, 3, SIDE, SIDE))
    plain = numbers_of(noise)
    smooth = numbers_of(gaussian_filter(noise, (0, 0, 0, 0, 1)))
    assert smooth["error's correlation, across"] > 0.6 > 0.1 > abs(smooth["error's correlation, down"])
    assert smooth["error's power from 0.5 cycles per pixel"] < plain["error's power from 0.5 cycles per pixel"] - 0.5
    blocks = np.repeat(np.repeat(chance.normal(size=(1, 16, 3, 4, 4)), 8, axis=-1), 8, axis=-2)
    edged = numbers_of(noise / 10 + blocks)
    assert min(edged[f"steps across block edges, {way}"] for way in ("across", "down")) > 2
    shifted = numbers_of(np.roll(noise / 10 + blocks, 4, axis=-1))
    assert shifted["steps across block edges, across"] < 0 < 2 < shifted["steps across block edges, down"]
    spikes = np.where(chance.random(noise.shape) < 0.01, 20, noise)
    assert numbers_of(spikes)["flatness of the error"] < plain["flatness of the error"] - 0.2


@pytest.mark.parametrize("side", [4, 8, 9])
def test_tiny_crops_and_no_error_at_all_give_finite_numbers(side):
    for error in (np.zeros((2, 3, 1, side, side)), np.ones((2, 3, 1, side, side))):
        assert torch.isfinite(detail_numbers(torch.as_tensor(error, dtype=torch.float32))).all()


# In the method


@pytest.fixture(scope="module")
def method():
    return DiffPathV2(detail=2, num_timesteps=3, dtype="float32")


def test_the_detail_look_stands_behind_the_others_and_changes_none_of_them(method, photographs):
    plain = DiffPathV2(num_timesteps=3, dtype="float32").score_images(photographs[:3])
    both = method.score_images(photographs[:3])
    for name in ("features", "profile", "statistics", "heatmaps", "error_maps"):
        np.testing.assert_array_equal(getattr(both, name), getattr(plain, name))
    assert plain.detail.shape == (3, 0) and both.detail.shape == (3, 9)
    np.testing.assert_array_equal(both.descriptor, np.hstack([plain.descriptor, both.detail]))
    assert method.provenance["options"]["detail"] == 2


def test_detail_depends_on_the_image_alone(method, photographs):
    together = method.score_images(photographs[:5]).detail
    alone = np.concatenate([method.score_images(image).detail for image in photographs[:5]])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    shared = DiffPathV2(detail=2, num_timesteps=3, dtype="float32", device="cpu, cpu").score_images(photographs[:5])
    np.testing.assert_allclose(shared.detail, together, rtol=1e-3, atol=1e-4)


def test_pictures_of_all_sizes_go_together(method, photographs):
    mixed = [photographs[0], photographs[1][:20, :50], photographs[2][:1, :1], Image.new("L", (900, 40))]
    assert np.isfinite(method.score_images(mixed).descriptor).all()
    assert method.score_images([]).descriptor.shape == (0, method.score_images(mixed).descriptor.shape[1])


def test_prepared_images_need_their_crops(method, photographs):
    prepared = np.stack([prepare_looks(image, method.sides).whole for image in photographs[:2]])
    with pytest.raises(ImageError, match=r"crops must be of shape \(2, 4, 32, 32, 3\), got None"):
        method.score_prepared(prepared)
    with pytest.raises(ImageError, match="crops must be of shape None"):
        DiffPathV2(num_timesteps=2).score_prepared(prepared, np.zeros((2, 4, 32, 32, 3), np.uint8))


def test_blur_that_the_whole_look_cannot_see_stands_out_in_detail(photographs):
    method = DiffPathV2(detail=3, dtype="float32")
    chance = np.random.default_rng(0).permutation(len(photographs))
    fit, query = photographs[chance[:-12]], photographs[chance[-12:]]
    reference = Reference.fit(method, fit)
    assert isinstance(reference.detector, LooksDetector)
    X = method.score_images(blurred(query)).descriptor
    content, detail = reference.detector.part_scores(X).T
    in_detail = np.median(reference.detector.detail_.calibration_.p_values(detail))
    assert in_detail < 0.03 < 0.05 < np.median(reference.detector.content_.calibration_.p_values(content))
    assert np.median(reference.detector.p_values(X)) < 0.05
    assert np.median(reference.detector.p_values(method.score_images(query).descriptor)) > 0.2


def as_jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=8)
    return np.asarray(Image.open(buffer))


def test_words_say_what_is_wrong_with_detail_that_lies_far_out(photographs):
    method = DiffPathV2(detail=3, dtype="float32")
    chance = np.random.default_rng(0)
    order = chance.permutation(len(photographs))
    query = photographs[order[-12:]]
    detector = Reference.fit(method, photographs[order[:-12]]).detector
    spoilt = {
        LITTLE_DETAIL: blurred(query),
        FINE_GRAIN: (query + chance.normal(0, 30, query.shape)).clip(0, 255).astype(np.uint8),
        BLOCKS: np.stack([as_jpeg(image) for image in query]),
    }
    for right, images in spoilt.items():
        X = method.score_images(images).descriptor
        far_out = detector.detail_.calibration_.p_values(detector.part_scores(X)[:, 1]) <= 0.05
        said = np.array(words_of_detail(detector.detail_z_scores(X)))[far_out]
        assert far_out.sum() >= 4 and np.mean(said == right) >= 0.8, (right, said)


# In detection


@pytest.fixture
def descriptors():
    return np.random.default_rng(0).normal(size=(400, 20))


def moved(X, columns, by=8.0):
    X = X.copy()
    X[:, columns] += by
    return X


@pytest.mark.parametrize("options", [{}, {"density": "mahalanobis", "trim": 0.3}, {"density": "gmm"}])
@pytest.mark.parametrize("columns", [slice(0, 8), slice(8, None)], ids=["content", "detail"])
def test_what_one_look_alone_sees_is_found(columns, options, descriptors):
    detector = LooksDetector(12, detector_options=options).fit(descriptors)
    new = np.random.default_rng(1).normal(size=(200, 20))
    assert (detector.p_values(moved(new, columns)) < 0.02).all()
    assert (detector.p_values(new) <= 0.05).mean() == pytest.approx(0.05, abs=0.04)
    parts = detector.part_scores(moved(new, columns))
    np.testing.assert_array_equal(detector.combine(parts), detector.score_samples(moved(new, columns)))


@pytest.mark.parametrize("num_samples", [12, 400, 1500])
def test_a_level_holds_on_new_samples(num_samples):
    chance = np.random.default_rng(2)
    shares = []
    for _ in range(10 if num_samples < 1000 else 2):
        detector = LooksDetector(12).fit(chance.normal(size=(num_samples, 20)))
        shares.append((detector.p_values(chance.normal(size=(1000, 20))) <= 0.1).mean())
    # Few samples are scored by fits on fewer still, and what is new looks typical beside that
    assert 0.07 * (num_samples > 100) <= np.mean(shares) <= 0.13


@pytest.mark.parametrize("embedding_length", [0, 5])
def test_a_saved_reference_of_looks_scores_as_before(embedding_length, descriptors, tmp_path):
    X = np.hstack([descriptors, np.random.default_rng(3).normal(size=(400, embedding_length))])
    provenance = {"options": {"detail": 3}, "embedding_length": embedding_length or None}
    reference = Reference.of(X, provenance)
    kind = FusedDetector if embedding_length else LooksDetector
    assert isinstance(reference.detector, kind)
    reference.save(tmp_path / "r.safetensors")
    again = Reference.load(tmp_path / "r.safetensors")
    for name in ("score_samples", "p_values", "z_scores"):
        ours, theirs = (getattr(each.detector, name)(X[:50]) for each in (reference, again))
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(again.detector.reference_scores_, reference.detector.reference_scores_)


# On datasets


@pytest.fixture
def dataset(make_dataset, photographs, tmp_path):
    samples = []
    for k, image in enumerate([*photographs[:40], *blurred(photographs[40:44])]):
        path = tmp_path / f"{k:02}.png"
        Image.fromarray(image).save(path)
        samples.append(fo.Sample(filepath=str(path), tags=["reference" if k < 40 else "blurred"]))
    return make_dataset(samples)


FAST = dict(num_timesteps=3, num_workers=2, progress=False)


def test_a_run_says_what_each_look_says(dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", detail=3, **FAST)
    assert run.num_scored == 44 and len(dataset.first()["k_detail"]) == 9
    odd = dataset.match_tags("blurred")
    for kind in ("content_score", "content_p_value", "detail_score", "detail_p_value"):
        assert dataset.count(f"k_{kind}") == 44 and f"k_{kind}" in run.fields.values()
    assert np.median(odd.values("k_detail_p_value")) < np.median(odd.values("k_content_p_value"))
    reference = dataset.match_tags("reference")
    for kind in ("p_value", "content_p_value", "detail_p_value"):
        assert 0.4 < np.median(reference.values(f"k_{kind}")) < 0.6
    assert "both looks" in dataset.get_field("k_score").description
    line = describe_report(sample_report(dataset, run, odd.first().id), run)
    assert "as a whole " in line and "in detail " in line
    assert "k_detail_p_value" in export_csv(dataset.view(), run).splitlines()[0]
    explained = [text for text in odd.values("k_explanation") if text]
    assert np.mean([LITTLE_DETAIL in text for text in explained]) >= 0.8


def test_runs_with_detail_are_continued_and_updated(dataset):
    compute_diffpath(dataset, reference="reference", run_key="whole", detail=2, dtype="float32", **FAST)
    steps = iterate_diffpath(
        dataset, reference="reference", run_key="k", detail=2, dtype="float32", batch_size=8, num_timesteps=3
    )
    next(step for step in steps if step.done >= 16)
    steps.close()
    continue_diffpath(dataset, "k", progress=False)
    np.testing.assert_allclose(dataset.values("k_score"), dataset.values("whole_score"), rtol=1e-2, atol=1e-3)
    lost = dataset.match_tags("blurred")
    before = lost.values("k_detail_score")
    for name in ("k_score", "k_features"):
        lost.clear_sample_field(name)
    update_diffpath(dataset, "k", progress=False)
    np.testing.assert_allclose(lost.values("k_detail_score"), before, rtol=1e-2, atol=1e-3)


def test_with_embeddings_all_parts_are_said(dataset):
    chance = np.random.default_rng(0)
    dataset.set_values("vector", list(chance.normal(size=(44, 8))))
    run = compute_diffpath(dataset, reference="reference", embeddings="vector", run_key="k", detail=2, **FAST)
    for kind in ("diffusion_score", "embedding_score", "content_score", "detail_p_value"):
        assert dataset.count(run.fields[kind]) == 44


def test_a_reference_without_detail_is_not_compared_with_one_that_has_it(dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", detail=2, **FAST)
    with pytest.raises(ValueError, match="its detail is 2, here it is 0"):
        compute_diffpath(dataset, reference=run.reference(), run_key="n", detail=0, **FAST)


def test_large_images_are_seen_in_detail_unless_it_is_said_otherwise(dataset, make_dataset, tmp_path):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)  # 160 pixels, the model's are 32
    assert run.record.options.detail == 3 and run.record.provenance["options"]["detail"] == 3
    small = make_dataset(demo_samples("clean", 6))
    assert compute_diffpath(small, run_key="k", **FAST).record.options.detail == 0
    # Decided by the reference, for all images alike
    of_large = compute_diffpath(small, reference=dataset.match_tags("reference"), run_key="n", **FAST)
    assert of_large.record.options.detail == 3 and of_large.num_scored == 6
    assert compute_diffpath(small, reference=run.reference(), run_key="s", **FAST).record.options.detail == 3
    assert compute_diffpath(dataset, preset="paper", run_key="p", **FAST).record.options.detail == 0
    assert compute_diffpath(dataset, detail=0, run_key="q", **FAST).record.options.detail == 0
    assert DiffPathV2(num_timesteps=2).options.detail == 0


def test_a_run_without_detail_has_none_of_its_fields(dataset):
    compute_diffpath(dataset, run_key="k", detail=0, **FAST)
    assert not [name for name in dataset.get_field_schema() if "detail" in name or "content" in name]

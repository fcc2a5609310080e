"""Where an image is unlike the reference: the density of places, and the maps that a run makes of it."""

import shutil
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import demo_samples, read_demo
from PIL import Image
from sklearn.metrics import roc_auc_score

from diffpath import (
    DiffPathV2,
    Reference,
    compute_diffpath,
    continue_diffpath,
    delete_diffpath,
    load_reference,
    update_diffpath,
)
from diffpath.detection.local import LocalReference
from diffpath.detection.regions import find_regions
from diffpath.folders.maps import MAPS

FAST = dict(num_timesteps=5, num_workers=2, dtype="float32", progress=False)
ONE_IN_20 = -np.log10(0.05)


@pytest.fixture(scope="module")
def local():
    """Evidence of clothing, of the same with a pasted patch, of photographs, and the patch's mask."""
    method = DiffPathV2(num_timesteps=5)
    clothing = np.concatenate([read_demo("reference", 120), read_demo("clean", 40)])
    clothing = np.repeat(clothing[..., None], 3, axis=3)
    pasted = clothing[120:].copy()
    mask = np.zeros(pasted.shape[1:3], bool)
    mask[14:24, 4:14] = True
    pasted[:, mask] = np.random.default_rng(0).integers(0, 256, (len(pasted), mask.sum(), 3), dtype=np.uint8)
    photographs = np.repeat(read_demo("photos", 40)[..., None], 3, axis=3)
    evidence = {
        name: method.score_images(images).local
        for name, images in {"clothing": clothing, "pasted": pasted, "photographs": photographs}.items()
    }
    return {**evidence, "mask": np.asarray(Image.fromarray(mask).resize((16, 16), Image.Resampling.BOX))}


@pytest.fixture(scope="module")
def places(local):
    return LocalReference.fit(local["clothing"][:120])


def test_a_level_holds_at_places_of_images_that_were_not_fitted(local, places):
    surprise = places.surprise(local["clothing"][120:])
    assert 0.02 < (surprise > ONE_IN_20).mean() < 0.09
    assert (surprise > 3).mean() < 0.01


def test_what_was_pasted_glows_and_the_rest_does_not(local, places):
    surprise = places.surprise(local["pasted"])
    inside, outside = surprise[:, local["mask"]], surprise[:, ~local["mask"]]
    assert np.median(inside) > 2 * ONE_IN_20
    assert (outside > ONE_IN_20).mean() < 0.35  # windows of 7 pixels reach beyond the patch
    masks = np.broadcast_to(local["mask"], surprise.shape)
    assert roc_auc_score(masks.ravel(), surprise.ravel()) > 0.9  # over all images together


def test_images_of_another_kind_are_ranked_by_their_maps(local, places):
    usual, other = (places.surprise(local[name]).mean(axis=(1, 2)) for name in ("clothing", "photographs"))
    assert roc_auc_score(np.r_[np.zeros(40), np.ones(len(other))], np.r_[usual[120:], other]) > 0.9


def test_it_is_kept_as_arrays(local, places):
    again = LocalReference.from_arrays(places.arrays())
    assert np.array_equal(again.surprise(local["pasted"]), places.surprise(local["pasted"]))
    assert sum(array.nbytes for array in places.arrays().values()) < 1e6


@pytest.mark.parametrize("count", [3, 4, 7])
def test_three_images_are_enough(local, count):
    surprise = LocalReference.fit(local["clothing"][:count]).surprise(local["photographs"])
    assert np.isfinite(surprise).all() and (surprise >= 0).all()


def test_images_that_are_all_alike(local):
    same = np.repeat(local["clothing"][:1], 5, axis=0)
    places = LocalReference.fit(same)
    assert (places.surprise(local["photographs"]).mean(axis=(1, 2)) > places.surprise(same).mean()).all()


def test_images_that_belong_together_are_left_out_together(local):
    twice = np.repeat(local["clothing"][:20], 2, axis=0)
    apart, together = (LocalReference.fit(twice, labels) for labels in (None, np.repeat(np.arange(20), 2)))
    some = local["clothing"][120:]
    assert together.surprise(some).mean() < apart.surprise(some).mean()


def test_a_saved_reference_keeps_it(method, tmp_path):
    images = list(read_demo("clean", 12))
    reference = Reference.fit(method, images)
    reference.save(tmp_path / "reference.safetensors")
    again = load_reference(tmp_path / "reference.safetensors")
    local = method.score_images(images[:2]).local
    assert np.array_equal(again.local.surprise(local), reference.local.surprise(local))


def test_the_evidence_has_a_shape_whatever_the_options():
    for options, shape in (
        ({"num_timesteps": 2}, (6, 16, 16)),
        ({"num_timesteps": 12}, (15, 16, 16)),
        ({"num_timesteps": 3, "zoom": 2}, (9, 32, 32)),
        ({"num_timesteps": 3, "resolution": 24}, (9, 12, 12)),
    ):
        method = DiffPathV2(**options)
        assert method.score_images([np.zeros((40, 50, 3), np.uint8)]).local.shape == (1, *shape)
        assert method.score_images([]).local.shape == (0, *shape)


def read_maps(dataset, run, kind="anomaly_map"):
    paths = dict(zip(*dataset.values(["id", f"{run.fields[kind]}.map_path"])))
    return {i: np.asarray(Image.open(path)) for i, path in paths.items() if path}


def alike(one, other):
    """But for a step of the scale or two: sums in other batches round otherwise."""
    return np.abs(one.astype(int) - other).max() <= 2


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(demo_samples("reference", 40, tags=["reference"]), demo_samples("photos", 10))


def test_a_run_makes_maps_that_are_clear_where_all_is_usual(dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    maps = read_maps(dataset, run)
    assert len(maps) == 50 and {each.shape for each in maps.values()} == {(32, 32)}
    kinds, ids = dataset.values(["kind", "id"])
    clear = {kind: np.mean([(maps[i] == 0).mean() for i, k in zip(ids, kinds) if k == kind]) for kind in set(kinds)}
    assert clear["reference"] > 0.85 and clear["photos"] < 0.7
    foreign = np.array(dataset.values("kind")) == "photos"
    assert roc_auc_score(foreign, [maps[i].mean() for i in ids]) > 0.9
    assert not list(Path(run.record.folder).rglob("*.npz"))  # the evidence goes when the maps are made
    assert run.record.map_scales["anomaly_map"] == pytest.approx(MAPS["anomaly_map"].scale)
    delete_diffpath(dataset, "k")
    assert not dataset.has_field("k_anomaly_map")


def test_an_interrupted_run_makes_the_same_maps(dataset, monkeypatch):
    expected = read_maps(dataset, compute_diffpath(dataset, reference="reference", run_key="a", batch_size=8, **FAST))
    score, calls = DiffPathV2._score_piece, []

    def until_it_stops(self, predictor, piece):
        calls.append(len(piece.images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(self, predictor, piece)

    monkeypatch.setattr(DiffPathV2, "_score_piece", until_it_stops)
    with pytest.raises(KeyboardInterrupt):
        compute_diffpath(dataset, reference="reference", run_key="b", batch_size=8, **FAST)
    monkeypatch.undo()
    found = read_maps(dataset, continue_diffpath(dataset, "b", batch_size=8, num_workers=2, progress=False))
    assert found.keys() == expected.keys()
    assert all(alike(found[i], expected[i]) for i in found)


def test_a_run_that_is_stopped_at_its_very_end_keeps_what_its_reference_knows_of_places(dataset, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffpath.dataset.scoring.apply_threshold", stop)
    with pytest.raises(KeyboardInterrupt):
        compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    monkeypatch.undo()
    monkeypatch.setattr(DiffPathV2, "_score_piece", stop)  # nothing is scored again
    run = continue_diffpath(dataset, "k", num_workers=2, progress=False)
    assert load_reference(run.reference_path).local is not None and len(read_maps(dataset, run)) == 50
    assert not (Path(run.record.folder) / "evidence").exists()


def test_new_images_and_a_saved_reference_get_maps_too(dataset, make_dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    dataset.add_samples(demo_samples("photos", 4, skip=10))
    update_diffpath(dataset, "k", num_workers=2, progress=False)
    assert len(read_maps(dataset, run)) == 54
    other = make_dataset(demo_samples("photos", 10))
    maps = read_maps(other, compute_diffpath(other, reference=Path(run.reference_path), run_key="k", **FAST))
    ours = read_maps(dataset, run)
    by_file = dict(zip(dataset.values("filepath"), dataset.values("id")))
    assert all(alike(maps[s.id], ours[by_file[s.filepath]]) for s in other)


def test_a_reference_elsewhere_gives_the_same_maps(dataset, make_dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    other = make_dataset(demo_samples("photos", 10))
    maps = read_maps(other, compute_diffpath(other, reference=dataset.match_tags("reference"), run_key="k", **FAST))
    ours = read_maps(dataset, run)
    by_file = dict(zip(dataset.values("filepath"), dataset.values("id")))
    assert all(alike(maps[s.id], ours[by_file[s.filepath]]) for s in other)


def test_a_reference_without_places_makes_runs_without_anomaly_maps(dataset, tmp_path):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    reference = load_reference(run.reference_path)
    reference.local = None  # as versions before saved it
    reference.save(tmp_path / "old.safetensors")
    again = compute_diffpath(dataset, reference=tmp_path / "old.safetensors", run_key="old", **FAST)
    assert "anomaly_map" not in again.fields and not dataset.has_field("old_anomaly_map")
    assert len(read_maps(dataset, again, "heatmap")) == 50


def test_a_dirty_set_without_a_reference_shows_what_does_not_belong(make_dataset):
    dataset = make_dataset(demo_samples("clean", 60), demo_samples("photos", 6))
    run = compute_diffpath(dataset, run_key="k", **FAST)
    maps = read_maps(dataset, run)
    kinds, ids = dataset.values(["kind", "id"])
    means = [maps[i].mean() for i in ids]
    assert roc_auc_score(np.array(kinds) == "photos", means) > 0.9


def test_maps_that_were_lost_are_made_again(dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    expected = read_maps(dataset, run)
    shutil.rmtree(run.record.folder)
    continue_diffpath(dataset, "k", num_workers=2, progress=False)
    found = read_maps(dataset, run)
    assert found.keys() == expected.keys() and all(alike(found[i], expected[i]) for i in found)


def test_without_heatmaps_nothing_is_kept(dataset):
    run = compute_diffpath(dataset, reference="reference", run_key="k", heatmaps=False, **FAST)
    assert "anomaly_map" not in run.fields
    assert not (Path(run.record.folder) / "evidence").exists()
    assert isinstance(dataset, fo.Dataset)


@pytest.fixture
def patched(tmp_path):
    """Clothing into which a chequered square was pasted, and where."""
    path, picture = tmp_path / "patched.png", read_demo("clean", 1)[0].copy()
    picture[14:24, 2:12] = 255 * (np.indices((10, 10)).sum(axis=0) % 2)
    Image.fromarray(picture).save(path)
    return fo.Sample(filepath=str(path), kind="patched"), (2 / 28, 14 / 28, 12 / 28, 24 / 28)


def overlap(box, left, top, right, bottom):
    """Intersection over union."""
    width = max(0, min(box[0] + box[2], right) - max(box[0], left))
    height = max(0, min(box[1] + box[3], bottom) - max(box[1], top))
    return width * height / (box[2] * box[3] + (right - left) * (bottom - top) - width * height)


def test_boxes_are_drawn_around_what_is_unusual(dataset, patched):
    sample, place = patched
    dataset.add_sample(sample)
    run = compute_diffpath(dataset, reference="reference", run_key="k", regions=True, **FAST)
    sample.reload()
    boxes = sample["k_regions"].detections
    assert overlap(boxes[0].bounding_box, *place) > 0.4
    assert boxes[0].surprise >= 3 and boxes[0].label in ("1 in 1,000", "1 in 3,000", "1 in 10,000")
    assert [box.surprise for box in boxes] == sorted((box.surprise for box in boxes), reverse=True)
    usual = dataset.match_tags("reference").values("k_regions.detections")
    assert np.mean([len(each or ()) for each in usual]) < 1
    assert dataset.filter_labels("k_regions", fo.ViewField("surprise") > 3.5).count() >= 1
    # what is scored later has them too, and all go with the run
    dataset.add_samples(demo_samples("photos", 3, skip=10))
    update_diffpath(dataset, "k", num_workers=2, progress=False)
    assert all(each is not None for each in dataset.values("k_regions"))
    delete_diffpath(dataset, "k")
    assert not dataset.has_field("k_regions") and run.record.regions == 0.001


def test_boxes_begin_at_a_chosen_probability(dataset, patched):
    dataset.add_sample(patched[0])
    counts = []
    for probability in (0.05, 0.001, 0.0001):
        run = compute_diffpath(
            dataset, reference="reference", run_key="k", regions=probability, overwrite=bool(counts), **FAST
        )
        areas = [box[2] * box[3] for boxes in dataset.values("k_regions.detections.bounding_box") for box in boxes]
        counts.append(sum(areas))
        assert run.record.regions == probability
    assert counts == sorted(counts, reverse=True) and counts[-1] > 0


@pytest.mark.parametrize("wrong", [0.5, 0.00001, "much", float("nan")])
def test_other_probabilities_are_refused(dataset, wrong):
    with pytest.raises(ValueError, match="regions must be True or a probability in"):
        compute_diffpath(dataset, reference="reference", run_key="k", regions=wrong, **FAST)


def test_boxes_need_maps(dataset, tmp_path):
    with pytest.raises(ValueError, match="leave heatmaps on, or regions out"):
        compute_diffpath(dataset, reference="reference", run_key="k", regions=True, heatmaps=False, **FAST)
    run = compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    reference = load_reference(run.reference_path)
    reference.local = None
    reference.save(tmp_path / "old.safetensors")
    with pytest.raises(ValueError, match="knows nothing of places"):
        compute_diffpath(dataset, reference=tmp_path / "old.safetensors", run_key="old", regions=True, **FAST)


def test_an_interrupted_run_has_the_boxes_that_were_asked_for(dataset, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffpath.dataset.scoring.apply_threshold", stop)
    with pytest.raises(KeyboardInterrupt):
        compute_diffpath(dataset, reference="reference", run_key="k", regions=0.01, **FAST)
    monkeypatch.undo()
    run = continue_diffpath(dataset, "k", num_workers=2, progress=False)
    assert run.record.regions == 0.01
    assert all(each is not None for each in dataset.values("k_regions"))


def test_regions_are_connected_places():
    surprise = np.zeros((10, 20))
    surprise[1:3, 2:6] = 2
    surprise[3, 6] = 3  # touches by a corner
    surprise[8:, 18:] = 5
    first, second = find_regions(surprise, 2)
    assert first.box == pytest.approx((0.9, 0.8, 0.1, 0.2)) and first.surprise == 5
    assert second.box == pytest.approx((0.1, 0.1, 0.25, 0.3)) and second.surprise == 3
    assert find_regions(surprise, 6) == []


def test_a_map_that_cannot_be_written_ends_the_run_without_a_word_lost(dataset, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffpath.folders.maps._write_map", full)
    with pytest.raises(ValueError, match="cannot be written .No space left on device.; make room"):
        compute_diffpath(dataset, reference="reference", run_key="k", **FAST)
    assert dataset.count("k_features") == 0  # no image counts as done whose maps are not there
    monkeypatch.undo()
    assert len(read_maps(dataset, continue_diffpath(dataset, "k", num_workers=2, progress=False))) == 50

"""What the panel shows, without the panel: bins, axes, points, reports, lists."""

import csv
import io
import time
from types import SimpleNamespace

import fiftyone as fo
import numpy as np
import pytest
from fiftyone.core.utils import serialize_numpy_array
from PIL import Image

from diffpath.folders.maps import MAPS
from diffpath.operators.panel import data, plots
from diffpath.options import FEATURE_NAMES

CENTRE, SCALE = np.arange(6.0), np.array([1.0, 2.0, 4.0, 0.5, 1.0, 10.0])


def fake_run(threshold=1.0):
    """A run's record with what is read of it, without a network behind it."""
    fields = {kind: f"k_{kind}" for kind in ("score", "features", "heatmap", "error_map", "is_ood", "error")}
    record = SimpleNamespace(
        feature_centre=CENTRE.tolist(),
        feature_scale=SCALE.tolist(),
        map_scales={"heatmap": (0.0, 0.5), "error_map": (0.4, 0.9)},
    )
    return SimpleNamespace(run_key="k", fields=fields, threshold=threshold, record=record)


@pytest.fixture
def dataset():
    dataset = fo.Dataset()
    yield dataset
    dataset.delete()


def fill(dataset, scores, features):
    dataset.add_sample_field("k_score", fo.FloatField)
    dataset.add_sample_field("k_features", fo.VectorField)
    dataset.add_sample_field("k_is_ood", fo.BooleanField)
    dataset.add_sample_field("k_error", fo.StringField)
    samples = [
        fo.Sample(filepath=f"/images/{i}.png", k_score=float(score), k_features=row, k_is_ood=bool(score >= 1))
        for i, (score, row) in enumerate(zip(scores, features))
    ]
    dataset.add_samples([*samples, fo.Sample(filepath="/images/broken.png")], progress=False)


@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_every_score_is_in_exactly_the_bin_whose_range_finds_it(spread):
    rng = np.random.default_rng(0)
    query = np.concatenate([rng.normal(size=500), spread * rng.normal(size=20)])
    reference = rng.normal(size=300)
    histogram = data.score_histogram(query, reference)
    assert histogram.query.sum() == 520 and histogram.reference.sum() == 300
    for k, count in enumerate(histogram.query):
        low, high = data.span(histogram.edges, k, k)
        above = query >= low if low is not None else np.full(520, True)
        below = query < high if high is not None else np.full(520, True)
        assert (above & below).sum() == count


def test_bars_have_equal_widths_on_the_axis_and_edges_increase():
    rng = np.random.default_rng(1)
    histogram = data.score_histogram(np.concatenate([rng.normal(size=100), [1e5]]))
    assert histogram.axis.is_compressed
    widths = np.diff(histogram.positions)
    np.testing.assert_allclose(widths, widths[0])
    assert (np.diff(histogram.edges) > 0).all()
    assert histogram.edges[0] == pytest.approx(histogram.axis.values(histogram.positions[0]))


def test_a_few_far_outliers_leave_the_bulk_many_bars():
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(size=1000), [1e6, -1e5]])
    assert (data.score_histogram(scores).query > 0).sum() > 12
    # with equal bins they would all be in one
    assert (np.histogram(scores, 50)[0] > 0).sum() <= 3


def test_ordinary_scores_have_an_ordinary_axis():
    axis = data.Axis(np.random.default_rng(3).normal(size=1000))
    assert not axis.is_compressed and axis.ticks([-3, 3]) is None
    np.testing.assert_array_equal(axis.place([1.5, 2.5]), [1.5, 2.5])


def test_a_compressed_axis_is_increasing_can_be_undone_and_has_round_ticks_in_order():
    axis = data.Axis(np.concatenate([np.random.default_rng(4).normal(size=100), [1e4]]))
    values = np.array([-5.0, 0.0, 0.1, 3.0, 1e3, 1e4])
    places = axis.place(values)
    assert axis.is_compressed and (np.diff(places) > 0).all()
    np.testing.assert_allclose(axis.values(places), values, rtol=1e-9, atol=1e-9)
    positions, labels = axis.ticks(values)
    assert positions == sorted(positions) and [float(label) for label in labels] == sorted(map(float, labels))
    again = data.Axis.from_dict(axis.to_dict())
    np.testing.assert_array_equal(again.place(values), places)


def test_bars_of_very_different_heights_need_a_logarithmic_scale():
    rng = np.random.default_rng(5)
    assert not data.score_histogram(rng.uniform(size=1000)).log_counts
    assert data.score_histogram(np.concatenate([np.zeros(100_000), rng.uniform(size=50)])).log_counts


@pytest.mark.parametrize("scores", [[2.0], [2.0, 2.0, 2.0], [-1e-300, 1e-300]])
def test_equal_scores_have_a_histogram_too(scores):
    assert data.score_histogram(scores).query.sum() == len(scores)


def test_no_scores_have_none():
    assert data.score_histogram([]) is None


def test_a_range_of_bars_finds_the_images_in_the_database_the_most_anomalous_first(dataset):
    scores = np.random.default_rng(6).normal(size=200)
    fill(dataset, scores, np.zeros((200, 6)))
    run = fake_run()
    histogram = data.score_histogram(data.view_scores(dataset, run))
    low, high = data.span(histogram.edges, 10, 19)
    found = data.match_scores(dataset, run, low, high).values("k_score")
    assert len(found) == histogram.query[10:20].sum() and found == sorted(found, reverse=True)
    everything = data.match_scores(dataset, run, *data.span(histogram.edges, 0, 49))
    assert len(everything) == 200  # the image without a score is not among them


def test_points_are_the_features_in_robust_standard_deviations(dataset):
    features = CENTRE + SCALE * np.random.default_rng(7).normal(size=(20, 6))
    fill(dataset, np.arange(20), features)
    points = data.feature_points(dataset, fake_run(), FEATURE_NAMES[1], FEATURE_NAMES[5])
    np.testing.assert_allclose(points.xy, ((features - CENTRE) / SCALE)[:, [1, 5]], rtol=1e-6)
    assert dataset[points.ids[3]].k_score == points.scores[3] and points.total == 20


def test_the_first_component_is_the_direction_of_the_greatest_spread():
    rng = np.random.default_rng(8)
    direction = np.array([0.6, 0.8, 0, 0, 0, 0])
    along = rng.normal(size=500)
    z = 0.1 * (along[:, None] * direction + 0.05 * rng.normal(size=(500, 6)))  # small: asinh is linear there
    components = data.principal_components(z)
    assert abs(np.corrcoef(components[:, 0], along)[0, 1]) > 0.99
    assert components[:, 0].std() > 5 * components[:, 1].std()
    assert abs(np.corrcoef(components.T)[0, 1]) < 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_of_too_many_points_the_most_anomalous_are_all_kept(dataset, seed):
    fill(dataset, np.arange(60), np.zeros((60, 6)))
    points = data.feature_points(dataset, fake_run(), *data.COMPONENT_NAMES, limit=20, seed=seed)
    assert len(points.ids) == len(set(points.ids)) == 20 and points.total == 60
    assert set(range(50, 60)) <= set(points.scores)


def test_an_image_without_a_score_is_in_no_range_not_even_one_that_is_open_below(dataset):
    fill(dataset, np.arange(5), np.zeros((5, 6)))
    assert data.match_scores(dataset, fake_run(), high=3).values("k_score") == [2, 1, 0]
    assert len(data.match_scores(dataset, fake_run())) == 5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_points_are_no_trouble(dataset, count):
    fill(dataset, np.arange(count), np.ones((count, 6)))
    assert data.feature_points(dataset, fake_run(), *data.COMPONENT_NAMES).xy.shape == (count, 2)


def test_a_samples_report_holds_its_z_scores_and_its_map_on_the_runs_scale(dataset, tmp_path):
    fill(dataset, [3.0], [CENTRE + 2 * SCALE])
    Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save(tmp_path / "map.png")
    sample = dataset.first()
    sample["k_heatmap"] = fo.Heatmap(map_path=str(tmp_path / "map.png"))
    sample["k_error_map"] = fo.Heatmap(map_path=str(tmp_path / "map.png"))
    sample.save()
    report = data.sample_report(dataset, fake_run(), sample.id)
    np.testing.assert_allclose(report.z, 2)
    np.testing.assert_allclose(report.heatmap, [[0, 0.1], [0.2, 0.5]])
    np.testing.assert_allclose(report.error_map, [[0.4, 0.5], [0.6, 0.9]])
    assert report.score == 3 and "flagged" in data.describe_report(report, fake_run())


def test_a_report_bears_what_is_not_there(dataset):
    fill(dataset, [3.0], np.zeros((1, 6)))
    first, broken = dataset
    first["k_heatmap"] = fo.Heatmap(map_path="/deleted/by/hand.png")
    first.save()
    broken["k_error"] = "the file is missing"
    broken.save()
    assert data.sample_report(dataset, fake_run(), first.id).heatmap is None
    assert data.sample_report(dataset, fake_run(), first.id).error_map is None  # a run of before there were any
    report = data.sample_report(dataset, fake_run(), broken.id)
    assert report.score is None and report.z is None and "missing" in data.describe_report(report, fake_run())
    assert data.sample_report(dataset, fake_run(), "0" * 24) is None


def test_the_exported_list_is_csv_in_the_views_order(dataset):
    fill(dataset, [0.5, 3.0, 2.0], np.zeros((3, 6)))
    run = fake_run()
    rows = list(csv.DictReader(io.StringIO(data.export_csv(data.match_scores(dataset, run, low=1.0), run))))
    assert [float(row["k_score"]) for row in rows] == [3.0, 2.0]
    assert [row["filepath"] for row in rows] == ["/images/1.png", "/images/2.png"]
    assert [row["id"] for row in rows] == [dataset.match({"k_score": score}).first().id for score in (3.0, 2.0)]


def test_the_panel_stays_quick_at_twenty_thousand_images(dataset):
    rng = np.random.default_rng(9)
    collection = dataset._sample_collection
    dataset.add_sample_field("k_score", fo.FloatField)
    dataset.add_sample_field("k_features", fo.VectorField)
    vector = serialize_numpy_array(np.ones(6))
    collection.insert_many(
        {"_media_type": "image", "filepath": f"/{i}.png", "tags": [], "k_score": float(score), "k_features": vector}
        for i, score in enumerate(rng.normal(size=20_000))
    )
    started = time.monotonic()
    run = fake_run()
    histogram = data.score_histogram(data.view_scores(dataset, run))
    points = data.feature_points(dataset, run, *data.COMPONENT_NAMES)
    assert histogram.query.sum() == points.total == 20_000
    assert time.monotonic() - started < 10  # about half a second on two idle cores


def test_a_map_lies_on_its_picture_whatever_its_shape(dataset, tmp_path):
    fill(dataset, [3.0], np.zeros((1, 6)))
    Image.new("RGB", (1200, 600), "red").save(tmp_path / "picture.jpg")
    sample = dataset.first()
    sample.filepath = str(tmp_path / "picture.jpg")
    sample.save()
    picture = data.sample_report(dataset, fake_run(), sample.id).picture
    assert (picture.width, picture.height) == (480, 240) and picture.source.startswith("data:image/jpeg;base64,")
    (trace,) = plots.map_traces(np.zeros((32, 32)), "anomaly_map", MAPS["anomaly_map"].scale, picture)
    assert (trace["dx"] * 32, trace["dy"] * 32) == (480, 240)
    assert trace["colorscale"][0] == [0, "rgba(0, 0, 0, 0)"]  # nothing where all is usual
    (image,) = plots.map_layout("anomaly_map", picture)["images"]
    assert (image["sizex"], image["sizey"]) == (480, 240)


def test_a_picture_that_cannot_be_shown_leaves_the_map_alone(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"none")
    assert data.Picture.read(str(tmp_path / "broken.png")) is None
    assert data.Picture.read("/no/such/picture.png") is None
    (trace,) = plots.map_traces(np.zeros((8, 4)), "heatmap", (0, 1), None)
    assert trace["dx"] == trace["dy"] == 1 and trace["opacity"] == 1
    assert "images" not in plots.map_layout("heatmap", None)

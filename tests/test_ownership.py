"""Whose files a run's are, which image is which, and what is left when datasets go."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import ROOT, demo_samples
from fiftyone import ViewField as F
from PIL import Image

from diffpath import (
    compute_diffpath,
    continue_diffpath,
    crop_objects,
    delete_diffpath,
    get_diffpath_info,
    load_reference,
    rename_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.cli import main
from diffpath.dataset import heartbeat, iterate_diffpath
from diffpath.dataset.internals import patch_run
from diffpath.dataset.orphans import find_orphans
from diffpath.dataset.record import check_run_key, require_record
from diffpath.folders.files import file_keys, of_one_file

FAST = dict(num_timesteps=2, num_workers=2, progress=False)


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(demo_samples("clean", 12))


@pytest.fixture
def clone(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    clone = dataset.clone()
    yield clone
    clone.delete()


def files_of(dataset, run_key="k"):
    folder = Path(get_diffpath_info(dataset, run_key)["folder"])
    return {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.name != "about.json"}


def test_reading_a_clones_run_copies_nothing(dataset, clone):
    assert get_diffpath_info(clone, "k")["status"] == "complete"
    set_diffpath_threshold(clone, "k", "count", 2)
    assert not require_record(clone, "k").is_of(clone) and require_record(dataset, "k").is_of(dataset)
    assert get_diffpath_info(clone, "k")["folder"] == get_diffpath_info(dataset, "k")["folder"]
    assert get_diffpath_info(dataset, "k")["rule"] == "false_positive_rate"


@pytest.mark.parametrize(
    "change",
    [
        lambda clone: delete_diffpath(clone, "k"),
        lambda clone: rename_diffpath(clone, "k", "n"),
        lambda clone: compute_diffpath(clone, run_key="k", overwrite=True, **FAST),
        lambda clone: update_diffpath(clone, "k", progress=False),
    ],
    ids=["delete", "rename", "overwrite", "update"],
)
def test_changing_a_clones_run_leaves_the_originals_files(change, dataset, clone):
    before = files_of(dataset)
    change(clone)
    assert files_of(dataset) == before and all(Path(path).is_file() for path in dataset.values("k_heatmap.map_path"))
    for run_key in clone.list_runs():
        assert require_record(clone, run_key).is_of(clone)
        assert not set(clone.values(f"{run_key}_heatmap.map_path")) & set(dataset.values("k_heatmap.map_path"))
    delete_diffpath(dataset, "k")
    for run_key in clone.list_runs():  # and the other way round
        assert all(Path(path).is_file() for path in clone.values(f"{run_key}_heatmap.map_path"))
        set_diffpath_threshold(clone, run_key, "count", 2)


def test_a_run_of_an_early_version_is_the_dataset_s_whose_id_its_folder_ends_in(dataset, clone):
    """Records did not say whose they are, and folders ended in the last six digits."""
    record = require_record(dataset, "k")
    early = Path(record.folder).parent.with_name(f"data-{str(dataset._doc.id)[-6:]}") / "k"
    early.parent.mkdir(parents=True)
    Path(record.folder).rename(early)
    for each in (dataset, clone):
        patch_run(each, "k", {"folder": str(early), "dataset_id": None})
    assert require_record(dataset, "k").is_of(dataset) and not require_record(clone, "k").is_of(clone)
    delete_diffpath(clone, "k")
    assert early.exists()
    delete_diffpath(dataset, "k")
    assert not early.exists() and not early.parent.exists()


def test_a_run_under_way_is_not_under_way_in_a_clone(dataset):
    steps = iterate_diffpath(dataset, run_key="k", batch_size=2, num_timesteps=2)
    next(step for step in steps if step.done >= 4)
    clone = dataset.clone()
    assert get_diffpath_info(dataset, "k")["status"] == "running"
    assert get_diffpath_info(clone, "k")["status"] == "interrupted"
    delete_diffpath(clone, "k")
    clone.delete()
    assert len([step for step in steps if step.done == 12]) > 0 and len(files_of(dataset)) == 13


def test_another_computation_has_maps_of_other_names(dataset):
    compute_diffpath(dataset, run_key="k", **FAST)
    before = dataset.values("k_heatmap.map_path")
    compute_diffpath(dataset, run_key="k", overwrite=True, **FAST)
    assert not set(before) & set(dataset.values("k_heatmap.map_path")) and not any(map(os.path.exists, before))


def test_lost_maps_are_made_again_and_only_those(dataset, monkeypatch):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    scores, paths = (
        dataset.values(
            "k_score",
        ),
        dataset.values("k_heatmap.map_path"),
    )
    kept = {path: Path(path).stat().st_mtime_ns for path in paths[2:]}
    for path in (*paths[:2], run.reference_path):
        Path(path).unlink()
    assert get_diffpath_info(dataset, "k")["status"] == "without files"
    set_diffpath_threshold_fails(dataset)
    continue_diffpath(dataset, "k", progress=False)
    assert get_diffpath_info(dataset, "k")["status"] == "complete"
    assert all(Path(path).is_file() for path in dataset.values("k_heatmap.map_path"))
    assert {path: Path(path).stat().st_mtime_ns for path in kept} == kept
    np.testing.assert_allclose(dataset.values("k_score"), scores, rtol=5e-2)


def set_diffpath_threshold_fails(dataset):
    with pytest.raises(ValueError, match=r"continue_diffpath\(dataset, 'k'\).*folder="):
        set_diffpath_threshold(dataset, "k", "count", 2)


def test_a_run_keeps_the_rule_and_level_that_were_set_when_it_lost_its_files(dataset):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    set_diffpath_threshold(dataset, "k", "count", 3)
    shutil.rmtree(run.config["folder"])
    again = continue_diffpath(dataset, "k", progress=False)
    assert (again.rule, again.level, again.num_likely_ood) == ("count", 3, 3)


def test_moved_files_are_found_where_they_are_now(dataset, tmp_path):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    shutil.move(run.config["folder"], tmp_path / "moved")
    with pytest.raises(ValueError, match=r"no files of a diffpath run.*reference\.safetensors"):
        continue_diffpath(dataset, "k", folder=tmp_path, progress=False)
    continue_diffpath(dataset, "k", folder=tmp_path / "moved", progress=False)
    assert get_diffpath_info(dataset, "k")["status"] == "complete"
    assert all(Path(path).is_file() for path in dataset.values("k_heatmap.map_path"))
    assert (tmp_path / "moved" / "reference.safetensors").exists()
    assert set_diffpath_threshold(dataset, "k", "count", 2).num_likely_ood == 2


def test_a_lost_saved_reference_can_be_given_again(dataset, make_dataset, tmp_path):
    reference = compute_diffpath(make_dataset(demo_samples("clean", 10, skip=20)), run_key="k", **FAST).reference()
    reference.save(tmp_path / "clothing.safetensors")
    run = compute_diffpath(dataset, reference=tmp_path / "clothing.safetensors", run_key="k", **FAST)
    scores = dataset.values("k_score")
    shutil.rmtree(run.config["folder"])
    with pytest.raises(ValueError, match=r"saved one that is gone.*reference=Path"):
        continue_diffpath(dataset, "k", progress=False)
    continue_diffpath(dataset, "k", reference=tmp_path / "clothing.safetensors", progress=False)
    np.testing.assert_allclose(dataset.values("k_score"), scores, rtol=5e-2)


def test_a_reference_in_a_dataset_that_was_renamed_is_found(dataset, make_dataset):
    elsewhere = make_dataset(demo_samples("clean", 8, skip=20))
    steps = iterate_diffpath(dataset, reference=elsewhere, run_key="k", batch_size=2, num_timesteps=2)
    next(step for step in steps if step.done >= 4)
    steps.close()
    elsewhere.name = f"{elsewhere.name}-renamed"
    assert continue_diffpath(dataset, "k", progress=False).num_scored == 12
    make_dataset()  # the name is free again, and another dataset may have it


def test_an_unwritable_folder_is_one_sentence_and_leaves_nothing(dataset, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(fo.config, "default_dataset_dir", str(tmp_path / "file"))
    schema = set(dataset.get_field_schema())
    with pytest.raises(ValueError, match=r"cannot be made.*default_dataset_dir"):
        compute_diffpath(dataset, run_key="k", **FAST)
    assert dataset.list_runs() == [] and set(dataset.get_field_schema()) == schema


@pytest.mark.parametrize("run_key", ["_x", "a b", "1a", "", "x" * 250, "ü" * 60])
def test_a_key_that_cannot_work_is_refused_before_anything_is_registered(run_key, dataset):
    schema = set(dataset.get_field_schema())
    with pytest.raises(ValueError, match="run_key must"):
        compute_diffpath(dataset, run_key=run_key, **FAST)
    assert dataset.list_runs() == [] and set(dataset.get_field_schema()) == schema


@pytest.mark.parametrize("run_key", ["x" * 100, "ü", "class", "K_1"])
def test_an_unusual_key_that_works_is_taken(run_key, dataset):
    check_run_key(run_key)
    run = compute_diffpath(dataset, run_key=run_key, **FAST)
    assert len(run.view(dataset)) == 12
    delete_diffpath(dataset, run_key)


def test_a_run_under_way_is_stopped_and_deleted_without_a_trace(dataset):
    steps = iterate_diffpath(dataset, run_key="k", batch_size=2, num_timesteps=2)
    next(step for step in steps if step.done >= 4)
    delete_diffpath(dataset, "k", stop=True)
    with pytest.raises(ValueError, match="deleted meanwhile"):
        list(steps)
    dataset.reload()
    assert [name for name in dataset.get_field_schema() if name.startswith("k_")] == [] and dataset.list_runs() == []
    assert compute_diffpath(dataset, run_key="k", **FAST).num_scored == 12


def test_a_run_in_another_process_stops_when_it_is_asked_to(dataset, monkeypatch):
    """A real process, with a database that both share."""
    code = (
        "import sys, fiftyone as fo; from diffpath.dataset import iterate_diffpath\n"
        "for step in iterate_diffpath(fo.load_dataset(sys.argv[1]), run_key='k', batch_size=1, num_timesteps=200):\n"
        "    print(step.done, flush=True)\n"
    )
    dataset.persistent = True
    worker = subprocess.Popen(
        [sys.executable, "-c", code, dataset.name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with worker:
        assert "0\n" in iter(worker.stdout.readline, "")  # after what FiftyOne says first
        delete_diffpath(dataset, "k", stop=True)
        _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 1 and "was stopped" in errors
    dataset.reload()
    assert [name for name in dataset.get_field_schema() if name.startswith("k_")] == [] and dataset.list_runs() == []


def test_a_stopped_run_goes_on_when_it_is_continued(dataset, monkeypatch):
    monkeypatch.setattr(heartbeat, "_POLL_SECONDS", 0)
    steps = iterate_diffpath(dataset, run_key="k", batch_size=2, num_timesteps=2)
    next(step for step in steps if step.done >= 4)
    require_record(dataset, "k").patch(dataset, stopping=True)
    with pytest.raises(ValueError, match=r"stopped; it can be continued"):
        list(steps)
    assert get_diffpath_info(dataset, "k")["status"] == "interrupted"
    assert continue_diffpath(dataset, "k", progress=False).num_scored == 12


def test_counts_follow_samples_that_are_deleted(dataset):
    dataset.add_sample(fo.Sample(filepath="/no/such/image.png"))
    compute_diffpath(dataset, run_key="k", rule="count", level=3, **FAST)
    flagged = dataset.match(F("k_is_ood") == True).values("id")  # noqa: E712
    dataset.delete_samples([flagged[0], dataset.last().id])
    info = get_diffpath_info(dataset, "k")
    assert (info["num_scored"], info["num_unreadable"], info["num_likely_ood"]) == (11, 0, 2)


def test_files_of_deleted_datasets_and_runs_are_listed_and_removed(dataset, make_dataset, capsys, tmp_path):
    run = compute_diffpath(dataset, run_key="k", **FAST)
    gone = fo.Dataset()
    gone.add_samples(demo_samples("clean", 4), progress=False)
    orphan = Path(compute_diffpath(gone, run_key="k", **FAST).config["folder"])
    name = gone.name
    gone.delete()
    forgotten = Path(compute_diffpath(dataset, run_key="f", **FAST).config["folder"])
    dataset.delete_run("f")  # FiftyOne's own, which knows nothing of files
    other = orphan.with_name("k-of-another-database")
    shutil.copytree(orphan, other)
    about = json.loads((other / "about.json").read_text())
    (other / "about.json").write_text(json.dumps({**about, "database": "another"}))
    early = orphan.parent.with_name("data-123456") / "k"
    early.mkdir(parents=True)
    for folder in (orphan, forgotten, other, early):
        os.utime(folder, (0, 0))
    assert {orphan, forgotten, early} <= {each.path for each in find_orphans()}
    assert {orphan, other, early} & {Path(run.config["folder"]), other} == {other}

    assert main(["orphans"]) == 0
    listed = capsys.readouterr().out
    assert f"{orphan}: " in listed and repr(name) in listed and str(other) not in listed and "--remove" in listed
    assert main(["orphans", "--remove"]) == 0
    assert not orphan.exists() and not forgotten.exists() and other.exists() and early.exists()
    assert Path(run.config["folder"]).exists() and len(files_of(dataset)) == 13
    shutil.rmtree(other.parent)
    shutil.rmtree(early.parent)


def test_a_folder_that_was_just_made_is_no_orphan_yet(dataset):
    folder = Path(compute_diffpath(dataset, run_key="k", **FAST).config["folder"])
    dataset.delete_run("k")
    assert folder not in {each.path for each in find_orphans()}
    assert folder in {each.path for each in find_orphans(min_age=0)}


# Which image is which


def test_a_file_is_known_by_whatever_path_and_not_after_it_was_written_anew(tmp_path):
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "a.png"
    file.write_bytes(b"one")
    (tmp_path / "linked").symlink_to(tmp_path / "folder")
    (tmp_path / "linked.png").symlink_to(file)
    paths = [str(file), str(tmp_path / "linked" / "a.png"), str(tmp_path / "linked.png")]
    keys = file_keys([*paths, str(tmp_path / "other.png")])
    assert len(set(keys[:3].tolist())) == 1 and keys[3] != keys[0]
    file.write_bytes(b"another")
    assert file_keys([str(file)])[0] != keys[0]


@pytest.mark.parametrize(
    "keys, groups, expected",
    [
        ([1, 2, 3, 4, 5], None, None),
        ([1, 2, 3, 4, 5], [0, 0, 1, 1, 2], [0, 0, 1, 1, 2]),
        ([1, 2, 1, 4, 5], None, [0, 1, 0, 2, 3]),
        ([1, 2, 1, 4, 5, 6], [0, 1, 2, 2, 3, 4], [0, 1, 0, 0, 2, 3]),
    ],
)
def test_samples_of_one_file_are_one_group(keys, groups, expected):
    joined = of_one_file(np.array(keys, np.uint64), groups)
    if expected is None:
        assert joined is None
    else:
        same = np.equal.outer(joined, joined)
        np.testing.assert_array_equal(same, np.equal.outer(expected, expected))


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_maps_are_for_those_who_may_see_the_images(mode, make_dataset, tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode)
    private.chmod(mode)
    paths = [shutil.copy(sample.filepath, private) for sample in demo_samples("clean", 6)]
    dataset = make_dataset([fo.Sample(filepath=path) for path in paths])
    run = compute_diffpath(dataset, reference=dataset.view(), run_key="k", **FAST)
    folder = Path(run.record.folder)
    assert stat.S_IMODE(folder.stat().st_mode) == mode
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and all(path.stat().st_mode & 0o644 == 0o644 for path in files)  # who comes in can read


def test_a_reference_of_hardly_any_different_files_says_so(make_dataset):
    sample = demo_samples("clean", 1)[0]
    dataset = make_dataset([fo.Sample(filepath=sample.filepath) for _ in range(6)])
    with pytest.raises(ValueError, match="6 images of the reference are only 1 different files"):
        compute_diffpath(dataset, run_key="k", **FAST)


@pytest.fixture
def odd_ones(make_dataset):
    """A reference with a few images that do not belong, twice over the same files."""
    return [make_dataset(demo_samples("clean", 60), demo_samples("drawings", 6)) for _ in range(2)]


@pytest.mark.parametrize("way", ["another dataset", "a saved reference", "the same files twice"])
def test_an_image_never_vouches_for_itself(way, odd_ones, tmp_path):
    dataset, other = odd_ones
    reference = other
    if way == "a saved reference":
        compute_diffpath(other, reference=other.view(), run_key="k", **FAST).reference().save(
            tmp_path / "r.safetensors"
        )
        reference = tmp_path / "r.safetensors"
        assert len(load_reference(reference).members) == 66
    if way == "the same files twice":
        twins = demo_samples("clean", 60) + demo_samples("drawings", 6)
        other.add_samples(twins, progress=False)
    alone = compute_diffpath(dataset, reference=dataset.view(), run_key="alone", **FAST)
    run = compute_diffpath(dataset, reference=reference, run_key="k", **FAST)
    assert 0.4 < np.median(dataset.values("k_p_value")) < 0.6
    assert run.num_likely_ood == pytest.approx(alone.num_likely_ood, abs=1)
    odd = dataset.match(F("kind") == "drawings")
    found, expected = (np.median(odd.values(f"{key}_p_value")) for key in ("k", "alone"))
    if way == "the same files twice":  # folds of other images: no more than as odd as before, up to chance
        assert found < expected + 0.1
    else:
        assert found == pytest.approx(expected, abs=0.02)


def test_new_samples_of_the_references_files_are_judged_as_its_own(odd_ones):
    dataset, _ = odd_ones
    compute_diffpath(dataset, reference=dataset.match(F("kind") == "clean"), run_key="k", **FAST)
    expected = dict(zip(*dataset.values(["filepath", "k_score"])))
    dataset.add_samples(demo_samples("clean", 60), progress=False)
    update_diffpath(dataset, "k", progress=False)
    assert [expected[path] for path in dataset.values("filepath")] == dataset.values("k_score")


def test_a_name_that_is_no_tag_says_what_else_it_is(dataset, make_dataset, tmp_path):
    dataset.save_view("typical", dataset.limit(5))
    other = make_dataset(demo_samples("clean", 5))
    (tmp_path / "r.safetensors").write_bytes(b"")
    for name, way_out in {
        "typical": "dataset.load_saved_view('typical')",
        other.name: f"fo.load_dataset('{other.name}')",
        str(tmp_path / "r.safetensors"): "passed as Path(",
        "nothing": "its tags are none$",
    }.items():
        with pytest.raises(ValueError, match="no sample.*reference tag") as refused:
            compute_diffpath(dataset, reference=name, run_key="k", **FAST)
        assert re.search(way_out if name == "nothing" else re.escape(way_out), str(refused.value))


# Values of pixels


def deep(paths, folder, change):
    """16-bit copies of pictures."""
    made = []
    for path in paths:
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        made.append(folder / f"{Path(path).parent.name}-{Path(path).stem}.png")
        Image.fromarray(change(grey)).save(made[-1])
    return [fo.Sample(filepath=str(path)) for path in made]


def test_a_run_takes_the_range_of_its_references_numbers(make_dataset, tmp_path):
    clean = [sample.filepath for sample in demo_samples("clean", 24)]
    reference = make_dataset(deep(clean[:12], tmp_path, lambda grey: grey * 16))
    dataset = make_dataset(deep(clean[12:], tmp_path, lambda grey: grey * 16))
    plain = make_dataset([fo.Sample(filepath=path) for path in clean[12:]])
    run = compute_diffpath(dataset, reference=reference, run_key="k", **FAST)
    assert run.record.options.value_range == (0, 4095)
    compute_diffpath(plain, reference=run.reference(), run_key="k", **FAST)
    # 4,095 is white and 255 · 16 is not quite: the same pictures to half a grey level
    np.testing.assert_allclose(dataset.values("k_score"), plain.values("k_score"), rtol=0.2)

    dataset.add_samples(deep(clean[:2], tmp_path, lambda grey: grey * 16), progress=False)
    assert update_diffpath(dataset, "k", progress=False).num_scored == 14
    again = compute_diffpath(dataset, reference=Path(run.reference_path), run_key="s", **FAST)
    assert again.record.options.value_range == (0, 4095)


def test_a_range_that_is_said_is_taken(make_dataset, tmp_path):
    clean = [sample.filepath for sample in demo_samples("clean", 6)]
    dataset = make_dataset(deep(clean, tmp_path, lambda grey: grey * 16))
    assert compute_diffpath(dataset, value_range=(0, 4080), run_key="k", **FAST).record.options.value_range == (0, 4080)
    with pytest.raises(ValueError, match="value_range must be two increasing numbers"):
        compute_diffpath(dataset, value_range=(5, 5), run_key="n", **FAST)


def test_numbers_with_a_sign_are_errors_of_their_images_until_a_range_is_said(make_dataset, tmp_path):
    samples = []
    for k, sample in enumerate(demo_samples("clean", 6)):
        grey = np.asarray(Image.open(sample.filepath).convert("L")).astype(np.int32)
        Image.fromarray(grey * 12 - 1500).save(tmp_path / f"{k}.tif")
        samples.append(fo.Sample(filepath=str(tmp_path / f"{k}.tif")))
    dataset = make_dataset(samples)
    with pytest.raises(ValueError, match="0 of 6.*give value_range"):
        compute_diffpath(dataset, run_key="k", **FAST)
    assert compute_diffpath(dataset, value_range=(-1500, 1560), run_key="k", **FAST).num_scored == 6


# Objects


def test_objects_become_pictures_that_know_where_they_come_from(make_dataset, tmp_path):
    path = tmp_path / "four.png"
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[20:, 30:] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(pixels).save(path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    boxes = {"red": [0, 0, 0.5, 0.5], "blue": [0.5, 0.5, 0.5, 0.5], "nothing": [0.2, 0.2, 0, 0]}
    objects = [fo.Detection(label=label, bounding_box=box, tags=["t"]) for label, box in boxes.items()]
    whole = fo.Detection(label="whole", bounding_box=[0, 0, 1, 1])
    dataset = make_dataset(
        [
            fo.Sample(filepath=str(path), gt=fo.Detections(detections=objects)),
            fo.Sample(filepath=str(tmp_path / "broken.png"), gt=fo.Detections(detections=[whole])),
        ]
    )
    crops = crop_objects(dataset.to_patches("gt"), tmp_path / "crops")
    try:
        found = {sample.label.label: sample for sample in crops}
        assert set(found) == {"red", "blue", "whole"}
        for label, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            crop = np.asarray(Image.open(found[label].filepath))
            assert crop.shape == (20, 30, 3) and (crop == colour).all()
            assert found[label].sample_id == dataset.first().id and found[label].tags == ["t"]
        assert found["red"].label_id == dataset.first().gt.detections[0].id
        assert found["whole"].filepath == str(tmp_path / "broken.png")  # whose error the run will say
        dataset.set_label_values("gt.detections.score", {found["red"].label_id: 0.5}, dynamic=True)
        assert dataset.first().gt.detections[0].score == 0.5
    finally:
        crops.delete()


def test_crop_objects_refuses_what_holds_no_objects(dataset):
    with pytest.raises(ValueError, match="view of patches"):
        crop_objects(dataset)

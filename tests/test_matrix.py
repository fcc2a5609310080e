"""Every kind of dataset with everything that can be done to a run on it: right, or refused in a sentence.

The table in ``docs/datasets.md`` is what these tests found; ``DIFFPATH_WRITE_DOCS=1`` writes it anew.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from conftest import ROOT, demo_samples
from fiftyone import ViewField as F

from diffpath import (
    compute_diffpath,
    continue_diffpath,
    crop_objects,
    delete_diffpath,
    evaluate_diffpath,
    get_diffpath_info,
    load_diffpath_view,
    rename_diffpath,
    set_diffpath_threshold,
    update_diffpath,
)
from diffpath.dataset import DiffPathRun, iterate_diffpath
from diffpath.dataset.internals import every_image, filtered_images, view_stages
from diffpath.folders.maps import MAPS
from diffpath.operators.panel import data

FAST = dict(num_timesteps=2, num_workers=2)
OPERATIONS = ("compute", "continue", "threshold", "view", "panel", "export", "evaluate", "update", "rename", "delete")
NUM_IMAGES = 8


@dataclass
class Prepared:
    """A dataset of one kind.

    Attributes:
        samples: what is scored: a dataset or view
        dataset: that holds the run
        expected: ids of the samples that are to have a score
        has_run: whether it came with a finished run "k" and an interrupted one "c"
        reference: of the runs
        check: looks, when everything was done, that nothing else was touched
    """

    samples: object
    dataset: fo.Dataset
    expected: list
    has_run: bool = False
    reference: object = None
    check: object = lambda: None
    scores: dict = field(default_factory=dict)


def images(count=NUM_IMAGES, skip=0):
    """Samples of clothing and of drawings, half and half."""
    half = count // 2
    return demo_samples("clean", half, skip=skip) + demo_samples("drawings", count - half, skip=skip)


def plain(name=None, persistent=False):
    dataset = fo.Dataset(name, persistent=persistent)
    dataset.add_samples(images(), progress=False)
    return dataset


def of_images():
    dataset = plain()
    return Prepared(dataset, dataset, dataset.values("id"))


def of_a_view():
    dataset = plain()
    view = dataset.limit(6)
    return Prepared(view, dataset, view.values("id"))


def of_a_view_of_some_fields():
    dataset = plain()
    return Prepared(dataset.select_fields("kind"), dataset, dataset.values("id"))


def of_a_saved_dataset():
    made = plain("diffpath-matrix-saved", persistent=True)
    dataset = fo.load_dataset(made.name)
    return Prepared(dataset, dataset, dataset.values("id"))


def of_a_renamed_dataset():
    dataset = plain()
    begin_runs(dataset)
    dataset.name = "diffpath-matrix-renamed"
    return Prepared(dataset, dataset, dataset.values("id"), has_run=True)


def grouped():
    dataset = fo.Dataset()
    dataset.add_group_field("group", default="left")
    samples = []
    for left, right in zip(images(), images(skip=10)):
        group = fo.Group()
        for name, sample in (("left", left), ("right", right)):
            sample["group"] = group.element(name)
            samples.append(sample)
    dataset.add_samples(samples, progress=False)
    return dataset


def of_groups():
    dataset = grouped()
    return Prepared(dataset, dataset, every_image(dataset).values("id"))


def of_the_slice_shown():
    dataset = grouped()
    view = dataset.select_group_slices("left")
    return Prepared(view, dataset, view.values("id"))


def of_another_slice():
    dataset = grouped()
    view = dataset.select_group_slices("right")
    return Prepared(view, dataset, view.values("id"))


def of_dynamic_groups():
    dataset = plain()
    return Prepared(dataset.group_by("kind"), dataset, dataset.values("id"))


def with_objects():
    dataset = plain()
    boxes = [[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]]
    for sample in dataset:
        found = [fo.Detection(label=sample.kind, bounding_box=box) for box in boxes]
        sample["objects"] = fo.Detections(detections=found)
        sample.save()
    return dataset


def of_patches():
    dataset = with_objects()
    begin_runs(dataset)
    return Prepared(dataset.to_patches("objects"), dataset, [], has_run=True)


def of_cropped_patches():
    source = with_objects()
    dataset = crop_objects(source.to_patches("objects"))
    dataset.set_values("kind", dataset.values("label.label"))
    return Prepared(dataset, dataset, dataset.values("id"), check=source.delete)


def with_frames():
    dataset = fo.Dataset()
    dataset.media_type = "video"
    video = fo.Sample(filepath="/videos/one.mp4")
    for number, sample in enumerate(images(), 1):
        video.frames[number] = fo.Frame(filepath=sample.filepath, kind=sample.kind)
    dataset.add_sample(video)
    return dataset


def of_videos():
    dataset = with_frames()
    return Prepared(dataset, dataset, [])


def of_frames():
    dataset = with_frames()
    return Prepared(dataset.to_frames(), dataset, [])


def of_cloned_frames():
    source = with_frames()
    dataset = source.to_frames().clone()
    return Prepared(dataset, dataset, dataset.values("id"), check=source.delete)


def of_a_clone():
    original = plain()
    begin_runs(original)
    before = contents(original)
    dataset = original.clone()

    def check():
        assert contents(original) == before
        set_diffpath_threshold(original, "k", "count", 1)
        continue_diffpath(original, "c", progress=False)
        original.delete()

    return Prepared(dataset, dataset, dataset.values("id"), has_run=True, check=check)


def of_an_import(tmp_path):
    original = plain()
    begin_runs(original)
    original.export(export_dir=str(tmp_path / "export"), dataset_type=fo.types.FiftyOneDataset, progress=False)
    for run_key in ("k", "c"):
        shutil.rmtree(get_diffpath_info(original, run_key)["folder"])  # as on another machine
    original.delete()
    dataset = fo.Dataset.from_dir(str(tmp_path / "export"), fo.types.FiftyOneDataset, progress=False)
    assert get_diffpath_info(dataset, "k")["status"] == "without files"
    with pytest.raises(ValueError, match="continue_diffpath"):
        set_diffpath_threshold(dataset, "k", "false_positive_rate", 0.1)
    continue_diffpath(dataset, "k", progress=False)
    return Prepared(dataset, dataset, dataset.values("id"), has_run=True)


def of_a_merge():
    dataset, other = plain(), fo.Dataset()
    other.add_samples(images(4, skip=20), progress=False)
    for each in (dataset, other):
        begin_runs(each)
    delete_diffpath(dataset, "c")
    delete_diffpath(other, "c")
    theirs = dict(zip(*other.values(["filepath", "k_score"])))
    dataset.add_collection(other)
    other.delete()
    update_diffpath(dataset, "k", progress=False)  # not theirs any more: judged by this dataset's reference
    ours = dict(zip(*dataset.values(["filepath", "k_score"])))
    assert all(ours[path] != score for path, score in theirs.items())
    begin_run(dataset, "c", stop_after=4)
    return Prepared(dataset, dataset, dataset.values("id"), has_run=True)


def of_shared_files():
    dataset, other = plain(), plain()
    return Prepared(dataset, dataset, dataset.values("id"), reference=other, check=other.delete)


def of_unknown_endings(tmp_path):
    dataset = fo.Dataset()
    for position, sample in enumerate(images()):
        path = tmp_path / f"{position}.img"
        shutil.copy(sample.filepath, path)
        dataset.add_sample(fo.Sample(filepath=str(path), kind=sample.kind))
    assert dataset.media_type == "unknown"
    return Prepared(dataset, dataset, dataset.values("id"))


KINDS = {
    "images": of_images,
    "a view": of_a_view,
    "a view of some fields": of_a_view_of_some_fields,
    "a persistent dataset": of_a_saved_dataset,
    "a dataset renamed after its run": of_a_renamed_dataset,
    "groups, all slices": of_groups,
    "groups, the slice that the App shows": of_the_slice_shown,
    "groups, another slice": of_another_slice,
    "dynamic groups": of_dynamic_groups,
    "patches": of_patches,
    "patches, after `crop_objects`": of_cropped_patches,
    "videos": of_videos,
    "frames": of_frames,
    "frames, after `clone()`": of_cloned_frames,
    "a clone of a dataset with runs": of_a_clone,
    "an import, its runs' files lost": of_an_import,
    "two merged datasets with a run of the same key": of_a_merge,
    "two datasets of the same files": of_shared_files,
    "files of unknown endings": of_unknown_endings,
}


def begin_run(dataset, run_key, stop_after):
    steps = iterate_diffpath(dataset, run_key=run_key, batch_size=2, **FAST)
    for step in steps:
        if step.done >= stop_after:
            break
    steps.close()


def begin_runs(dataset):
    """A finished run "k" and an interrupted one "c"."""
    compute_diffpath(dataset, run_key="k", progress=False, **FAST)
    begin_run(dataset, "c", stop_after=4)


def contents(dataset):
    """All that belongs to a dataset's runs: values, views, files and their bytes."""
    names = sorted(name for name in dataset.get_field_schema() if name.startswith(("k_", "c_")))
    plain_names = [name for name in names if name.endswith(("score", "is_ood", "error", "p_value"))]
    folders = [Path(get_diffpath_info(dataset, key)["folder"]) for key in ("k", "c")]
    files = {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    paths = dataset.values("k_heatmap.map_path")
    return names, dataset.values(plain_names), dataset.list_saved_views(), dataset.list_runs(), files, paths


def scores_of(dataset, run_key):
    scored = every_image(dataset).exists(f"{run_key}_score")
    return dict(zip(*scored.values(["id", f"{run_key}_score"])))


def check_complete(case, run_key):
    """Every image that was asked for is judged, and no other; maps are the dataset's own files."""
    dataset, run = case.dataset, DiffPathRun.load(case.dataset, run_key)
    scores = scores_of(dataset, run_key)
    assert sorted(scores) == sorted(case.expected) and run.num_scored == len(case.expected)
    judged = every_image(dataset).exists(f"{run_key}_is_ood")
    assert sorted(judged.values("id")) == sorted(case.expected)
    for kind in MAPS:
        paths = every_image(dataset).exists(f"{run_key}_{kind}").values(f"{run_key}_{kind}.map_path")
        assert {Path(path).parent for path in paths} == {run.record.map_folder(kind)}
        assert all(Path(path).is_file() for path in paths) and len(set(paths)) == len(case.expected)
    assert run.record.is_of(dataset)
    return scores


def compute(case):
    compute_diffpath(
        case.samples, run_key="k", reference=case.reference, overwrite=case.has_run, progress=False, **FAST
    )
    case.scores = check_complete(case, "k")
    if case.reference is not None:  # the same images: none may vouch for itself
        p_values = every_image(case.dataset).exists("k_p_value").values("k_p_value")
        assert 0.3 < np.median(p_values) < 0.7


def go_on(case):
    if not case.has_run:
        steps = iterate_diffpath(case.samples, run_key="c", reference=case.reference, batch_size=2, **FAST)
        next(step for step in steps if step.done >= 4)
        steps.close()
    assert get_diffpath_info(case.dataset, "c")["status"] in ("interrupted", "without files")
    continue_diffpath(case.dataset, "c", progress=False)
    np.testing.assert_allclose(*zip(*[(score, case.scores[i]) for i, score in check_complete(case, "c").items()]), 5e-2)


def set_threshold(case):
    run = set_diffpath_threshold(case.dataset, "k", "count", 3, tag="odd")
    flagged = every_image(case.dataset).match(F("k_is_ood") == True).values("id")  # noqa: E712
    assert run.num_likely_ood == 3 and len(flagged) == 3
    assert sorted(every_image(case.dataset).match_tags("odd").values("id")) == sorted(flagged)
    assert set(flagged) == set(sorted(case.scores, key=case.scores.get)[-3:])


def show(case):
    ranked = load_diffpath_view(case.dataset, "k")
    assert ranked.values("id") == sorted(case.scores, key=case.scores.get, reverse=True)
    assert len(load_diffpath_view(case.dataset, "k", "ood")) == 3
    assert len(case.dataset.load_saved_view("k: likely OOD")) == 3
    assert len(load_diffpath_view(case.dataset, "k", "unreadable")) == 0


def open_panel(case):
    run = DiffPathRun.load(case.dataset, "k")
    shown = filtered_images(case.dataset, view_stages(case.samples), None)
    assert sorted(data.view_scores(shown, run)) == sorted(case.scores.values())
    assert len(data.match_scores(shown, run, low=run.threshold)) == 3
    assert len(data.feature_points(shown, run, *data.COMPONENT_NAMES).ids) == len(case.expected)
    for sample_id in (case.expected[0], case.expected[-1]):
        report = data.sample_report(case.dataset, run, sample_id)
        assert report.score == case.scores[sample_id] and report.heatmap is not None
    assert len(data.reference_scores(run)) == run.record.num_calibration


def export(case):
    run = DiffPathRun.load(case.dataset, "k")
    lines = data.export_csv(filtered_images(case.dataset, view_stages(case.samples), None), run).splitlines()
    assert sorted(line.split(",")[0] for line in lines[1:]) == sorted(case.expected)


def evaluate(case):
    result = evaluate_diffpath(case.samples, "k", "kind", ood="drawings", num_bootstrap=50)
    assert result.num_positive + result.num_negative == len(case.expected) and result.num_positive > 0
    assert Path(result.histogram).parent == Path(get_diffpath_info(case.dataset, "k")["folder"])


def update(case):
    lost = every_image(case.dataset).select(case.expected[-1])
    for name in ("k_score", "k_features", "k_is_ood"):
        lost.clear_sample_field(name)
    assert len(scores_of(case.dataset, "k")) == len(case.expected) - 1
    update_diffpath(case.samples, "k", progress=False)
    np.testing.assert_allclose(*zip(*[(score, case.scores[i]) for i, score in check_complete(case, "k").items()]), 5e-2)


def rename(case):
    before = scores_of(case.dataset, "k")
    rename_diffpath(case.dataset, "k", "m")
    assert check_complete(case, "m") == before
    assert not [name for name in case.dataset.get_field_schema() if name.startswith("k_")]


def delete(case):
    folders = [get_diffpath_info(case.dataset, key)["folder"] for key in case.dataset.list_runs()]
    tags = every_image(case.dataset).count_sample_tags().get("odd")
    for run_key in case.dataset.list_runs():
        delete_diffpath(case.dataset, run_key)
    assert case.dataset.list_runs() == [] and case.dataset.list_saved_views() == []
    left = [name for name in case.dataset.get_field_schema() if name.startswith(("k_", "c_", "m_"))]
    assert left == [] and not any(Path(folder).exists() for folder in folders)
    assert tags == 3 and "odd" not in every_image(case.dataset).count_sample_tags()


DO = dict(zip(OPERATIONS, (compute, go_on, set_threshold, show, open_panel, export, evaluate, update, rename, delete)))
REFUSED = {  # the operations that take the samples, and so can refuse them
    "patches": ("compute", "evaluate", "update"),
    "videos": ("compute",),
    "frames": ("compute",),
}
WAYS_OUT = {"patches": r"crop_objects\(", "videos": r"\.clone\(\)", "frames": r"\.clone\(\)"}
_RESULTS: dict[str, dict[str, str]] = {}


@pytest.mark.parametrize("kind", KINDS)
def test_each_operation_is_right_or_refused_in_a_sentence(kind, tmp_path):
    make = KINDS[kind]
    case = make(tmp_path) if make.__code__.co_argcount else make()
    cells = _RESULTS[kind] = {}
    try:
        if kind in REFUSED:
            for name in REFUSED[kind]:
                with pytest.raises(ValueError, match=WAYS_OUT[kind]) as refused:
                    refuse(name, case)
                cells[name] = str(refused.value).replace(repr(case.dataset.name), "'…'")
        else:
            for name in OPERATIONS:
                DO[name](case)
                cells[name] = "yes"
        case.check()
    finally:
        case.dataset.delete()


def refuse(name, case):
    if name == "compute":
        compute_diffpath(case.samples, run_key="n", progress=False, **FAST)
    elif name == "evaluate":
        evaluate_diffpath(case.samples, "k", "kind", ood="drawings", num_bootstrap=50)
    else:
        update_diffpath(case.samples, "k", progress=False)


def test_the_table_in_the_docs_is_what_was_found():
    if list(_RESULTS) != list(KINDS):
        pytest.skip("only together with the tests before")
    notes: list[str] = []

    def cell(kind, name):
        found = _RESULTS[kind].get(name, "–")
        if found in ("–", "yes"):
            return found
        if found not in notes:
            notes.append(found)
        return f"no ({notes.index(found) + 1})"

    rows = [f"| {kind} | {' | '.join(cell(kind, name) for name in OPERATIONS)} |" for kind in KINDS]
    heads = [f"| | {' | '.join(OPERATIONS)} |", f"|---{'|---' * len(OPERATIONS)}|"]
    says = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    table = "\n".join([*heads, *rows, "", *says])
    path = ROOT / "docs" / "datasets.md"
    text = path.read_text()
    head, old, tail = (
        part.strip("\n") for part in text.replace("<!-- end -->", "<!-- table -->").split("<!-- table -->")
    )
    if os.environ.get("DIFFPATH_WRITE_DOCS"):
        path.write_text(f"{head}\n\n<!-- table -->\n{table}\n<!-- end -->\n\n{tail}\n")
    else:
        assert old == table, "run this file with DIFFPATH_WRITE_DOCS=1"

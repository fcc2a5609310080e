"""Scores what a run has not scored yet, against the reference that the run keeps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

from ..folders.engines import LOCAL, EngineLike, make_engine
from ..folders.scanning import Progress, Scanner, method_of
from .embeddings import Embeddings, NoEmbeddings
from .evidence import write_anomaly_maps
from .heartbeat import check_idle, claim, with_heartbeat
from .internals import Samples, every_image, root_dataset
from .lock import writing
from .ownership import own_files
from .patience import wait_amid
from .pending import settle
from .progress import show_progress
from .record import RunRecord, counts, finished_record, require_record
from .run import DiffPathRun
from .scores import write_scores
from .sources import images_of
from .stores import FieldStore
from .thresholds import flag

_OPERATION = "update"  # that has no finisher: the next update goes on


def update_diffpath(
    samples: Samples,
    run_key: str,
    *,
    model: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 4,
    engine: EngineLike = LOCAL,
    device: str | None = None,
    progress: bool | Callable[[fo.ProgressBar], None] | None = None,
) -> DiffPathRun:
    """Scores the images that a run has not scored: new ones, and those that could not be read.

    The reference is the one that the run was fitted on, read from its file: it is not
    scored again. The threshold follows the run's rule.

    Args:
        samples: a ``fo.Dataset`` or ``fo.DatasetView``; images that have a score are skipped
        run_key: the run's key
        model: where the run's model is now, if it has been moved
        batch_size: images per forward pass; None for a default by device
        num_workers: threads that decode images
        engine: as in :func:`compute_diffpath`
        device: a torch device; by default CUDA, then MPS, then the CPU
        progress: whether to show a progress bar, a function of a FiftyOne progress bar,
            or None for FiftyOne's default

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no such finished run, or its model is no longer the same
    """
    how: dict[str, Any] = dict(batch_size=batch_size, num_workers=num_workers, engine=engine, device=device)
    return show_progress(iterate_update(samples, run_key, model=model, **how), progress)


def iterate_update(
    samples: Samples,
    run_key: str,
    *,
    model: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 4,
    engine: EngineLike = LOCAL,
    device: str | None = None,
) -> Generator[Progress, None, DiffPathRun]:
    """:func:`update_diffpath` as a generator of progress that returns the run."""
    samples = images_of(samples)
    dataset = root_dataset(samples)
    settle(dataset)
    record = finished_record(dataset, run_key)
    check_idle(record)
    record.check_map_scales()
    provenance = record.provenance
    where = make_engine(engine, model, num_workers=num_workers, device=device, batch_size=batch_size)
    method = method_of(provenance, model=model, device=device, batch_size=batch_size)
    with writing(dataset, f"updating run {run_key!r}"):
        record = finished_record(dataset, run_key)
        check_idle(record)
        reference = record.load_reference()
        record = own_files(dataset, record)
        _forget_scores_of_others(dataset, record)
        record = record.patch(dataset, pending={"operation": _OPERATION})
    wanted = set(samples.values("id"))  # the view itself may leave out the run's fields
    without = every_image(dataset).exists(record.fields["score"], False)
    vectors: Embeddings | NoEmbeddings = NoEmbeddings()
    if "embeddings" in provenance:
        vectors = Embeddings(without, provenance["embeddings"], provenance["embedding_length"])
    reference.checked({**method.provenance, **vectors.provenance})

    found = dict(zip(*without.values(["id", "filepath"])))
    unscored = {sample_id: path for sample_id, path in found.items() if sample_id in wanted}

    def steps() -> Generator[Progress, None, None]:
        store = FieldStore(dataset, record, unscored)
        pending = {i: path for i, path in unscored.items() if i not in store.descriptors}  # a killed update keeps some
        scanner = Scanner(method, where, total=len(pending))
        yield scanner.progress("Scoring new images")
        yield from scanner.run(pending, store, "Scoring new images")
        vectors.note_problems(dataset, record, store.descriptors)
        described = vectors.join(store.descriptors)
        write_anomaly_maps(dataset, record, store.evidence, reference.local, store.descriptors)
        write_scores(dataset, record.fields, described, reference, unscored)
        _count_and_flag(dataset, run_key)
        store.evidence.clear()

    with writing(dataset, f"updating run {run_key!r}"):
        record = claim(dataset, require_record(dataset, run_key))
    yield from with_heartbeat(wait_amid(steps), dataset, record)
    return DiffPathRun.load(dataset, run_key)


def _forget_scores_of_others(dataset: fo.Dataset, record: RunRecord) -> None:
    """Takes away scores that came with the samples of another dataset, of a run of the same key but another reference.

    Raises:
        ValueError: if there are some, and no maps by which to tell whose they are
    """
    images, score = every_image(dataset), record.fields["score"]
    count = images.count(score)
    if record.num_scored is None or count <= record.num_scored or record.pending is not None:  # of a killed update
        return
    if not record.heatmaps:
        raise ValueError(
            f"run {record.run_key!r} gave a score to {record.num_scored:,} images, but {count:,} have one: some "
            "came with the samples of another dataset; compute the run again, with overwrite=True"
        )
    own = F(f"{record.fields['heatmap']}.map_path").starts_with(record.folder)
    others = images.exists(record.fields["heatmap"]).match(~own).values("id")
    for kind in ("score", "p_value", "is_ood", "explanation", "features"):
        dataset.set_values(record.fields[kind], dict.fromkeys(others), key_field="id")


def _count_and_flag(dataset: fo.Dataset, run_key: str) -> None:
    """Lets counts and flags follow the new scores, by the rule that the run has now."""
    with writing(dataset, f"flagging by run {run_key!r}"):
        run = DiffPathRun.load(dataset, run_key)  # the rule may have been changed meanwhile
        record = flag(dataset, run.record, run.rule, run.level)
        record.patch(dataset, **counts(dataset, record.fields))

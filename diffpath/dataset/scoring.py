"""Scores a FiftyOne dataset or view.

Everything is written chunk by chunk, so that an interrupted run keeps what it finished:
called again with the same arguments, it goes on where it stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from ..folders.engines import make_engine
from ..folders.evidence import Evidence
from ..folders.files import file_keys, remove_if_empty
from ..folders.scanning import Progress, Scanner, make_method, suited_method
from ..options import MethodOptions, complete_options
from .appearance import color_maps, has_color_scheme
from .delete import delete_diffpath
from .evidence import write_anomaly_maps
from .heartbeat import check_idle, claim, with_heartbeat
from .internals import Samples, dataset_id, dump_view, forget_unnamed, root_dataset
from .lock import writing
from .maps import run_folder
from .orphans import remove_unnamed_folders
from .ownership import make_folder, own_files
from .patience import wait_amid, waits_for_database
from .pending import finishes, settle
from .progress import show_progress
from .record import COMPLETE, Requested, RunRecord, check_names_free, find_record
from .request import ScoringRequest, takes_scoring_arguments
from .run import DiffPathRun
from .schema import create_fields
from .scores import write_results
from .sources import read_embeddings, resolve_reference
from .stores import FieldStore, ReferenceArchive
from .thresholds import apply_threshold

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathV2

_TIDY = "tidy up"


@takes_scoring_arguments
def compute_diffpath(
    samples: Samples, *, progress: bool | Callable[[fo.ProgressBar], None] | None = None, **arguments: Any
) -> DiffPathRun:
    """Scores images by how little they look like a reference, and stores the result.

    For run key K the fields ``K_score`` (higher = more anomalous), ``K_p_value``,
    ``K_is_ood``, ``K_explanation``, ``K_features``, ``K_profile``, ``K_statistics``,
    ``K_anomaly_map``, ``K_heatmap``, ``K_error_map`` and ``K_error`` are added, with saved views that
    rank and filter by them; with ``regions`` also ``K_regions``.
    Where the reference's images are large, or with ``detail``, what each of the two looks says is
    in ``K_content_score``, ``K_content_p_value``, ``K_detail_score`` and ``K_detail_p_value``, and
    ``K_score`` is the more surprising one's.
    With ``zoom``, what the larger view adds to the descriptor is in ``K_zoomed``.
    With ``embeddings``, ``K_score`` is the fused score, by which everything ranks and
    flags, and its parts are in ``K_diffusion_score`` and ``K_embedding_score``. A run that
    was interrupted goes on when it is called again with the same arguments.

    Args:
        {arguments}
        progress: whether to show a progress bar, a function of a FiftyOne progress bar,
            or None for FiftyOne's default
        **arguments: also the fields of :class:`diffpath.MethodOptions`, such as
            ``preset="paper"`` or ``num_timesteps=5``

    Returns:
        a :class:`DiffPathRun`

    Raises:
        ValueError: if an argument is not valid, names are taken, or fewer than 3
            reference images can be read
    """
    return show_progress(iterate_diffpath(samples, **arguments), progress)


def iterate_diffpath(samples: Samples, **arguments: Any) -> Generator[Progress, None, DiffPathRun]:
    """:func:`compute_diffpath` as a generator of :class:`Progress` that returns the run."""
    return iterate_scoring(ScoringRequest.of(samples, **arguments))


def iterate_scoring(request: ScoringRequest) -> Generator[Progress, None, DiffPathRun]:
    """Makes the run that is requested; a generator of :class:`Progress` that returns the run."""
    scoring, record = _prepare(request)
    steps = wait_amid(lambda: scoring.steps(record))
    yield from with_heartbeat(steps, scoring.dataset, record)
    return DiffPathRun.load(scoring.dataset, request.run_key)


@waits_for_database
def _prepare(request: ScoringRequest) -> tuple[_Scoring, RunRecord]:
    """Loads and checks all that a run needs, and registers it."""
    settle(root_dataset(request.samples))
    scoring = _Scoring(request)
    return scoring, _begin(scoring.dataset, request, scoring.all_provenance, scoring.source.has_places)


@finishes(_TIDY)
def _tidy(dataset: fo.Dataset, record: RunRecord, _: dict[str, Any]) -> None:
    """Deletes what only an interrupted run needs."""
    folder = Path(record.folder)
    Evidence(folder).clear()
    for partial in folder.glob("*.partial"):
        partial.unlink(missing_ok=True)
    record.patch(dataset, pending=None)


class _Scoring:
    """A run that is being made: all that it needs is loaded and checked before anything is written."""

    def __init__(self, request: ScoringRequest) -> None:
        self.started = time.monotonic()
        self.request, self.dataset = request, root_dataset(request.samples)
        self.engine = make_engine(
            request.engine,
            request.model,
            num_workers=request.num_workers,
            device=request.device,
            batch_size=request.batch_size,
        )
        self.source = resolve_reference(self.dataset, request.samples, request.reference, request.groups)
        # Read now: a view over the scores of a run that is overwritten is empty afterwards
        self.target: dict[str, str] = dict(zip(*request.samples.values(["id", "filepath"])))
        self.method = suited_method(
            self._make_method,
            request.options,
            lambda: self.source.value_range(self.target, request.num_workers),
            lambda side: self.source.detail(side, request.num_workers),
        )
        self.vectors = read_embeddings(request.samples, request.embeddings, self.source)
        self.provenance = {**self.method.provenance, **self.vectors.provenance}
        self.source.check(self.method, self.provenance, request.num_workers)
        self.shared = _same_files(self.source.paths, self.target)

    def _make_method(self, options: MethodOptions) -> DiffPathV2:
        request = self.request
        return make_method(
            request.model,
            options,
            request.model_options,
            device=request.device,
            dtype=request.dtype,
            batch_size=request.batch_size,
        )

    @property
    def all_provenance(self) -> dict[str, Any]:
        """What determines the run's results, its reference included."""
        return {**self.provenance, "reference": self.source.description}

    def steps(self, record: RunRecord) -> Generator[Progress, None, None]:
        """Scores what is not scored yet, fits the reference, and completes the record."""
        dataset, request = self.dataset, self.request
        self.source.save_copy(record.reference_path)
        store = FieldStore(dataset, record, self.target)
        archive = ReferenceArchive(Path(record.folder), store.evidence if "anomaly_map" in record.fields else None)
        rate = yield from self._scan(store, archive)

        self.vectors.note_problems(dataset, record, store.descriptors)
        described = self.vectors.join(store.descriptors)
        shared = {i: store.descriptors[j] for i, j in self.shared.items() if j in store.descriptors}
        of_reference = self.vectors.join({**archive.descriptors, **shared, **store.descriptors})
        fitted = self.source.fit(of_reference, self.provenance, lambda ids: store.evidence.of(ids, self.shared))
        write_anomaly_maps(dataset, record, store.evidence, fitted.local, store.descriptors)
        results = write_results(dataset, record, described, fitted, self.target)
        with writing(dataset, f"finishing run {record.run_key!r}"):
            record.patch(
                dataset,
                **results,
                **apply_threshold(dataset, record, request.rule, request.level, tag=request.tag),
                status=COMPLETE,
                pending={"operation": _TIDY},
                num_unreadable=len(self.target) - len(described),
                counted_at=time.time(),
                seconds=time.monotonic() - self.started,
                images_per_second=rate,
                device=", ".join(str(predictor.device) for predictor in self.method.predictors),
            )
            _tidy(dataset, record, {})

    def _scan(self, store: FieldStore, archive: ReferenceArchive) -> Generator[Progress, None, float]:
        """Reads and scores images; returns how many a second."""
        target, outside = self.target, self.source.paths
        pending = {i: path for i, path in target.items() if i not in store.descriptors}
        known = {*target, *self.shared, *archive.descriptors}
        outside = {i: path for i, path in outside.items() if i not in known}
        scanner = Scanner(self.method, self.engine, total=len(pending) + len(outside))
        yield scanner.progress("Scoring images")
        yield from scanner.run(pending, store, "Scoring images")
        yield from scanner.run(outside, archive, "Reading the reference")
        return scanner.rate


def _same_files(paths: Mapping[str, str], target: Mapping[str, str]) -> dict[str, str]:
    """Ids of other samples, and the one of the target that has the same file: it is read and scored once."""
    others = {i: path for i, path in paths.items() if i not in target}
    if not others:
        return {}
    of_target = dict(zip(file_keys(target.values()).tolist(), target))
    keys = file_keys(others.values()).tolist()
    return {i: of_target[key] for i, key in zip(others, keys) if key in of_target}


def _begin(dataset: fo.Dataset, request: ScoringRequest, provenance: dict[str, Any], anomaly_maps: bool) -> RunRecord:
    """Registers a new run, or takes up an interrupted one that the same arguments began; nobody else can meanwhile."""
    run_key = request.run_key
    if request.regions and not anomaly_maps:
        raise ValueError(
            "this saved reference knows nothing of places, as an earlier version saved it; fit it anew, or leave "
            "regions out"
        )
    with writing(dataset, f"beginning run {run_key!r}"):
        record = find_record(dataset, run_key)
        if record is not None:
            check_idle(record)
        if record is None or request.overwrite:
            record = _register(dataset, request, provenance, anomaly_maps, record)
        else:
            _check_goes_on(dataset, request, provenance, record)
            record = own_files(dataset, claim(dataset, record))
        try:
            create_fields(dataset, record.fields)
            if request.heatmaps:
                if record.made_color_scheme is None:  # noted before it is made: whose it is can't be seen afterwards
                    record = record.patch(dataset, made_color_scheme=not has_color_scheme(dataset))
                color_maps(dataset, record.fields)
        except BaseException:
            record.beat(dataset, None)
            raise
    return record


def _check_goes_on(dataset: fo.Dataset, request: ScoringRequest, provenance: dict[str, Any], record: RunRecord) -> None:
    """Refuses to go on with a run that is finished, or that other arguments began."""
    run_key = request.run_key
    if record.status == COMPLETE:
        raise ValueError(
            f"dataset {dataset.name!r} already has a run {run_key!r}; pass overwrite=True to replace it, "
            "or another run_key"
        )
    as_before = (record.heatmaps, record.regions) == (request.heatmaps, request.regions)
    if not (as_before and _comparable(record.provenance) == _comparable(provenance)):
        raise ValueError(
            f"run {run_key!r} was interrupted and had other options; call it with the same ones to go on, "
            "or pass overwrite=True to start again"
        )
    record.check_map_scales()


def _register(
    dataset: fo.Dataset,
    request: ScoringRequest,
    provenance: dict[str, Any],
    anomaly_maps: bool,
    old: RunRecord | None,
) -> RunRecord:
    """Registers a new run, in place of an old one where there is one."""
    run_key = request.run_key
    remove_unnamed_folders(dataset, run_key)
    folder = run_folder(dataset, run_key)
    make_folder(folder, dataset, run_key)
    record = RunRecord.new(
        run_key,
        owner=dataset_id(dataset),
        provenance=provenance,
        heatmaps=request.heatmaps,
        anomaly_maps=anomaly_maps,
        regions=request.regions,
        folder=folder,
        requested=Requested(dump_view(request.samples), request.rule, request.level, request.tag),
    )
    try:
        if old is not None:
            delete_diffpath(dataset, run_key)
        forget_unnamed(dataset, record.all_views)
        check_names_free(dataset, record)
    except BaseException:
        shutil.rmtree(folder)
        remove_if_empty(folder.parent)
        raise
    return record.register(dataset)


def _comparable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's provenance determines its results: names of a known model, a view and a dataset do not."""
    named = ("name", "dataset") if "dataset_id" in provenance["reference"] else ("name",)
    reference = {name: value for name, value in provenance["reference"].items() if name not in named}
    same = {name: value for name, value in provenance.items() if name != "model" or not provenance["model_fingerprint"]}
    return {**same, "reference": reference, "options": complete_options(provenance["options"])}

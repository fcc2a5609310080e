"""Fits a reference on files and scores files by one, without FiftyOne or a database.

What is finished lies in a working folder, one file per flush, so that the same call goes on where it
was interrupted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from ..detection.detector import MIN_REFERENCE_SIZE
from ..detection.judging import judge
from ..detection.reference import Reference, choose_members
from ..detection.rules import choose_threshold
from ..errors import ReferenceSetError
from ..options import FEATURE_NAMES, MethodOptions, ModelOptions
from .engines import LOCAL, Engine, EngineLike, make_engine
from .evidence import Evidence
from .files import file_keys, of_one_file, stem_of, write_arrays, writing_files
from .maps import MAPS, MapWriter, map_path
from .reading import look_for_value_range, suitable_detail
from .scanning import Progress, Scanner, make_method, method_of, suited_method

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathResult, DiffPathV2

_CHUNK = 20_000  # images that are judged together
_OF_REFERENCE = ("anomaly_map",)  # maps that need one


@dataclass(frozen=True)
class Verdicts:
    """What was found of some files.

    Attributes:
        paths: of the n files, as they were given
        scores: higher = more anomalous; NaN for those that could not be read
        p_values: likewise; how often images like the reference's are as anomalous
        flagged: whether an image is likely out-of-distribution or corrupted
        explanations: what stands out; empty for what is typical
        errors: why a file could not be read; empty for all others
        features: the six, NaN for those that could not be read
        threshold: the score from which images are flagged
        maps: paths of their maps by kind of ``MAPS``; empty where none were asked for
        calibration: scores of the reference's images, by fits that did not see them
    """

    paths: list[str]
    scores: Float[np.ndarray, " n"]
    p_values: Float[np.ndarray, " n"]
    flagged: Bool[np.ndarray, " n"]
    explanations: list[str]
    errors: list[str]
    features: Float[np.ndarray, "n 6"]
    threshold: float
    maps: Mapping[str, list[str | None]]
    calibration: Float[np.ndarray, " m"]

    @property
    def num_scored(self) -> int:
        """How many could be read."""
        return int(np.isfinite(self.scores).sum())

    @property
    def share_flagged(self) -> float:
        """Of those that could be read."""
        return float(self.flagged.sum() / max(self.num_scored, 1))

    def ranked(self) -> list[int]:
        """Places of the scored files, the most anomalous first."""
        order = np.argsort(-np.nan_to_num(self.scores, nan=-np.inf), kind="stable")
        return order[: self.num_scored].tolist()


def fit_files(
    paths: Sequence[str],
    *,
    model: str = "bundled",
    options: MethodOptions | None = None,
    model_options: ModelOptions | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 4,
    engine: EngineLike = LOCAL,
    working: Path | None = None,
) -> Generator[Progress, None, Reference]:
    """Fits a reference on pictures, as :func:`diffpath.compute_diffpath` does on those of a dataset.

    Args:
        paths: of at least 3 pictures
        model, device, dtype, batch_size, num_workers, engine: as in :func:`diffpath.compute_diffpath`
        options, model_options: of the method and the model
        working: a folder for what is finished, which the caller removes once it has kept the result; by default
            it is lost when this is interrupted

    Yields:
        :class:`Progress`

    Raises:
        ReferenceSetError: if fewer than 3 can be read
    """
    where = make_engine(engine, model, num_workers=num_workers, device=device, batch_size=batch_size)
    how = dict(model_options=model_options or ModelOptions(), device=device, dtype=dtype, batch_size=batch_size)
    method = suited_method(
        lambda chosen: make_method(model, chosen, **how),  # type: ignore[arg-type]  # of several types
        options or MethodOptions(),
        lambda: look_for_value_range(paths, num_workers),
        lambda side: suitable_detail(paths, side, num_workers),
    )
    with _working_folder(working) as folder:
        store = _Store(folder, method.provenance)
        yield from _scan(paths, method, store, where, "Reading the reference")
        read = [path for path in paths if path in store.descriptors]
        if len(read) < MIN_REFERENCE_SIZE:
            first = next(iter(store.errors.values()), "")
            raise ReferenceSetError(
                f"a reference needs at least {MIN_REFERENCE_SIZE} pictures, {len(read)} of {len(paths)} can be read"
                + (f" ({first})" if first else "")
                + "; add others"
            )
        read = choose_members(read)
        keys = file_keys(read)
        return Reference.of(
            np.stack([store.descriptors[path] for path in read]),
            method.provenance,
            {"kind": "files", "count": len(read)},
            of_one_file(keys, None),
            members=keys,
            evidence=lambda rows: store.evidence.of([read[row] for row in rows], {}),
        )


def score_files(
    paths: Sequence[str],
    reference: Reference,
    *,
    rule: str,
    level: float,
    model: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 4,
    engine: EngineLike = LOCAL,
    working: Path | None = None,
    maps: Path | None = None,
) -> Generator[Progress, None, Verdicts]:
    """Scores pictures by a reference; files that cannot be read are among the verdicts, with the reason.

    Args:
        paths: of pictures
        reference: a fitted one
        rule, level: as in :func:`diffpath.set_diffpath_threshold`
        model: where the reference's model is, if not where it was
        device, batch_size, num_workers, engine: as in :func:`diffpath.compute_diffpath`
        working: a folder for what is finished, which the caller removes once it has kept the result; by default
            it is lost when this is interrupted
        maps: a folder for maps, or None for none

    Yields:
        :class:`Progress`
    """
    where = make_engine(engine, model, num_workers=num_workers, device=device, batch_size=batch_size)
    method = method_of(reference.provenance, model=model, device=device, batch_size=batch_size)
    detector = reference.checked(method.provenance)
    with _working_folder(working) as folder:
        store = _Store(folder, {**method.provenance, "maps": maps is not None}, maps, reference, len(paths))
        yield from _scan(paths, method, store, where, "Scoring images")
        read = [path for path in paths if path in store.descriptors]
        columns: dict[str, list[Any]] = {"score": [], "p_value": [], "explanation": []}
        for first in range(0, len(read), _CHUNK):
            some = read[first : first + _CHUNK]
            X = np.stack([store.descriptors[path] for path in some]).astype(np.float64)
            judged = judge(X, reference.places(file_keys(some)), detector)
            for kind, values in columns.items():
                values += judged[kind]
        place = {path: row for row, path in enumerate(read)}
        rows = np.array([place.get(path, -1) for path in paths], int)
        scores, p_values = (np.append(columns[kind], np.nan)[rows] for kind in ("score", "p_value"))
        explanations = [*columns["explanation"], ""]
        threshold = choose_threshold(rule, level, scores[rows >= 0], detector.calibration_)
        six = [store.descriptors[path][: len(FEATURE_NAMES)] if path in place else _NO_FEATURES for path in paths]
        return Verdicts(
            paths=list(paths),
            scores=scores,
            p_values=p_values,
            flagged=np.nan_to_num(scores, nan=-np.inf) >= threshold,
            explanations=[explanations[row] for row in rows],
            errors=[store.errors.get(path, "") for path in paths],
            features=np.array(six, np.float64).reshape(-1, len(FEATURE_NAMES)),
            threshold=threshold,
            maps={kind: [store.map_path(kind, path) for path in paths] for kind in store.kinds},
            calibration=detector.calibration_scores_,
        )


_NO_FEATURES = np.full(len(FEATURE_NAMES), np.nan)


def _scan(
    paths: Sequence[str], method: DiffPathV2, store: _Store, engine: Engine, label: str
) -> Generator[Progress, None, None]:
    wanted = {path: path for path in paths if path not in store.descriptors}
    scanner = Scanner(method, engine, total=len(wanted))
    yield scanner.progress(label)
    with writing_files(store.folder):
        yield from scanner.run(wanted, store, label)


@contextmanager
def _working_folder(folder: Path | None) -> Iterator[Path]:
    """The folder that is given, or one that is gone afterwards."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="diffpath-") as made:
        yield Path(made)


class _Store:
    """Descriptors by path, on disk as soon as they are flushed; maps and evidence beside them.

    Attributes:
        descriptors: of the files that are read, those of an interrupted call included
        errors: why files could not be read
        evidence: of the files, for a reference that is to be fitted
        kinds: of the maps that are made
    """

    def __init__(
        self,
        folder: Path,
        provenance: Mapping[str, Any],
        maps: Path | None = None,
        reference: Reference | None = None,
        total: int = 0,
    ) -> None:
        self.folder, self._provenance = folder, np.array(repr(sorted(provenance.items(), key=str)))
        self._local = None if reference is None else reference.local
        self._keeps_evidence = reference is None
        self.errors: dict[str, str] = {}
        self.kinds = [] if maps is None else [k for k in MAPS if k not in _OF_REFERENCE or self._local is not None]
        self._maps, self._total = maps, total
        self._writer = None if maps is None else MapWriter(maps, self.kinds, total)
        folder.mkdir(parents=True, exist_ok=True)
        self.evidence = Evidence(folder)
        self._waiting: dict[str, np.ndarray] = {}
        self._names: dict[str, str] = {}
        self.descriptors = dict(self._read())

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wanted(self) -> set[str]:
        sources = {MAPS[kind].source or "local" for kind in self.kinds}
        return sources | {"local"} if self._keeps_evidence else sources

    def add(self, sample_id: str, result: DiffPathResult) -> None:
        self.descriptors[sample_id] = self._waiting[sample_id] = result.descriptor
        if self._keeps_evidence:
            self.evidence.add(sample_id, result.local)
        if self._writer is None:
            return
        for kind in self.kinds:
            source = MAPS[kind].source
            if source is not None:
                values = getattr(result, source)
            elif self._local is not None:
                values = self._local.maps(result.local[None])[0]
            self._writer.add(values, kind, self._name(sample_id))

    def add_error(self, sample_id: str, error: str) -> None:
        self.errors[sample_id] = error

    def flush(self) -> None:
        if not self._waiting:
            return
        if self._writer is not None:
            self._writer.wait()
        self.evidence.flush()
        paths, rows = list(self._waiting), np.stack(list(self._waiting.values()))
        write_arrays(self.folder, paths=np.array(paths), keys=file_keys(paths), rows=rows, made_by=self._provenance)
        self._waiting.clear()

    def map_path(self, kind: str, path: str) -> str | None:
        """Where a file's map is."""
        if self._maps is None or path not in self.descriptors:
            return None
        return str(self._place(self._maps, kind, path))

    def _has_maps(self, path: str) -> bool:
        return self._maps is None or all(self._place(self._maps, kind, path).is_file() for kind in self.kinds)

    def _place(self, maps: Path, kind: str, path: str) -> Path:
        return map_path(maps, kind, self._name(path), self._total)

    def _name(self, path: str) -> str:
        if path not in self._names:  # asks the file system for each map otherwise
            (key,) = file_keys([path])
            self._names[path] = f"{stem_of(path)}-{key:016x}"
        return self._names[path]

    def _read(self) -> Iterator[tuple[str, np.ndarray]]:
        """What an interrupted call left, of files that are what they were, by the same method."""
        with_evidence = self.evidence.ids if self._keeps_evidence else None
        for path in self.folder.glob("*.npz"):
            with np.load(path) as stored:
                if stored["made_by"] != self._provenance:
                    continue
                paths, same = stored["paths"].tolist(), stored["keys"] == file_keys(stored["paths"].tolist())
                for name, is_same, row in zip(paths, same, stored["rows"]):
                    if is_same and (with_evidence is None or name in with_evidence) and self._has_maps(name):
                        yield name, row

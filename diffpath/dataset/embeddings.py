"""Embeddings that a dataset already has: read, checked, and put behind descriptors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fiftyone as fo
import numpy as np

from .internals import Samples
from .record import RunRecord

_NUMBERS = (fo.FloatField, fo.IntField)


def embedding_fields(samples: Samples) -> list[str]:
    """Names of the fields that can hold one vector per sample: vectors, arrays, lists of numbers."""
    return [name for name, field in samples.get_field_schema().items() if _can_hold_vectors(field)]


class NoEmbeddings:
    """Of a run that scores by the diffusion model alone; see :class:`Embeddings`."""

    provenance: dict[str, Any] = {}  # noqa: RUF012  # nothing is recorded of none

    def join(self, descriptors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return descriptors

    def note_problems(self, dataset: fo.Dataset, record: RunRecord, sample_ids: Iterable[str]) -> None:
        """There are none."""


class Embeddings:
    """The vectors of a field.

    Args:
        samples: a ``fo.Dataset`` or ``fo.DatasetView``
        field: the field's name
        length: numbers of a vector; None for the most frequent length of the field

    Attributes:
        samples, field, length: as above
        provenance: what a run and its reference record of them
        vectors: ``{sample id: float32 (length,)}``, finite; all of them are held in memory
        problems: ``{sample id: sentence}``: why the others have none

    Raises:
        ValueError: if there is no such field, it holds something else, or has not a single
            vector
    """

    def __init__(self, samples: Samples, field: str, length: int | None = None) -> None:
        known = samples.get_field_schema()
        name = samples.name or samples.dataset_name
        if field not in embedding_fields(samples):
            choices = ", ".join(map(repr, embedding_fields(samples))) or "none"
            what = "holds no vectors" if field in known else "is not there"
            raise ValueError(f"the embeddings field {field!r} of {name!r} {what}; its fields of vectors are {choices}")
        self.samples, self.field = samples, field
        values = dict(zip(*samples.values(["id", field])))
        read = {sample_id: _as_vector(value) for sample_id, value in values.items()}
        usual = length or _most_frequent_length(read.values())
        if usual is None:
            shapes = {np.shape(value) for value in values.values() if value is not None}
            if any(len(shape) > 1 for shape in shapes):
                raise ValueError(
                    f"the embeddings in {field!r} of {name!r} have the shape {sorted(shapes)[-1]}, not that of one "
                    "vector; store each as a vector, as in embedding.ravel()"
                )
            raise ValueError(
                f"no sample of {name!r} has an embedding in {field!r}; compute embeddings first, or leave this out"
            )
        self.length = usual
        self.vectors: dict[str, np.ndarray] = {}
        self.problems: dict[str, str] = {}
        for sample_id, vector in read.items():
            problem = self._problem(values[sample_id], vector)
            if problem:
                self.problems[sample_id] = problem
            elif vector is not None:
                self.vectors[sample_id] = vector
        self.provenance = {"embeddings": field, "embedding_length": self.length}

    def join(self, descriptors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """``{sample id: descriptor}`` with the embedding behind each; those without one are left out."""
        return _Joined(descriptors, self.vectors)

    def note_problems(self, dataset: fo.Dataset, record: RunRecord, sample_ids: Iterable[str]) -> None:
        """Says in the run's error field which images have no embedding, and takes back what is mended."""
        errors = {sample_id: self.problems.get(sample_id) for sample_id in sample_ids}
        if errors:
            dataset.set_values(record.fields["error"], errors, key_field="id")

    def _problem(self, value: Any, vector: np.ndarray | None) -> str | None:
        if value is None:
            return f"there is no embedding in {self.field!r}"
        if vector is None or not len(vector):
            return f"the embedding in {self.field!r} is not a vector of numbers"
        if len(vector) != self.length:
            return f"the embedding in {self.field!r} has {len(vector):,} numbers, the reference's have {self.length:,}"
        if not np.isfinite(vector).all():
            return f"the embedding in {self.field!r} has numbers that are not finite"
        return None


class _Joined(Mapping[str, np.ndarray]):
    """Made when they are asked for, as all at once would take the memory a second time."""

    def __init__(self, descriptors: Mapping[str, np.ndarray], vectors: Mapping[str, np.ndarray]) -> None:
        self._descriptors, self._vectors = descriptors, vectors
        self._ids = [sample_id for sample_id in descriptors if sample_id in vectors]

    def __getitem__(self, sample_id: str) -> np.ndarray:
        return np.concatenate([self._descriptors[sample_id], self._vectors[sample_id]])

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._descriptors and sample_id in self._vectors

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _can_hold_vectors(field: fo.Field) -> bool:
    if isinstance(field, fo.ListField):  # VectorField is none
        return isinstance(field.field, _NUMBERS)
    return isinstance(field, fo.VectorField | fo.ArrayField)


def _as_vector(value: Any) -> np.ndarray | None:
    try:
        vector = np.asarray(value, np.float32)
    except (TypeError, ValueError):  # a list with a None, say
        return None
    return vector if vector.ndim == 1 else None


def _most_frequent_length(vectors: Iterable[np.ndarray | None]) -> int | None:
    lengths = Counter(len(vector) for vector in vectors if vector is not None and len(vector))
    return lengths.most_common(1)[0][0] if lengths else None

"""What is normal: samples of a dataset, or a reference that was fitted before."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import fiftyone as fo
import numpy as np

from ..options import MIN_REFERENCE_SIZE
from .embeddings import Embeddings, NoEmbeddings
from .groups import read_groups
from .internals import Samples, dump_view, is_collection, is_generated, load_view
from .reading import read_images

if TYPE_CHECKING:
    from ..detection.reference import Reference
    from ..method.diffpath_v2 import DiffPathV2

ReferenceLike: TypeAlias = "str | PathLike[str] | Samples | Reference | None"
# Contaminants form kernels of their own in a kernel density; one Gaussian of the central part hides them less
SELF_REFERENCE = {"density": "mahalanobis", "trim": 0.3}


def check_images(samples: Samples) -> None:
    """Refuses a collection that does not consist of images."""
    if is_generated(samples):
        raise ValueError("diffpath scores whole images; pass a view of samples, not of patches, frames or clips")
    if samples.media_type == "group":
        raise ValueError("the samples are groups; pass one slice, as in dataset.select_group_slices('left')")
    if samples.media_type not in ("image", None):
        raise ValueError(f"diffpath scores images, but the samples are of media type {samples.media_type!r}")
    if len(samples) == 0:
        raise ValueError(f"there are no images in {samples.name or samples.dataset_name!r}; pass a view that has some")


def describe_reference(reference: ReferenceLike) -> dict[str, Any]:
    """What a caller passes as reference, as JSON-ready values; :func:`find_reference` takes it back.

    Raises:
        ValueError: if it is an object that only this process has, or none of what can be passed
    """
    from ..detection.reference import Reference

    if reference is None:
        return {"kind": "self"}
    if isinstance(reference, str):
        return {"kind": "tag", "tag": reference}
    if isinstance(reference, PathLike):
        return {"kind": "file", "path": str(Path(reference).expanduser().resolve())}
    if isinstance(reference, fo.Dataset):
        return {"kind": "dataset", "dataset": reference.name}
    if isinstance(reference, Reference):
        raise ValueError("a reference in memory cannot be handed on; save it and pass its path, as in Path('…')")
    if is_collection(reference):
        stages = dump_view(reference)
        return {"kind": "view", "dataset": reference.dataset_name, "name": reference.name, "stages": stages}
    raise ValueError(
        f"reference must be a view, a dataset, a tag, a saved reference or None, got {type(reference).__name__}"
    )


def find_reference(dataset: fo.Dataset, description: Mapping[str, Any]) -> ReferenceLike:
    """The reference of which :func:`describe_reference` gave the description.

    Args:
        dataset: the dataset that is scored
        description: of the reference

    Raises:
        ValueError: if it cannot be found again
    """
    kind = description["kind"]
    if kind == "self":
        return None
    if kind == "tag":
        return description["tag"]
    if kind == "file":
        return Path(description["path"])
    if kind in ("dataset", "view") and fo.dataset_exists(description["dataset"]):
        return load_view(fo.load_dataset(description["dataset"]), description.get("stages"))
    raise ValueError("its reference cannot be found again; call compute_diffpath with the same arguments")


def resolve_reference(
    dataset: fo.Dataset, samples: Samples, reference: ReferenceLike, groups: str | None = None
) -> ReferenceSource:
    """What a caller passes as reference, as one of the two kinds.

    Args:
        dataset: the dataset that is scored
        samples: the collection that is scored
        reference: None for the samples themselves, the name of a sample tag, a view or
            dataset, a :class:`diffpath.Reference`, or the ``Path`` of a saved one
        groups: the field of the reference's samples by which they belong together, or None

    Raises:
        ValueError: if it is none of these, or has too few images or groups
    """
    from ..detection.reference import Reference, load_reference

    if isinstance(reference, PathLike):
        reference = load_reference(reference)
    if isinstance(reference, Reference):
        if groups is not None:
            raise ValueError("a saved reference was fitted with its own groups; leave groups out")
        return FittedReference(reference)
    description = describe_reference(reference)
    if reference is None:
        return SampleReference(samples, description, groups, SELF_REFERENCE)
    if isinstance(reference, str):
        return SampleReference(_tagged(dataset, reference), description, groups)
    check_images(reference)
    return SampleReference(reference, description, groups)


class ReferenceSource(ABC):
    """Where a fitted reference comes from.

    Attributes:
        description: of it, JSON-ready
        paths: ``{sample id: file path}`` of the images to read
    """

    description: dict[str, Any]
    paths: dict[str, str]

    @abstractmethod
    def embeddings(self, field: str) -> Embeddings | None:
        """Those of its samples, if it has any; samples without one are left out from then on."""

    @abstractmethod
    def check(self, method: DiffPathV2, provenance: dict[str, Any], num_workers: int) -> None:
        """Refuses what cannot succeed before anything is written."""

    @abstractmethod
    def save_copy(self, path: Path) -> None:
        """Writes what a run that is continued could not find again."""

    @abstractmethod
    def fit(self, descriptors: Mapping[str, np.ndarray], provenance: dict[str, Any]) -> tuple[Reference, list[str]]:
        """A fitted :class:`diffpath.Reference` and the ids of the samples that it was fitted on, in its order."""


class SampleReference(ReferenceSource):
    """Samples to fit a detector on.

    Args:
        samples: a dataset or view
        description: of them, JSON-ready
        groups: the field by which they belong together, or None
        detector_options: those of :class:`diffpath.AnomalyDetector`
    """

    def __init__(
        self,
        samples: Samples,
        description: dict[str, Any],
        groups: str | None = None,
        detector_options: Mapping[str, Any] | None = None,
    ) -> None:
        if len(samples) < MIN_REFERENCE_SIZE:
            raise ValueError(f"a reference needs at least {MIN_REFERENCE_SIZE} images, got {len(samples)}; add some")
        self.description = description if groups is None else {**description, "groups": groups}
        self._groups = None if groups is None else read_groups(samples, groups)
        self.paths = dict(zip(*samples.values(["id", "filepath"])))
        self.samples, self._detector_options = samples, dict(detector_options or {})

    def embeddings(self, field: str) -> Embeddings:
        found = Embeddings(self.samples, field)
        self.paths = {sample_id: path for sample_id, path in self.paths.items() if sample_id in found.vectors}
        if len(self.paths) < MIN_REFERENCE_SIZE:
            raise ValueError(
                f"a reference needs at least {MIN_REFERENCE_SIZE} images with an embedding in {field!r}, got "
                f"{len(self.paths)}; compute more of them, or choose another reference"
            )
        return found

    def check(self, method: DiffPathV2, provenance: dict[str, Any], num_workers: int) -> None:
        lookahead = 2 * MIN_REFERENCE_SIZE
        with closing(read_images(self.paths.values(), method.sides, num_workers, lookahead)) as reader:
            readable = sum(1 for _ in islice((image for image, error in reader if not error), MIN_REFERENCE_SIZE))
        _check_readable(readable)

    def save_copy(self, path: Path) -> None:
        """Samples are found again in their dataset."""

    def fit(self, descriptors: Mapping[str, np.ndarray], provenance: dict[str, Any]) -> tuple[Reference, list[str]]:
        from ..detection.reference import Reference

        ids = [sample_id for sample_id in self.paths if sample_id in descriptors]
        _check_readable(len(ids))
        X = np.stack([descriptors[i] for i in ids])
        groups = None if self._groups is None else [self._groups[i] for i in ids]
        return Reference.of(X, provenance, self.description, groups, **self._detector_options), ids


class FittedReference(ReferenceSource):
    """A reference that was fitted before and needs no images.

    Args:
        reference: a :class:`diffpath.Reference`
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        scores = reference.detector.calibration_scores_
        self.description = {
            "kind": "saved",
            "made_from": reference.description,
            "fingerprint": hashlib.sha256(scores.tobytes()).hexdigest()[:16],
        }
        self.paths = {}

    def embeddings(self, field: str) -> None:
        return None

    def check(self, method: DiffPathV2, provenance: dict[str, Any], num_workers: int) -> None:
        self._reference.checked(provenance)

    def save_copy(self, path: Path) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reference.save(path)

    def fit(self, descriptors: Mapping[str, np.ndarray], provenance: dict[str, Any]) -> tuple[Reference, list[str]]:
        return self._reference, []


def read_embeddings(samples: Samples, field: str | None, source: ReferenceSource) -> Embeddings | NoEmbeddings:
    """What a run takes of a field beside its images.

    Args:
        samples: the dataset or view that is scored
        field: the field's name, or None
        source: its reference

    Returns:
        :class:`Embeddings` of the samples and of the reference's, or :class:`NoEmbeddings`

    Raises:
        ValueError: as :class:`Embeddings`, or if no sample that is scored has an embedding
    """
    if field is None:
        return NoEmbeddings()
    ours = source.embeddings(field)
    if ours and ours.samples is samples:
        return ours
    found = Embeddings(samples, field, ours.length if ours else None)
    if not found.vectors:
        raise ValueError(
            f"no sample to be scored has an embedding of {found.length:,} numbers in {field!r}, as the reference has; "
            "compute them with the same network"
        )
    if ours:
        found.vectors.update(ours.vectors)
    return found


def _tagged(dataset: fo.Dataset, tag: str) -> fo.DatasetView:
    chosen = dataset.match_tags(tag)
    if len(chosen) == 0:
        tags = ", ".join(map(repr, dataset.distinct("tags"))) or "none"
        raise ValueError(f"no sample of {dataset.name!r} has the reference tag {tag!r}; its tags are {tags}")
    return chosen


def _check_readable(readable: int) -> None:
    if readable < MIN_REFERENCE_SIZE:
        raise ValueError(
            f"a reference needs at least {MIN_REFERENCE_SIZE} readable images, got {readable}; choose another reference"
        )

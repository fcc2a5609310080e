"""What is normal: samples of a dataset, or a reference that was fitted before."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import fiftyone as fo
import numpy as np

from ..folders.files import file_keys, of_one_file
from ..folders.reading import look_for_value_range, read_images, suitable_detail
from ..options import MIN_REFERENCE_SIZE, complete_options
from .embeddings import Embeddings, NoEmbeddings
from .groups import read_groups
from .internals import (
    Samples,
    dataset_id,
    dump_view,
    every_image,
    find_dataset,
    is_collection,
    is_generated,
    is_patches,
    load_view,
    root_dataset,
)

if TYPE_CHECKING:
    from ..detection.reference import Reference
    from ..method.diffpath_v2 import DiffPathV2
    from ..values import ValueRange

FindEvidence: TypeAlias = Callable[[Sequence[str]], "np.ndarray | None"]
ReferenceLike: TypeAlias = "str | PathLike[str] | Samples | Reference | None"
# FiftyOne goes by the ending of a file's name: "unknown" may well be an image, and is read if it is one
_OF_FILES = ("image", "unknown", None)
# Contaminants form kernels of their own in a kernel density; one Gaussian of the central part hides them less
SELF_REFERENCE = {"density": "mahalanobis", "trim": 0.3}


def images_of(samples: Samples) -> Samples:
    """The images of a collection, those of all slices where it is grouped.

    Raises:
        ValueError: if it does not consist of images; says how to come by some
    """
    name = samples.name or samples.dataset_name
    if is_patches(samples):
        raise ValueError(
            "these samples are patches, objects within images, and diffpath scores image files: make a dataset of the "
            "objects with diffpath.crop_objects(view) and score that"
        )
    if is_generated(samples):
        raise ValueError(
            f"{name!r} is made of videos; to score its frames as images, pass "
            "dataset.to_frames(sample_frames=True).clone()"
        )
    images = every_image(samples)
    if images.media_type == "video":
        raise ValueError(
            f"{name!r} holds videos; to score their frames as images, pass "
            "dataset.to_frames(sample_frames=True).clone()"
        )
    if images.media_type not in _OF_FILES:
        raise ValueError(f"diffpath scores images, but {name!r} holds samples of media type {images.media_type!r}")
    if len(images) == 0:
        raise ValueError(f"there are no images in {name!r}; pass a view that has some")
    return images


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
        return {"kind": "dataset", "dataset": reference.name, "dataset_id": dataset_id(reference)}
    if isinstance(reference, Reference):
        raise ValueError("a reference in memory cannot be handed on; save it and pass its path, as in Path('…')")
    if is_collection(reference):
        of = {"dataset": reference.dataset_name, "dataset_id": dataset_id(root_dataset(reference))}
        return {"kind": "view", **of, "name": reference.name, "stages": dump_view(reference)}
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
    if kind in ("dataset", "view"):
        found = find_dataset(description.get("dataset_id"), description["dataset"])
        if found is not None:
            return load_view(found, description.get("stages"))
        raise ValueError(f"its reference was in dataset {description['dataset']!r}, which is gone; pass reference=…")
    raise ValueError("its reference is a saved one that is gone; pass it, as in reference=Path('….safetensors')")


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
    return SampleReference(images_of(reference), description, groups)


class ReferenceSource(ABC):
    """Where a fitted reference comes from.

    Attributes:
        description: of it, JSON-ready
        paths: ``{sample id: file path}`` of the images to read
    """

    description: dict[str, Any]
    paths: dict[str, str]

    @abstractmethod
    def value_range(self, target: Mapping[str, str], num_workers: int) -> ValueRange | None:
        """What is black and white in images of more than 8 bits, where that was not said.

        Args:
            target: ``{sample id: file path}`` of the images that are scored, in case that the
                reference has none of more than 8 bits
            num_workers: decoding threads
        """

    @abstractmethod
    def detail(self, side: int, num_workers: int) -> int:
        """How many crops per side a run's detail look takes, where that was not said; 0 for none.

        Args:
            side: at which the model sees an image, in pixels
            num_workers: threads that look at files
        """

    @abstractmethod
    def embeddings(self, field: str) -> Embeddings | None:
        """Those of its samples, if it has any; samples without one are left out from then on."""

    @abstractmethod
    def check(self, method: DiffPathV2, provenance: dict[str, Any], num_workers: int) -> None:
        """Refuses what cannot succeed before anything is written."""

    @abstractmethod
    def save_copy(self, path: Path) -> None:
        """Writes what a run that is continued could not find again."""

    @property
    @abstractmethod
    def has_places(self) -> bool:
        """Whether it says, or will, what places of its images look like, as anomaly maps need."""

    @abstractmethod
    def fit(
        self, descriptors: Mapping[str, np.ndarray], provenance: dict[str, Any], evidence: FindEvidence
    ) -> Reference:
        """A fitted :class:`diffpath.Reference`.

        Args:
            descriptors: by sample id
            provenance: what made them
            evidence: gives the local evidence of samples, or None where there is none
        """


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

    def value_range(self, target: Mapping[str, str], num_workers: int) -> ValueRange | None:
        found = look_for_value_range(list(self.paths.values()), num_workers)
        return found or look_for_value_range(list(target.values()), num_workers)

    def detail(self, side: int, num_workers: int) -> int:
        return suitable_detail(list(self.paths.values()), side, num_workers)

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
        readable, errors = 0, []
        files, value_range = self.paths.values(), method.options.value_range
        with closing(read_images(files, method.sides, num_workers, 2 * MIN_REFERENCE_SIZE, value_range)) as reader:
            for _, error in reader:
                if error is None:
                    readable += 1
                else:
                    errors.append(error)
                if readable == MIN_REFERENCE_SIZE:
                    return
        raise ValueError(_too_few(readable, len(self.paths), errors[0]))

    def save_copy(self, path: Path) -> None:
        """Samples are found again in their dataset."""

    @property
    def has_places(self) -> bool:
        return True

    def fit(
        self, descriptors: Mapping[str, np.ndarray], provenance: dict[str, Any], evidence: FindEvidence
    ) -> Reference:
        from ..detection.reference import Reference, choose_members

        readable = [sample_id for sample_id in self.paths if sample_id in descriptors]
        if len(readable) < MIN_REFERENCE_SIZE:
            raise ValueError(_too_few(len(readable), len(self.paths), "replace those that cannot be read"))
        ids = choose_members(readable)
        X = np.stack([descriptors[i] for i in ids])
        keys = file_keys(self.paths[i] for i in ids)
        groups = of_one_file(keys, None if self._groups is None else [self._groups[i] for i in ids])
        options = self._detector_options
        return Reference.of(
            X,
            provenance,
            self.description,
            groups,
            members=keys,
            evidence=lambda rows: evidence([ids[row] for row in rows]),
            **options,
        )


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

    def value_range(self, target: Mapping[str, str], num_workers: int) -> ValueRange | None:
        said = complete_options(self._reference.provenance["options"])["value_range"]
        return None if said is None else tuple(said)

    def detail(self, side: int, num_workers: int) -> int:
        return complete_options(self._reference.provenance["options"])["detail"] or 0

    def embeddings(self, field: str) -> None:
        return None

    def check(self, method: DiffPathV2, provenance: dict[str, Any], num_workers: int) -> None:
        self._reference.checked(provenance)

    def save_copy(self, path: Path) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reference.save(path)

    @property
    def has_places(self) -> bool:
        return self._reference.local is not None

    def fit(
        self, descriptors: Mapping[str, np.ndarray], provenance: dict[str, Any], evidence: FindEvidence
    ) -> Reference:
        return self._reference


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
    chosen = every_image(dataset).match_tags(tag)
    if len(chosen) == 0:
        tags = ", ".join(map(repr, every_image(dataset).distinct("tags"))) or "none"
        has = f"its tags are {tags}{_other_meaning(dataset, tag)}"
        raise ValueError(f"no sample of {dataset.name!r} has the reference tag {tag!r}; {has}")
    return chosen


def _other_meaning(dataset: fo.Dataset, name: str) -> str:
    """What else of this name there is, which is passed otherwise."""
    if dataset.has_saved_view(name):
        return f"; the saved view of that name is passed as dataset.load_saved_view({name!r})"
    if fo.dataset_exists(name):
        return f"; the dataset of that name is passed as fo.load_dataset({name!r})"
    if Path(name).is_file():
        return f"; a saved reference is passed as Path({name!r})"
    return ""


def _too_few(readable: int, total: int, why: str) -> str:
    return f"a reference needs at least {MIN_REFERENCE_SIZE} readable images, got {readable} of {total:,}: {why}"

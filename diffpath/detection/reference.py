"""A reference that is fitted once: a detector, and what made the descriptors that it was fitted on.

Kept as one safetensors file without pickled objects: arrays, and JSON in its header. A
reference scores nothing but descriptors that were made in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Int, UInt64

from ..addresses import on_disk
from ..errors import ImageError, ReferenceSetError
from ..method.descriptor import detail_length
from ..options import MIN_REFERENCE_SIZE, MethodOptions, complete_options
from .detector import AnomalyDetector
from .fusion import FusedDetector
from .local import MAX_IMAGES, LocalReference
from .looks import LooksDetector, descriptor_detector

if TYPE_CHECKING:
    from ..method.diffpath_v2 import DiffPathV2

_Image = TypeVar("_Image")
# What a file says it is, and the detector in it
AnyDetector: TypeAlias = AnomalyDetector | LooksDetector | FusedDetector
_FORMATS: dict[str, type[AnyDetector]] = {
    "diffpath reference 1": AnomalyDetector,
    "diffpath reference 2, fused": FusedDetector,
    "diffpath reference 3, looks": LooksDetector,
}
MAX_REFERENCE = 20_000  # images that a reference is fitted on, at most: memory and time are bounded
_MEMBERS = "members"  # arrays beside the detector's own
_LOCAL = "local."
_ANY_FORMAT = "diffpath reference "

# What must be equal for descriptors to be comparable, and how one makes it so
_WAYS_OUT = {
    "model": "give the model that the reference was made with",
    "options": "give the same option",
    "resolution": "give the same resolution",
    "dtype": "give the same dtype",
    "preprocessing": "make the reference again with this version of diffpath",
    "descriptor": "make the reference again with this version of diffpath",
    "embedding_length": "give embeddings of the kind that the reference was made with, or leave them out as it did",
}
# Options that say no more than the others do
_REDUNDANT = {"preset", "resolution"}


def choose_members(images: Sequence[_Image]) -> list[_Image]:
    """Those of a reference's images that it is fitted on: all, or of very many some by chance, in their order.

    The others are judged as any image is, by a reference that has not seen them.
    """
    if len(images) <= MAX_REFERENCE:
        return list(images)
    chosen = np.random.default_rng(0).choice(len(images), MAX_REFERENCE, replace=False)
    return [images[row] for row in np.sort(chosen)]


@dataclass
class Reference:
    """A fitted detector that knows what made the descriptors that it was fitted on.

    Attributes:
        detector: a fitted :class:`diffpath.AnomalyDetector`, a ``LooksDetector`` of descriptors with
            a detail look, or a
            :class:`diffpath.FusedDetector` of descriptors and embeddings
        provenance: ``DiffPathV2.provenance`` of the method that made the descriptors: model,
            options and preprocessing as JSON-ready values; with embeddings, also the
            ``embedding_length``
        description: more about it for people, JSON-ready: not compared
        members: uint64 ``(n,)``: keys of the files that it was fitted on, in the order of the
            detector's ``reference_scores_``; None where they are not known. An image that is among
            them is judged by the score that it has there, by a fit that did not see it
        local: what places of its images look like, a
            :class:`diffpath.detection.local.LocalReference`, for anomaly maps; None where that is not known

    Example::

        method = DiffPathV2()
        reference = Reference.fit(method, images)
        reference.save("clothing.safetensors")

        result = method.score_images(new_images)
        load_reference("clothing.safetensors").checked(method.provenance).p_values(result.descriptor)
    """

    detector: AnyDetector
    provenance: dict[str, Any]
    description: dict[str, Any] = field(default_factory=dict)
    members: UInt64[np.ndarray, " n"] | None = None
    local: LocalReference | None = None

    @classmethod
    def fit(cls, method: DiffPathV2, images: Any, groups: npt.ArrayLike | None = None, **options: Any) -> Reference:
        """Fits a reference on images.

        Args:
            method: a :class:`diffpath.DiffPathV2`
            images: at least 3 images, as in ``method.score_images``
            groups: one value per image, equal for those that belong together, as in
                :meth:`diffpath.AnomalyDetector.fit`
            **options: those of :class:`diffpath.AnomalyDetector`
        """
        result = method.score_images(images)
        return cls.of(
            result.descriptor, method.provenance, groups=groups, evidence=lambda rows: result.local[rows], **options
        )

    @classmethod
    def of(
        cls,
        X: npt.ArrayLike,
        provenance: dict[str, Any],
        description: dict[str, Any] | None = None,
        groups: npt.ArrayLike | None = None,
        members: np.ndarray | None = None,
        evidence: Callable[[np.ndarray], np.ndarray | None] | None = None,
        **options: Any,
    ) -> Reference:
        """Fits a reference on descriptors, each followed by its embedding where ``provenance`` has the length of one.

        Args:
            X: float ``(n, D)`` or ``(n, D + embedding_length)``
            provenance: what made them
            description: more about them, for people
            groups: ``(n,)`` or None, as in :meth:`fit`
            members: as above
            evidence: gives the ``DiffPathResult.local`` of some of them, by their places ``(m,)``; None, or
                what gives None, where that is not known
            **options: those of :class:`diffpath.AnomalyDetector`
        """
        length = provenance.get("embedding_length")
        detail = detail_length(MethodOptions(**complete_options(provenance.get("options", {}))))
        if length:
            detector: AnyDetector = FusedDetector(length, detector_options=options, detail_length=detail)
        else:
            detector = descriptor_detector(detail, options)
        detector.fit(X, groups=groups)
        return cls(detector, provenance, description or {}, members, _fit_local(detector, evidence, groups))

    def checked(self, provenance: Mapping[str, Any]) -> AnyDetector:
        """The detector, if descriptors made by ``provenance`` are comparable with the reference's.

        Raises:
            ReferenceSetError: names the differences
        """
        differences = list(_differences(self.provenance, provenance))
        if differences:
            raise ReferenceSetError(f"this reference was made otherwise: {'; '.join(differences)}")
        return self.detector

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the reference to a ``.safetensors`` file, whole or not at all.

        Raises:
            OSError: if it cannot be written
        """
        from safetensors.numpy import save

        (kind,) = (name for name, detector in _FORMATS.items() if type(self.detector) is detector)
        about = {"params": self.detector.get_params(), "made_by": self.provenance, "description": self.description}
        part = Path(f"{path}.{os.getpid()}.partial")
        members = {} if self.members is None else {_MEMBERS: self.members}
        local = {} if self.local is None else {f"{_LOCAL}{name}": a for name, a in self.local.arrays().items()}
        arrays, said = {**self.detector.arrays(), **members, **local}, json.dumps(about)
        metadata = {"format": kind, "about": said, "checksum": _checksum(said, arrays)}
        try:
            part.write_bytes(save(arrays, metadata=metadata))  # save_file makes files for their owner alone
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reference:
        """Reads a reference that :meth:`save` wrote.

        Args:
            path: of the file; or an address, such as ``"s3://bucket/reference.safetensors"``

        Raises:
            ReferenceSetError: if the file is missing or is none
        """
        from safetensors import SafetensorError, safe_open

        try:
            with on_disk(path) as local, safe_open(str(local), framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") not in _FORMATS:
                    if metadata.get("format", "").startswith(_ANY_FORMAT):
                        raise ReferenceSetError(f"{path} is of another version of diffpath; make the reference again")
                    raise ReferenceSetError(f"{path} holds no diffpath reference; give another path")
                arrays = {name: file.get_tensor(name) for name in file.keys()}
            return cls._of_file(metadata, arrays)
        except ReferenceSetError:
            raise
        except (ImageError, OSError, SafetensorError) as error:
            raise ReferenceSetError.unreadable(path, error) from error
        except Exception as error:  # a damaged file can hold anything
            what = str(error) or type(error).__name__
            raise ReferenceSetError(f"{path} is damaged ({what[:200]}); make the reference again") from error

    @classmethod
    def _of_file(cls, metadata: Mapping[str, str], arrays: dict[str, np.ndarray]) -> Reference:
        """What a file holds, checked by using it.

        Raises:
            Exception: nearly any, if the file is damaged
        """
        if metadata.get("checksum", _checksum(metadata["about"], arrays)) != _checksum(metadata["about"], arrays):
            raise ValueError("its checksum is another one")
        for name, array in arrays.items():
            if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise ValueError(f"{name} is not of finite numbers")
        about, members = json.loads(metadata["about"]), arrays.pop(_MEMBERS, None)
        provenance, description = (dict(about[name]) for name in ("made_by", "description"))
        _check_provenance(provenance)
        of_places = {name.removeprefix(_LOCAL): arrays.pop(name) for name in [*arrays] if name.startswith(_LOCAL)}
        detector = _FORMATS[metadata["format"]].from_arrays(dict(about["params"]), arrays)
        count = len(detector.reference_scores_)
        if detector.reference_p_values_.shape != (count,) or (members is not None and members.shape != (count,)):
            raise ValueError("its parts are of different sizes")
        used = detector.score_samples(np.zeros((1, detector.n_features_in_)))
        if used.shape != (1,) or not np.isfinite(detector.p_values(np.zeros((1, detector.n_features_in_)))).all():
            raise ValueError("it scores nothing")
        local = LocalReference.from_arrays(of_places) if of_places else None
        if local is not None and not np.isfinite(local.surprise(np.zeros((1, *local.shape)))).all():
            raise ValueError("its places are of different sizes")
        return cls(detector, provenance, description, members, local)

    def places(self, keys: UInt64[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Where files are among those that it was fitted on, int ``(m,)``; −1 for the others."""
        if self.members is None or not len(self.members):
            return np.full(len(keys), -1)
        firsts, index = np.unique(self.members, return_index=True)
        found = np.minimum(np.searchsorted(firsts, keys), len(firsts) - 1)
        return np.where(firsts[found] == keys, index[found], -1)


load_reference = Reference.load


def _checksum(about: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Of all that a file says, whatever the order of its arrays."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check_provenance(provenance: Mapping[str, Any]) -> None:
    """Raises nearly anything where it is not what :attr:`DiffPathV2.provenance` gives."""
    MethodOptions(**complete_options(dict(provenance["options"])))
    for name in ("model", "model_fingerprint", "dtype", "preprocessing", "descriptor"):
        if not isinstance(provenance.get(name), str | None):
            raise ValueError(f"its {name} is {provenance[name]!r}")


def _fit_local(
    detector: AnyDetector, evidence: Callable[[np.ndarray], np.ndarray | None] | None, groups: npt.ArrayLike | None
) -> LocalReference | None:
    """Of a reference that may be contaminated the more typical half, of a large one some images by chance."""
    if evidence is None:
        return None
    scores = detector.reference_scores_
    kept = np.arange(len(scores))
    if detector.trim and len(kept) > 2 * MIN_REFERENCE_SIZE:
        kept = kept[scores <= np.median(scores)]
    if len(kept) > MAX_IMAGES:
        kept = np.sort(np.random.default_rng(0).choice(kept, MAX_IMAGES, replace=False))
    found = evidence(kept)
    if found is None:
        return None
    return LocalReference.fit(found, None if groups is None else np.asarray(groups)[kept])


def _differences(reference: Mapping[str, Any], query: Mapping[str, Any]) -> Iterator[str]:
    for name, way_out in _WAYS_OUT.items():
        for label, ours, theirs in _compared(name, reference, query):
            if ours != theirs:
                yield f"its {label} is {ours!r}, here it is {theirs!r} ({way_out})"


def _compared(name: str, reference: Mapping[str, Any], query: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    if name == "options":
        ours, theirs = (complete_options(provenance["options"]) for provenance in (reference, query))
        return [(option, ours.get(option), theirs.get(option)) for option in sorted({*ours, *theirs} - _REDUNDANT)]
    if name == "model":
        if reference.get("model_fingerprint") == query["model_fingerprint"]:
            return []
        first, second = (f"{each.get('model')} ({each.get('model_fingerprint')})" for each in (reference, query))
        return [(name, first, second)]
    return [(name, reference.get(name), query.get(name))]

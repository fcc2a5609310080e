"""Objects within images as images of their own, which can be scored like any other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo
import numpy as np
from PIL import Image, ImageOps

from .internals import is_patches, object_pixels
from .maps import OBJECTS, dataset_folder
from .ownership import make_folder

_LOGGER = logging.getLogger(__name__)


def crop_objects(
    patches: fo.DatasetView | fo.Dataset,
    folder: str | Path | None = None,
    *,
    name: str | None = None,
    persistent: bool = False,
) -> fo.Dataset:
    """Makes a dataset of objects within images, each a picture of its own.

    Its samples know where they come from: ``label_id`` and ``sample_id`` are those of the object and
    of its image, ``label`` is its class, and tags are those of the object. Scores can so be written
    back to the objects, with ``set_label_values``.

    Args:
        patches: a view of patches, as ``dataset.to_patches("ground_truth")`` gives it, or a
            dataset that was cloned of one
        folder: where the pictures are written, as PNG; by default a folder of the new
            dataset's under FiftyOne's own
        name: of the new dataset
        persistent: whether FiftyOne keeps the new dataset after this session

    Returns:
        a ``fo.Dataset`` of images

    Raises:
        ValueError: if these are no patches, or none of them has an area
    """
    if not is_patches(patches):
        raise ValueError("crop_objects takes a view of patches, as dataset.to_patches('ground_truth') gives it")
    field = _object_field(patches)
    dataset = fo.Dataset(name, persistent=persistent)
    if folder is None:
        folder = dataset_folder(dataset) / OBJECTS
        make_folder(folder, dataset, None)
    folder = Path(folder).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    samples = list(_crop(patches, field, folder))
    if not samples:
        fo.delete_dataset(dataset.name)
        raise ValueError(f"no object in {field!r} has an area; pass a view of patches that do")
    if len(samples) < len(patches):
        _LOGGER.warning("%d of %d objects have no area and are left out", len(patches) - len(samples), len(patches))
    dataset.add_samples(samples, progress=False)
    return dataset


def _object_field(patches: fo.DatasetView | fo.Dataset) -> str:
    for name, field in patches.get_field_schema(ftype=fo.EmbeddedDocumentField).items():
        if issubclass(field.document_type, fo.Detection | fo.Polyline):
            return name
    raise ValueError("crop_objects takes patches of detections or polylines, one to a sample")


def _crop(patches: fo.DatasetView | fo.Dataset, field: str, folder: Path) -> Iterator[fo.Sample]:
    path, pixels = None, None
    for patch in patches.iter_samples():
        label = patch[field]
        if label is None:
            continue
        if patch.filepath != path:
            path, pixels = patch.filepath, _read(patch.filepath)
        filepath = path
        if pixels is not None:  # a file that cannot be read is for the run to report
            filepath = str(folder / f"{label.id}.png")
            if not _write_crop(pixels, label, filepath):
                continue
        yield fo.Sample(
            filepath=filepath,
            tags=list(label.tags or ()),
            label=fo.Classification(label=label.label),
            label_id=label.id,
            sample_id=str(patch.sample_id),
        )


def _read(path: str) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright if upright.mode in ("L", "RGB", "RGBA", "I;16") else upright.convert("RGB"))
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        return None


def _write_crop(pixels: np.ndarray, label: fo.Detection | fo.Polyline, path: str) -> bool:
    """Writes an object's box; returns whether it has an area within the picture."""
    box = label if isinstance(label, fo.Detection) else label.to_detection()
    x, y, width, height = box.bounding_box
    if not (width > 0 and height > 0 and x < 1 and y < 1 and x + width > 0 and y + height > 0):
        return False
    crop = object_pixels(pixels, box)
    if 0 in crop.shape:
        return False
    Image.fromarray(np.ascontiguousarray(crop)).save(path)
    return True

"""What anomaly maps are made of, kept on disk while images are scored: only the reference turns it into maps."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .files import write_arrays

_FOLDER = "evidence"


class Evidence:
    """Local evidence of images by sample id, in files of one flush each.

    Args:
        folder: the run's folder
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER
        self._waiting: dict[str, np.ndarray] = {}
        self._files = {path: _ids(path) for path in sorted(self._folder.glob("*.npz"))}

    @property
    def ids(self) -> set[str]:
        """Of the images that it has on disk."""
        return set().union(*self._files.values()) if self._files else set()

    def add(self, sample_id: str, local: np.ndarray) -> None:
        """Takes one image's, float16 ``(K, y, x)``."""
        self._waiting[sample_id] = local

    def flush(self) -> None:
        """Writes what waits."""
        if not self._waiting:
            return
        ids, local = np.array(list(self._waiting)), np.stack(list(self._waiting.values()))
        path = write_arrays(self._folder, ids=ids, local=local)
        self._files[path] = set(self._waiting)
        self._waiting.clear()

    def chunks(self, wanted: Collection[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """The images that are wanted, each once: their ids and float16 ``(n, K, y, x)``."""
        seen: set[str] = set()
        for path, ids in self._files.items():
            if ids.isdisjoint(wanted):
                continue
            with np.load(path) as stored:
                names, local = stored["ids"].tolist(), stored["local"]
            rows = [row for row, name in enumerate(names) if name in wanted and name not in seen]
            seen.update(names)
            if rows:
                yield [names[row] for row in rows], local[rows]

    def of(self, sample_ids: Sequence[str], shared: Mapping[str, str]) -> np.ndarray | None:
        """Of all these images, float16 ``(n, K, y, x)``, or None where one has none.

        Args:
            sample_ids: the images
            shared: ids of samples of which another one, of the same file, was read
        """
        names = [shared.get(sample_id, sample_id) for sample_id in sample_ids]
        found: dict[str, np.ndarray] = {}
        for ids, local in self.chunks(set(names)):
            found.update(zip(ids, local))
        return np.stack([found[name] for name in names]) if found.keys() >= set(names) else None

    def clear(self) -> None:
        """Deletes it, once the run is complete: until then a reference that is fitted again needs it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files.clear()


def _ids(path: Path) -> set[str]:
    with np.load(path) as stored:
        return set(stored["ids"].tolist())

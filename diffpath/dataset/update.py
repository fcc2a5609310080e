"""Scores what a run has not scored yet, against the reference that the run keeps."""

from .embeddings import Embeddings, NoEmbeddings
from .maps import check_scales
from .record import DiffPathRun, read_finished, saved_reference, write_config
from .scanning import Scanner, show_progress
from .scores import write_scores
from .scoring import check_samples, set_batch_size
from .stores import FieldStore
from .thresholds import apply_threshold


def update_diffpath(samples, run_key, *, model=None, batch_size=None, num_workers=4, device=None, progress=None):
    """Scores the images that a run has not scored: new ones, and those that could not be read.

    The reference is the one that the run was fitted on, read from its file: it is not
    scored again. The threshold follows the run's rule.

    Args:
        samples: a ``fo.Dataset`` or ``fo.DatasetView``; images that have a score are skipped
        run_key: the run's key
        model: where the run's model is now, if it has been moved
        batch_size: images per forward pass; None for a default by device
        num_workers: threads that decode images
        device: a torch device; by default CUDA, then MPS, then the CPU
        progress: whether to show a progress bar, a function of a FiftyOne progress bar,
            or None for FiftyOne's default

    Returns:
        the :class:`DiffPathRun`

    Raises:
        ValueError: if there is no such finished run, or its model is no longer the same
    """
    steps = iterate_update(samples, run_key, model=model, batch_size=batch_size, num_workers=num_workers, device=device)
    return show_progress(steps, progress)


def iterate_update(samples, run_key, *, model=None, batch_size=None, num_workers=4, device=None):
    """:func:`update_diffpath` as a generator of progress that returns the run."""
    from ..method.diffpath_v2 import DiffPathV2  # brings torch, which takes seconds to import

    dataset = check_samples(samples, run_key)
    config = read_finished(dataset, run_key)
    check_scales(config)
    made_by, fields = config["made_by"], config["fields"]
    model_options = dict(made_by.get("model_options", {}))
    if model is not None:
        model_options.pop("revision", None)  # of the place where the model was
    method = DiffPathV2(
        model or made_by["model"],
        device=device,
        dtype=made_by["dtype"],
        model_options=model_options,
        **made_by["options"],
    )
    set_batch_size(method, batch_size)
    reference = saved_reference(config)
    without = samples.exists(fields["score"], False)
    vectors = NoEmbeddings()
    if "embeddings" in made_by:
        vectors = Embeddings(without, made_by["embeddings"], made_by["embedding_length"])
    detector = reference.checked({**method.provenance, **vectors.made_by})

    unscored = dict(zip(*without.values(["id", "filepath"])))
    store = FieldStore(dataset, config, unscored)
    pending = {i: path for i, path in unscored.items() if i not in store.descriptors}  # a killed update keeps some
    scanner = Scanner(method, num_workers, total=len(pending))
    yield scanner.progress("Scoring new images")
    yield from scanner.run(pending, store, "Scoring new images")

    vectors.note_problems(dataset, config, store.descriptors)
    write_scores(dataset, fields, vectors.join(store.descriptors), detector)
    config.update(
        num_scored=dataset.count(fields["score"]),
        num_unreadable=dataset.count(fields["error"]),
        **apply_threshold(dataset, config, config["rule"], config["level"]),
    )
    write_config(dataset, run_key, config)
    return DiffPathRun.load(dataset, run_key)

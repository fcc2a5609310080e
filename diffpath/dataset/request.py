"""What is to be scored, against what and how: one value that every way to begin a run hands over.

A call from Python, the App's form, a delegated run, an interrupted run that goes on and a worker on
another machine all make a :class:`ScoringRequest`; its fields are the only place where the
keywords of :func:`diffpath.compute_diffpath` are named.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..detection.rules import DEFAULT_LEVEL, DEFAULT_RULE, check_rule
from ..folders.engines import LOCAL, EngineLike, RayEngine, check_engine
from ..options import MethodOptions, ModelOptions, unknown_name
from .internals import Samples, dataset_id, dump_view, find_dataset, is_collection, load_view, root_dataset
from .record import check_run_key
from .regions import DEFAULT_PROBABILITY, check_regions
from .sources import ReferenceLike, describe_reference, find_reference, images_of

if TYPE_CHECKING:
    from ..models import NoisePredictor

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class ScoringRequest:
    """A run that is to be made.

    :meth:`of` makes one of the keywords of :func:`diffpath.compute_diffpath`, which are these
    attributes and, in place of ``options``, the fields of :class:`diffpath.MethodOptions`.

    Attributes:
        samples: a ``fo.Dataset`` or ``fo.DatasetView`` of images; of groups, the images of all slices
        reference: what is normal: a view, a dataset, the name of a sample tag in the
            dataset, a :class:`diffpath.Reference` or the ``Path`` of a saved one, or
            None. With None, and for reference images that are among ``samples``, each
            image is scored by a fit that did not see it; with None the fit is a Gaussian
            that also leaves out the most deviant 30 %, and p-values are approximate
        model: ``"bundled"``, the path of a diffusers folder, or a hub id such as
            ``"google/ddpm-cifar10-32"``, which the run pins to its commit
        embeddings: a field with one vector per sample, of any other network, in
            ``samples`` and in the samples of the reference: how far the vector lies from its
            nearest neighbours in the reference then counts beside the diffusion model's
            evidence. An image without one gets no score, and ``K_error`` says so. All
            vectors are held in memory
        groups: a field of the reference's samples, equal for those that belong together,
            such as ``"video"``, ``"patient"`` or ``"picture"``: none is then judged by a fit
            that saw another of its group. Without it such images vouch for each other, and
            far more images of **new** groups are flagged than the level says
        run_key: an identifier; prefix of fields and views
        rule: how images are chosen as likely out-of-distribution, as in
            :func:`diffpath.set_diffpath_threshold`, which changes it later
        level: the rule's number; by default 5 % of images like the reference's
        tag: a sample tag for the likely out-of-distribution images
        heatmaps: whether to write maps of what is unlike the reference, of 1 − SSIM and of the size
            of the score error: three small files per image
        regions: whether to draw boxes around the connected places of an image that are more unusual
            than 1 in 1,000, or a probability in [0.0001, 0.05] in its place; None for no boxes
        batch_size: images per forward pass; None for a default by device
        num_workers: threads that decode images
        engine: ``"local"``, this process; or ``"ray"``, the actors of a Ray cluster, with
            :class:`diffpath.RayEngine` for its address and how many there are. The numbers are the
            same on machines of one kind
        device: a torch device; by default CUDA, then MPS, then the CPU. Several, as a list
            or separated by commas, share the images
        dtype: the network's autocast type; by default the fastest that the device computes well
        model_options: further arguments of :func:`diffpath.load_model`, such as
            ``{"prediction_type": "epsilon"}``
        overwrite: whether to delete an existing run of the same key first
        options: what else determines an image's features
    """

    samples: Samples
    reference: ReferenceLike = None
    model: str | NoisePredictor = "bundled"
    embeddings: str | None = None
    groups: str | None = None
    run_key: str = "diffpath"
    rule: str = DEFAULT_RULE
    level: float = DEFAULT_LEVEL
    tag: str | None = None
    heatmaps: bool = True
    regions: float | None = None
    batch_size: int | None = None
    num_workers: int = 4
    engine: EngineLike = LOCAL
    device: str | None = None
    dtype: str | None = None
    model_options: ModelOptions = field(default_factory=ModelOptions)
    overwrite: bool = False
    options: MethodOptions = field(default_factory=MethodOptions)

    def __post_init__(self) -> None:
        check_rule(self.rule, self.level)
        check_run_key(self.run_key)
        check_regions(self.regions, self.heatmaps)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {self.num_workers}")
        check_engine(self.engine, self.model)

    @classmethod
    def of(cls, samples: Samples, **arguments: Any) -> ScoringRequest:
        """The request of a call's keywords.

        Args:
            samples: a ``fo.Dataset`` or ``fo.DatasetView`` of images
            **arguments: the other attributes of this class but ``options``, and the fields of
                :class:`diffpath.MethodOptions`

        Raises:
            ValueError: if an argument is not known or not valid
        """
        if not is_collection(samples):
            raise ValueError(f"samples must be a FiftyOne dataset or view, got {type(samples).__name__}")
        known = [*_own_names(), *(each.name for each in fields(MethodOptions))]
        for name in arguments:
            if name not in known:
                raise ValueError(unknown_name("option", name, known))
        own = {name: arguments.pop(name) for name in _own_names() if name in arguments}
        own["options"] = MethodOptions.from_preset(arguments.pop("preset", "default"), **arguments)
        own["model_options"] = ModelOptions.from_dict(own.get("model_options") or {})
        if isinstance(own.get("model"), str | PathLike):
            own["model"] = _absolute(own["model"])
        if isinstance(own.get("engine"), Mapping):
            own["engine"] = RayEngine(**own["engine"])
        if isinstance(own.get("regions"), bool):
            own["regions"] = DEFAULT_PROBABILITY if own["regions"] else None
        for name in ("device", "dtype"):
            if own.get(name) is not None:
                own[name] = _named(own[name])
        return cls(images_of(samples), **own)

    def to_dict(self) -> dict[str, Any]:
        """The request as JSON-ready values, for another process or machine; :meth:`from_dict` takes it back.

        Raises:
            ValueError: if the reference or the model is an object that only this process has
        """
        if not isinstance(self.model, str):
            raise ValueError("a model in memory cannot be handed on; save it as a diffusers folder and pass its path")
        dataset = root_dataset(self.samples)
        plain = {name: getattr(self, name) for name in _own_names()}
        return {
            **plain,
            "samples": {
                "dataset": dataset.name,
                "dataset_id": dataset_id(dataset),
                "stages": dump_view(self.samples),
            },
            "reference": describe_reference(self.reference),
            "engine": asdict(self.engine) if isinstance(self.engine, RayEngine) else self.engine,
            "model_options": self.model_options.to_dict(),
            "options": self.options.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoringRequest:
        """The request of which :meth:`to_dict` gave the values.

        Raises:
            ValueError: if a name is not known, or the samples or the reference cannot be found
        """
        values = dict(values)
        asked, described, options = values.pop("samples"), values.pop("reference"), values.pop("options")
        dataset = find_dataset(asked.get("dataset_id"), asked["dataset"])
        if dataset is None:
            raise ValueError(f"there is no dataset {asked['dataset']!r} any more; make the request again")
        reference = find_reference(dataset, described)
        return cls.of(load_view(dataset, asked["stages"]), reference=reference, **values, **options)


def takes_scoring_arguments(function: _Function) -> _Function:
    """Lets a function whose ``**arguments`` go to :meth:`ScoringRequest.of` show them in its signature and help.

    Its docstring has the line ``{arguments}`` where they are to be described.
    """
    keywords = inspect.Parameter.KEYWORD_ONLY
    shown = [
        inspect.Parameter(each.name, keywords, default=_default(each), annotation=each.type)
        for each in (*fields(ScoringRequest), *fields(MethodOptions))
        if each.name not in ("samples", "options")
    ]
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*named, *shown])  # type: ignore[attr-defined]  # inspect's
    described = re.search(r"Attributes:\n(.*)\n +options:", ScoringRequest.__doc__ or "", re.DOTALL)
    if function.__doc__ and described:
        function.__doc__ = function.__doc__.replace("{arguments}", described[1].strip())
    return function


def _own_names() -> list[str]:
    """The keywords of a call that are no options of the method."""
    return [each.name for each in fields(ScoringRequest) if each.name not in ("samples", "options")]


def _default(each: Any) -> Any:
    return None if each.default is MISSING else each.default


def _absolute(model: str | PathLike[str]) -> str:
    """A model's name; the path of a folder so that it is found from everywhere."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() and str(model) != "bundled" else str(model)


def _named(value: Any) -> str:
    """A torch device or dtype, or several devices, by name."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).removeprefix("torch.")

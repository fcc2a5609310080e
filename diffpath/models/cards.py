"""Pretrained models that are known to be of use, free of torch: for the form, the documentation and the loader.

Facts are from the models' pages and papers. Only the bundled model was run by us.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """What is known of a pretrained model.

    Attributes:
        id: ``"bundled"`` or a hub id
        parameters: of the diffusing network, in millions; None where its authors do not say
        licence: of the weights
        image_size: side of its training images, in pixels
        good_at: what it was trained on, and what to use it for
        settings: arguments of ``load_model`` for what early checkpoints leave unsaid
    """

    id: str
    parameters: float | None
    licence: str
    image_size: int
    good_at: str
    settings: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> str:
        """All but the id in one line."""
        size = f", {self.parameters:g} M parameters" if self.parameters else ""
        return f"{self.image_size}×{self.image_size}{size}, {self.licence}. {self.good_at}"


_NOISE = {"prediction_type": "epsilon"}  # what these papers' networks predict
_STABLE = {**_NOISE, "latent_scaling": 0.18215}  # the constant of Stable Diffusion 1
_OPENRAIL = "CreativeML OpenRAIL-M"

MODEL_CARDS = (
    ModelCard("bundled", 4.3, "free, see its card", 32, "Textures and scene patches; small, fast, offline"),
    ModelCard("google/ddpm-cifar10-32", 35.7, "Apache-2.0", 32, "Small natural objects (CIFAR-10)", _NOISE),
    ModelCard("google/ddpm-celebahq-256", 114, "Apache-2.0", 256, "Faces (CelebA-HQ)", _NOISE),
    ModelCard("google/ddpm-church-256", 114, "Apache-2.0", 256, "Buildings (LSUN churches)", _NOISE),
    ModelCard("google/ddpm-bedroom-256", 114, "Apache-2.0", 256, "Indoor scenes (LSUN bedrooms)", _NOISE),
    ModelCard("google/ddpm-cat-256", 114, "Apache-2.0", 256, "Cats (LSUN)", _NOISE),
    ModelCard("google/ncsnpp-celebahq-256", None, "Apache-2.0", 256, "Faces (CelebA-HQ); variance exploding"),
    ModelCard("google/ncsnpp-church-256", None, "Apache-2.0", 256, "Buildings (LSUN churches); variance exploding"),
    ModelCard("CompVis/ldm-celebahq-256", 274, "Apache-2.0", 256, "Faces (CelebA-HQ); latent", _NOISE),
    ModelCard("facebook/DiT-XL-2-256", 675, "CC-BY-NC-4.0", 256, "All of ImageNet; latent, wants a GPU", _NOISE),
    ModelCard("CompVis/stable-diffusion-v1-4", 860, _OPENRAIL, 512, "Any photo (LAION); latent, wants a GPU", _STABLE),
    ModelCard(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        860,
        _OPENRAIL,
        512,
        "Any photo (LAION); latent, wants a GPU",
        _STABLE,
    ),
)


def find_card(model: str) -> ModelCard | None:
    """The card of a model, or None."""
    return next((card for card in MODEL_CARDS if card.id == model), None)

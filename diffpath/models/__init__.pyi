from .cards import MODEL_CARDS, ModelCard, find_card
from .folder import BUNDLED_MODEL
from .loading import load_model
from .predictor import NoisePredictor, Prediction
from .schedule import Schedule
from .spaces import LatentSpace, PixelSpace
from .tiles import Tiles

__all__ = [
    "BUNDLED_MODEL",
    "MODEL_CARDS",
    "LatentSpace",
    "ModelCard",
    "NoisePredictor",
    "PixelSpace",
    "Prediction",
    "Schedule",
    "Tiles",
    "find_card",
    "load_model",
]

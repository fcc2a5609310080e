"""Pretrained diffusion models behind one interface: clean image and timesteps in, predicted noise out."""

from .folder import BUNDLED_MODEL
from .loading import load_model
from .predictor import NoisePredictor, Prediction
from .schedule import Schedule
from .spaces import LatentSpace, PixelSpace
from .tiles import Tiles

__all__ = [
    "BUNDLED_MODEL",
    "LatentSpace",
    "NoisePredictor",
    "PixelSpace",
    "Prediction",
    "Schedule",
    "Tiles",
    "load_model",
]

"""Pretrained diffusion models behind one interface: noisy image and timestep in, predicted noise out."""

from .loading import BUNDLED_MODEL, load_model
from .predictor import NoisePredictor

__all__ = ["BUNDLED_MODEL", "NoisePredictor", "load_model"]

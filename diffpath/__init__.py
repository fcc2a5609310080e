"""Finds out-of-distribution and corrupted images with a pretrained diffusion model.

The public names, listed in ``__init__.pyi``, are loaded when they are first used, so that
``import diffpath`` is quick and the method needs no FiftyOne.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

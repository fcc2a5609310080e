"""Pretrained diffusion models behind one interface: clean image and timesteps in, predicted noise out.

The names are loaded when they are first used: the cards need no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

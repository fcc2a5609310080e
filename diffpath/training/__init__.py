"""Trains the diffusion model that diffpath scores with: ``python -m diffpath train CONFIG``.

Imports nothing from FiftyOne, and the method imports nothing from here: what training
leaves behind is an ordinary diffusers folder.
"""

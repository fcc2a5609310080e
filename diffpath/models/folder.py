"""What a model folder holds, and where."""

WEIGHTS = "diffusion_pytorch_model.safetensors"
# What neither of diffusers' configurations can say of a model; written by ``diffpath convert``
OWN_CONFIG = "diffpath.json"

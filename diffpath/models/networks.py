"""Networks of diffusers, called alike."""


def set_attention_heads(network, heads):
    """Gives every self-attention of a network the same number of heads, whatever its channels.

    A ``UNet2DModel`` can only say how wide a head is. Weights do not depend on the number.
    """
    from diffusers.models.attention_processor import Attention

    for module in network.modules():
        if isinstance(module, Attention):
            module.heads = heads
            module.scale = (module.to_q.out_features // heads) ** -0.5

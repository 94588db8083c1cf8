"""The blocks' special cases that priors rely on, and what each formula promises."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from core.layers import (
    Attention,
    Connector,
    FeedForward,
    FullAttention,
    MultimodalAdaLN,
    RMSNorm,
    rotary_table,
)
from core.layers.attention import eager_attention, grouped_attention
from core.layers.embeddings import unpatchify
from core.layers.rotary import apply_rotary


def test_gated_mlp_becomes_a_plain_one():
    mlp = FeedForward(8, 16, "quick_gelu")
    torch.nn.init.zeros_(mlp.up_proj.weight)
    torch.nn.init.ones_(mlp.up_proj.bias)
    x = torch.randn(2, 3, 8)
    hidden = mlp.gate_proj(x)
    assert torch.allclose(mlp(x), mlp.down_proj(hidden * torch.sigmoid(1.702 * hidden)), atol=1e-6)


def test_neutral_modulation_is_the_plain_norm():
    x = torch.randn(2, 3, 8)
    layer, rms = MultimodalAdaLN(8, 1e-5, "layernorm"), MultimodalAdaLN(8, 1e-6, "rmsnorm")
    assert torch.allclose(layer(x).hidden, F.layer_norm(x, (8,)), atol=1e-6)
    assert torch.allclose(rms(x).hidden, RMSNorm(8, 1e-6)(x), atol=1e-6)
    assert torch.equal(layer(x).gate, torch.ones_like(x))


def test_switch_chooses_between_the_sets():
    norm = MultimodalAdaLN(4, 1e-5, "layernorm")
    with torch.no_grad():
        norm.SSG_L.copy_(torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 4))
        norm.indicator.bias.copy_(torch.tensor([50.0, -50.0]))  # all weight on the latent set
        x = torch.randn(1, 2, 4)
        hidden, gate = norm(x)
        assert torch.allclose(hidden, F.layer_norm(x, (4,)) * 3 + 1, atol=1e-5)
        assert torch.allclose(gate, torch.full_like(gate, 3.0))


def test_training_and_inference_mix_alike():
    norm = MultimodalAdaLN(16, 1e-5, "layernorm")
    with torch.no_grad():
        for p in norm.parameters():
            p.normal_()
    x = torch.randn(2, 5, 16)
    trained = norm(x)
    with torch.no_grad():
        inferred = norm(x)
    assert torch.allclose(trained.hidden, inferred.hidden, atol=1e-5)
    assert torch.allclose(trained.gate, inferred.gate, atol=1e-5)


def test_connector_mixes_transform_and_affine():
    x = torch.randn(1, 3, 6)
    for use_pre_norm in (False, True):
        connector = Connector(6, 8, use_pre_norm, use_affine_bias=True)
        torch.nn.init.zeros_(connector.connector_indicator[1].weight)
        connector.connector_indicator[1].bias.data = torch.tensor([-50.0, 50.0])
        direct = connector.affine(connector.pre_norm(x)) if use_pre_norm else connector.affine(x)
        assert torch.allclose(connector(x), direct, atol=1e-6)
        connector.connector_indicator[1].bias.data = torch.tensor([50.0, -50.0])
        assert torch.allclose(connector(x), connector.transform(direct), atol=1e-6)


def test_rotation_depends_on_distance_alone():
    table = rotary_table(torch.arange(20)[None], 16, 10000.0, torch.float32)
    assert table[0].shape == (1, 1, 20, 16)
    q, k = torch.randn(16), torch.randn(16)
    rotated_q = apply_rotary(q.expand(1, 1, 20, 16), table)[0, 0]
    rotated_k = apply_rotary(k.expand(1, 1, 20, 16), table)[0, 0]
    assert torch.allclose(rotated_q[3] @ rotated_k[1], rotated_q[17] @ rotated_k[15], atol=1e-5)
    assert torch.allclose(rotated_q[0], q)


def test_eager_equals_fused_attention():
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    fused = grouped_attention(query, key, value, mask)
    assert torch.allclose(eager_attention(query, key, value, mask), fused, atol=1e-5)
    assert torch.allclose(grouped_attention(query, key, value, causal=True), fused, atol=1e-5)


def test_attention_shapes_and_causality():
    attention = Attention(32, 4, 2, use_qk_norm=True, layer=0)
    x = torch.randn(1, 6, 32)
    out = attention(x, None, FullAttention(causal=True))
    changed = x.clone()
    changed[:, 4:] += 1
    again = attention(changed, None, FullAttention(causal=True))
    assert out.shape == x.shape
    assert torch.allclose(out[:, :4], again[:, :4], atol=1e-6)
    assert not torch.allclose(out[:, 4:], again[:, 4:], atol=1e-3)


def test_unpatchify_has_the_channel_slowest():
    tokens = torch.arange(2 * 64.0).reshape(1, 2, 64)
    latents = unpatchify(tokens, frames=1, height=2, width=4)
    assert latents.shape == (1, 1, 16, 2, 4)
    assert latents[0, 0, 0].tolist() == [[0, 1, 64, 65], [2, 3, 66, 67]]
    assert latents[0, 0, 1, 0, 0] == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_mlp_in_chunks_gives_the_same_numbers(dtype):
    torch.manual_seed(0)
    mlp, x = FeedForward(32, 64, "silu").to(dtype), torch.randn(2, 37, 32, dtype=dtype)
    with torch.no_grad():
        mlp.chunk_size = 0
        whole = mlp(x)
        for chunk_size in (1, 10, 37, 74):
            mlp.chunk_size = chunk_size
            assert torch.allclose(mlp(x), whole, atol=1e-6 if dtype == torch.float32 else 1e-2)
    mlp.chunk_size = 10
    assert torch.allclose(mlp(x), whole, atol=1e-6 if dtype == torch.float32 else 1e-2), (
        "with gradients, in one chunk"
    )

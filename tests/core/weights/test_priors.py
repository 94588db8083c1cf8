"""Priors: every part computes what its prior computed, and what cannot be expressed is refused."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModel, PreTrainedTokenizerFast, Qwen2ForCausalLM
from transformers.models.clip import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from transformers.models.qwen2 import Qwen2Config

from core import HaploOmni
from core.errors import CheckpointError, ConfigError
from core.layers import FullAttention, MultimodalAdaLN
from core.weights.prior_loading import load_prior, load_tokenizer
from core.weights.priors import build_from_priors, frozen_time, main
from tests import ROOT

TIMESTEP = 300
EXAMPLES = ROOT / "examples" / "priors"


def tiny_vision(**changes) -> CLIPVisionModel:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPVisionModel(CLIPVisionConfig(**{**sizes, "image_size": 42, "patch_size": 14, **changes}))


def tiny_language(vocab_size: int = 64, **changes) -> Qwen2ForCausalLM:
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    return Qwen2ForCausalLM(
        Qwen2Config(
            **{
                **sizes,
                "num_key_value_heads": 2,
                "vocab_size": vocab_size,
                "rope_parameters": rope,
                **changes,
            }
        )
    )


def tiny_video(**changes) -> CogVideoXTransformer3DModel:
    sizes = {
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "num_layers": 2,
        "text_embed_dim": 24,
        "max_text_seq_length": 5,
    }
    return CogVideoXTransformer3DModel(
        **{**sizes, "sample_width": 8, "sample_height": 8, "sample_frames": 9, **changes}
    )


@pytest.fixture(scope="module")
def priors():
    torch.manual_seed(0)
    made = (tiny_vision(), tiny_language(), tiny_video())
    for prior in made:
        prior.eval()
        for parameter in prior.parameters():  # away from the tame initial values: biases and norms too
            nn.init.normal_(parameter, mean=float(parameter.dim() == 1) * 0.5, std=0.15)
    return made


@pytest.fixture(scope="module")
def built(priors):
    return build_from_priors(*priors, image_token=60, video_token=61, frozen_timestep=TIMESTEP).eval()


@torch.no_grad()
def test_pre_part_is_the_clip_encoder_on_patch_tokens(priors, built):
    vision, core = priors[0], built.model
    pixels = torch.randn(2, 3, 42, 42)
    patches = (
        vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        + vision.embeddings.position_embedding.weight[1:]
    )
    expected = vision.encoder(inputs_embeds=vision.pre_layrnorm(patches)).last_hidden_state
    places = torch.arange(9).expand(2, -1)
    found = core.forward_pre(core.patch_embed(pixels) + core.pre_pos_embed, places, FullAttention())
    assert torch.allclose(found, expected, atol=1e-4) and expected.std() > 0.1


@torch.no_grad()
def test_base_part_is_the_qwen2_decoder(priors, built):
    language, core = priors[1], built.model
    embeds, places = torch.randn(2, 7, 48), torch.arange(7).expand(2, -1)
    expected = language.model(inputs_embeds=embeds).last_hidden_state
    layers = core.layers[core.pre.num_hidden_layers :][: core.base.num_hidden_layers]
    found = core.norm(core.run(layers, core.base, embeds, places, FullAttention(causal=True)))
    assert torch.allclose(found, expected, atol=1e-4) and expected.std() > 0.1
    assert torch.equal(built.lm_head.weight, language.lm_head.weight)


class Forced(nn.Module):
    """An indicator that is certain: condition set for the first ``text`` tokens, latent set for the rest."""

    def __init__(self, text: int) -> None:
        super().__init__()
        self.text = text

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        condition = torch.arange(x.shape[1])[:, None] < self.text
        return torch.where(condition, torch.tensor([-50.0, 50.0]), torch.tensor([50.0, -50.0])).expand(
            len(x), -1, -1
        )


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu-approximate", "gelu"])
def test_post_part_is_cogvideox_at_the_frozen_time(activation, priors):
    video = tiny_video(activation_fn=activation).eval()
    video.load_state_dict(priors[2].state_dict())
    model = build_from_priors(
        *priors[:2], video, image_token=60, video_token=61, frozen_timestep=TIMESTEP
    ).eval()
    core = model.model
    layers = core.layers[-core.post.num_hidden_layers :]
    for module in layers.modules():
        if isinstance(module, MultimodalAdaLN):
            module.indicator = Forced(text=5)
    text, noise = torch.randn(1, 5, 64), torch.randn(1, 12, 64)
    time = frozen_time(video, TIMESTEP)
    drawn, read = noise, text
    for block in video.transformer_blocks:
        drawn, read = block(drawn, read, time)
    places = torch.arange(17)[None]
    found = core.run(layers, core.post, torch.cat([text, noise], dim=1), places, FullAttention())
    assert torch.allclose(found[:, 5:], drawn, atol=1e-4) and torch.allclose(found[:, :5], read, atol=1e-4)
    expected = video.proj_out(video.norm_out(video.norm_final(drawn), temb=time))
    assert torch.allclose(
        model.proj_out(model.norm_out(model.norm_final(found[:, 5:]), temb=time)), expected, atol=1e-4
    )


@torch.no_grad()
def test_latents_become_the_noise_tokens_of_cogvideox(priors, built):
    video = priors[2]
    latents = torch.randn(1, 3, 16, 8, 8)
    expected = video.patch_embed(torch.randn(1, 5, 24), latents)[:, 5:]
    assert torch.allclose(built.patch_embed_cogvideo(latents), expected, atol=1e-5)


@torch.no_grad()
def test_words_survive_the_first_connector_as_well_as_its_width_allows(priors, built):
    words, core = priors[1].get_input_embeddings().weight, built.model
    back = core.embed_tokens.weight @ core.pre_connector.affine.weight.T
    strengths = torch.linalg.svdvals(words)
    best = (
        strengths[core.pre.hidden_size :].square().sum().sqrt()
    )  # Eckart-Young: no map of this width loses less
    assert abs(torch.linalg.norm(words - back) - best) < 1e-3 * torch.linalg.norm(words)


def test_foreign_priors_are_refused_with_both_values(priors):
    vision, language, video = priors
    rotary = tiny_video(use_rotary_positional_embeddings=True)
    geglu = tiny_video(activation_fn="geglu")
    tokens = {"image_token": 60, "video_token": 61}
    words = CLIPTextModel(CLIPTextConfig(num_hidden_layers=1, vocab_size=64))
    cases = [
        ((words, language, video), tokens, "CLIPTextModel.*CLIPVisionModel"),
        ((tiny_vision(hidden_size=64), language, video), tokens, "64 wide.*48"),
        ((vision, language, tiny_video(in_channels=8)), tokens, "in_channels = 8.*16"),
        ((vision, language, rotary), tokens, "rotary.*True.*False"),
        ((vision, language, tiny_video(time_embed_dim=64)), tokens, "time_embed_dim = 64.*512"),
        ((vision, language, geglu), tokens, "activation_fn = geglu.*gelu-approximate"),
        ((vision, language, video), {**tokens, "video_token": 64}, "60 and 64.*64 embeddings"),
        ((vision, language, video), {**tokens, "frozen_timestep": 1000}, "1000.*999"),
    ]  # fmt: skip
    for given, options, said in cases:
        with pytest.raises(ConfigError, match=said):
            build_from_priors(*given, **options)


def test_a_whole_clip_gives_its_vision_and_a_cut_one_is_refused(priors, tmp_path):
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 64,
    }
    whole = CLIPModel(
        CLIPConfig(text_config=text, vision_config=priors[0].config.to_dict(), projection_dim=8)
    )
    whole.save_pretrained(tmp_path / "whole")
    found = load_prior(CLIPVisionModel, str(tmp_path / "whole"))
    layer, own = (model.encoder.layers[1].mlp.fc1.weight for model in (found, whole.vision_model))
    assert torch.equal(layer, own)
    priors[2].save_pretrained(tmp_path / "pipeline" / "transformer")
    drawn = load_prior(CogVideoXTransformer3DModel, str(tmp_path / "pipeline"), "transformer")
    assert torch.equal(drawn.proj_out.weight, priors[2].proj_out.weight)
    priors[0].save_pretrained(tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    weights.pop(next(name for name in weights if "fc1.weight" in name))
    save_file(weights, tmp_path / "cut" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks weights.*fc1"):
        load_prior(CLIPVisionModel, str(tmp_path / "cut"))


def test_a_tokenizer_without_media_tokens_gets_them(tmp_path):
    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"hello": 0, "[UNK]": 1}, "[UNK]")), unk_token="[UNK]"
    )
    bare.save_pretrained(tmp_path / "bare")
    tokenizer = load_tokenizer(str(tmp_path / "bare"))
    ids = tokenizer.convert_tokens_to_ids(["<image>", "<video>", "<|im_start|>", "<|im_end|>"])
    assert (
        sorted(ids) == [2, 3, 4, 5] and tokenizer("<image>", add_special_tokens=False)["input_ids"] == ids[:1]
    )
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))


def test_the_example_priors_become_a_checkpoint_that_talks(tmp_path, capsys):
    folders = {name: str(EXAMPLES / name) for name in ("vision", "language", "video")}
    command = ["--vision", folders["vision"], "--language", folders["language"], "--video", folders["video"]]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    omni = HaploOmni.load(tmp_path / "out", device="cpu", vae=EXAMPLES)
    assert isinstance("".join(omni.chat([{"role": "user", "content": "Hello"}], max_new_tokens=2)), str)
    *_, clip = omni.text_to_video("a circle", num_inference_steps=1, height=32, width=32, num_frames=1)
    assert clip.frames.shape == (1, 32, 32, 3)
    assert main([*command, "--vision", folders["video"], "--out", str(tmp_path / "no")]) == 2
    assert "CogVideoXTransformer3DModel; a CLIPVisionModel is needed" in capsys.readouterr().err
    assert main([*command, "--language", str(tmp_path / "nowhere"), "--out", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()

"""HaploOmniForConditionalGeneration: one set of weights that answers in words and predicts noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.normalization import AdaLayerNorm
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, GenerationMixin, PreTrainedModel
from transformers import initialization as init

from core.config import TIME_EMBED_DIM, HaploOmniConfig
from core.errors import CheckpointError, PromptError, RequestError
from core.geometry import LATENT_CHANNELS, LATENT_PATCH
from core.layers import (
    AttentionContext,
    FullAttention,
    LatentPatchEmbed,
    MultimodalAdaLN,
    RMSNorm,
    timestep_sinusoid,
)
from core.layers.embeddings import unpatchify
from core.model import masks
from core.model.anyres import GridPlan, pack_media, place_media, plan_grid
from core.model.contexts import (
    PrefixAttention,
    PromptKVCache,
    RecordingAttention,
    StackInput,
    cache_in_use,
    generation_input,
    in_autocast_precision,
    understanding_input,
)
from core.model.decoder import HaploOmniModel
from core.model.outputs import CACHE_FIELD, HaploOmniOutput, next_token_loss, refuse_states


class HaploOmniForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """One transformer that understands images and videos and predicts video noise (arXiv 2506.02975)."""

    config_class = HaploOmniConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["cache", "past_key_values", "prefix"]
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [r"patch_embed_cogvideo\.text_proj\."]
    supports_gradient_checkpointing = True

    def __init__(self, config: HaploOmniConfig) -> None:
        super().__init__(config)
        post_width = config.part("post").hidden_size
        self.model = HaploOmniModel(config)
        self.lm_head = nn.Linear(config.part("base").hidden_size, config.vocab_size, bias=False)
        self.patch_embed_cogvideo = LatentPatchEmbed(post_width)
        self.v2t_projector = nn.Linear(post_width, config.part("pre").hidden_size)
        self.time_embedding = TimestepEmbedding(post_width, TIME_EMBED_DIM, "silu")
        self.temb_token = nn.Linear(TIME_EMBED_DIM, post_width)
        self.norm_final = nn.LayerNorm(post_width, eps=1e-5)
        self.norm_out = AdaLayerNorm(
            TIME_EMBED_DIM,
            output_dim=2 * post_width,
            norm_elementwise_affine=True,
            norm_eps=1e-5,
            chunk_dim=1,
        )
        self.proj_out = nn.Linear(post_width, LATENT_CHANNELS * LATENT_PATCH**2)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):  # type: ignore[override]
        """Load the released layout (single file or shards, safetensors only).

        Raises:
            CheckpointError: tensors are missing, unexpected or of another shape; the message names them.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"use_safetensors": True, "trust_remote_code": False}
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        model, info = loaded
        faults = _loading_faults(info)
        if faults:
            raise CheckpointError(
                f"The weights in {pretrained_model_name_or_path} do not belong to its config.json: {faults}."
            )
        if isinstance(kwargs.get("dtype"), torch.dtype):
            # transformers leaves some of a quantized checkpoint as stored
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(kwargs["dtype"])
        return (model, info) if wants_info else model

    def _init_weights(self, module: Any) -> None:
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, (nn.LayerNorm, RMSNorm)):
            init.ones_(module.weight)
            bias: Any = getattr(module, "bias", None)
            if bias is not None:
                init.zeros_(bias)
        elif isinstance(module, MultimodalAdaLN):
            module.reset_modulation()
        elif isinstance(module, HaploOmniModel):
            init.normal_(module.pre_pos_embed, mean=0.0, std=std)
            init.normal_(module.image_newline, mean=0.0, std=std)
            init.ones_(module.post_scale)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table that embeds words."""
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embed_tokens = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Linear:
        """The head that predicts words; its weights are not the table's."""
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        attention_start_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        read_until: int | None = None,
        latents: Tensor | None = None,
        timestep: Tensor | None = None,
        prefix: list[PromptKVCache] | None = None,
        return_prefix: bool = False,
        **unused: object,  # generation passes more than we need
    ) -> HaploOmniOutput:
        """Understanding, noise prediction, or a prompt's prefix: the one entry for every use.

        Args:
            input_ids: [B, S] tokens, left-padded, media placeholders expanded.
            attention_mask: [B, S], 1 on real tokens (with a cache: [B, past + S]).
            attention_start_ids: [B, S] start indices; computed from the media when left out.
                Read only where ``config.visual_attention`` is ``"grouped"``.
            pixel_values: [images, tiles, 3, side, side]; with ``image_sizes`` [images, 2] (height, width).
            pixel_values_videos: [videos, frames, 3, side, side].
            cache: keys and values to attend to and extend; ``use_cache`` makes a new one.
                ``past_key_values`` is its name before transformers 5.24.
            labels: [B, S] next-token targets, -100 where nothing counts.
            logits_to_keep: compute logits for the last so many positions only; 0 means all.
            read_until: of a whole conversation, what the ``cache`` does not hold is read up to this position.
            latents: [B, F, 16, h, w]; makes the call a noise prediction at ``timestep`` [B].
            prefix: one PromptKVCache a row instead of ``input_ids``: the fast denoising path.
            return_prefix: compute the PromptKVCache of every row of ``input_ids`` and return it.

        Raises:
            PromptError: media and placeholder tokens do not match.
            RequestError: latents of an impossible shape, or states that are not given out.
        """
        refuse_states(unused)
        if latents is not None:
            sample = self.predict_noise(latents, timestep, input_ids, attention_mask, prefix)
            return HaploOmniOutput(sample=sample)
        if input_ids is None:
            raise PromptError("The model needs input_ids (or latents with a timestep).")
        if return_prefix:
            return HaploOmniOutput(prefix=self._text_prefixes(input_ids, attention_mask))
        cache = cache_in_use(cache, past_key_values, use_cache)
        embeds = self.embed(input_ids, pixel_values, image_sizes, pixel_values_videos)
        plans = self._plans(image_sizes) if pixel_values is not None else []
        starts = self._start_ids(input_ids, attention_start_ids, plans, pixel_values_videos)
        hidden = self.model(*understanding_input(embeds, starts, attention_mask, cache, read_until))
        if isinstance(logits_to_keep, int) and logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.text_logits(hidden)
        grown: dict[str, Any] = {CACHE_FIELD: cache}
        return HaploOmniOutput(loss=next_token_loss(logits, labels), logits=logits, **grown)

    # -- understanding

    def image_plan(self, image_size: tuple[int, int]) -> GridPlan:
        """The token grid of an image of (height, width) pixels under this model's configuration."""
        c = self.config
        return plan_grid(
            image_size,
            c.image_grid_pinpoints,
            c.default_image_size,
            c.patches_per_side,
            c.anyres_max_tiles,
            bool(c.image_newline),
        )

    def is_media(self, input_ids: Tensor) -> Tensor:
        """Where placeholders of media stand [B, S]."""
        return (input_ids == self.config.image_token_index) | (input_ids == self.config.video_token_index)

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Tensor | None = None,
        pixel_values_videos: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Words and media in one stream [B, S, pre width], from what :meth:`forward` takes or lists of media.

        Raises:
            PromptError: media and placeholder tokens do not match.
        """
        embeds = self.model.embed_tokens(input_ids)
        if pixel_values is not None and image_sizes is not None:
            images = self._embed_media(pixel_values, self._plans(image_sizes))
            embeds = place_media(embeds, input_ids == self.config.image_token_index, images, "image")
        if pixel_values_videos is not None:
            videos = self._embed_media(pixel_values_videos, [None] * len(pixel_values_videos))
            embeds = place_media(embeds, input_ids == self.config.video_token_index, videos, "video")
        return in_autocast_precision(embeds)

    def _plans(self, image_sizes: Tensor | None) -> list[GridPlan]:
        sizes = [] if image_sizes is None else image_sizes.tolist()
        return [self.image_plan((int(height), int(width))) for height, width in sizes]

    def _embed_media(self, media: Tensor | Sequence[Tensor], plans: Sequence[GridPlan | None]) -> Tensor:
        """Tiles or frames [T, 3, side, side] of every medium -> tokens of all of them [K, pre width]."""
        # one convolution for all media
        pixels = torch.cat(list(media)).to(self.model.patch_embed.proj.weight.dtype)
        features = self.model.patch_embed(pixels) + self.model.pre_pos_embed  # (T, P * P, pre width)
        return pack_media(features.split([len(tiles) for tiles in media]), plans, self.model.image_newline)

    def _start_ids(
        self,
        input_ids: Tensor,
        given: Tensor | None,
        plans: Sequence[GridPlan],
        videos: Tensor | Sequence[Tensor] | None,
    ) -> Tensor:
        """Start indices [B, S] of the tokens (see :mod:`core.model.masks`)."""
        has_media = bool(plans) or videos is not None
        if self.config.visual_attention == "causal" or (given is None and not has_media):
            return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        if given is not None:
            return given
        ids = (self.config.image_token_index, self.config.video_token_index)
        per_frame = self.config.patches_per_side**2
        frames = [[per_frame] * len(video) + [1] for video in videos] if videos is not None else []
        return masks.start_ids(input_ids, *ids, [plan.num_tokens for plan in plans], frames)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Last decoder states [..., post width] -> logits of the next token [..., V]."""
        return self.lm_head(self.model.text_head_states(hidden))

    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, **kwargs):
        """With a cache media enter with the first pass only, without one with every pass.

        Start indices are those of the prompt; later passes, whose sequence is longer, compute their own.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        starts = inputs.get("attention_start_ids")
        if not is_first_iteration or (starts is not None and starts.shape != inputs["input_ids"].shape):
            inputs["attention_start_ids"] = None  # of the prompt alone, which proposed tokens may follow
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs |= dict.fromkeys(("pixel_values", "image_sizes", "pixel_values_videos"))
        return inputs

    # -- noise prediction

    def _text_prefixes(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[PromptKVCache]:
        """Run each row's real tokens alone and keep the keys and values of every block."""
        prefixes = []
        for row in range(len(input_ids)):
            tokens = input_ids[row] if attention_mask is None else input_ids[row][attention_mask[row].bool()]
            prefix = PromptKVCache(length=len(tokens))
            position_ids = torch.arange(len(tokens), device=tokens.device)[None]
            self.model(self.model.embed_tokens(tokens[None]), position_ids, RecordingAttention(prefix))
            prefixes.append(prefix)
        return prefixes

    def predict_noise(
        self,
        latents: Tensor,
        timestep: Tensor | None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        prefix: list[PromptKVCache] | None = None,
        attention: Callable[[Tensor], AttentionContext] = FullAttention,
    ) -> Tensor:
        """The velocity of noisy latents, of their shape [B, F, 16, h, w].

        Args:
            latents, timestep, input_ids, attention_mask, prefix: as in :meth:`forward`.
            attention: makes a context of a mask [B, 1, S, S], for the sequence of ``input_ids`` and noise.

        Raises:
            PromptError: there is neither a prompt nor its prefix.
            RequestError: latents of an impossible shape, or no timestep.
        """
        batch, _, channels, height, width = latents.shape
        if timestep is None:
            raise RequestError("Noise prediction needs a timestep for each row of latents.")
        if channels != LATENT_CHANNELS or height % LATENT_PATCH or width % LATENT_PATCH:
            shape = list(latents.shape)
            raise RequestError(f"Latents must be [B, F, {LATENT_CHANNELS}, even, even], not {shape}.")
        time = self.embed_time(timestep.expand(batch))
        if prefix is not None:
            tail = self.embed_noise(latents, time)  # (B, 1 + N, pre width)
            lengths = torch.tensor([p.length for p in prefix], device=latents.device)
            position_ids = lengths[:, None] + torch.arange(tail.shape[1], device=latents.device)
            hidden = self.model(tail, position_ids, PrefixAttention(prefix))
        elif input_ids is not None:
            hidden = self.model(*self.noise_input(latents, time, input_ids, attention_mask, attention))
        else:
            raise PromptError(
                "Noise prediction needs the prompt: input_ids, or the prefix computed from them."
            )
        return self.read_noise(hidden, time, latents.shape)

    def noise_input(
        self,
        latents: Tensor,
        time: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        attention: Callable[[Tensor], AttentionContext] = FullAttention,
    ) -> StackInput:
        """What the decoder reads to predict noise: [text | timestep | noise] at the pre part's width.

        Args:
            latents, input_ids, attention_mask, attention: as in :meth:`predict_noise`.
            time: embedding [B, 512] of the timesteps.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        tail = self.embed_noise(latents, time)
        return generation_input(self.model.embed_tokens(input_ids), tail, attention_mask, attention)

    def embed_time(self, timestep: Tensor) -> Tensor:
        """Timesteps [B] -> time embedding e [B, 512]."""
        sinusoid = timestep_sinusoid(timestep, self.patch_embed_cogvideo.width)
        return self.time_embedding(sinusoid.to(self.temb_token.weight.dtype))

    def embed_latents(self, latents: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Timestep token [B, 1, post width] and noise tokens [B, N, post width]: what the post part reads."""
        noise = self.patch_embed_cogvideo(latents.to(self.patch_embed_cogvideo.proj.weight.dtype))
        return self.temb_token(F.silu(time))[:, None].to(noise.dtype), noise

    def embed_noise(self, latents: Tensor, time: Tensor) -> Tensor:
        """[timestep token | noise tokens] at the pre part's width: [B, 1 + N, pre width]."""
        # projected apart, as the original does: joining them first rounds differently
        return torch.cat([self.v2t_projector(part) for part in self.embed_latents(latents, time)], dim=1)

    def read_noise(self, hidden: Tensor, time: Tensor, shape: torch.Size) -> Tensor:
        """Last decoder states [B, S, post width], noise last -> velocity of ``shape`` [B, F, 16, h, w]."""
        _, frames, _, height, width = shape
        length = frames * (height // LATENT_PATCH) * (width // LATENT_PATCH)
        noise = self.norm_out(self.norm_final(hidden[:, -length:]), temb=time)  # (B, N, post width)
        return unpatchify(self.proj_out(noise), frames, height, width)


def _loading_faults(info: dict[str, Any]) -> str:
    """Which tensors did not fit, in words; nothing where all did."""
    faults = []
    for key, kind in (
        ("missing_keys", "missing"),
        ("unexpected_keys", "unexpected"),
        ("mismatched_keys", "of another shape"),
    ):
        names = sorted(str(name) for name in info.get(key) or ())
        if names:
            faults.append(f"{kind} {', '.join(names[:6])}" + (" and more" if len(names) > 6 else ""))
    return "; ".join(faults)

"""HaploOmniForConditionalGeneration: one set of weights that answers in words and predicts noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.normalization import AdaLayerNorm
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from core.config import LATENT_CHANNELS, LATENT_PATCH, TIME_EMBED_DIM, HaploOmniConfig
from core.errors import CheckpointError, PromptError, RequestError
from core.layers import AttentionContext, FullAttention, LatentPatchEmbed, MultimodalAdaLN, RMSNorm, timestep_sinusoid
from core.layers.embeddings import unpatchify
from core.model import masks
from core.model.anyres import GridPlan, pack_tiles, plan_grid, video_token_count
from core.model.contexts import CachedAttention, PrefixAttention, RecordingAttention, TextPrefix
from core.model.decoder import HaploOmniModel


@dataclass
class HaploOmniOutput(ModelOutput):
    """What one forward pass gives: words (``logits``), noise (``sample``) or a prompt's ``prefix``.

    ``loss`` scalar; ``logits`` [B, S, V]; ``past_key_values`` the grown cache; ``sample`` [B, F, 16, h, w];
    ``prefix`` one :class:`TextPrefix` a row.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    sample: Tensor | None = None
    prefix: list[TextPrefix] | None = None


class HaploOmniForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """One transformer that understands images and videos and predicts video noise (arXiv 2506.02975)."""

    config_class = HaploOmniConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["past_key_values", "prefix"]
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
            TIME_EMBED_DIM, output_dim=2 * post_width, norm_elementwise_affine=True, norm_eps=1e-5, chunk_dim=1
        )
        self.proj_out = nn.Linear(post_width, LATENT_CHANNELS * LATENT_PATCH**2)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):  # type: ignore[override]
        """Load the released layout (single file or shards, safetensors only); any missing or foreign tensor is an error.

        Raises:
            CheckpointError: tensors are missing, unexpected or of another shape; their names are in the message.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"use_safetensors": True, "trust_remote_code": False}
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        faults = [
            f"{kind} {', '.join(sorted(str(name) for name in info[key])[:6])}{' and more' if len(info[key]) > 6 else ''}"
            for key, kind in (
                ("missing_keys", "missing"),
                ("unexpected_keys", "unexpected"),
                ("mismatched_keys", "of another shape"),
            )
            if info.get(key)
        ]
        if faults:
            raise CheckpointError(
                f"The weights in {pretrained_model_name_or_path} do not belong to this configuration: {'; '.join(faults)}."
            )
        if isinstance(kwargs.get("dtype"), torch.dtype):  # transformers leaves some of a quantized checkpoint as stored
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(kwargs["dtype"])
        return (model, info) if wants_info else model

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, (nn.LayerNorm, RMSNorm)):
            init.ones_(module.weight)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, MultimodalAdaLN):
            module.reset_modulation()
        elif isinstance(module, HaploOmniModel):
            init.normal_(module.pre_pos_embed, mean=0.0, std=std)
            init.normal_(module.image_newline, mean=0.0, std=std)
            init.ones_(module.post_scale)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        attention_start_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        latents: Tensor | None = None,
        timestep: Tensor | None = None,
        prefix: list[TextPrefix] | None = None,
        return_prefix: bool = False,
        **unused: object,  # noqa: ARG002  (generation passes more than we need)
    ) -> HaploOmniOutput:
        """Understanding, noise prediction, or a prompt's prefix: the one entry for every use.

        Args:
            input_ids: [B, S] tokens, left-padded, media placeholders expanded.
            attention_mask: [B, S], 1 on real tokens (with a cache: [B, past + S]).
            attention_start_ids: [B, S] start indices; computed from the media when left out. Read only where
                ``config.visual_attention`` is ``"grouped"``.
            pixel_values: [images, tiles, 3, side, side]; with ``image_sizes`` [images, 2] (height, width).
            pixel_values_videos: [videos, frames, 3, side, side].
            past_key_values: cache to attend to and extend; ``use_cache`` makes a new one.
            labels: [B, S] next-token targets, -100 where nothing counts.
            logits_to_keep: compute logits for the last so many positions only; 0 means all.
            latents: [B, F, 16, h, w]; makes the call a noise prediction at ``timestep`` [B].
            prefix: one TextPrefix a row instead of ``input_ids``: the fast denoising path.
            return_prefix: compute the TextPrefix of every row of ``input_ids`` and return it.

        Raises:
            PromptError: media and placeholder tokens do not match.
            RequestError: latents of an impossible shape.
        """
        if latents is not None:
            if timestep is None:
                raise RequestError("Noise prediction needs a timestep for each row of latents.")
            return HaploOmniOutput(sample=self._predict_noise(latents, timestep, input_ids, attention_mask, prefix))
        if input_ids is None:
            raise PromptError("The model needs input_ids (or latents with a timestep).")
        if return_prefix:
            return HaploOmniOutput(prefix=self._text_prefixes(input_ids, attention_mask))
        if past_key_values is None and use_cache:
            past_key_values = DynamicCache()
        embeds, starts = self._embed(input_ids, attention_start_ids, pixel_values, image_sizes, pixel_values_videos)
        position_ids, context = self._understanding_context(starts, attention_mask, past_key_values)
        hidden = self.model(embeds, position_ids, context)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else slice(None)
        logits = self.lm_head(self.model.answer_states(hidden[:, kept]))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        return HaploOmniOutput(loss=loss, logits=logits, past_key_values=past_key_values)

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

    def _embed(
        self,
        input_ids: Tensor,
        starts: Tensor | None,
        pixel_values: Tensor | None,
        image_sizes: Tensor | None,
        pixel_values_videos: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Token features [B, S, pre width] with media in place, and start indices [B, S]."""
        embeds = self.model.embed_tokens(input_ids)
        image_counts: list[int] = []
        frame_counts: list[list[int]] = []
        if pixel_values is not None and image_sizes is not None:
            plans = [self.image_plan((int(h), int(w))) for h, w in image_sizes.tolist()]
            features = [
                pack_tiles(self._tile_features(tiles), plan, self.model.image_newline)
                for tiles, plan in zip(pixel_values, plans, strict=True)
            ]
            image_counts = [plan.num_tokens for plan in plans]
            embeds = self._place(embeds, input_ids == self.config.image_token_index, torch.cat(features), "image")
        if pixel_values_videos is not None:
            newline = self.model.image_newline[None]
            clips = [torch.cat([self._tile_features(v).flatten(0, 1), newline.to(embeds.dtype)]) for v in pixel_values_videos]
            per_frame = self.config.patches_per_side**2
            frame_counts = [[per_frame] * len(video) + [1] for video in pixel_values_videos]
            embeds = self._place(embeds, input_ids == self.config.video_token_index, torch.cat(clips), "video")
        if self.config.visual_attention == "causal" or (starts is None and not image_counts and not frame_counts):
            starts = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        elif starts is None:
            ids = (self.config.image_token_index, self.config.video_token_index)
            starts = masks.start_ids(input_ids, *ids, image_counts, frame_counts)
        return embeds, starts

    def _tile_features(self, pixels: Tensor) -> Tensor:
        """[T, 3, side, side] -> [T, P * P, pre width], positions added."""
        features = self.model.patch_embed(pixels.to(self.model.patch_embed.proj.weight.dtype))
        return features + self.model.pre_pos_embed.to(features.dtype)

    @staticmethod
    def _place(embeds: Tensor, where: Tensor, features: Tensor, kind: str) -> Tensor:
        if int(where.sum()) != len(features):
            raise PromptError(f"The text holds {int(where.sum())} {kind} tokens but the given {kind}s make {len(features)}.")
        return embeds.masked_scatter(where[..., None], features.to(embeds.dtype))

    def _understanding_context(
        self, starts: Tensor, attention_mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, AttentionContext]:
        past = cache.get_seq_length() if cache is not None else 0
        batch, length = starts.shape
        if attention_mask is None or attention_mask.dim() != 2:
            attention_mask = torch.ones(batch, past + length, device=starts.device, dtype=torch.long)
        position_ids = masks.positions(attention_mask)[:, -length:]
        padded = not bool(attention_mask.all())
        mask = None
        causal = past == 0 and not padded and bool((starts == torch.arange(length, device=starts.device)).all())
        if not causal and (padded or length > 1):
            # earlier keys are all before every query: any start up to `past` will do
            earlier = torch.zeros(batch, past, device=starts.device, dtype=starts.dtype)
            mask = masks.visible(torch.cat([earlier, starts + past], dim=1), attention_mask, first_query=past)
        if cache is not None:
            return position_ids, CachedAttention(cache, mask, causal)
        return position_ids, FullAttention(mask, causal)

    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, **kwargs):
        """Media enter with the first pass only; later passes read them from the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in ("pixel_values", "image_sizes", "pixel_values_videos", "attention_start_ids"):
                inputs[name] = None
        return inputs

    # -- noise prediction

    def _text_prefixes(self, input_ids: Tensor, attention_mask: Tensor | None) -> list[TextPrefix]:
        """Run each row's real tokens alone and keep the keys and values of every block."""
        prefixes = []
        for row in range(len(input_ids)):
            tokens = input_ids[row] if attention_mask is None else input_ids[row][attention_mask[row].bool()]
            prefix = TextPrefix(length=len(tokens))
            position_ids = torch.arange(len(tokens), device=tokens.device)[None]
            self.model(self.model.embed_tokens(tokens[None]), position_ids, RecordingAttention(prefix))
            prefixes.append(prefix)
        return prefixes

    def _predict_noise(
        self,
        latents: Tensor,
        timestep: Tensor,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        prefix: list[TextPrefix] | None,
    ) -> Tensor:
        batch, frames, channels, height, width = latents.shape
        if channels != LATENT_CHANNELS or height % LATENT_PATCH or width % LATENT_PATCH:
            raise RequestError(f"Latents must be [B, F, {LATENT_CHANNELS}, even, even], not {list(latents.shape)}.")
        time = self.embed_time(timestep.expand(batch))
        tail = self.embed_noise(latents, time)
        noise_length = tail.shape[1] - 1
        if prefix is not None:
            lengths = torch.tensor([p.length for p in prefix], device=latents.device)
            position_ids = lengths[:, None] + torch.arange(noise_length + 1, device=latents.device)
            hidden = self.model(tail, position_ids, PrefixAttention(prefix))
        elif input_ids is not None:
            if attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            embeds = torch.cat([self.model.embed_tokens(input_ids), tail], dim=1)
            real = F.pad(attention_mask, (0, noise_length + 1), value=1)
            starts = masks.generation_starts(input_ids.shape[1], noise_length, batch, latents.device)
            context = FullAttention(masks.visible(starts, real))
            hidden = self.model(embeds, masks.positions(real), context)
        else:
            raise PromptError("Noise prediction needs the prompt: input_ids, or the prefix computed from them.")
        return self.read_noise(hidden[:, -noise_length:], time, frames, height, width)

    def embed_time(self, timestep: Tensor) -> Tensor:
        """Timesteps [B] -> time embedding e [B, 512]."""
        sinusoid = timestep_sinusoid(timestep, self.patch_embed_cogvideo.width)
        return self.time_embedding(sinusoid.to(self.temb_token.weight.dtype))

    def embed_noise(self, latents: Tensor, time: Tensor) -> Tensor:
        """[timestep token | noise tokens] at the pre part's width: [B, 1 + N, pre width]."""
        noise = self.patch_embed_cogvideo(latents.to(self.patch_embed_cogvideo.proj.weight.dtype))
        token = self.temb_token(F.silu(time))[:, None].to(noise.dtype)
        # projected apart, as the original does: joining them first rounds differently
        return torch.cat([self.v2t_projector(token), self.v2t_projector(noise)], dim=1)

    def read_noise(self, hidden: Tensor, time: Tensor, frames: int, height: int, width: int) -> Tensor:
        """Noise tokens' last decoder states [B, N, post width] -> prediction [B, F, 16, h, w]."""
        hidden = self.norm_out(self.norm_final(hidden), temb=time)
        return unpatchify(self.proj_out(hidden), frames, height, width)

    def video_tokens(self, frames: int) -> int:
        """Placeholder tokens of a clip of ``frames`` frames."""
        return video_token_count(frames, self.config.patches_per_side)

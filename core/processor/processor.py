"""HaploOmniProcessor: tokenizer, image and video processor in the released folder layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import cached_file

from core.config import HaploOmniConfig
from core.errors import CheckpointError
from core.model import masks
from core.model.anyres import plan_grid, video_token_count
from core.processor import prompts
from core.processor.image import HaploOmniImageProcessor
from core.processor.video import HaploOmniVideoProcessor


class HaploOmniProcessor(ProcessorMixin):
    """Conversations and media to model inputs.

    Args:
        image_processor, video_processor, tokenizer: the three parts.
        chat_template: Jinja source; by default the tokenizer's own.
        image_token, video_token: placeholder tokens.
        num_image_tokens: patches of a tile.
        max_tiles: K of the model's ``anyres_max_K`` (one shared rule with the model; None: no limit).
        image_newline: whether the model ends every row of patches with a newline.
    """

    def __init__(
        self,
        image_processor: HaploOmniImageProcessor,
        video_processor: HaploOmniVideoProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        image_token: str = "<image>",
        video_token: str = "<video>",
        num_image_tokens: int = 256,
        max_tiles: int | None = 9,
        image_newline: bool = True,
    ) -> None:
        self.image_processor, self.video_processor, self.tokenizer = image_processor, video_processor, tokenizer
        self.chat_template: str = chat_template or str(tokenizer.chat_template)
        self.image_token, self.video_token = image_token, video_token
        self.num_image_tokens, self.max_tiles, self.image_newline = num_image_tokens, max_tiles, image_newline

    @classmethod
    def for_config(cls, config: HaploOmniConfig, tokenizer: PreTrainedTokenizerBase) -> HaploOmniProcessor:
        """The processor a model of this configuration needs, with the plain ChatML template."""
        size = {"height": config.default_image_size, "width": config.default_image_size}
        return cls(
            HaploOmniImageProcessor(image_grid_pinpoints=config.image_grid_pinpoints, size=size),
            HaploOmniVideoProcessor(size=size),
            tokenizer,
            chat_template=prompts.CHATML_TEMPLATE,
            num_image_tokens=config.patches_per_side**2,
            max_tiles=config.anyres_max_tiles,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):  # type: ignore[override]
        """Read a folder in the released layout, or a hub id.

        Raises:
            CheckpointError: a file is missing or is not what it should be.
        """
        hub = {
            key: kwargs[key] for key in ("cache_dir", "revision", "token", "local_files_only", "force_download") if key in kwargs
        }

        def read(name: str) -> dict[str, Any]:
            try:
                path = cached_file(str(pretrained_model_name_or_path), name, **hub)
                return json.loads(Path(path).read_text(encoding="utf-8"))
            except (OSError, TypeError) as error:
                raise CheckpointError(f"{pretrained_model_name_or_path} has no readable {name}.") from error
            except ValueError as error:
                raise CheckpointError(f"{name} in {pretrained_model_name_or_path} is not valid JSON.") from error

        image, video = read("preprocessor_config.json"), read("video_processor/preprocessor_config.json")
        settings, config = read("processor_config.json"), HaploOmniConfig(**_known(read("config.json")))
        try:
            tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, trust_remote_code=False, **hub)
        except Exception as error:
            raise CheckpointError(f"The tokenizer files in {pretrained_model_name_or_path} cannot be read: {error}") from error
        tokenizer.padding_side = "left"
        return cls(
            HaploOmniImageProcessor(**image),
            HaploOmniVideoProcessor(**video),
            tokenizer,
            chat_template=read("chat_template.json")["chat_template"],
            image_token=settings.get("image_token", "<image>"),
            video_token=settings.get("video_token", "<video>"),
            num_image_tokens=settings.get("num_image_tokens", config.patches_per_side**2),
            max_tiles=config.anyres_max_tiles,
            image_newline=bool(config.image_newline),
        )

    def save_pretrained(self, save_directory, **kwargs):  # type: ignore[override]  # noqa: ARG002
        """Write the released layout (the model writes ``config.json``)."""
        folder = Path(save_directory)
        (folder / "video_processor").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        self.video_processor.save_pretrained(folder / "video_processor")
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": self.chat_template}, indent=2) + "\n")
        settings = {
            "processor_class": type(self).__name__,
            "image_token": self.image_token,
            "video_token": self.video_token,
            "num_image_tokens": self.num_image_tokens,
        }
        (folder / "processor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def video_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(self.video_token)

    def image_tokens(self, height: int, width: int) -> int:
        """Tokens an image of ``height x width`` pixels takes."""
        side = self.image_processor.size["height"]
        per_side = int(self.num_image_tokens**0.5)
        pinpoints = self.image_processor.image_grid_pinpoints
        return plan_grid((height, width), pinpoints, side, per_side, self.max_tiles, self.image_newline).num_tokens

    def video_tokens(self, frames: int) -> int:
        """Tokens a clip of ``frames`` sampled frames takes."""
        return video_token_count(frames, int(self.num_image_tokens**0.5))

    def __call__(  # type: ignore[override]
        self,
        messages: Sequence[prompts.Message],
        images: Sequence[Image.Image] = (),
        videos: Sequence[np.ndarray] = (),
        add_generation_prompt: bool = True,
    ) -> BatchFeature:
        """One conversation -> model inputs, a batch of one.

        Args:
            messages: transformers chat format; media parts stand where the media go.
            images: the RGB images of the image parts, in order.
            videos: the clips of the video parts, in order, each uint8 [T, H, W, 3].
            add_generation_prompt: end with the opening of the assistant's turn.

        Returns:
            ``input_ids``, ``attention_mask``, ``attention_start_ids`` [1, S]; ``pixel_values`` and ``image_sizes``, and
            ``pixel_values_videos`` where there are such media (a list of tensors when clips differ in length).

        Raises:
            PromptError: placeholders and media do not match, or a message is malformed.
        """
        features: dict[str, Any] = {}
        image_counts = [self.image_tokens(image.height, image.width) for image in images]
        frame_counts = [[self.num_image_tokens] * len(video) + [1] for video in videos]
        expand = {self.image_token_id: image_counts, self.video_token_id: [sum(counts) for counts in frame_counts]}
        pieces = prompts.render(self.tokenizer, self.chat_template, messages, add_generation_prompt)
        ids = torch.tensor([prompts.encode(self.tokenizer, pieces, expand)])
        features["input_ids"] = ids
        features["attention_mask"] = torch.ones_like(ids)
        features["attention_start_ids"] = masks.start_ids(
            ids, self.image_token_id, self.video_token_id, image_counts, frame_counts
        )
        if images:
            features |= self.image_processor.preprocess(list(images))
        if videos:
            clips = [self.video_processor.preprocess([video])["pixel_values_videos"][0] for video in videos]
            alike = len({len(clip) for clip in clips}) == 1
            features["pixel_values_videos"] = torch.stack(clips) if alike else clips
        return BatchFeature(features)

    def decode(self, ids: Any, **kwargs: Any) -> str:
        """Token ids to text."""
        return self.tokenizer.decode(ids, **kwargs)


def _known(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("architectures", "torch_dtype", "transformers_version")}

"""HaploOmniProcessor: tokenizer, image and video processor in the released folder layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import cached_file

from core.config import HaploOmniConfig
from core.errors import CheckpointError, PromptError
from core.files import read_json
from core.model import masks
from core.model.anyres import plan_grid, video_token_count
from core.processor import prompts
from core.processor.habits import check_options
from core.processor.image import HaploOmniImageProcessor
from core.processor.media import DEFAULT_FRAMES, list_clips, list_images, media_of
from core.processor.templated import as_pieces, as_string
from core.processor.trial import try_out
from core.processor.video import HaploOmniVideoProcessor
from core.text import whole_text


class HaploOmniProcessor(ProcessorMixin):
    """Conversations and media to model inputs.

    Args:
        image_processor, video_processor, tokenizer: the three parts.
        chat_template: Jinja source; by default the tokenizer's own.
        image_token, video_token: placeholder tokens.
        num_image_tokens: patches of a tile.
        max_tiles: K of the model's ``anyres_max_K``, a rule it shares with the model; None: no limit.
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
        self.image_processor = image_processor
        self.video_processor = video_processor
        self.tokenizer = tokenizer
        self.chat_template: str = chat_template or str(tokenizer.chat_template)
        self.image_token = image_token
        self.video_token = video_token
        self.num_image_tokens = num_image_tokens
        self.max_tiles = max_tiles
        self.image_newline = image_newline

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
        place = str(pretrained_model_name_or_path)
        hub = {
            key: kwargs[key]
            for key in ("cache_dir", "revision", "token", "local_files_only", "force_download")
            if key in kwargs
        }

        def read(name: str) -> dict[str, Any]:
            try:
                path = cached_file(place, name, **hub)
            except OSError as error:
                raise CheckpointError(f"{place} has no readable {name}.") from error
            return read_json(Path(str(path)))

        def make(kind: type, name: str, **settings: Any) -> Any:
            try:
                return kind(**settings)
            except Exception as error:
                raise CheckpointError(f"{name} in {place} describes no {kind.__name__}: {error}") from error

        settings = read("processor_config.json")
        config = make(HaploOmniConfig, "config.json", **_known(read("config.json")))
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **hub)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise CheckpointError(
                f"The tokenizer files (tokenizer_config.json, tokenizer.json) in {place} "
                f"cannot be read: {reason}"
            ) from error
        tokenizer.padding_side = "left"
        image = "preprocessor_config.json"
        video = "video_processor/preprocessor_config.json"
        processor = cls(
            make(HaploOmniImageProcessor, image, **read(image)),
            make(HaploOmniVideoProcessor, video, **read(video)),
            tokenizer,
            chat_template=read("chat_template.json").get("chat_template"),
            image_token=settings.get("image_token", "<image>"),
            video_token=settings.get("video_token", "<video>"),
            num_image_tokens=settings.get("num_image_tokens", config.patches_per_side**2),
            max_tiles=config.anyres_max_tiles,
            image_newline=bool(config.image_newline),
        )
        try_out(processor, config, place)
        return processor

    def save_pretrained(self, save_directory, **kwargs):  # type: ignore[override]  # noqa: ARG002
        """Write the released layout (the model writes ``config.json``)."""
        folder = Path(save_directory)
        (folder / "video_processor").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        self.video_processor.save_pretrained(folder / "video_processor")
        (folder / "chat_template.json").write_text(
            json.dumps({"chat_template": self.chat_template}, indent=2) + "\n"
        )
        settings = {
            "processor_class": type(self).__name__,
            "image_token": self.image_token,
            "video_token": self.video_token,
            "num_image_tokens": self.num_image_tokens,
        }
        (folder / "processor_config.json").write_text(json.dumps(settings, indent=2) + "\n")

    @property
    def image_token_id(self) -> int:
        """The token that stands for an image in a rendered conversation."""
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def video_token_id(self) -> int:
        """The token that stands for a clip in a rendered conversation."""
        return self.tokenizer.convert_tokens_to_ids(self.video_token)

    def image_tokens(self, height: int, width: int) -> int:
        """Tokens an image of ``height x width`` pixels takes."""
        plan = plan_grid(
            (height, width),
            self.image_processor.image_grid_pinpoints,
            self.image_processor.size["height"],
            int(self.num_image_tokens**0.5),
            self.max_tiles,
            self.image_newline,
        )
        return plan.num_tokens

    def video_tokens(self, frames: int) -> int:
        """Tokens a clip of ``frames`` sampled frames takes."""
        return video_token_count(frames, int(self.num_image_tokens**0.5))

    def __call__(  # type: ignore[override]
        self,
        messages: Sequence[prompts.Message] | str | Sequence[str] | None = None,
        images: Any = None,
        videos: Any = None,
        add_generation_prompt: bool = True,
        *,
        text: str | Sequence[str] | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
        **options: Any,
    ) -> BatchFeature:
        """One conversation, or rendered texts as with other transformers models -> model inputs.

        Args:
            messages: one conversation in the transformers chat format; media parts stand where the media go.
            images: the images of the image parts, in order, row after row: one, a list, or a list a row.
            videos: the clips of the video parts alike, each uint8 [T, H, W, 3] or a list of frames.
            add_generation_prompt: end a conversation with the opening of the assistant's turn.
            text: instead of ``messages``, what :meth:`apply_chat_template` rendered, one string or one a row.
                Without any media its placeholders are left as they are.
            padding: rows are padded on the left, to the longest or, with ``"max_length"``, to ``max_length``.
            max_length: in tokens.
            return_tensors: ``"pt"``; nothing else is made.
            options: other habits of transformers that ask for nothing else than what is done here.

        Returns:
            ``input_ids``, ``attention_mask``, ``attention_start_ids`` [B, S], integers.
            With images ``pixel_values`` [images, tiles, 3, side, side] and ``image_sizes`` [images, 2].
            With clips ``pixel_values_videos`` [clips, T, 3, side, side], or a list where T differs.

        Raises:
            PromptError: placeholders and media do not match, a message is malformed, or an option cannot be.
        """
        check_options(options)
        if isinstance(messages, (Image.Image, np.ndarray, torch.Tensor)):
            raise PromptError("The conversation or text comes first; give pictures by their name, images=...")
        if return_tensors not in ("pt", None):
            raise PromptError(f"return_tensors {return_tensors!r} is not made; use 'pt'.")
        if isinstance(messages, str) or (messages and isinstance(messages[0], str)):
            text = text or messages  # type: ignore[assignment]
            messages = None
        if (messages is None) == (text is None):
            raise PromptError("Give either a conversation or its rendered text.")
        if text is None:
            conversation = cast(Sequence[prompts.Message], messages or [])
            rows = [prompts.render(self.tokenizer, self.chat_template, conversation, add_generation_prompt)]
        else:
            texts = [text] if isinstance(text, str) else text
            rows = [as_pieces(self.tokenizer, whole_text(row)) for row in texts]
        pictures = list_images(images)
        clips = list_clips(videos)
        if text is not None and not pictures and not clips:
            encoded = [prompts.encode(self.tokenizer, row, {}) for row in rows]
            return self._padded(encoded, padding, max_length)
        return self._with_media(rows, pictures, clips, padding, max_length)

    def _with_media(
        self,
        rows: list[list[str | int]],
        images: list[Image.Image],
        videos: list[np.ndarray],
        padding: bool | str,
        max_length: int | None,
    ) -> BatchFeature:
        """Rows of pieces with their media, whose placeholders are expanded in reading order."""
        image_counts = [self.image_tokens(image.height, image.width) for image in images]
        frame_counts = [[self.num_image_tokens] * len(video) + [1] for video in videos]
        left = {
            self.image_token_id: image_counts,
            self.video_token_id: [sum(counts) for counts in frame_counts],
        }
        encoded = []
        for row in rows:
            # as many media as the row has placeholders are its own, the rest belongs to later rows
            own = {token: counts[: row.count(token)] for token, counts in left.items()}
            left = {token: counts[len(own[token]) :] for token, counts in left.items()}
            encoded.append(prompts.encode(self.tokenizer, row, own))
        if any(left.values()):
            raise PromptError("More images or videos were given than the conversation names.")
        features = self._padded(encoded, padding, max_length)
        features["attention_start_ids"] = masks.start_ids(
            features["input_ids"], self.image_token_id, self.video_token_id, image_counts, frame_counts
        )
        if images:
            features.update(self.image_processor.preprocess(images))
        if videos:
            clips = [self.video_processor.preprocess([video])["pixel_values_videos"][0] for video in videos]
            alike = len({len(clip) for clip in clips}) == 1
            features["pixel_values_videos"] = (
                torch.stack(clips) if alike else clips
            )  # (clips, T, 3, side, side)
        return features

    def _padded(self, rows: list[list[int]], padding: bool | str, max_length: int | None) -> BatchFeature:
        """``input_ids`` and ``attention_mask`` [B, S], padded on the left."""
        longest = max(map(len, rows), default=0)
        if padding is False and any(len(row) != longest for row in rows):
            raise PromptError("Rows of different lengths need padding=True.")
        length = max_length if padding == "max_length" and max_length else longest
        if length < longest:
            raise PromptError(
                f"A row takes {longest} tokens, more than max_length {length}; nothing is cut off here."
            )
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return BatchFeature({"input_ids": ids, "attention_mask": mask})

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        num_frames: int = DEFAULT_FRAMES,
        processor_kwargs: dict[str, Any] | None = None,
        continue_final_message: bool = False,
        **options: Any,
    ) -> Any:
        """A conversation (or a list of them) as rendered text or, with ``tokenize``, as model inputs.

        Control tokens typed by people stay words: in the text see :mod:`core.processor.templated`.

        Args:
            conversation: messages in the transformers chat format.
                Media parts may carry ``"image"``, ``"video"`` or ``"path"``; without any, placeholders stay.
            num_frames: looked at of a clip that is read from a file.
            return_dict: everything, not the token ids alone.
            return_tensors: ``"pt"`` for tensors, where only the token ids are wanted.
            processor_kwargs, options: of :meth:`__call__`.
            continue_final_message: leave the last message open, to be gone on with.

        Raises:
            PromptError: a malformed message, or media that do not match.
            MediaError: an image or clip that cannot be read.
        """
        batched = bool(conversation) and isinstance(conversation[0], (list, tuple))
        conversations = list(conversation) if batched else [conversation]
        template = chat_template or self.chat_template
        ends = (bool(add_generation_prompt), bool(continue_final_message))
        texts = [
            as_string(self.tokenizer, prompts.render(self.tokenizer, template, messages, *ends))
            for messages in conversations
        ]
        if not tokenize:
            return texts if batched else texts[0]
        images, videos = media_of(conversations, num_frames)
        made = self(text=texts, images=images, videos=videos, **(processor_kwargs or {}), **options)
        if return_dict:
            return made
        if return_tensors == "pt":
            return made["input_ids"]
        return made["input_ids"].tolist()

    def decode(self, ids: Any, **kwargs: Any) -> str:
        """Token ids to text, with the options of the tokenizer's own ``decode``."""
        return self.tokenizer.decode(ids, **kwargs)


def _known(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.items()
        if key not in ("architectures", "torch_dtype", "transformers_version")
    }

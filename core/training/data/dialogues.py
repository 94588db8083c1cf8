"""Dialogues about drawn scenes as training rows.

A row holds one picture or clip followed by several independent dialogues about it.
The language prior reads a description instead.
Every row is drawn by its own number, so that any process can draw its share of a batch alone.
"""

from __future__ import annotations

import random
from enum import Enum

import numpy as np

from core.scenes.arrangements import sample_scene
from core.scenes.captions import caption, description, sentence
from core.scenes.changes import ask_changed, sample_change
from core.scenes.motions import PICTURE_MOTIONS
from core.scenes.prompts import prompt
from core.scenes.questions import PLACE_KINDS, sample_dialogues
from core.scenes.rasterizer import augment
from core.scenes.scene import render
from core.scenes.small_talk import small_talk
from core.scenes.templates import QAPair
from core.training.data.packing import PackedBatch, PackedRow, collate
from core.training.data.tiles import PATCHES, TILE, draw_clip, draw_picture, normalize_frames, picture_tokens
from core.training.data.tokenization import CachedTokenizer
from core.training.loop.processes import BatchShard

COMPARED = 0.1  # of the rows about pictures show two and ask what changed
SMALL_TALK = 0.05  # of the rows are small talk alone
DIALOGUES = 14  # drawn for a row; as many are taken as fit


class Context(Enum):
    """What a dialogue is about."""

    PICTURE = "picture"
    PAIR = "picture of two things"
    CLIP = "clip"
    WORDS = "words"


def dialogue_row(
    tokenizer: CachedTokenizer, rng: random.Random, length: int, context: Context, held_out: bool = False
) -> PackedRow:
    """A picture, a clip or a description with as many dialogues as fit; a few rows are small talk alone.

    Args:
        rng: the only source of chance.
        length: tokens of the row, at most.
        held_out: combinations and templates that training never uses.
    """
    row = PackedRow()
    row.open(tokenizer.encode("<|im_start|>user\n"))
    if context is not Context.CLIP and not held_out and rng.random() < SMALL_TALK:
        row.add_dialogues([tokenizer.encode_dialogue([small_talk(rng)]) for _ in range(DIALOGUES)], length)
        return row
    if context is Context.PICTURE and rng.random() < COMPARED:
        return comparison_row(tokenizer, rng, row, length, held_out)
    pair = context is Context.PAIR
    clip = context is Context.CLIP
    if context is Context.WORDS:
        clip = rng.random() < 0.5
        motion = None if clip else rng.choice(PICTURE_MOTIONS)
        scene = sample_scene(rng, rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 5, 6)), held_out, motion, clip=clip)
        row.open(tokenizer.encode(f"{description(scene, clip)}\n"))
    elif clip:
        scene, frames = draw_clip(rng, held_out)
        row.media.append((normalize_frames(frames), None))
        for _ in frames:
            row.open([tokenizer.video] * PATCHES, group=True)
        row.open([tokenizer.video, *tokenizer.encode("\n")])
    else:
        scene, frames, size = draw_picture(rng, held_out, pair)
        _open_picture(row, tokenizer, frames, size)
    dialogues = sample_dialogues(scene, rng, clip, DIALOGUES, held_out, PLACE_KINDS if pair else None)
    row.add_dialogues([tokenizer.encode_dialogue(dialogue) for dialogue in dialogues], length)
    return row


def _open_picture(
    row: PackedRow, tokenizer: CachedTokenizer, frames: np.ndarray, size: tuple[int, int]
) -> None:
    """Append a picture uint8 [1, h, w, 3] of ``size`` (h, w) and a newline to the medium."""
    row.media.append((normalize_frames(frames), size))
    row.open([tokenizer.image] * picture_tokens(*size), group=True)
    row.open(tokenizer.encode("\n"))


def comparison_row(
    tokenizer: CachedTokenizer, rng: random.Random, row: PackedRow, length: int, held_out: bool
) -> PackedRow:
    """The row with two pictures of one scene and what changed between them, asked in several ways."""
    change = sample_change(rng, held_out)
    for scene in (change.before, change.after):
        _open_picture(row, tokenizer, augment(render(scene, TILE, TILE), rng), (TILE, TILE))
    asked = [ask_changed(change, rng, held_out) for _ in range(6)]
    row.add_dialogues([tokenizer.encode_dialogue([qa]) for qa in asked], length)
    return row


def prompt_row(tokenizer: CachedTokenizer, rng: random.Random, length: int) -> PackedRow:
    """Prompts answered with the plain caption: the language prior learns what prompts mean."""
    row = PackedRow()
    row.open(tokenizer.encode("<|im_start|>user\n"))
    dialogues = []
    for _ in range(8):
        clip = rng.random() < 0.6
        motion = None if clip else rng.choice(PICTURE_MOTIONS)
        scene = sample_scene(rng, rng.choice((1, 1, 2, 2, 3)), motion=motion, clip=clip)
        said = sentence(caption(scene, clip, size=True, speed=True))
        qa = QAPair("prompt", prompt(scene, rng, clip), said, said)
        dialogues.append(tokenizer.encode_dialogue([qa]))
    row.add_dialogues(dialogues, length)
    return row


class SceneDialogues:
    """Dialogues about drawn scenes.

    Args:
        tokenizer: of the model's family.
        context: what the dialogues are about.
        length: tokens a row, at most.
        held_out: combinations and templates that training never uses.
    """

    def __init__(
        self, tokenizer: CachedTokenizer, context: Context, length: int, held_out: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self.length = length
        self.held_out = held_out
        self.key = f"{context.value}, {length} tokens a row"

    def sample_batch(self, key: str, rows: int, share: BatchShard) -> PackedBatch:
        """The share's part of ``rows`` rows, one of them at least; ``key`` decides everything."""
        made = [
            dialogue_row(
                self.tokenizer, random.Random(f"{key}/{row}"), self.length, self.context, self.held_out
            )
            for row in share.rows(max(rows, share.parts))
        ]
        return collate(made, self.tokenizer.pad)

"""What is said without any picture, and a sample of everything that is said, for the tokenizer."""

from __future__ import annotations

import random

from core.scenes.arrangements import sample_scene
from core.scenes.changes import ask_changed, sample_change
from core.scenes.motions import DIRECTIONS, MOTIONS
from core.scenes.prompts import prompt
from core.scenes.questions import IMAGE_KINDS, QuestionSampler, sample_dialogues
from core.scenes.rasterizer import BACKGROUNDS, COLOURS, SHAPES
from core.scenes.scene import COUNT_WORDS
from core.scenes.templates import QAPair

WHO = (
    "I am HaploOmni tiny, a small model trained on drawn shapes. "
    "I know nine colours, six shapes and seventeen motions, and nothing else."
)
CAN = "I can answer questions about pictures and clips of simple shapes, and make clips of them from text."
CANNOT = "I do not know photos, people, facts or long talks. I was trained on simple shapes only."
ELSEWHERE = "To make a clip, write this on the text to video page."
NOTHING_YET = "I see no picture yet. Please add a picture or a clip first."
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi!", "Hey", "Hello there", "Good morning", "hello", "hi", "hey",
         "Good evening"),
        "Hello! Show me a picture or a clip of simple shapes.",
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "who are you?", "Tell me about yourself.",
         "Who made you?"),
        WHO,
    ),
    (
        ("What can you do?", "Help", "help", "How can you help me?", "What do you do?",
         "What can I do here?"),
        CAN,
    ),
    (
        ("What can you not do?", "What do you not know?", "What are your limits?",
         "Can you recognise photos?", "Tell me a joke.", "What is the capital of France?", "Write a poem.",
         "What is the weather?", "What is 2 + 2?"),
        CANNOT,
    ),
    (("Thanks", "Thank you", "Thank you!", "thanks", "Thanks a lot", "Great, thanks!"), "You are welcome!"),
    (
        ("How are you?", "how are you?", "How do you do?", "How is it going?"),
        "I am a small program and I work. Show me a picture!",
    ),
    (("Bye", "Goodbye", "bye", "See you", "Good night"), "Goodbye!"),
)  # fmt: skip


def small_talk(rng: random.Random) -> QAPair:
    """One question without a picture or clip, with an answer that is honest about what this model is."""
    kind = rng.random()
    if kind < 0.4:
        scene = sample_scene(rng, count=rng.choice((1, 1, 2)))
        if kind < 0.12:
            return QAPair("small_talk", prompt(scene, rng, clip=True), ELSEWHERE, ELSEWHERE)
        asked = None
        while asked is None:
            asked = QuestionSampler(scene, rng, clip=rng.random() < 0.3).ask(rng.choice(IMAGE_KINDS))
        return QAPair("small_talk", asked.question, NOTHING_YET, NOTHING_YET)
    questions, answer = rng.choice(SMALL_TALK)
    return QAPair("small_talk", rng.choice(questions), answer, answer)


def corpus() -> list[str]:
    """Thousands of prompts, questions and answers of every kind, for training the tokenizer."""
    rng = random.Random(0)
    words = [" ".join((*COLOURS, *SHAPES, *BACKGROUNDS, *MOTIONS, *DIRECTIONS, *COUNT_WORDS))]
    for number in range(5000):
        clip = rng.random() < 0.5
        scene = sample_scene(rng, count=rng.choice((1, 1, 2, 2, 3, 5)), clip=clip)
        words += [prompt(scene, rng, clip, held_out=number % 6 == 0)]
        for dialogue in sample_dialogues(scene, rng, clip, 4, held_out=number % 6 == 0):
            words += [text for qa in dialogue for text in (qa.question, qa.answer)]
    for number in range(400):
        qa = ask_changed(sample_change(rng), rng, held_out=number % 6 == 0)
        words += [qa.question, qa.answer]
    for questions, answer in SMALL_TALK:
        words += [*questions, answer] * 40
    return words

"""What is asked and said about a scene: questions of every kind with their answers, captions, prompts, small talk."""

from __future__ import annotations

import random
from dataclasses import dataclass

from core.training.scenes import BACKGROUNDS, COLOURS, COUNT_WORDS, MOTIONS, SHAPES, Scene, SceneObject

ARTICLES = {"orange": "an"}


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; ``key`` is the word that decides whether an answer is right."""

    kind: str
    question: str
    answer: str
    key: str


def article(word: str) -> str:
    """ "a" or "an"."""
    return ARTICLES.get(word, "a")


def name(item: SceneObject, size: bool = False) -> str:
    """ "a red circle" or "a big red circle"."""
    words = [item.size, item.colour, item.shape] if size else [item.colour, item.shape]
    return f"{article(words[0])} {' '.join(words)}"


def position(item: SceneObject) -> str:
    """Where the object is: one of nine places on a three by three grid."""
    column = "left" if item.x < 0.4 else "right" if item.x > 0.6 else ""
    row = "top" if item.y < 0.4 else "bottom" if item.y > 0.6 else ""
    return f"{row} {column}".strip() or "center"


MOVES = {
    "still": ("stays still", "still"),
    "left": ("moves left", "moving left"),
    "right": ("moves right", "moving right"),
    "up": ("moves up", "moving up"),
    "down": ("moves down", "moving down"),
    "growing": ("grows", "growing"),
    "shrinking": ("shrinks", "shrinking"),
}


def listing(items: list[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def caption(scene: Scene, clip: bool, size: bool = False) -> str:
    """ "a red circle moving left on a black background"; several objects stand in order from left to right."""
    items = sorted(scene.objects, key=lambda item: item.x)
    text = listing([name(item, size) for item in items])
    if clip and len(items) == 1:
        text += " that stays still" if items[0].motion == "still" else f" {MOVES[items[0].motion][1]}"
    return f"{text} on a {scene.background} background"


ASK = {
    "colour": ("What colour is it?", "What color is it?", "What colour is the {shape}?", "What color is the {shape}?",
               "Which colour does the {shape} have?", "Tell me the colour of the {shape}."),
    "shape": ("What shape is it?", "What is the shape?", "Which shape is this?", "What shape do you see?",
              "What is the {colour} shape?", "What shape is the {colour} object?"),
    "count": ("How many shapes are there?", "How many objects are there?", "How many shapes do you see?",
              "Count the objects.", "How many things are in the {medium}?"),
    "background": ("What colour is the background?", "What color is the background?", "What is the background?",
                   "Which background is it on?"),
    "position": ("Where is it?", "Where is the {shape}?", "Where in the {medium} is the {shape}?",
                 "In which part is the {shape}?"),
    "size": ("Is it big or small?", "How big is it?", "Is the {shape} big or small?", "What size is the {shape}?"),
    "motion": ("How does it move?", "What does the {shape} do?", "Which way does it move?", "What happens?",
               "What is the motion?", "How does the {shape} move?"),
    "caption": ("Describe the {medium}.", "What is in the {medium}?", "What do you see?", "Describe what you see.",
                "What is this?", "Please describe this {medium}."),
    "yes_no": ("Is there {thing}?", "Is there {thing} in the {medium}?", "Do you see {thing}?", "Can you see {thing}?"),
    "follow_colour": ("And its colour?", "And the colour?", "And what colour is it?"),
    "follow_shape": ("And its shape?", "And the shape?", "And what shape is it?"),
    "follow_background": ("And the background?", "And what is the background?"),
}  # fmt: skip


def _ask(kind: str, rng: random.Random, item: SceneObject, medium: str, **extra: str) -> str:
    return rng.choice(ASK[kind]).format(shape=item.shape, colour=item.colour, medium=medium, **extra)


def single_exchange(kind: str, scene: Scene, rng: random.Random, clip: bool) -> Exchange:
    """One question of ``kind`` about a scene of a single object."""
    item, medium = scene.objects[0], "video" if clip else rng.choice(("picture", "image"))
    if kind == "yes_no":
        return yes_no(scene, rng, clip)
    question = _ask(kind, rng, item, medium)
    if kind in ("colour", "follow_colour"):
        return Exchange(kind, question, f"It is {item.colour}.", item.colour)
    if kind in ("shape", "follow_shape"):
        return Exchange(kind, question, f"It is a {item.shape}.", item.shape)
    if kind == "count":
        return Exchange(kind, question, "There is one shape.", "one")
    if kind in ("background", "follow_background"):
        return Exchange(kind, question, f"The background is {scene.background}.", scene.background)
    if kind == "position":
        place = position(item)
        return Exchange(kind, question, f"It is in the {place}." if place == "center" else f"It is at the {place}.", place)
    if kind == "size":
        return Exchange(kind, question, f"It is {item.size}.", item.size)
    if kind == "motion":
        return Exchange(kind, question, f"It {MOVES[item.motion][0]}.", MOVES[item.motion][0])
    if kind == "caption":
        text = caption(scene, clip)
        return Exchange(kind, question, f"{text[0].upper()}{text[1:]}.", text)
    raise ValueError(f"unknown question kind {kind!r}")


def yes_no(scene: Scene, rng: random.Random, clip: bool, wanted: bool | None = None) -> Exchange:
    """A balanced yes/no probe; a false one is wrong in the colour, the shape or both (or in the motion of a clip)."""
    truth = rng.random() < 0.5 if wanted is None else wanted
    item, medium = rng.choice(scene.objects), "video" if clip else rng.choice(("picture", "image"))
    colour, shape = item.colour, item.shape
    present = {(o.colour, o.shape) for o in scene.objects}
    while not truth and (colour, shape) in present:
        wrong = rng.choice(("colour", "shape", "both"))
        colour = rng.choice([c for c in COLOURS if c != item.colour]) if wrong != "shape" else item.colour
        shape = rng.choice([s for s in SHAPES if s != item.shape]) if wrong != "colour" else item.shape
    question = _ask("yes_no", rng, item, medium, thing=f"{article(colour)} {colour} {shape}")
    return Exchange("yes_no", question, "Yes." if truth else "No.", "yes" if truth else "no")


def group_exchange(kind: str, scene: Scene, rng: random.Random) -> Exchange | None:
    """One question about a picture of several objects; None where it would be ambiguous."""
    item, medium = rng.choice(scene.objects), rng.choice(("picture", "image"))
    shapes, colours = [o.shape for o in scene.objects], [o.colour for o in scene.objects]
    if kind == "count":
        word = COUNT_WORDS[len(scene.objects)]
        return Exchange(kind, _ask(kind, rng, item, medium), f"There are {word} shapes.", word)
    if kind == "colour" and shapes.count(item.shape) == 1:
        return Exchange(kind, f"What colour is the {item.shape}?", f"It is {item.colour}.", item.colour)
    if kind == "shape" and colours.count(item.colour) == 1:
        return Exchange(kind, f"What is the {item.colour} shape?", f"It is a {item.shape}.", item.shape)
    if kind == "background":
        return Exchange(kind, _ask(kind, rng, item, medium), f"The background is {scene.background}.", scene.background)
    if kind == "caption":
        text = caption(scene, clip=False)
        return Exchange(kind, _ask(kind, rng, item, medium), f"{text[0].upper()}{text[1:]}.", text)
    return yes_no(scene, rng, clip=False) if kind == "yes_no" else None


IMAGE_KINDS = ("colour", "shape", "shape", "shape", "background", "position", "size", "yes_no", "yes_no", "count", "caption")
GROUP_KINDS = ("count", "count", "colour", "shape", "yes_no", "background", "caption")
CLIP_KINDS = ("motion", "motion", "motion", "colour", "shape", "yes_no", "background", "caption", "caption")


def exchanges(scene: Scene, rng: random.Random, clip: bool, count: int) -> list[list[Exchange]]:
    """``count`` independent talks about one scene, each of one or (for single objects, sometimes) two turns."""
    talks: list[list[Exchange]] = []
    while len(talks) < count:
        if len(scene.objects) > 1:
            first = group_exchange(rng.choice(GROUP_KINDS), scene, rng)
            if first is not None:
                talks.append([first])
            continue
        first = single_exchange(rng.choice(CLIP_KINDS if clip else IMAGE_KINDS), scene, rng, clip)
        talks.append([first])
        if first.kind in ("colour", "shape", "motion") and rng.random() < 0.12:
            follow = rng.choice([k for k in ("follow_colour", "follow_shape", "follow_background") if first.kind not in k])
            talks[-1].append(single_exchange(follow, scene, rng, clip))
    return talks


WHO = (
    "I am HaploOmni tiny, a small model trained on drawn shapes. I know eight colours, six shapes and seven motions, "
    "and nothing else."
)
CAN = "I can answer questions about pictures and clips of simple shapes, and make clips of them from text."
CANNOT = "I do not know photos, people, facts or long talks. I was trained on simple shapes only."
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi!", "Hey", "Good morning", "hello", "hi"),
        "Hello! Show me a picture or a clip of simple shapes.",
    ),
    (("Who are you?", "What are you?", "What is your name?", "who are you?", "Tell me about yourself."), WHO),
    (("What can you do?", "Help", "help", "How can you help me?", "What do you do?"), CAN),
    (("What can you not do?", "What do you not know?", "What are your limits?", "Can you recognise photos?"), CANNOT),
    (("Thanks", "Thank you", "Thank you!", "thanks", "Thanks a lot"), "You are welcome!"),
    (("How are you?", "how are you?", "How do you do?"), "I am a small program and I work. Show me a picture!"),
    (("Bye", "Goodbye", "bye", "See you"), "Goodbye!"),
)


def small_talk(rng: random.Random) -> Exchange:
    """One exchange without any medium, honest about what this model is."""
    questions, answer = rng.choice(SMALL_TALK)
    return Exchange("talk", rng.choice(questions), answer, answer)


def prompt(scene: Scene, rng: random.Random, clip: bool) -> str:
    """A generation prompt in one of several wordings; sometimes it leaves the background open."""
    if len(scene.objects) > 1:
        return caption(scene, clip=False)
    item = scene.objects[0]
    thing = name(item, size=rng.random() < 0.15)
    if clip and item.motion == "still":
        motion = rng.choice(("", " that stays still", " standing still"))
    elif clip:
        verb, participle = MOVES[item.motion]
        motion = rng.choice((f" {participle}", f" {participle}", f" that {verb}", f" which {verb}"))
        if item.motion in ("left", "right"):
            motion = rng.choice((motion, f" moving to the {item.motion}"))
    else:
        motion = ""
    ground = rng.choice((f" on a {scene.background} background",) * 4 + (f" on {scene.background}", ""))
    text = (
        rng.choice((f"{thing}{motion}{ground}", f"{thing}{ground}{motion}")) if rng.random() < 0.3 else f"{thing}{motion}{ground}"
    )
    text = text.removeprefix("a ") if rng.random() < 0.1 else text
    text = f"{text[0].upper()}{text[1:]}" if rng.random() < 0.3 else text
    return f"{text}." if rng.random() < 0.2 else text


def corpus() -> list[str]:
    """Every sentence form, for training the tokenizer."""
    rng = random.Random(0)
    words = [" ".join((*COLOURS, *SHAPES, *BACKGROUNDS, *MOTIONS, *COUNT_WORDS))]
    from core.training.scenes import sample_scene

    for _ in range(4000):
        clip = rng.random() < 0.5
        scene = sample_scene(rng, count=1 if clip or rng.random() < 0.6 else rng.randint(2, 4))
        words += [prompt(scene, rng, clip)]
        for talk in exchanges(scene, rng, clip, 4):
            words += [text for exchange in talk for text in (exchange.question, exchange.answer)]
    for questions, answer in SMALL_TALK:
        words += [*questions, answer] * 40
    return words

"""What is asked and said about a scene: questions of every kind with their answers, prompts, small talk."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from core.training.drawing import BACKGROUNDS, COLOURS, SHAPES
from core.training.phrases import MEDIA, follow_up, foreign, phrase
from core.training.scenes import COUNT_WORDS, DIRECTIONS, MOTIONS, UNSEEN_PAIRS, Scene, SceneObject, sample_scene
from core.training.wording import article, caption, ground, moves, moving, name, position, sentence

ABSENT = "I do not see that here."
SAME_COLUMN = 0.06  # of the frame's width: closer than this, two things have no order from left to right
OPPOSITE = {"left of": "right of", "above": "below", "in front of": "behind"}


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; ``key`` holds the words that decide whether an answer is right."""

    kind: str
    question: str
    answer: str
    key: str


class Interview:
    """Draws questions about one scene.

    Args:
        scene: what is seen.
        rng: the only source of chance.
        clip: whether motion is seen.
        held_out: ask in the forms that training never uses.
    """

    def __init__(self, scene: Scene, rng: random.Random, clip: bool, held_out: bool = False) -> None:
        self.scene, self.rng, self.clip, self.held_out = scene, rng, clip, held_out
        self.single = len(scene.objects) == 1

    def ask(self, kind: str) -> Exchange | None:
        """One question of ``kind``; None where it would be ambiguous here."""
        if kind == "yes_no":
            return self.yes_no(self.rng.random() < 0.5)
        item = self.rng.choice(self.scene.objects)
        return getattr(self, f"_{kind}")(item)

    def _phrase(self, kind: str, needs: str = "", **words: str) -> str:
        medium = self.rng.choice(MEDIA[self.clip])
        return phrase(kind, self.rng, self.held_out, needs, medium=medium, **words)

    def _call(self, item: SceneObject, hide: str = "") -> str | None:
        """How to speak of an object without giving ``hide`` (its colour or shape) away; None when two would answer to it."""
        names = []
        if self.single:
            names = ["it", "it", "the object", "the thing"] + ([] if hide == "shape" else ["the shape"])
        others = [o for o in self.scene.objects if o is not item]
        if hide != "shape" and all(o.shape != item.shape for o in others):
            names += [f"the {item.shape}", f"the {item.shape}"]
        if hide != "colour" and all(o.colour != item.colour for o in others):
            names += [f"the {item.colour} {self.rng.choice(('object', 'shape', 'thing', 'one'))}"]
        if not hide and all((o.shape, o.colour) != (item.shape, item.colour) for o in others):
            names += [f"the {item.colour} {item.shape}"]
        return self.rng.choice(names) if names else None

    def _plain(self, kind: str, item: SceneObject, answer: str, key: str, hide: str = "") -> Exchange | None:
        it = self._call(item, hide)
        if it is None:
            return None
        return Exchange(kind, self._phrase(kind, needs="" if self.single else "{it}", it=it), answer, key)

    def _colour(self, item: SceneObject) -> Exchange | None:
        return self._plain("colour", item, f"It is {item.colour}.", item.colour, hide="colour")

    def _shape(self, item: SceneObject) -> Exchange | None:
        return self._plain("shape", item, f"It is {article(item.shape)} {item.shape}.", item.shape, hide="shape")

    def _count(self, item: SceneObject) -> Exchange:  # noqa: ARG002
        word = COUNT_WORDS[len(self.scene.objects)]
        answer = f"There is {word} shape." if self.single else f"There are {word} shapes."
        return Exchange("count", self._phrase("count"), answer, word)

    def _background(self, item: SceneObject) -> Exchange:  # noqa: ARG002
        where = ground(self.scene)
        return Exchange("background", self._phrase("background"), f"The background is {where}.", where)

    def _position(self, item: SceneObject) -> Exchange | None:
        place = position(item)
        if not place or (item.motion not in ("still", "growing", "shrinking") and self.clip):
            return None
        answer = "It is in the center." if place == "center" else f"It is at the {place}."
        return self._plain("position", item, answer, place)

    def _size(self, item: SceneObject) -> Exchange | None:
        if not item.size or (self.clip and item.motion in ("growing", "shrinking")):
            return None
        return self._plain("size", item, f"It is {item.size}.", item.size)

    def _motion(self, item: SceneObject) -> Exchange | None:
        return self._plain("motion", item, f"It {moves(item)}.", moves(item)) if self.clip else None

    def _speed(self, item: SceneObject) -> Exchange | None:
        usable = self.clip and self.single and item.speed
        return self._plain("speed", item, f"It moves {item.speed}.", item.speed) if usable else None

    def _pair(self) -> tuple[SceneObject, SceneObject, str] | None:
        """An object, the other, and how the first stands to the second."""
        if not self.scene.relation:
            return None
        first, second = self.scene.objects
        if self.rng.random() < 0.5:
            return first, second, self.scene.relation
        return second, first, OPPOSITE[self.scene.relation]

    def _relation(self, item: SceneObject) -> Exchange | None:  # noqa: ARG002
        pair = self._pair()
        if pair is None:
            return None
        it, other, side = pair
        question = self._phrase("relation", it=f"the {it.shape}", other=f"the {other.shape}")
        answer = f"The {it.shape} is {side} the {other.shape}."  # naming it first tells the words to come whose place counts
        return Exchange("relation", question, answer, f"{side} the {other.shape}")

    def _neighbour(self, item: SceneObject) -> Exchange | None:  # noqa: ARG002
        pair = self._pair()
        if pair is None:
            return None
        it, other, side = pair
        question = self._phrase("neighbour", side=side, other=f"the {other.shape}")
        return Exchange("neighbour", question, f"It is {name(it)}.", f"{it.colour} {it.shape}")

    def _caption(self, item: SceneObject) -> Exchange | None:  # noqa: ARG002
        across = sorted(item.x for item in self.scene.objects)
        if len(across) > 2 and any(right - left < SAME_COLUMN for left, right in pairwise(across)):
            return None  # nobody could say which stands first
        text = caption(self.scene, self.clip)
        return Exchange("caption", self._phrase("caption"), sentence(text), text)

    def _refusal(self, item: SceneObject) -> Exchange:  # noqa: ARG002
        """A question about something that is not there."""
        absent = [shape for shape in SHAPES if all(o.shape != shape for o in self.scene.objects)]
        thing = self.rng.choice(absent if self.rng.random() < 0.6 else foreign(self.held_out))
        # sizes are asked of single things only: elsewhere such a question would always be one to refuse
        sizes, motions = ("size",) if self.single else (), ("motion",) if self.clip else ()
        kind = self.rng.choice(("colour", "colour", "position", *sizes, *motions))
        question = self._phrase(kind, needs="{it}", it=f"the {thing}")
        return Exchange("refusal", question, ABSENT, ABSENT)  # a name never seen cannot be spelled

    def yes_no(self, truth: bool) -> Exchange:
        """A probe whose right answer is ``truth``: about a thing, sometimes about a motion or a relation."""
        rng, item = self.rng, self.rng.choice(self.scene.objects)
        about = rng.random()
        answer, key = ("Yes.", "yes") if truth else ("No.", "no")
        if about < 0.3 and self.clip and self.single:
            doing = moving(item) if truth else self._other_motion(item)
            it = self._call(item) or "it"
            return Exchange("yes_no", self._phrase("yes_no_state", it=it, state=doing), answer, key)
        pair = self._pair() if about < 0.45 else None
        if pair is not None:
            it, other, side = pair
            if not truth:
                opposite = {**OPPOSITE, **{right: left for left, right in OPPOSITE.items()}}
                side = opposite[side]
            words = {"it": f"the {it.shape}", "state": f"{side} the {other.shape}"}
            return Exchange("yes_no", self._phrase("yes_no_state", **words), answer, key)
        thing = f"{item.colour} {item.shape}" if truth else self._absent_thing(item)
        return Exchange("yes_no", self._phrase("yes_no", thing=f"{article(thing)} {thing}"), answer, key)

    def _other_motion(self, item: SceneObject) -> str:
        others = [m for m in MOTIONS if m != item.motion and m not in ("entering", "leaving")]
        motion = self.rng.choice(others)
        return moving(SceneObject(item.colour, item.shape, 0.5, 0.5, 0.2, motion))

    def _absent_thing(self, item: SceneObject) -> str:
        """Wrong in the colour, the shape or both, or nothing this model knows."""
        rng = self.rng
        if rng.random() < 0.1:
            return rng.choice(foreign(self.held_out))
        present = {(o.colour, o.shape) for o in self.scene.objects}
        while True:
            wrong = rng.choice(("colour", "shape", "both"))
            colour = rng.choice([c for c in COLOURS if c != item.colour]) if wrong != "shape" else item.colour
            shape = rng.choice([s for s in SHAPES if s != item.shape]) if wrong != "colour" else item.shape
            # the unseen pairs are not spoken of in training: they would always be wrong
            if (colour, shape) not in present and (self.held_out or (colour, shape) not in UNSEEN_PAIRS):
                return f"{colour} {shape}"


# what needs the most practice is asked most often: where things are, how they move
IMAGE_KINDS = (
    *("position",) * 4, "size", "size", "yes_no", "yes_no", "caption", "caption", "colour", "shape", "count", "background",
)  # fmt: skip
PAIR_KINDS = (
    *("relation",) * 7, *("position",) * 5, "neighbour", "neighbour", "yes_no", "yes_no", "caption", "caption", "colour",
    "shape", "count", "background",
)  # fmt: skip
PLACE_KINDS = (*("relation",) * 9, *("position",) * 9, "neighbour", "neighbour")
GROUP_KINDS = ("count", "count", "count", "colour", "shape", "yes_no", "yes_no", "caption", "background", *("position",) * 3)
CLIP_KINDS = (
    "colour", "shape", *("motion",) * 6, "yes_no", "yes_no", "background", "caption", "caption", "caption", "speed", "speed",
)  # fmt: skip
REFUSALS = 0.1  # of all questions
SECOND_TURNS = 0.2  # of all talks


def kinds_for(scene: Scene, clip: bool) -> tuple[str, ...]:
    """What may be asked about a scene; often repeated kinds are asked more often."""
    if len(scene.objects) > 2:
        return GROUP_KINDS
    if len(scene.objects) == 2:
        return PAIR_KINDS + (("motion",) * 2 if clip else ())
    return CLIP_KINDS if clip else IMAGE_KINDS


def exchanges(
    scene: Scene, rng: random.Random, clip: bool, count: int, held_out: bool = False, asked: tuple[str, ...] | None = None
) -> list[list[Exchange]]:
    """``count`` independent talks about one scene, each of one or two turns; ``asked`` are the kinds of questions."""
    interview, kinds = Interview(scene, rng, clip, held_out), asked or kinds_for(scene, clip)
    talks: list[list[Exchange]] = []
    while len(talks) < count:
        talk: list[Exchange] = []
        turns = 2 if rng.random() < SECOND_TURNS else 1
        while len(talk) < turns:
            kind = "refusal" if rng.random() < REFUSALS else rng.choice(kinds)
            exchange = interview.ask(kind)
            if exchange is None or any(said.kind == exchange.kind for said in talk):
                continue
            if talk:
                exchange = Exchange(exchange.kind, follow_up(exchange.question, rng), exchange.answer, exchange.key)
            talk.append(exchange)
        talks.append(talk)
    return talks


def prompt(scene: Scene, rng: random.Random, clip: bool, held_out: bool = False) -> str:
    """A generation prompt in one of many wordings; sometimes it leaves the background open."""
    item = scene.objects[0]
    text = caption(scene, clip, size=rng.random() < 0.2, speed=rng.random() < 0.7)
    where = ground(scene)
    behind = f" on {article(where)} {where} background"
    if clip and len(scene.objects) == 1:
        told = rng.random()
        if item.motion == "still":
            text = text.replace(" that stays still", rng.choice((" that stays still", "", " standing still", " staying still")))
        elif told < 0.25:
            text = text.replace(moving(item), f"{rng.choice(('that', 'which'))} {moves(item)}", 1)
        elif told < 0.35 and item.motion in ("left", "right"):
            text = text.replace(moving(item), f"moving to the {item.motion}", 1)
    if rng.random() < 0.15:
        text = text.replace(behind, rng.choice((f" on {where}", "" if scene.texture == "plain" else behind)))
    text = text.rstrip(",")
    form = "{it}" if rng.random() < 0.5 and not held_out else None
    text = text if form else phrase("prompt", rng, held_out, it=text, medium=rng.choice(MEDIA[clip]))
    if form and rng.random() < 0.15:
        text = text.removeprefix("a ").removeprefix("an ")
    if rng.random() < 0.3:
        text = f"{text[0].upper()}{text[1:]}"
    return f"{text}." if rng.random() < 0.2 and not text.endswith("?") else text


WHO = (
    "I am HaploOmni tiny, a small model trained on drawn shapes. I know eight colours, six shapes and nine motions, "
    "and nothing else."
)
CAN = "I can answer questions about pictures and clips of simple shapes, and make clips of them from text."
CANNOT = "I do not know photos, people, facts or long talks. I was trained on simple shapes only."
ELSEWHERE = "To make a clip, write this on the text to video page."
NOTHING_YET = "I see no picture yet. Please add a picture or a clip first."
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi!", "Hey", "Hello there", "Good morning", "hello", "hi", "hey", "Good evening"),
        "Hello! Show me a picture or a clip of simple shapes.",
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "who are you?", "Tell me about yourself.", "Who made you?"),
        WHO,
    ),
    (
        ("What can you do?", "Help", "help", "How can you help me?", "What do you do?", "What can I do here?"),
        CAN,
    ),
    (
        ("What can you not do?", "What do you not know?", "What are your limits?", "Can you recognise photos?",
         "Tell me a joke.", "What is the capital of France?", "Write a poem.", "What is the weather?", "What is 2 + 2?"),
        CANNOT,
    ),
    (("Thanks", "Thank you", "Thank you!", "thanks", "Thanks a lot", "Great, thanks!"), "You are welcome!"),
    (
        ("How are you?", "how are you?", "How do you do?", "How is it going?"),
        "I am a small program and I work. Show me a picture!",
    ),
    (("Bye", "Goodbye", "bye", "See you", "Good night"), "Goodbye!"),
)  # fmt: skip


def small_talk(rng: random.Random, held_out: bool = False) -> Exchange:
    """One exchange without any medium, honest about what this model is."""
    kind = rng.random()
    if kind < 0.4:
        scene = sample_scene(rng, count=rng.choice((1, 1, 2)))
        if kind < 0.12:
            return Exchange("talk", prompt(scene, rng, True, held_out), ELSEWHERE, ELSEWHERE)
        asked = None
        while asked is None:
            asked = Interview(scene, rng, clip=rng.random() < 0.3, held_out=held_out).ask(rng.choice(IMAGE_KINDS))
        return Exchange("talk", asked.question, NOTHING_YET, NOTHING_YET)
    questions, answer = rng.choice(SMALL_TALK)
    return Exchange("talk", rng.choice(questions), answer, answer)


def corpus() -> list[str]:
    """Every sentence form, for training the tokenizer."""
    rng = random.Random(0)
    words = [" ".join((*COLOURS, *SHAPES, *BACKGROUNDS, *MOTIONS, *DIRECTIONS, *COUNT_WORDS))]
    for number in range(5000):
        clip = rng.random() < 0.5
        scene = sample_scene(rng, count=rng.choice((1, 1, 2, 3)), clip=clip)
        words += [prompt(scene, rng, clip, held_out=number % 6 == 0)]
        for talk in exchanges(scene, rng, clip, 4, held_out=number % 6 == 0):
            words += [text for exchange in talk for text in (exchange.question, exchange.answer)]
    for questions, answer in SMALL_TALK:
        words += [*questions, answer] * 40
    return words

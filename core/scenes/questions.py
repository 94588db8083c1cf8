"""What is asked and said about a scene: questions of every kind with their answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from core.scenes.captions import article, background_name, caption, moves, moving, name, position, sentence
from core.scenes.comparisons import OPPOSITE, Comparisons
from core.scenes.held_templates import HELD_AND_THAT
from core.scenes.motions import IN_PLACE
from core.scenes.out_of_domain import out_of_domain_nouns
from core.scenes.rasterizer import COLOURS, SHAPES
from core.scenes.scene import COUNT_WORDS, UNSEEN_PAIRS, Scene, SceneObject
from core.scenes.templates import AND_THAT, MEDIA, QAPair, fill, follow_up
from core.scenes.typos import roughen

ABSENT = "I do not see that here."
SAME_COLUMN = 0.06  # of the frame's width: closer than this, two things have no order from left to right


class QuestionSampler(Comparisons):
    """Draws questions about one scene.

    Args:
        scene: what is seen.
        rng: the only source of chance.
        clip: whether motion is seen.
        held_out: ask in the forms that training never uses.
        words: puts a kind of question into words, in place of :func:`core.scenes.templates.fill`.
    """

    def __init__(
        self,
        scene: Scene,
        rng: random.Random,
        clip: bool,
        held_out: bool = False,
        words: Callable[..., str] | None = None,
    ) -> None:
        self.scene = scene
        self.rng = rng
        self.clip = clip
        self.held_out = held_out
        self.words = words
        self.single = len(scene.objects) == 1
        self.item = scene.objects[0]  # what the last question was about

    def ask(self, kind: str) -> QAPair | None:
        """One question of ``kind``; None where it would be ambiguous here."""
        self.item = self.rng.choice(self.scene.objects)
        if kind == "yes_no":
            return self.yes_no(self.rng.random() < 0.5)
        return getattr(self, f"_{kind}")(self.item)

    def ask_on(self, kind: str) -> QAPair | None:
        """The question just asked, once more about another object: "And the square?"."""
        others = [item for item in self.scene.objects if item is not self.item]
        if kind not in ASKED_ON or not others:
            return None
        other = self.rng.choice(others)
        if sum(item.shape == other.shape for item in self.scene.objects) > 1:
            return None
        qa = getattr(self, f"_{kind}")(other)
        template = self.rng.choice(HELD_AND_THAT if self.held_out else AND_THAT)
        return qa and replace(qa, question=template.format(it=f"the {other.shape}"))

    def _fill(self, kind: str, needs: str = "", **words: str) -> str:
        """A question of a kind, with its places filled; ``needs``: a place that it must have."""
        medium = self.rng.choice(MEDIA[self.clip])
        if self.words is not None:
            return self.words(kind, self.rng, needs=needs, medium=medium, **words)
        return fill(kind, self.rng, self.held_out, needs, medium=medium, **words)

    def _call(self, item: SceneObject, hide: str = "") -> str | None:
        """What to call an object, its ``hide`` (colour or shape) not named; None if two could be meant."""
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

    def _plain(self, kind: str, item: SceneObject, answer: str, key: str, hide: str = "") -> QAPair | None:
        """A question about one object; ``hide``: what its name must not give away."""
        it = self._call(item, hide)
        if it is None:
            return None
        question = self._fill(kind, needs="" if self.single else "{it}", it=it)
        return QAPair(kind, question, answer, key)

    def _colour(self, item: SceneObject) -> QAPair | None:
        if self.clip and item.motion == "changing":
            return None
        return self._plain("colour", item, f"It is {item.colour}.", item.colour, hide="colour")

    def _shape(self, item: SceneObject) -> QAPair | None:
        answer = f"It is {article(item.shape)} {item.shape}."
        return self._plain("shape", item, answer, item.shape, hide="shape")

    def _count(self, item: SceneObject) -> QAPair:  # noqa: ARG002
        word = COUNT_WORDS[len(self.scene.objects)]
        answer = f"There is {word} shape." if self.single else f"There are {word} shapes."
        return QAPair("count", self._fill("count"), answer, word)

    def _count_of(self, item: SceneObject) -> QAPair:
        """How many there are of one shape or colour."""
        rng = self.rng
        about = rng.choice(("shape", "colour"))
        names = SHAPES if about == "shape" else tuple(COLOURS)
        asked = getattr(item, about) if rng.random() < 0.75 else rng.choice(names)
        number = Counter(getattr(other, about) for other in self.scene.objects)[asked]
        one = asked if about == "shape" else f"{asked} shape"
        many = f"{one}s"
        if number == 1:
            answer = f"There is one {one}."
        else:
            answer = f"There are {COUNT_WORDS[number] if number else 'no'} {many}."
        return QAPair("count_of", self._fill("count_of", things=many), answer, answer)

    def _background(self, item: SceneObject) -> QAPair:  # noqa: ARG002
        where = background_name(self.scene)
        return QAPair("background", self._fill("background"), f"The background is {where}.", where)

    def _position(self, item: SceneObject) -> QAPair | None:
        place = position(item)
        if not place or (item.motion not in IN_PLACE and self.clip):
            return None
        answer = "It is in the center." if place == "center" else f"It is at the {place}."
        return self._plain("position", item, answer, place)

    def _size(self, item: SceneObject) -> QAPair | None:
        if not item.size or (self.clip and item.motion in ("growing", "shrinking")):
            return None
        return self._plain("size", item, f"It is {item.size}.", item.size)

    def _motion(self, item: SceneObject) -> QAPair | None:
        return self._plain("motion", item, f"It {moves(item)}.", moves(item)) if self.clip else None

    def _speed(self, item: SceneObject) -> QAPair | None:
        usable = self.clip and self.single and item.speed
        return self._plain("speed", item, f"It moves {item.speed}.", item.speed) if usable else None

    def _relation(self, item: SceneObject) -> QAPair | None:  # noqa: ARG002
        pair = self._pair()
        if pair is None:
            return None
        it, other, side = pair
        question = self._fill("relation", it=f"the {it.shape}", other=f"the {other.shape}")
        # naming it first tells the words to come whose place counts
        answer = f"The {it.shape} is {side} the {other.shape}."
        return QAPair("relation", question, answer, f"{side} the {other.shape}")

    def _neighbour(self, item: SceneObject) -> QAPair | None:  # noqa: ARG002
        pair = self._pair()
        if pair is None:
            return None
        it, other, side = pair
        question = self._fill("neighbour", side=side, other=f"the {other.shape}")
        return QAPair("neighbour", question, f"It is {name(it)}.", f"{it.colour} {it.shape}")

    def _caption(self, item: SceneObject) -> QAPair | None:  # noqa: ARG002
        across = sorted(item.x for item in self.scene.objects)
        same_column = any(right - left < SAME_COLUMN for left, right in pairwise(across))
        if len(across) > 4 or (len(across) > 2 and same_column):
            return None  # nobody could say which stands first
        text = caption(self.scene, self.clip)
        return QAPair("caption", self._fill("caption"), sentence(text), text)

    def _refusal(self, item: SceneObject) -> QAPair:  # noqa: ARG002
        """A question about something that is not there."""
        absent = self._absent_shapes()
        named = absent if absent and self.rng.random() < 0.6 else out_of_domain_nouns(self.held_out)
        thing = self.rng.choice(named)
        kinds = ["colour", "colour", "position"]
        if self.single:
            # of several things no size is asked: such a question would always be one to refuse
            kinds.append("size")
        if self.clip:
            kinds.append("motion")
        kind = self.rng.choice(kinds)
        question = self._fill(kind, needs="{it}", it=f"the {thing}")
        return QAPair("refusal", question, ABSENT, ABSENT)  # a name never seen cannot be spelled

    def yes_no(self, truth: bool) -> QAPair:
        """A probe whose right answer is ``truth``: about a thing, sometimes about a motion or a relation."""
        rng = self.rng
        item = rng.choice(self.scene.objects)
        about = rng.random()
        answer, key = ("Yes.", "yes") if truth else ("No.", "no")
        if about < 0.3 and self.clip and self.single:
            doing = moving(item) if truth else self._other_motion(item)
            it = self._call(item) or "it"
            return QAPair("yes_no", self._fill("yes_no_state", it=it, state=doing), answer, key)
        pair = self._pair() if about < 0.45 else None
        if pair is not None:
            one, other, side = pair
            side = side if truth else OPPOSITE[side]
            words = {"it": f"the {one.shape}", "state": f"{side} the {other.shape}"}
            return QAPair("yes_no", self._fill("yes_no_state", **words), answer, key)
        thing = f"{item.colour} {item.shape}" if truth else self._absent_thing(item)
        return QAPair("yes_no", self._fill("yes_no", thing=f"{article(thing)} {thing}"), answer, key)

    def _absent_thing(self, item: SceneObject) -> str:
        """Wrong in the colour, the shape or both, or nothing this model knows."""
        rng = self.rng
        if rng.random() < 0.1:
            return rng.choice(out_of_domain_nouns(self.held_out))
        present = {(colour, o.shape) for o in self.scene.objects for colour in (o.colour, o.becomes)}
        while True:
            wrong = rng.choice(("colour", "shape", "both"))
            colour = item.colour
            if wrong != "shape":
                colour = rng.choice([other for other in COLOURS if other != item.colour])
            shape = item.shape
            if wrong != "colour":
                shape = rng.choice([other for other in SHAPES if other != item.shape])
            # the unseen pairs are not spoken of in training: they would always be wrong
            if (colour, shape) not in present and (self.held_out or (colour, shape) not in UNSEEN_PAIRS):
                return f"{colour} {shape}"


# what needs the most practice is asked most often: where things are, how they move
IMAGE_KINDS = (
    *("position",) * 4, "size", "size", "yes_no", "yes_no", "caption", "caption", "colour", "shape", "count",
    "background", *("either",) * 3, "why_not",
)  # fmt: skip
PAIR_KINDS = (
    *("relation",) * 7, *("position",) * 5, "neighbour", "neighbour", "yes_no", "yes_no", "caption",
    "caption", "colour", "shape", "count", "background", *("which",) * 4, *("either",) * 4, "why_not",
)  # fmt: skip
PLACE_KINDS = (*("relation",) * 9, *("position",) * 9, "neighbour", "neighbour")
GROUP_KINDS = (
    *("count",) * 4, "colour", "shape", "yes_no", "yes_no", "caption", "background", *("position",) * 3,
    "count_of", "count_of", "either", "why_not",
)  # fmt: skip
CLIP_KINDS = (
    "colour", "shape", *("motion",) * 6, "yes_no", "yes_no", "background", "caption", "caption", "caption",
    "speed", "speed", *("either",) * 3, "why_not",
)  # fmt: skip
REFUSALS = 0.1  # of all questions
TURNS = (0.74, 0.18, 0.08)  # dialogues of one, two and three turns
SAME_AGAIN = 0.3  # of second turns ask the same about another object
ASKED_ON = ("colour", "size", "position", "motion")


def kinds_for(scene: Scene, clip: bool) -> tuple[str, ...]:
    """What may be asked about a scene; often repeated kinds are asked more often."""
    if len(scene.objects) > 2:
        return GROUP_KINDS
    if len(scene.objects) == 2:
        more = ("first",) * 6 if scene.in_turn else ()
        return PAIR_KINDS + (("motion",) * 2 + more if clip else ())
    if clip and scene.objects[0].motion == "changing":
        return (*CLIP_KINDS, *("first",) * 5)
    return CLIP_KINDS if clip else IMAGE_KINDS


def sample_dialogues(
    scene: Scene,
    rng: random.Random,
    clip: bool,
    count: int,
    held_out: bool = False,
    asked: tuple[str, ...] | None = None,
) -> list[list[QAPair]]:
    """Independent dialogues about one scene, each of one to three turns.

    Args:
        clip: whether motion is seen.
        count: dialogues.
        held_out: in the variants that training never uses.
        asked: the kinds of questions; by default those of :func:`kinds_for`.
    """
    sampler = QuestionSampler(scene, rng, clip, held_out)
    kinds = asked or kinds_for(scene, clip)
    return [_sample_dialogue(sampler, kinds) for _ in range(count)]


def _sample_dialogue(sampler: QuestionSampler, kinds: tuple[str, ...]) -> list[QAPair]:
    """One to three questions of different kinds, or a second one that asks the same about another object."""
    rng = sampler.rng
    dialogue: list[QAPair] = []
    turns = rng.choices((1, 2, 3), TURNS)[0]
    while len(dialogue) < turns:
        if len(dialogue) == 1 and rng.random() < SAME_AGAIN:
            again = sampler.ask_on(dialogue[0].kind)
            if again:
                dialogue.append(again)
                continue
        qa = sampler.ask("refusal" if rng.random() < REFUSALS else rng.choice(kinds))
        if qa is None or any(said.kind == qa.kind for said in dialogue):
            continue
        question = follow_up(qa.question, rng) if dialogue else qa.question
        dialogue.append(replace(qa, question=roughen(question, rng, 0.5)))
    return dialogue

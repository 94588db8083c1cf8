"""Questions that weigh one thing against another: which is larger, this or that, what comes first."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod

from core.scenes.captions import article, moves, moving, name
from core.scenes.held_templates import HELD_WHEN
from core.scenes.motions import DIAGONALS, DIRECTIONS, IN_PLACE, MOTIONS, PATHS, STRAIGHT
from core.scenes.out_of_domain import out_of_domain_nouns
from core.scenes.rasterizer import COLOURS, SHAPES
from core.scenes.scene import Scene, SceneObject
from core.scenes.templates import QAPair

SIDES = {"left of": "right of", "above": "below", "in front of": "behind"}
OPPOSITE = {**SIDES, **{second: first for first, second in SIDES.items()}}
LARGER = 1.25  # ratio of radii from which everybody says so
ALIKE = 1.06  # and up to which nobody sees a difference
FASTER = 1.5  # ratio of speeds from which everybody says so
ASIDE = 0.12  # of the frame: nearer to the middle nobody says left or right
NO_REASON = "I do not see that here, and I cannot say why."
SAME_SIZE = "They are about the same size."
MORE = {
    "larger": ("larger", "bigger"),
    "smaller": ("smaller", "smaller"),
    "faster": ("faster", "quicker"),
    "slower": ("slower", "slower"),
}
WHEN = {
    "first": ("first", "at first", "in the beginning", "at the beginning", "at the start", "to begin with"),
    "then": ("last", "at last", "in the end", "at the end", "after that", "then", "second", "next"),
}


def contradicts(motion: str, other: str) -> bool:
    """Whether something that does the one surely does not do the other.

    What moves up and to the left also moves left, and what bounces moves up.
    """
    if motion == other:
        return False
    if {motion, other} & set(PATHS):
        return not {motion, other} & set(STRAIGHT)
    if motion in DIAGONALS or other in DIAGONALS:
        slanted, second = (motion, other) if motion in DIAGONALS else (other, motion)
        return second not in DIRECTIONS or second not in slanted.split()
    return True


class Comparisons(ABC):
    """Part of :class:`core.scenes.questions.QuestionSampler`."""

    scene: Scene
    rng: random.Random
    clip: bool
    held_out: bool
    single: bool

    @abstractmethod
    def _fill(self, kind: str, needs: str = "", **words: str) -> str:
        """A question of a kind, with its places filled."""

    @abstractmethod
    def _call(self, item: SceneObject, hide: str = "") -> str | None:
        """What one object can be called so that no other is meant."""

    def _absent_shapes(self) -> list[str]:
        """The shapes that the scene has not."""
        return [shape for shape in SHAPES if all(item.shape != shape for item in self.scene.objects)]

    def _pair(self) -> tuple[SceneObject, SceneObject, str] | None:
        """An object, the other, and how the first stands to the second."""
        if not self.scene.relation:
            return None
        first, second = self.scene.objects
        if self.rng.random() < 0.5:
            return first, second, self.scene.relation
        return second, first, OPPOSITE[self.scene.relation]

    def _which(self, item: SceneObject) -> QAPair | None:  # noqa: ARG002
        """Which of two is larger, smaller, faster or slower."""
        if len(self.scene.objects) != 2:
            return None
        one, other = self.rng.sample(self.scene.objects, 2)
        answers = self._which_answers(one, other)
        if not answers:
            return None
        more, answer = self.rng.choice(answers)
        words = {
            "one": f"the {one.shape}",
            "other": f"the {other.shape}",
            "more": self.rng.choice(MORE[more]),
        }
        return QAPair("which", self._fill("which", **words), answer, answer)

    def _which_answers(self, one: SceneObject, other: SceneObject) -> list[tuple[str, str]]:
        """What can be asked about two objects (more of what), and the answers."""
        answers: list[tuple[str, str]] = []
        small, large = sorted((one, other), key=lambda item: item.radius)
        ratio = large.radius / small.radius
        if ratio >= LARGER:
            answers.append(("larger", f"The {large.shape} is larger."))
            answers.append(("smaller", f"The {small.shape} is smaller."))
        elif ratio <= ALIKE:
            answers += [("larger", SAME_SIZE), ("smaller", SAME_SIZE)]
        if self.clip and all(item.motion in STRAIGHT for item in self.scene.objects):
            slow, fast = sorted((one, other), key=lambda item: item.travel)
            if fast.travel / slow.travel >= FASTER:
                answers.append(("faster", f"The {fast.shape} is faster."))
                answers.append(("slower", f"The {slow.shape} is slower."))
        return answers

    def _either(self, item: SceneObject) -> QAPair | None:
        """This or that."""
        ways = (self._either_name, self._either_place, self._either_side, self._either_motion)
        found = self.rng.choice(ways)(item)
        if found is None:
            return None
        it, right, wrong, answer = found
        a, b = (right, wrong) if self.rng.random() < 0.5 else (wrong, right)
        return QAPair("either", self._fill("either", it=it, a=a, b=b), answer, answer)

    def _either_name(self, item: SceneObject) -> tuple[str, str, str, str] | None:
        """What is asked about, what is right, what is wrong, and the answer; so for all of these."""
        rng = self.rng
        about = rng.choice(("colour", "shape", "size"))
        steady = not self.clip or item.motion not in ("growing", "shrinking", "changing")
        it = self._call(item, hide=about if about != "size" else "")
        if it is None or not steady or (about == "size" and not item.size):
            return None
        if about == "colour":
            other = rng.choice([colour for colour in COLOURS if colour != item.colour])
            return it, item.colour, other, f"It is {item.colour}."
        if about == "size":
            return it, item.size, "small" if item.size == "big" else "big", f"It is {item.size}."
        other = rng.choice([shape for shape in SHAPES if shape != item.shape])
        right = f"{article(item.shape)} {item.shape}"
        return it, right, f"{article(other)} {other}", f"It is {right}."

    def _either_place(self, item: SceneObject) -> tuple[str, str, str, str] | None:
        it = self._call(item)
        if it is None or (self.clip and item.motion not in IN_PLACE):
            return None
        sides = ((item.x, ("on the left", "on the right")), (item.y, ("at the top", "at the bottom")))
        along, words = self.rng.choice(sides)
        if abs(along - 0.5) < ASIDE:
            return None
        right, wrong = words if along < 0.5 else words[::-1]
        return it, right, wrong, f"It is {right}."

    def _either_side(self, item: SceneObject) -> tuple[str, str, str, str] | None:  # noqa: ARG002
        pair = self._pair()
        if pair is None:
            return None
        one, other, side = pair
        right, wrong = f"{side} the {other.shape}", f"{OPPOSITE[side]} the {other.shape}"
        return f"the {one.shape}", right, wrong, f"The {one.shape} is {right}."

    def _either_motion(self, item: SceneObject) -> tuple[str, str, str, str] | None:
        if not self.clip or not self.single:
            return None
        return self._call(item) or "it", moving(item), self._other_motion(item), f"It {moves(item)}."

    def _other_motion(self, item: SceneObject) -> str:
        """In words, a motion that this one is surely not."""
        others = [m for m in MOTIONS if m not in ("entering", "leaving") and contradicts(item.motion, m)]
        becomes = self.rng.choice([colour for colour in COLOURS if colour not in (item.colour, item.becomes)])
        motion = self.rng.choice(others)
        return moving(SceneObject(item.colour, item.shape, 0.5, 0.5, 0.2, motion, becomes=becomes))

    def _why_not(self, item: SceneObject) -> QAPair:
        """Why something is missing, which it may not be."""
        rng = self.rng
        if rng.random() < 0.3:
            thing = f"{item.colour} {item.shape}" if not self.single or rng.random() < 0.5 else item.shape
            answer = f"But there is {name(item)}."
        else:
            absent = self._absent_shapes()
            named = absent if absent and rng.random() < 0.5 else out_of_domain_nouns(self.held_out)
            thing = rng.choice(named)
            answer = NO_REASON
        question = self._fill("why_not", thing=thing)
        for vowel in "aeiou":
            question = question.replace(f" a {vowel}", f" an {vowel}")
        return QAPair("why_not", question, answer, answer)

    def _first(self, item: SceneObject) -> QAPair | None:
        """What happens first, and what then."""
        when = self.rng.choice(("first", "then"))
        if not self.clip:
            return None
        if self.single and item.motion == "changing":
            first = f"First the {item.shape} is {item.colour}."
            answer = first if when == "first" else f"Then the {item.shape} {moves(item)}."
        elif self.scene.in_turn:
            order = sorted(self.scene.objects, key=lambda other: other.begin)
            acts = order[0 if when == "first" else 1]
            answer = f"{when.capitalize()} the {acts.shape} {moves(acts)}."
        else:
            return None
        words = self.rng.choice((HELD_WHEN if self.held_out else WHEN)[when])
        return QAPair("first", self._fill("first", when=words), answer, answer)

"""What is asked and said: true answers, many ways to ask, and ways that training never uses."""

from __future__ import annotations

import random
import re

import pytest

from core.evaluation.answers import ABOUT_TWO, KINDS, TURNS, QuestionSet, is_right
from core.evaluation.clips import group_scenes, single_scenes
from core.evaluation.strangers import QUESTIONS, stranger_prompt
from core.scenes.arrangements import sample_scene
from core.scenes.captions import caption, moves, moving
from core.scenes.changes import sample_change
from core.scenes.comparisons import contradicts
from core.scenes.held_templates import ASK_HELD_OUT
from core.scenes.motions import DIAGONALS, MOTIONS
from core.scenes.out_of_domain import NONCE_WORDS, OUT_OF_DOMAIN_NOUNS, out_of_domain_nouns
from core.scenes.prompt_templates import MOTION_SAYINGS, OPENINGS, ORDERS, SLANTED, TOGETHER_SAYINGS
from core.scenes.prompts import participle, prompt, third_person
from core.scenes.questions import QuestionSampler, kinds_for, sample_dialogues
from core.scenes.rasterizer import COLOURS, SHAPES
from core.scenes.scene import COUNT_WORDS, UNSEEN_PAIRS, Scene
from core.scenes.small_talk import small_talk
from core.scenes.templates import expand, variants
from core.scenes.training_templates import ASK
from core.scenes.typos import roughen


def test_fifty_variants_a_question_and_others_kept_out():
    assert set(ASK) == set(ASK_HELD_OUT) == set(QUESTIONS)
    for kind in ASK:
        seen, held = set(variants(kind, False)), set(variants(kind, True))
        strange = {form for pattern in QUESTIONS[kind] for form in expand(pattern)}
        assert len(seen) >= 50 and len(held) >= 4 and len(strange) >= 3, kind
        assert not seen & held and not (seen | held) & strange, kind


def test_no_held_out_question_is_a_training_one_with_other_words_filled_in():
    """Neither is a held-out form a training form but for one word."""

    def pattern(form: str) -> tuple[str, ...]:
        return tuple(re.findall(r"[a-z']+|\{[a-z]+\}", form.lower()))

    for kind in ASK:
        seen = {pattern(form) for form in variants(kind, False)}
        for form in variants(kind, True):
            own = pattern(form)
            assert own not in seen, form
            if len(own) > 3:
                near = [
                    other
                    for other in seen
                    if len(other) == len(own) and sum(a != b for a, b in zip(own, other, strict=True)) == 1
                ]
                assert not near, (form, near)


def test_held_out_expressions_are_other_words():
    for name, sayings in (
        *MOTION_SAYINGS.items(),
        ("slanted", SLANTED),
        *TOGETHER_SAYINGS.items(),
        ("order", ORDERS),
        ("open", OPENINGS),
    ):
        seen = {form for pattern in sayings.training for form in expand(pattern)}
        held = {form for pattern in sayings.held for form in expand(pattern)}
        assert held and not seen & held, name
    assert set(MOTION_SAYINGS) | set(DIAGONALS) == set(MOTIONS)


@pytest.fixture
def neat(monkeypatch):
    """Prompts without the slips of a keyboard."""
    monkeypatch.setattr("core.scenes.prompts.roughen", lambda text, _: text)


def test_fifty_prompts_for_every_motion(neat):
    rng = random.Random(0)
    for motion in MOTIONS:
        scene = sample_scene(rng, motion=motion)
        said = {prompt(scene, rng, True).lower() for _ in range(160)}
        held = {prompt(scene, rng, True, held_out=True).lower() for _ in range(160)}
        assert (
            len(said) >= 50 and len(held) >= 40 and not {text for text in said & held if motion != "still"}
        ), motion


def test_verbs_are_bent():
    bent = {
        "slide left": ("sliding left", "slides left"),
        "get bigger": ("getting bigger", "gets bigger"),
        "fly up": ("flying up", "flies up"),
        "go up": ("going up", "goes up"),
        "rest": ("resting", "rests"),
        "pass by": ("passing by", "passes by"),
        "hop": ("hopping", "hops"),
        "stay put": ("staying put", "stays put"),
        "lose size": ("losing size", "loses size"),
        "plunge": ("plunging", "plunges"),
    }
    assert {verb: (participle(verb), third_person(verb)) for verb in bent} == bent


@pytest.mark.parametrize("held_out", [False, True])
def test_prompts_name_what_is_wanted(held_out, neat):
    rng = random.Random(5)
    for seed in range(160):
        scene = sample_scene(rng, 1 + seed % 3)
        for text in (
            prompt(scene, rng, True, held_out).lower(),
            stranger_prompt(scene, rng).lower(),
        ):
            plain = text.replace("violet", "purple")
            assert all(item.shape in text and item.colour in plain for item in scene.objects)
            assert not re.search(r"[{}|]|  |\ba [aeo]|\ban [bcdfghprst]", text), text
            if len(scene.objects) == 1 and scene.objects[0].becomes:
                assert scene.objects[0].becomes in text
        assert caption(scene, True).count("background") == 1
    pictures = [
        prompt(sample_scene(rng, clip=False, motion="still"), rng, False, held_out) for _ in range(40)
    ]
    assert (
        any(
            "picture of" in text.lower() or "image of" in text.lower() or "photo" in text.lower()
            for text in pictures
        )
        or held_out
    )


def test_slips_keep_most_letters():
    rng, text = random.Random(0), "A red circle that moves to the left on a navy background"
    made = [roughen(text, rng) for _ in range(300)]
    assert any(t.islower() for t in made) and any(t.isupper() for t in made) and text in made
    assert any("to left on navy background" in t.lower() for t in made)
    assert all(0.8 * len(text) < len(t) <= len(text) + 2 for t in made)
    assert {roughen(text, rng, amount=0) for _ in range(20)} == {text}


def test_unknown_things_are_split_and_made_up_words_mean_nothing():
    seen, held = set(out_of_domain_nouns(False)), set(out_of_domain_nouns(True))
    assert (
        held
        and not seen & held
        and seen | held == {*OUT_OF_DOMAIN_NOUNS, *NONCE_WORDS}
        and len(set(NONCE_WORDS)) > 200
    )
    rng = random.Random(0)
    scenes = [sample_scene(rng, count) for count in (1, 2, 3) for _ in range(40)]
    known = ("refusal", "yes_no", "why_not")
    said = [
        qa
        for scene in scenes
        for dialogue in sample_dialogues(scene, rng, True, 6)
        for qa in dialogue
        if qa.kind not in known
    ]
    words = {word for qa in said for word in f"{qa.question} {qa.answer}".lower().strip(".?").split()}
    assert len(words) > 80 and not words & set(NONCE_WORDS)


def truth_of(qa, scene: Scene, clip: bool) -> bool:
    """Whether an answer is true, found without the code that made it."""
    words, question = qa.answer.lower().rstrip("."), qa.question.lower()
    objects = {o.shape: o for o in scene.objects}
    colours, shapes = [o.colour for o in scene.objects], [o.shape for o in scene.objects]
    named = [shape for shape in SHAPES if shape in words]
    if qa.kind == "colour":
        return words.split()[-1] in colours
    if qa.kind == "shape":
        return words.split()[-1] in shapes
    if qa.kind == "count":
        return COUNT_WORDS[len(colours)] in words.split()
    if qa.kind == "count_of":
        number = COUNT_WORDS.index(words.split()[2]) if words.split()[2] != "no" else 0
        what = words.split()[3]
        about = shapes if what.rstrip("s") in SHAPES else colours
        return about.count(what.rstrip("s") if about is shapes else what) == number
    if qa.kind == "background":
        return scene.background in words and (scene.texture == "plain") != (scene.texture in words)
    if qa.kind == "refusal":
        there = {
            f"the {name}" for name in (*shapes, *(f"{c} {s}" for c, s in zip(colours, shapes, strict=True)))
        }
        return words == "i do not see that here" and not any(
            re.search(rf"\b{name}\b", question) for name in there
        )
    if qa.kind == "caption":
        return all(name in words for name in (*colours, *shapes, scene.background))
    if qa.kind == "which" and named:
        item, other = objects[named[0]], next(o for o in scene.objects if o.shape != named[0])
        value = (
            {"l": "radius", "s": "radius", "f": "travel"}[words.split()[-1][0]]
            if "slower" not in words
            else "travel"
        )
        ahead = getattr(item, value) / getattr(other, value)
        return ahead > 1.2 if words.split()[-1] in ("larger", "faster") else ahead < 0.85
    if qa.kind == "which":
        return (
            abs(scene.objects[0].radius / scene.objects[1].radius - 1) < 0.1
            and words == "they are about the same size"
        )
    if qa.kind == "first" and scene.in_turn:
        early = objects[named[0]].begin == 0.0
        return clip and words.startswith("first") == early and words.endswith(moves(objects[named[0]]))
    if qa.kind == "first":
        changing = scene.objects[0]
        return (changing.colour if words.startswith("first") else changing.becomes) in words
    if qa.kind == "why_not":
        return words.startswith("i do not see") or any(
            f"{c} {s}" in words for c, s in zip(colours, shapes, strict=True)
        )
    if qa.kind == "either" and words.startswith("it is on the"):
        aside = words.split()[-1]
        return any((o.x < 0.5) == (aside == "left") for o in scene.objects)
    if qa.kind == "yes_no" and not question.startswith("tell"):
        things = [(c, s) for c in COLOURS for s in SHAPES if re.search(rf"\ban? {c} {s}", question)]
        return not things or (words == "yes") == (things[0] in zip(colours, shapes, strict=True))
    return True


@pytest.mark.parametrize("clip", [False, True])
def test_answers_are_true(clip):
    kinds = set()
    for seed in range(240):
        rng = random.Random(seed)
        scene = sample_scene(rng, 1 + seed % 6, motion=None if clip else "still", clip=clip)
        for dialogue in sample_dialogues(scene, rng, clip, 6, held_out=seed % 2 == 0):
            assert 1 <= len(dialogue) <= 3
            for qa in dialogue:
                kinds.add(qa.kind)
                assert truth_of(qa, scene, clip), (qa, scene)
                assert is_right(qa.answer, qa.answer.upper()) and not is_right(qa.answer, "It is a dog.")
    asked = {"speed", "motion", "first"} if clip else {"size"}
    always = {
        "colour",
        "shape",
        "count",
        "count_of",
        "yes_no",
        "caption",
        "refusal",
        "relation",
        "neighbour",
        "which",
        "either",
        "why_not",
    }
    assert kinds >= always | asked


def test_either_or_names_the_right_one_and_one_other():
    rng = random.Random(0)
    for _ in range(200):
        scene = sample_scene(rng, rng.choice((1, 2)))
        qa = QuestionSampler(scene, rng, clip=True).ask("either")
        if qa and qa.answer.startswith("It is") and "the" not in qa.answer:
            assert qa.answer[6:-1].split()[-1] in qa.question.lower(), qa


def test_yes_and_no_are_as_told():
    for seed in range(120):
        rng = random.Random(seed)
        scene = sample_scene(rng, 1 + seed % 2)
        for truth in (True, False):
            qa = QuestionSampler(scene, rng, clip=True).yes_no(truth)
            assert qa.answer == ("Yes." if truth else "No.")
            if "moving" in qa.question and len(scene.objects) == 1:
                assert (moving(scene.objects[0]) in qa.question) == truth


def test_what_is_partly_true_is_not_asked_as_a_lie():
    assert (
        not contradicts("up left", "left")
        and not contradicts("up", "up right")
        and contradicts("up left", "right")
    )
    assert (
        not contradicts("bouncing", "up")
        and contradicts("left", "right")
        and contradicts("still", "circling")
    )
    assert not contradicts("still", "still") and contradicts("up left", "down right")


def test_two_pictures_differ_as_told():
    rng, answers = random.Random(0), set()
    for _ in range(150):
        change = sample_change(rng)
        before, after = (
            {(o.colour, o.shape, o.x, o.y, o.radius) for o in s.objects}
            for s in (change.before, change.after)
        )
        kind = change.answer.split()[-1] if change.answer != "Nothing changed." else "nothing"
        answers.add(kind)
        if kind == "nothing":
            assert change.before == change.after
        elif "background" in change.answer:
            assert before == after and change.after.background in change.answer != change.before.background
        elif change.answer.endswith("new."):
            (added,) = after - before
            assert added[0] in change.answer and added[1] in change.answer and before < after
        elif change.answer.endswith("gone."):
            (gone,) = before - after
            assert f"{gone[0]} {gone[1]}" in change.answer and after < before
        else:
            (old,), (new,) = before - after, after - before
            assert old[1] == new[1] and new[1] in change.answer
            told = {
                "smaller": new[4] < old[4] / 1.4,
                "larger": new[4] > old[4] * 1.4,
                "left": new[2] < old[2] - 0.2,
                "right": new[2] > old[2] + 0.2,
                "up": new[3] < old[3] - 0.2,
                "down": new[3] > old[3] + 0.2,
            }
            word = change.answer.split()[-2]
            assert told[word] if word in told else new[0] == word != old[0]
    assert len(answers) >= 4


def test_small_talk_varies():
    rng = random.Random(5)
    assert len({small_talk(rng).answer for _ in range(60)}) >= 6


def test_answers_in_other_words_are_right_too():
    right = [
        ("It is big.", "It's large"),
        ("It is at the left.", "On the left."),
        ("The star is larger.", "the star is bigger"),
        ("There are two circles.", "2 circles"),
        ("It is gray.", "Grey"),
        ("It is a circle.", "a disc"),
        ("The star is left of the ring.", "The star is to the left of the ring."),
        ("Yes.", "yes"),
    ]
    wrong = [
        ("It is big.", "It is small."),
        ("It is at the left.", "It is at the top left."),
        ("The star is larger.", "The ring is larger."),
        ("There are two circles.", "There are three circles."),
        ("Yes.", "No."),
        ("It is red.", ""),
        ("It moves up.", "It moves down."),
    ]
    assert all(is_right(*pair) for pair in right) and not any(is_right(*pair) for pair in wrong)


@pytest.mark.parametrize("strangers", [False, True])
def test_question_sets_ask_every_kind(strangers):
    question_set = QuestionSet(seed=0, held_out=True, strangers=strangers)
    for kind in KINDS:
        if kind == "small_talk":
            continue
        dialogues = question_set.dialogues(kind)
        for _ in range(4):
            media, dialogue = next(dialogues)
            assert len(media) == (2 if kind == "changed" else 1) and all(
                medium["type"] in ("image", "video") for medium in media
            )
            assert len(dialogue) == TURNS.get(kind, 1) and (kind in TURNS or kind == dialogue[0].kind)
    assert set(ABOUT_TWO) <= set(kinds_for(sample_scene(random.Random(0), 2), clip=False))
    never = [next(QuestionSet(0, True, pairs=True).dialogues("colour"))[1][0].answer for _ in range(3)]
    assert all(any(colour in answer for colour, _ in UNSEEN_PAIRS) for answer in never)


def test_group_scenes_tell_objects_apart_by_colour():
    for count in (2, 3):
        scenes = group_scenes(random.Random(0), True, count)
        assert all(len({item.colour for item in next(scenes).objects}) == count for _ in range(12))
    one = single_scenes(random.Random(0), True)
    assert len({next(one).objects[0].motion for _ in range(60)}) > 10

"""Instructions mean one thing, are grammatical, and their long form says nothing that is not so."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from chronoedit.vlm.checks import enhanced_prompt_problem
from chronoedit.world import SCENES, Item, sample_item
from chronoedit.world.captions import MAX_WORDS, MIN_WORDS
from chronoedit.world.grammar import FRAMES, corrected, meant_by, mood, orders, refer, references, speak
from chronoedit.world.language import PHRASES, Said, say
from chronoedit.world.phrases.ways import WAYS
from chronoedit.world.splits import BY_TURNS
from chronoedit.world.state import ALBEDO, COLOURS, KINDS, WORLD_SIZE, Backdrop, Body, State

EDITS = [(family, edit) for family, scene in SCENES.items() for edit in scene.edits]
FIRST = {"left", "left-hand", "leftmost"}
LAST = {"right", "right-hand", "rightmost"}
SMALL, LARGE = {"small", "smaller", "smallest"}, {"larger", "bigger", "largest", "biggest"}


@pytest.fixture(scope="module")
def items(property_seeds: range) -> list[Item]:
    """200 items at least, and every edit among them."""
    per_edit = max(2, len(property_seeds) // 10, -(-200 // len(EDITS)))
    return [
        sample_item(seed, family=family, edit=edit, split=BY_TURNS)
        for family, edit in EDITS
        for seed in range(per_edit)
    ]


def row(*looks: tuple[str, str, float, float]) -> State:
    """Bodies of a kind and colour at x, of a size."""
    backdrop = Backdrop(
        wall=(226, 222, 212), floor=(158, 132, 106), floor_y=100.0, light=0.0, decoration="none", decoration_x=64.0
    )
    bodies = [
        Body(id=2 + k, kind=kind, colour=colour, albedo=COLOURS[colour], x=x, y=100.0 - size, size=size)
        for k, (kind, colour, x, size) in enumerate(looks)
    ]
    return State(backdrop=backdrop, bodies=tuple(bodies))


def understood(text: str, state: State) -> list[Body]:
    """Who is meant, by a listener who knows nothing of how the words were made."""
    for relation, way in (("to the left of", -1), ("to the right of", 1)):
        if f" {relation} the " in text:
            near, far = text.split(f" {relation} the ")
            (anchor,) = understood(far, state)
            return [body for body in understood(near, state) if body != anchor and way * (body.x - anchor.x) > 0]
    things = ("object", "thing")
    nouns = {noun for body in state.bodies for noun in (*body.look.nouns, *things) if text.endswith(noun)}
    longest = max(nouns, key=len)
    bodies = [b for b in state.bodies if any(f" {n}".endswith(f" {longest}") for n in (*b.look.nouns, *things))]
    for word in text[: -len(longest)].split():
        if word in ALBEDO:
            bodies = [body for body in bodies if body.colour == word]
        elif word in FIRST | LAST | {"middle"}:
            ordered = sorted(bodies, key=lambda body: body.x)
            bodies = [ordered[0 if word in FIRST else -1 if word in LAST else len(ordered) // 2]]
        else:
            assert word in SMALL | LARGE, text
            ordered = sorted(bodies, key=lambda body: body.size)
            bodies = [ordered[0 if word in SMALL else -1]]
    return bodies


def test_every_reference_singles_out_its_body(items: list[Item]) -> None:
    said = 0
    for item in items:
        for body in item.start.bodies:
            for reference in references(item.start, body, at_end=True):
                assert understood(reference.text, item.start) == [body], (item.seed, item.edit, reference.text)
                assert reference.meant(item.start) == [body]
                said += 1
    assert said > 5 * len(items)


def test_the_left_one_the_smaller_one_and_the_one_beside() -> None:
    state = row(("cup", "red", 20, 9.0), ("cube", "blue", 60, 10.0), ("cup", "green", 100, 12.0))
    texts = {reference.text for reference in references(state, state.bodies[0], at_end=True)}
    assert {"left cup", "left-hand cup", "smaller cup", "red cup", "red object"} <= texts
    assert "cup to the left of the blue cube" in texts and "cup" not in texts
    assert "larger cup" in {reference.text for reference in references(state, state.bodies[2])}
    assert {"cube", "block", "blue block"} <= {reference.text for reference in references(state, state.bodies[1])}
    assert not any("left" in reference.text for reference in references(state, state.bodies[1], at_end=True))


def test_what_cannot_be_seen_is_not_said() -> None:
    alike = row(("cup", "red", 20, 10.0), ("cup", "green", 24, 10.5))
    texts = {reference.text for reference in references(alike, alike.bodies[0], at_end=True)}
    assert texts and all(text.startswith("red ") for text in texts)
    twins = row(("cup", "red", 20, 10.0), ("cup", "red", 22, 10.0))
    assert references(twins, twins.bodies[0]) == [] and meant_by("red cup", twins) is None
    assert refer(np.random.default_rng(0), twins, twins.bodies[0]) is None


def test_three_alike_have_a_middle() -> None:
    state = row(*(("ball", colour, x, 10.0) for colour, x in (("red", 20), ("blue", 60), ("pink", 100))))
    said = [{reference.side for reference in references(state, body)} - {""} for body in state.bodies]
    assert said == [{"left", "leftmost"}, {"middle"}, {"right", "rightmost"}]


def test_instructions_are_grammatical(items: list[Item]) -> None:
    for item in items:
        assert not re.search(r"[{}]|\b[Aa] [aeiou]|  |\.\.|\bthe (the|a|an|that)\b|\bthat that\b| ,", item.prompt), (
            item.prompt
        )
        assert not re.search(r"\b(please\b.*\bplease|can you please can|let us let)\b", item.prompt, re.I), item.prompt
        if item.prompt[-1] in ".?":
            assert item.prompt[0].isupper()
        assert item.prompt.endswith("?") <= bool(re.search(r"\b(can|could|would) you\b", item.prompt, re.I))


def test_one_scene_is_asked_for_in_many_ways() -> None:
    state = row(("cup", "red", 20, 9.0), ("cube", "orange", 60, 10.0), ("cup", "green", 100, 12.0))
    rng = np.random.default_rng(1)
    said = say(rng, "pick_up", {"a": "red cup"})
    texts = {str(speak(rng, said, state, PHRASES["pick_up"])) for _ in range(400)}
    assert len(texts) > 250
    assert any(text.startswith("with the robot arm, ") for text in texts)
    assert any("that left cup" in text or "the left cup" in text for text in texts)
    assert all("green" not in text and "cube" not in text.split(" of the ")[0] for text in texts)


def test_what_is_not_there_keeps_its_name() -> None:
    state = row(("cup", "red", 20, 9.0))
    rng = np.random.default_rng(2)
    said = say(rng, "add", {"a": "orange cup", "place": "on the left"})
    for _ in range(100):
        text = speak(rng, said, state, PHRASES["add"]).lower()
        assert re.search(r"\b(an|new|one) orange cup\b", text) and "on the left" in text and "a orange" not in text


def test_moods_and_orders() -> None:
    assert [
        mood(each) for each in ("lift the {a}", "the {a} falls", "the {a} should go", "do not move", "no change")
    ] == [
        "order",
        "statement",
        "wish",
        "refusal",
        "fragment",
    ]
    assert mood("please pour the {a}") == mood("gravity is off, release the {a}") == "whole"
    assert orders("pick up the {a} with the robot arm") == (
        "pick up the {a} with the robot arm",
        "with the robot arm, pick up the {a}",
    )
    assert orders("the robot arm picks up the {a}") == ("the robot arm picks up the {a}",)
    assert {mood(each) for phrases in PHRASES.values() for each in phrases} <= set(FRAMES)


def test_an_before_vowels_that_are_heard() -> None:
    assert corrected("a orange cup, a red cup and A apple") == "an orange cup, a red cup and An apple"
    assert corrected("a SUV") == "an SUV" and corrected("banana orange") == "banana orange"


def test_an_instruction_keeps_its_phrasing_when_it_is_copied() -> None:
    said = say(np.random.default_rng(3), "remove", {"a": "red cup"})
    again = pickle.loads(pickle.dumps(said))
    assert isinstance(again, Said) and again == said and (again.template, again.slots) == (said.template, said.slots)


def test_captions_have_their_length_and_form(items: list[Item]) -> None:
    for item in items:
        caption = item.long_prompt
        assert MIN_WORDS <= len(caption.split()) <= MAX_WORDS, (item.seed, item.edit, caption)
        assert enhanced_prompt_problem(caption, item.prompt) is None, caption
        assert not re.search(r"[{}]|\b[Aa] [aeiou]|  |\.\.|\bthe (the|a|an)\b", caption), caption
        sentences = caption.split(". ")
        assert len(set(sentences)) == len(sentences)
        assert caption == replace(item).long_prompt


def test_captions_name_the_subject_and_every_other_kind(items: list[Item]) -> None:
    for item in items:
        states = (item.start, item.end)
        for body in (body for state in states for body in state.bodies):
            nouns = (*body.look.nouns, *(("halves",) if body.kind == "half" else ()))
            assert any(noun in item.long_prompt for noun in nouns), (item.seed, item.edit, body.name, item.long_prompt)


def test_captions_say_what_is_so(items: list[Item]) -> None:
    stays = 0
    for item in items:
        start = {body.name: body for body in item.start.bodies}
        for names in re.findall(r"The ([^.]*) stays? exactly as before\.", item.long_prompt):
            for name in re.split(r", the | and the ", names):
                same = [body for body in item.start.bodies if name in (body.name, body.look.noun)]
                assert same and any(item.end.body(body.id) == body for body in same), (item.seed, name)
                stays += 1
        for frame, name, side in re.findall(
            r"In the (first|last) frame, the (.+?) (?:is|are) (on the left|in the middle|on the right) of",
            item.long_prompt,
        ):
            body = (
                start[name]
                if frame == "first"
                else next(b for b in item.end.bodies if b.name == name and b.id == item.subject)
            )
            assert (
                side == ("on the left", "in the middle", "on the right")[min(2, max(0, int(3 * body.x / WORLD_SIZE)))]
            )
        if "The background and the light do not change." in item.long_prompt:
            assert all(item.state(t).backdrop == item.start.backdrop for t in (0.3, 0.5, 0.7, 1.0))
        light = re.search(r"The light comes from the (left|right)", item.long_prompt)
        assert light is None or (item.start.backdrop.light < 0) == (light[1] == "left")
        before, after = (state.body(item.subject or 0) for state in (item.start, item.end))
        further = re.search(r"further to the (left|right) than before", item.long_prompt)
        if further is not None:
            assert before and after and (after.x > before.x) == (further[1] == "right")
        resting = re.search(r"of the picture, on the ([^,.]+)", item.long_prompt)
        if resting is not None:
            assert after and any(b.name == resting[1] and b.y > after.y for b in item.end.bodies), item.long_prompt
        if "above the ground" in item.long_prompt:
            assert after and after.span[3] < after.ground_y(item.end.backdrop) - 1
        if "cannot be seen any more" in item.long_prompt:
            assert item.subject is not None and item.end.body(item.subject) is None
    assert stays > len(items) / 2


def test_ways_have_the_slots_of_their_phrasings() -> None:
    for edit, way in WAYS.items():
        assert edit in PHRASES
        assert len(way.split()) <= 32


def test_kinds_of_the_first_families_have_nouns_of_their_own() -> None:
    nouns = [noun for kind in KINDS for noun in row((kind, "red", 20, 9.0)).bodies[0].look.nouns]
    assert len(set(nouns)) == len(nouns)

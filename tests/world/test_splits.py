"""What is held out stays out of training; every split has what it should; the same seed is the same item."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, Item, sample_item
from chronoedit.world.language import PHRASES, Said
from chronoedit.world.scenes import MIX
from chronoedit.world.splits import (
    ALL_COMBINATIONS,
    BENCHMARK,
    BY_TURNS,
    COMBINATION,
    COUNT,
    HARD,
    HARD_EDITS,
    HELD_OUT_COUNTS,
    IN_DISTRIBUTION,
    PHRASING,
    SPLITS,
    can_have,
    held_out_phrasings,
    is_held_out_combination,
    phrasings,
    split_of_seed,
    unseen_in,
)

TRAINED = 3000
EDITS = [(family, edit) for family, scene in SCENES.items() for edit in scene.edits]


def prompts_of_phrasing(template: str) -> re.Pattern[str]:
    """Anything that says the phrasing, whatever stands in its slots, before it and after it."""
    words = re.sub(r"\\\{\w+\\\}", r"[^.]+", re.escape(template))
    words = re.sub(r"(?<![\w\\])(the|that)\\ ", r"(?:the|that) ", re.sub(r"(?<![\w\\])a\\ ", "(?:an?|one) ", words))
    return re.compile(rf"\b{words}\b", re.IGNORECASE)


def subject_of(state: dict, number: int) -> dict | None:
    return next((body for body in state["bodies"] if body["id"] == number), None)


@pytest.fixture(scope="module")
def trained(property_seeds: range) -> list[Item]:
    """Training items of all families, whichever are drawn by themselves."""
    families = list(SCENES)
    count = TRAINED if len(property_seeds) >= 1000 else TRAINED // 6
    return [sample_item(seed, family=families[seed % len(families)], split=BY_TURNS) for seed in range(count)]


def test_training_never_says_a_held_out_phrasing(trained: list[Item]) -> None:
    held_out = {edit: [prompts_of_phrasing(each) for each in held_out_phrasings(edit)] for edit in PHRASES}
    for item in trained:
        for pattern in held_out[item.edit] if item.edit not in HARD_EDITS else ():
            assert not pattern.search(item.prompt), (item.seed, item.prompt, pattern.pattern)
            assert not pattern.search(item.long_prompt), (item.seed, item.long_prompt, pattern.pattern)


def test_the_pattern_finds_the_phrasings_where_they_are() -> None:
    items = [sample_item(seed, split=PHRASING) for seed in range(60)]
    found = [any(prompts_of_phrasing(p).search(i.prompt) for p in held_out_phrasings(i.edit)) for i in items]
    assert sum(found) >= 50  # an adverb may stand first


def test_training_never_shows_a_held_out_combination_or_count(trained: list[Item]) -> None:
    for item in trained:
        if item.edit in HARD_EDITS:
            continue
        assert item.split == IN_DISTRIBUTION
        data = item.to_json()
        state = next(s for s in (data["end"], data["start"]) if item.subject is None or subject_of(s, item.subject))
        body = None if item.subject is None else subject_of(state, item.subject)
        if body is not None:
            kind = dict(body.get("details", ())).get("of", body["kind"])
            assert not is_held_out_combination(kind, body["colour"], item.edit), item.seed
        solid = [body for body in item.start.bodies if body.look.solid]
        assert len(solid) < HELD_OUT_COUNTS.get(item.edit, 99)


def test_no_training_seed_draws_a_hard_edit() -> None:
    edits = {sample_item(seed, family="toppling", split=BY_TURNS).edit for seed in range(60)}
    assert edits == set(SCENES["toppling"].edits) - HARD_EDITS
    with pytest.raises(ValueError, match="no release_weightless of the split 'in distribution'"):
        sample_item(0, family="toppling", edit="release_weightless", split=IN_DISTRIBUTION)


@pytest.mark.parametrize(("family", "edit"), EDITS)
def test_every_edit_has_items_of_every_split(family: str, edit: str) -> None:
    for split in SPLITS:
        if not can_have(edit, split):
            with pytest.raises(ValueError, match="choose another split"):
                sample_item(1, family=family, edit=edit, split=split)
            continue
        item = sample_item(1, family=family, edit=edit, split=split)
        assert item.split == split and (item.family, item.edit) == (family, edit)
        assert unseen_in(item) == (() if split == IN_DISTRIBUTION else (split,))
        assert (item.words.template in held_out_phrasings(edit)) == (split == PHRASING)


@pytest.mark.parametrize("edit", sorted(PHRASES))
def test_every_edit_holds_out_a_few_phrasings(edit: str) -> None:
    out, kept = phrasings(edit, held_out=True), phrasings(edit, held_out=False)
    assert set(out) | set(kept) == set(PHRASES[edit]) and not set(out) & set(kept)
    assert 1 <= len(out) <= 5 and len(kept) >= 8


def test_about_a_tenth_of_the_combinations_and_a_sixth_of_the_phrasings_are_held_out() -> None:
    colours, kinds = ("red", "orange", "yellow", "green", "blue", "purple", "pink"), ("ball", "cube", "cone", "cup")
    edits = [edit for edit in PHRASES if edit not in ALL_COMBINATIONS]
    held = [is_held_out_combination(k, c, e) for k in kinds for c in colours for e in edits]
    assert 0.07 < sum(held) / len(held) < 0.13
    assert not is_held_out_combination("ball", "", "remove") and not is_held_out_combination(
        "signal", "red", "set_light"
    )
    share = sum(len(held_out_phrasings(edit)) for edit in PHRASES) / sum(len(each) for each in PHRASES.values())
    assert 0.08 < share < 0.2


def test_the_benchmark_has_fixed_shares_of_the_splits() -> None:
    assert {split_of_seed(seed, FIRST_EVALUATION_SEED) for seed in range(200)} == {IN_DISTRIBUTION}
    turns = Counter(split_of_seed(FIRST_EVALUATION_SEED + k, FIRST_EVALUATION_SEED) for k in range(600))
    assert turns == {IN_DISTRIBUTION: 250, COMBINATION: 100, PHRASING: 100, COUNT: 100, HARD: 50}
    items = [sample_item(FIRST_EVALUATION_SEED + k, split=BY_TURNS) for k in range(60)]
    assert [item.split for item in items] == [BENCHMARK[k % len(BENCHMARK)] for k in range(60)]
    assert {item.family for item in items} >= {family for family, weight in MIX.items() if weight >= 0.2}


def test_who_names_the_family_the_edit_or_the_split_gets_the_same_item() -> None:
    for seed in (*range(5), *range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 12)):
        item = sample_item(seed, split=BY_TURNS)
        for asked in ({}, {"family": item.family}, {"family": item.family, "edit": item.edit}):
            for split in (BY_TURNS, item.split):
                again = sample_item(seed, split=split, **asked)
                assert again.to_json() == item.to_json()


def test_an_edit_without_a_split_is_in_distribution_when_its_turn_comes() -> None:
    for k, turn in enumerate(BENCHMARK):
        item = sample_item(FIRST_EVALUATION_SEED + k, family="any", edit="nothing", split=BY_TURNS)
        assert item.split == (turn if can_have("nothing", turn) else IN_DISTRIBUTION)
    assert sample_item(3, family="toppling", edit="release_sideways", split=BY_TURNS).split == HARD


def test_without_a_split_seeds_draw_by_turns() -> None:
    for seed in (3, FIRST_EVALUATION_SEED + 1):
        item = sample_item(seed, family="table").to_json()
        assert item == sample_item(seed, family="table", split=BY_TURNS).to_json()
        assert item["split"] == split_of_seed(seed, FIRST_EVALUATION_SEED)
        assert item["long_prompt"].startswith("The user wants to ")


def test_an_item_with_two_things_unseen_has_no_split() -> None:
    item = sample_item(1, family="table", edit="push", split=COMBINATION)
    template = min(held_out_phrasings("push"))
    with pytest.raises(ValueError, match="held-out combination, held-out phrasing"):
        _ = replace(item, words=Said(str(item.words), template)).split


def test_an_unknown_split_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown split 'easy'; choose one of in distribution, held-out combination"):
        sample_item(0, split="easy")

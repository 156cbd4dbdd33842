"""Votes kept through kills, counted by hand, and the folders that they are about."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.data.records import FileBlob
from chronoedit.errors import DataError, OutputError
from chronoedit.evaluation.bench_run import BenchRun, edit_cases
from chronoedit.evaluation.bench_run import claim as claim_bench
from chronoedit.evaluation.cases import Case
from chronoedit.evaluation.contest import Pair, read_contest, read_run
from chronoedit.evaluation.rates import wilson
from chronoedit.evaluation.run import WorldRun, image_path, write_json
from chronoedit.evaluation.trust_pages import votes_page
from chronoedit.evaluation.votes import (
    Vote,
    Votes,
    check_voter,
    claim,
    krippendorff_alpha,
    left_side,
    shuffled,
    summarise,
    tallies,
    wins,
)
from chronoedit.ledger import Ledger
from chronoedit.media import load_image, save_image
from chronoedit.world import sample_item

AT = "2025-01-01T00:00:00+00:00"


def vote(voter: str, item: str, winner: str, left: str = "a") -> Vote:
    choice = "tie" if winner == "tie" else "left" if winner == left else "right"
    return Vote(voter=voter, item=item, left=left, choice=choice, seconds=2.0, at=AT)


def picture(path: Path, level: int, size: tuple[int, int] = (32, 32)) -> Path:
    save_image(Image.new("RGB", size, (level, level, level)), path, {"model": path.parent.name})
    return path


def test_who_wins_is_whose_side_was_chosen() -> None:
    assert vote("Ada", "1", "a", left="b").choice == "right"
    for left in "ab":
        for winner in ("a", "b", "tie"):
            assert vote("Ada", "1", winner, left).winner == winner


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choice": "best"}, "no vote"),
        ({"left": "c"}, "no vote"),
        ({"seconds": math.nan}, "no time"),
        ({"seconds": -1.0}, "no time"),
        ({"voter": "a/b"}, "no name"),
    ],
)
def test_what_is_no_vote(changes: dict, message: str) -> None:
    values = {"voter": "Ada", "item": "1", "left": "a", "choice": "left", "seconds": 1.0, "at": AT}
    with pytest.raises(ValueError, match=message):
        Vote(**{**values, **changes})


@pytest.mark.parametrize("name", ["", " Ada", "a/b", "x" * 41, "Ada\n", "<b>"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        check_voter(name)


def test_names() -> None:
    assert [check_voter(name) for name in ("Ada", "Émile 2", "анна", "J. R.-Smith")]


def test_votes_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    votes = Votes(path)
    votes.add(vote("Ada", "1", "a"))
    assert Votes(path).of("Ada").keys() == {"1"}  # on the disk at once
    with path.open("a") as file:
        file.write('{"key": "Ada/2", "vo')  # killed while it wrote
    found = Votes(path)
    assert [v.item for v in found.all()] == ["1"]
    found.add(vote("Ada", "2", "b"))
    assert [v.winner for v in Votes(path).all()] == ["a", "b"]


def test_the_last_vote_is_taken_back(tmp_path: Path) -> None:
    votes = Votes(tmp_path / "votes.jsonl")
    for voter, item in (("Ada", "1"), ("Ada", "2"), ("Bo", "1"), ("Bo", "3")):
        votes.add(vote(voter, item, "a"))
    undone = votes.undo("Ada", AT)
    assert undone is not None and undone.item == "2"
    assert list(votes.of("Ada")) == ["1"] and list(votes.of("Bo")) == ["1", "3"]
    votes = Votes(tmp_path / "votes.jsonl")  # and stays so
    assert list(votes.of("Ada")) == ["1"]
    votes.add(vote("Ada", "2", "b"))
    votes.add(vote("Ada", "3", "b"))
    again = [votes.undo("Ada", AT) for _ in range(4)]
    assert [v.item if v else None for v in again] == ["3", "2", "1", None]
    assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 10  # nothing is ever rewritten


def test_a_file_of_other_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text('{"key": "Ada/1", "voter": "Ada"}\n')
    with pytest.raises(OutputError, match="is no vote"):
        Votes(path)
    path.write_text(json.dumps({"key": "x", **vars(vote("Ada", "1", "a")), "choice": "best"}) + "\n")
    with pytest.raises(OutputError, match="is no vote"):
        Votes(path)


def test_sides_are_a_fair_coin_of_their_own_for_each_voter() -> None:
    items = [str(k) for k in range(400)]
    ada, bo = ([left_side(7, voter, item) for item in items] for voter in ("Ada", "Bo"))
    assert ada == [left_side(7, "Ada", item) for item in items]
    assert 160 < ada.count("a") < 240
    assert 160 < sum(x == y for x, y in zip(ada, bo, strict=True)) < 240


def test_everybody_is_asked_in_one_order() -> None:
    items = [str(k) for k in range(50)]
    assert shuffled(1, items) == shuffled(1, reversed(items))
    assert sorted(shuffled(1, items)) == sorted(items) and shuffled(1, items) != shuffled(2, items) != items


def test_win_rates_of_one_voter_by_hand() -> None:
    votes = [vote("Ada", str(k), "a") for k in range(6)] + [vote("Ada", str(k), "b") for k in range(6, 8)]
    votes += [vote("Ada", str(k), "tie") for k in range(8, 10)]
    found = wins(votes)
    assert found["counts"] == {"a": 6, "tie": 2, "b": 2}
    assert found["ties_as_half"]["rate"] == 0.7 and found["without_ties"]["rate"] == 0.75
    assert found["without_ties"]["interval"] == pytest.approx(wilson(0.75, 8))
    assert found["tie"]["interval"] == pytest.approx(wilson(0.2, 10))
    assert found["a"]["rate"] + found["tie"]["rate"] + found["b"]["rate"] == pytest.approx(1)
    assert wins([vote("Ada", "1", "tie")])["without_ties"] is None


def test_ten_voters_of_one_mind_are_not_ten_times_the_proof() -> None:
    winners = {str(k): "a" if k % 4 else "b" for k in range(20)}
    one = [vote("0", item, winner) for item, winner in winners.items()]
    ten = [vote(str(voter), item, winner) for voter in range(10) for item, winner in winners.items()]
    assert wins(ten)["ties_as_half"]["rate"] == wins(one)["ties_as_half"]["rate"] == 0.75
    assert wins(ten)["ties_as_half"]["interval"] == pytest.approx(wins(one)["ties_as_half"]["interval"], abs=0.02)


def test_who_votes_by_side_is_found() -> None:
    rng = np.random.default_rng(0)
    sides = [str(side) for side in rng.choice(["a", "b"], 60)]
    leaning = [vote("Ada", str(k), side, left=side) for k, side in enumerate(sides)]
    fair = [vote("Bo", str(k), "a", left=side) for k, side in enumerate(sides)]
    ties = [vote("Cy", str(k), "tie") for k in range(3)]
    found = summarise([*leaning, *fair, *ties])["voters"]
    assert found["Ada"]["leans"] == "left" and found["Ada"]["left"]["rate"] == 1
    assert found["Bo"]["leans"] is None and found["Bo"]["ties_as_half"]["rate"] == 1
    assert found["Cy"]["left"] is None and found["Cy"]["leans"] is None and found["Cy"]["median_seconds"] == 2


def test_alpha_against_the_published_example() -> None:
    # Krippendorff 2011, example C: four observers, twelve units, values missing; alpha for names is 0.743.
    units = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
    found = krippendorff_alpha([list(unit) for unit in units])
    assert found is not None and found["alpha"] == pytest.approx(0.743, abs=0.001)
    assert found["items"] == 11 and found["interval"][0] < 0.743 < found["interval"][1]


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha([["a", "a"], ["b", "b"], ["a", "a"]])["alpha"] == 1  # type: ignore[index]
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a", "b"], ["a"]]) is None
    rng = np.random.default_rng(0)
    chance = krippendorff_alpha([[str(x) for x in rng.choice(["a", "b", "tie"], 3)] for _ in range(300)])
    assert chance is not None and abs(chance["alpha"]) < 0.1 and chance["interval"][0] < 0 < chance["interval"][1]


def test_agreement_of_voters() -> None:
    votes = [vote("Ada", str(k), "a" if k < 5 else "b") for k in range(10)]
    votes += [vote("Bo", str(k), "a" if k < 4 else "b") for k in range(8)]
    votes += [vote("Cy", "99", "tie")]
    found = summarise(votes)["agreement"]
    assert found["pairs"].keys() == {"Ada, Bo"}  # Cy has no item in common with anybody
    assert found["pairs"]["Ada, Bo"]["same"]["rate"] == 7 / 8
    assert found["pairs"]["Ada, Bo"]["kappa"] == pytest.approx((7 / 8 - 1 / 2) / (1 - 1 / 2))
    assert 0 < found["alpha"]["alpha"] < 1
    assert summarise(votes)["items"] == 11 and tallies(votes)["0"] == {"a": 2, "tie": 0, "b": 0}
    with pytest.raises(ValueError, match="nobody"):
        summarise([])


def test_a_folder_keeps_one_contest(tmp_path: Path) -> None:
    claim(tmp_path, {"a": "x", "b": "y", "seed": 0})
    claim(tmp_path, {"a": "x", "b": "y", "seed": 0})
    with pytest.raises(OutputError, match="votes on others"):
        claim(tmp_path, {"a": "y", "b": "x", "seed": 0})
    (tmp_path / "vote.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        claim(tmp_path, {"a": "x", "b": "y", "seed": 0})


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for k in range(3):
        picture(tmp_path / "in" / f"{k}.png", 10 * k)
        (tmp_path / "in" / f"{k}.txt").write_text(f"make it {k}\n")
        picture(tmp_path / "a" / f"{k}.png", 100 + k)
        picture(tmp_path / "b" / f"{k}.jpg", 200 + k)
    return tmp_path


def test_folders_of_pictures(folders: Path) -> None:
    (folders / "b" / "2.jpg").unlink()
    contest = read_contest(folders / "a", folders / "b", inputs=folders / "in")
    assert list(contest.pairs) == ["0", "1"] and contest.left_out == 1
    pair = contest.pairs["1"]
    assert pair.prompt == "make it 1" and pair.a.name == "1.png" and pair.b.name == "1.jpg"
    assert load_image(pair.input.read()).getpixel((0, 0)) == (10, 10, 10)


def test_folders_that_cannot_be_voted_on(folders: Path) -> None:
    with pytest.raises(DataError, match="holds no run"):
        read_contest(folders / "a", folders / "b")
    with pytest.raises(DataError, match="no folder"):
        read_contest(folders / "a", folders / "nowhere", inputs=folders / "in")
    with pytest.raises(ValueError, match="no rows"):
        read_contest(folders / "a", folders / "b", inputs=folders / "in", row_a="copy")
    picture(folders / "other" / "7.png", 0)
    with pytest.raises(DataError, match="no item in common: 0, 1, 2 in one, nothing in the other"):
        read_contest(folders / "a", folders / "other", inputs=folders / "in")
    picture(folders / "b" / "1.png", 0)
    with pytest.raises(DataError, match="have one name"):
        read_contest(folders / "a", folders / "b", inputs=folders / "in")
    (folders / "in" / "0.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_contest(folders / "a", folders / "a", inputs=folders / "in")


def world_run(folder: Path, seeds: range, rows: tuple[str, ...] = ("model",), family: str | None = None) -> Path:
    """A folder as `eval world` leaves it, without the scores."""
    write_json(folder / "run.json", WorldRun(family=family).identity())
    ledger = Ledger(folder / "items.jsonl")
    for seed in seeds:
        item = sample_item(seed, family=family)
        for row in rows:
            save_image(Image.fromarray(item.target), image_path(folder, seed, row))
        ledger.append(str(seed), {"seed": seed, "family": item.family, "edit": item.edit, "prompt": item.prompt})
    return folder


def test_runs_in_the_world(tmp_path: Path) -> None:
    a = world_run(tmp_path / "a", range(100_000, 100_003), ("model", "no_reasoning"))
    b = world_run(tmp_path / "b", range(100_001, 100_004))
    contest = read_contest(a, b)
    assert list(contest.pairs) == ["100001", "100002"] and contest.left_out == 2
    pair, item = contest.pairs["100001"], sample_item(100_001)
    assert pair.prompt == item.prompt and pair.b == b / "images" / "100001-model.png"
    assert np.array_equal(np.asarray(load_image(pair.input.read())), item.input)
    with_itself = read_contest(a, a, row_b="no_reasoning")
    assert with_itself.pairs["100000"].b.name == "100000-no_reasoning.png"
    with pytest.raises(DataError, match="no picture of the row 'no_reasoning'"):
        read_contest(a, b, row_b="no_reasoning")
    other = world_run(tmp_path / "other", range(100_001, 100_003), family="star")
    with pytest.raises(DataError, match="other things at item 100001"):
        read_contest(a, other)


class Painter:
    """An editor for tests that paints everything in one grey, and fails at one case."""

    def __init__(self, level: int, fails: str = "") -> None:
        self.level, self.fails = level, fails

    def edit(self, case: Case, image: Image.Image, seed: int) -> Image.Image:
        if case.key == self.fails:
            raise DataError("no")
        return Image.new("RGB", image.size, (self.level,) * 3)


def test_runs_of_a_benchmark(tmp_path: Path) -> None:
    cases = [Case(key=f"{k}/x", prompt=f"do {k}", image=FileBlob(picture(tmp_path / f"{k}.png", k))) for k in range(3)]
    for name, editor in (("a", Painter(50)), ("b", Painter(90, fails="1/x"))):
        run = BenchRun(bench="pbench-edit", data="d", editor={"name": name})
        claim_bench(tmp_path / name, run)
        edit_cases(cases, editor, run, tmp_path / name)
    contest = read_contest(tmp_path / "a", tmp_path / "b")
    assert list(contest.pairs) == ["0/x", "2/x"] and contest.left_out == 1
    pair = contest.pairs["2/x"]
    assert pair.prompt == "do 2" and load_image(pair.input.read()).getpixel((0, 0)) == (2, 2, 2)
    assert [load_image(path).getpixel((0, 0))[0] for path in (pair.a, pair.b)] == [50, 90]
    copies = read_run(tmp_path / "b", "copy")
    assert len(copies) == 3 and load_image(copies["1/x"].edited).getpixel((0, 0)) == (1, 1, 1)


def test_page_of_a_vote(folders: Path) -> None:
    contest = read_contest(folders / "a", folders / "b", inputs=folders / "in")
    votes = [vote("Ada", "0", "a"), vote("Bo", "0", "a"), vote("Ada", "1", "b"), vote("Bo", "1", "tie")]
    page = votes_page(summarise(votes), votes, contest.pairs, ("ours <1>", "theirs")).html()
    assert "ours &lt;1&gt;" in page and "make it 0 [0] votes: 2 A, 0 tie, 0 B" in page
    assert page.count("<img") == 1  # item 1 is nobody's: one vote each for B and a tie
    alone = [vote("Ada", "1", "b")]
    page = votes_page(summarise(alone), alone, contest.pairs, ("x", "y")).html()
    assert "B preferred" in page and "A preferred" not in page and "Agreement" not in page


def test_votes_on_items_that_have_gone_are_counted(folders: Path) -> None:
    pairs: dict[str, Pair] = {}
    votes = [vote("Ada", "gone", "a")]
    assert "<img" not in votes_page(summarise(votes), votes, pairs, ("x", "y")).html()

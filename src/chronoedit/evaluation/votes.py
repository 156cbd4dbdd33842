"""Votes of people who see two edits side by side without knowing whose they are: the record, and what follows from it.

One line a vote, appended before the next question is asked. A vote that is taken back, or given anew, is another line
with the same key, and the later one counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from chronoedit.errors import OutputError
from chronoedit.ledger import Ledger

from .agreement import kappa
from .rates import Answers, rate_of
from .run import write_json
from .statistics import LEVEL, RESAMPLES

CHOICES = ("left", "right", "tie")
WINNERS = ("a", "tie", "b")
UNDONE = "undone"
VOTER = re.compile(r"[\w.\- ]{1,40}")


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One vote: which of A and B stood on the left, and what was chosen; `number` counts a record's lines.

    Raises ValueError for anything but the names above, or a voter's name that is not one.
    """

    voter: str
    item: str
    left: str
    choice: str
    seconds: float
    at: str
    number: int = 0

    def __post_init__(self) -> None:
        check_voter(self.voter)
        if self.left not in ("a", "b") or self.choice not in (*CHOICES, UNDONE):
            raise ValueError(f"{self.choice!r} with {self.left!r} on the left is no vote; choose {', '.join(CHOICES)}")
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"{self.seconds} seconds is no time that a vote takes; give 0 or more")

    @property
    def key(self) -> str:
        return f"{self.voter}/{self.item}"

    @property
    def winner(self) -> str:
        """a, b or tie."""
        if self.choice == "tie":
            return "tie"
        return self.left if self.choice == "left" else "b" if self.left == "a" else "a"


def check_voter(name: str) -> str:
    """The name without space around it. Raises ValueError for one that cannot be a voter's."""
    if not VOTER.fullmatch(name) or name != name.strip():
        raise ValueError(f"{name[:60]!r} is no name; use 1 to 40 letters, digits, spaces, dots and dashes")
    return name


class Votes:
    """The votes of a file. Raises OutputError for one that cannot be read, or written to."""

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path)
        self._votes: dict[str, Vote] = {}
        for record in self._ledger.records():
            try:
                vote = Vote(**{name: value for name, value in record.items() if name != "key"})
            except (TypeError, ValueError) as error:
                raise OutputError(f"a line of {path} is no vote ({error}); repair or remove it") from error
            self._votes[vote.key] = vote

    def all(self) -> list[Vote]:
        """Every vote that counts, in the order in which they were given."""
        return sorted((v for v in self._votes.values() if v.choice != UNDONE), key=lambda vote: vote.number)

    def of(self, voter: str) -> dict[str, Vote]:
        """A voter's votes by item, in the order in which they were given."""
        return {vote.item: vote for vote in self.all() if vote.voter == voter}

    def add(self, vote: Vote) -> None:
        """Record a vote; on the disk before this returns."""
        number = 1 + max((known.number for known in self._votes.values()), default=0)
        numbered = Vote(**{**asdict(vote), "number": number})
        self._ledger.append(vote.key, asdict(numbered))
        self._votes[vote.key] = numbered

    def undo(self, voter: str, at: str) -> Vote | None:
        """Take back a voter's last vote, which is returned; None when there is none."""
        last = next(reversed(self.of(voter).values()), None)
        if last is not None:
            self.add(Vote(**{**asdict(last), "choice": UNDONE, "at": at}))
        return last


def claim(folder: Path, contest: Mapping[str, Any]) -> None:
    """Write `vote.json`, or check that it is of the same contest: its votes are for A or B, whose names it says.

    Raises OutputError when it is of another, or cannot be read or written.
    """
    path = folder / "vote.json"
    if not path.exists():
        write_json(path, contest)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); choose another --output") from error
    if found != contest:
        raise OutputError(f"{folder} holds votes on others, or in another order ({path}); choose another --output")


def left_side(seed: int, voter: str, item: str) -> str:
    """Which of A and B this voter sees on the left: a throw of a coin, the same each time."""
    return "ab"[hashlib.sha256(f"{seed} {voter}/{item}".encode()).digest()[0] % 2]


def shuffled(seed: int, items: Iterable[str]) -> list[str]:
    """The order in which everybody is asked, so that those who stop early have voted on the same items."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item}".encode()).digest())


def summarise(votes: Sequence[Vote]) -> dict[str, Any]:
    """What the votes say, as JSON data; rates have 95 % intervals, those of `rates`.

    `ties_as_half` is how often A wins with a tie as half a win, `without_ties` with ties left out (None when there is
    nothing else), and `a`, `b`, `tie` the shares apart. `left` is the share of a voter's wins that stood on the left:
    one whose interval leaves out 1/2 leans to a side. Raises ValueError without votes.
    """
    if not votes:
        raise ValueError("nobody has voted yet; open the page and vote on at least one item")
    voters = sorted({vote.voter for vote in votes})
    return {
        "items": len({vote.item for vote in votes}),
        "votes": len(votes),
        "overall": wins(votes),
        "voters": {voter: _of_voter([vote for vote in votes if vote.voter == voter]) for voter in voters},
        "agreement": agreement(votes),
    }


def wins(votes: Sequence[Vote]) -> dict[str, Any]:
    """Counts and rates of some votes; see `summarise`."""
    worth = {"a": 1.0, "tie": 0.5, "b": 0.0}
    decided = [(vote.item, worth[vote.winner]) for vote in votes if vote.winner != "tie"]
    return {
        "counts": {name: sum(vote.winner == name for vote in votes) for name in WINNERS},
        "ties_as_half": rate_of([(vote.item, worth[vote.winner]) for vote in votes]).to_json(),
        "without_ties": rate_of(decided).to_json() if decided else None,
        **{name: rate_of(_share(votes, name)).to_json() for name in WINNERS},
    }


def agreement(votes: Sequence[Vote]) -> dict[str, Any]:
    """How far voters agree: Krippendorff's alpha over all; for each two the share of same winners, and kappa.

    `alpha` is None with fewer than two items that two people have voted on, or when all votes are the same.
    """
    by_item: dict[str, dict[str, str]] = {}
    for vote in votes:
        by_item.setdefault(vote.item, {})[vote.voter] = vote.winner
    pairs = {}
    for one, other in combinations(sorted({vote.voter for vote in votes}), 2):
        both = {item: (w[one], w[other]) for item, w in by_item.items() if one in w and other in w}
        if both:
            same = rate_of([(item, float(x == y)) for item, (x, y) in both.items()])
            places = [[WINNERS.index(winner) for winner in side] for side in zip(*both.values(), strict=True)]
            pairs[f"{one}, {other}"] = {"same": same.to_json(), "kappa": kappa(places[0], places[1])}
    return {"alpha": krippendorff_alpha([list(winners.values()) for winners in by_item.values()]), "pairs": pairs}


def krippendorff_alpha(answers: Sequence[Sequence[str]], *, seed: int = 0) -> dict[str, Any] | None:
    """Alpha for names without order (Krippendorff 2011), with its bootstrap interval over items.

    `answers` holds one item's in each row; rows with fewer than two are left out. None when fewer than two remain, or
    when all answers are the same.
    """
    rows = [row for row in answers if len(row) > 1]
    names = sorted({name for row in rows for name in row})
    if len(rows) < 2 or len(names) < 2:
        return None
    counts = np.array([[row.count(name) for name in names] for row in rows], dtype=np.float64)  # items names
    sizes = counts.sum(axis=1)
    unequal = (sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1)  # of each item: answers that differ from another's
    rng = np.random.default_rng((seed, 95))
    picked = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES)
    drawn = _alpha(picked @ unequal, picked @ counts)
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    alpha = _alpha(unequal.sum(keepdims=True), counts.sum(axis=0, keepdims=True))[0]
    return {"alpha": float(alpha), "interval": [float(low), float(high)], "items": len(rows)}


def _alpha(unequal: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Alpha of each row of totals; NaN where all answers are the same."""
    total = counts.sum(axis=1)
    by_chance = total**2 - (counts**2).sum(axis=1)
    ratio = np.divide((total - 1) * unequal, by_chance, out=np.full(len(total), np.nan), where=by_chance > 0)
    return 1 - ratio


def _of_voter(votes: Sequence[Vote]) -> dict[str, Any]:
    sided = [(vote.item, float(vote.choice == "left")) for vote in votes if vote.choice != "tie"]
    left = rate_of(sided) if sided else None
    return {
        "votes": len(votes),
        "median_seconds": median(vote.seconds for vote in votes),
        "left": None if left is None else left.to_json(),
        "leans": None if left is None or left.low <= 0.5 <= left.high else "left" if left.rate > 0.5 else "right",
        **wins(votes),
    }


def _share(votes: Sequence[Vote], winner: str) -> Answers:
    return [(vote.item, float(vote.winner == winner)) for vote in votes]


def tallies(votes: Sequence[Vote]) -> Mapping[str, Mapping[str, int]]:
    """By item, how many votes each of a, tie and b has."""
    items: dict[str, dict[str, int]] = {}
    for vote in votes:
        items.setdefault(vote.item, dict.fromkeys(WINNERS, 0))[vote.winner] += 1
    return items

"""The gallery: what it shows is what its rule says, with editors that know the truth of some scenes alone."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import chronoedit
from chronoedit.evaluation.physics import score
from chronoedit.request import EditRequest, EditResult
from chronoedit.world import FIRST_EVALUATION_SEED, SCENES, Item, sample_item
from chronoedit.world.checks import CHECKS
from chronoedit.world.splits import IN_DISTRIBUTION, held_out_phrasings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("gallery", "gallery_chains", "gallery_pictures", "pages")
SEEDS = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 6)


@pytest.fixture(scope="module")
def gallery() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gallery")
    for name in MODULES:
        sys.modules.pop(name, None)


def items(family: str) -> list[Item]:
    return [sample_item(seed, family=family, split=IN_DISTRIBUTION) for seed in SEEDS]


class Knowing:
    """Gives the truth for the items that it knows, and the input back for all others."""

    hashes: dict[str, str | list[str]] = {"model": "knowing", "loras": []}

    def __init__(self, known: Sequence[Item] = ()) -> None:
        self.known = {item.input.tobytes(): item for item in known}

    def edit(self, request: EditRequest) -> EditResult:
        image = request.image
        given = np.asarray(image if isinstance(image, (Image.Image, np.ndarray)) else Image.open(str(image)))
        item = self.known.get(given.tobytes())
        frames = [given] * 5 if item is None else [item.frame(k) for k in (0, 7, 14, 21, 28)]
        edited = Image.fromarray(frames[-1])
        return EditResult(
            image=edited,
            images=[edited],
            video=np.stack(frames),
            trajectory=np.stack(frames) if request.return_trajectory else None,
            latents=None,
            request=request,
            timings_s={"total": 0.0},
            hashes=self.hashes,
        )


def test_what_is_shown_follows_the_rule(gallery: ModuleType) -> None:
    of_family = items("table")
    tries = gallery.tries_of(Knowing(of_family[1::2]), "table", len(SEEDS))
    assert [each.item.seed for each in tries] == list(SEEDS)
    for each in tries:
        assert each.success == score(each.item, np.asarray(each.edited)).success
        assert each.success or each.item.seed % 2 == 0
    shown = gallery.successes(tries)
    assert shown and len({each.item.edit for each in shown}) == len(shown) <= 2
    assert all(each.success and each.item.subject is not None for each in shown)
    changed = [each.item for each in tries if each.success and each.item.subject is not None]
    assert shown[0].item is changed[0]
    failed = gallery.failure(tries)
    assert not failed.success and all(each.success for each in tries if each.item.seed < failed.item.seed)


def test_two_successes_are_of_two_edits(gallery: ModuleType) -> None:
    tries = gallery.tries_of(Knowing(items("portrait")), "portrait", len(SEEDS))
    assert all(each.success for each in tries) and gallery.failure(tries) is None
    edits = list(dict.fromkeys(each.item.edit for each in tries))
    assert len(edits) > 2 and [each.item.edit for each in gallery.successes(tries)] == edits[:2]


def test_every_check_fails_in_words(gallery: ModuleType) -> None:
    names = set(CHECKS)
    for family in gallery.FAMILIES:
        for edit in SCENES[family].edits:
            item = sample_item(SEEDS[0], family=family, edit=edit)
            names |= {*score(item, item.input).checks, *(measure.name for measure in item.scene.measures())}
    assert names == set(gallery.FAILED)
    assert gallery.reasons({"present": True, "size": False}) == gallery.FAILED["size"]
    four = dict.fromkeys(("present", "size", "kind", "an_own_check"), False)
    assert gallery.reasons(four).endswith("; and 1 more") and "an own check" in gallery.reasons({"an_own_check": False})


def make(gallery: ModuleType, folder: Path, editor: Any) -> tuple[str, dict[str, bytes]]:
    options = gallery.Gallery(
        output_dir=folder / "pictures", page=folder / "page.md", families=("falling", "portrait"), tries=2
    )
    text = gallery.make(editor, options)
    return text, {path.name: path.read_bytes() for path in sorted((folder / "pictures").iterdir())}


def test_page_shows_each_picture_and_the_same_twice(gallery: ModuleType, tmp_path: Path) -> None:
    editor = Knowing([items("falling")[1], *items("portrait")])
    stale = tmp_path / "a" / "pictures" / "gallery-any-1.webp"
    stale.parent.mkdir(parents=True)
    for path in (stale, stale.with_name("other.webp")):
        path.write_bytes(b"of an earlier one")
    text, files = make(gallery, tmp_path / "a", editor)
    assert files.pop("other.webp") == b"of an earlier one"
    assert set(re.findall(r"\(pictures/([^)]+)\)", text)) == set(files) and "gallery-falling-failure.webp" in files
    assert make(gallery, tmp_path / "b", editor) == (text, files)
    sizes = {name: Image.open(tmp_path / "a" / "pictures" / name).size for name in files}
    assert all(900 < width < 1400 for width, _ in sizes.values())
    assert sizes["gallery-banner.webp"][1] < sizes["gallery-falling-1.webp"][1]  # it has one family of six
    assert "| falling | 1 of the first 2 |" in text and "| all | 3 of 4 |" in text
    failed = items("falling")[0]
    assert gallery.reasons(score(failed, failed.input).checks) in " ".join(text.split())
    assert "`portrait`: no failure among the first 2." in text
    assert all(len(line) <= 120 for line in text.splitlines() if line[:2] not in ("![", "Co", "Ma"))


def test_an_editor_without_success_is_shown_with_its_failures(gallery: ModuleType, tmp_path: Path) -> None:
    text, files = make(gallery, tmp_path, Knowing())
    assert text.count("No success to show.") == 2
    assert sorted(files) == [
        f"gallery-{name}.webp"
        for name in ("banner", "chain-portrait", "chain-table", "falling-failure", "portrait-failure")
    ]


def test_command_writes_between_the_comments(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronoedit, "load", lambda model: Knowing())
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gallery: begin -->\nwritten earlier\n<!-- gallery: end -->\nafter\n")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- banner: begin -->\nnot made yet\n<!-- banner: end -->\n")
    gallery.main(
        gallery.Gallery(output_dir=tmp_path / "a", page=page, readme=readme, families=("portrait",), chains=(), tries=1)
    )
    assert "](a/gallery-banner.webp)" in readme.read_text() and "not made yet" not in readme.read_text()
    text = page.read_text()
    assert (
        text.startswith("before\n")
        and text.endswith("\nafter\n")
        and "written earlier" not in text
        and "0 of the first 1" in text
    )


@pytest.mark.parametrize("name", ["table", "portrait"])
def test_chains_are_of_the_first_scene_in_which_they_can_be_said(gallery: ModuleType, name: str) -> None:
    chain = gallery.CHAINS[name]
    item, words = gallery.first_scene(chain)
    assert item.seed >= FIRST_EVALUATION_SEED and len(set(words)) == 3 and words[0] == item.prompt
    for seed in range(FIRST_EVALUATION_SEED, item.seed):
        earlier = sample_item(seed, family=chain.family, edit=chain.edit, split=IN_DISTRIBUTION)
        assert chain.words(earlier) is None
    if name == "table":
        named = [
            [body.name for body in item.start.others(item.subject or 0) if body.name in each] for each in words[1:]
        ]
        assert [len(each) for each in named] == [1, 1] and named[0] != named[1]
        assert not any(template.split("{")[0] in words[2] for template in held_out_phrasings("pick_up"))


def test_unknown_names_and_a_page_without_comments_are_refused(gallery: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'opera'; choose from table, portrait"):
        gallery.Gallery(chains=("opera",))
    with pytest.raises(ValueError, match="'moon' is unknown"):
        gallery.tries_of(Knowing(), "moon", 1)
    with pytest.raises(ValueError, match="gallery"):
        gallery.main(gallery.Gallery(page=tmp_path / "none.md"))

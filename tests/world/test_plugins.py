"""Scenes from files of one's own: what they may define, what is refused, and that nothing of them stays behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.apps.scene_files import WithScenes
from chronoedit.data.export import Export, export_world
from chronoedit.errors import OutputError
from chronoedit.evaluation.physics import score
from chronoedit.evaluation.run import WorldRun, read_records
from chronoedit.evaluation.spoil import SPOILINGS, spoiled
from chronoedit.world import SCENES, WORLD_SIZE, sample_item
from chronoedit.world.plugins import TABLES, registered, skeleton_of
from chronoedit.world.scenes import MIX

BARE = """
from dataclasses import dataclass, replace
from chronoedit.world.scenes.base import Scene, pick, sample_backdrop, sample_row
from chronoedit.world.language import say
from chronoedit.world.physics import tween
from chronoedit.world.state import State

@dataclass
class Jump(Scene):
    family = "jumping"
    edits = ("jump",)
    start: State
    edit: str
    prompt: str
    subject: int
    checks: tuple = ()

    @classmethod
    def sample(cls, rng, edit):
        bodies = sample_row(rng, 2, 100.0, 8.0)
        start = State(backdrop=replace(sample_backdrop(rng), floor_y=100.0), bodies=tuple(bodies))
        body = pick(rng, bodies)
        return cls(start, edit, say(rng, edit, {"a": body.name}), body.id)

    def state(self, t):
        body = self.start.body(self.subject)
        return self.start.with_body(tween(body, replace(body, y=body.y - 40), t))

PHRASES = {"jump": ("let the {a} jump", "make the {a} jump", "the {a} jumps")}
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return written(tmp_path / "jumping.py", BARE)


@pytest.fixture
def lamp(tmp_path: Path) -> Path:
    return written(tmp_path / "garden_lamp.py", skeleton_of("garden_lamp"))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def tables() -> list[dict[str, object]]:
    return [dict(table) for table in (SCENES, *(table.entries for table in TABLES.values()), MIX)]


def test_a_scene_is_drawn_within_the_block_and_nothing_stays(bare: Path) -> None:
    before = tables()
    with registered([bare]) as (file,):
        assert file.families == ("jumping",) and file.path == bare
        item = sample_item(4, family="jumping", edit="jump")
        body, after = item.start.body(item.subject or 0), item.end.body(item.subject or 0)
        assert body is not None and after is not None and after.y == body.y - 40
        assert np.array_equal(item.input, sample_item(4, family="jumping").input)
    assert tables() == before
    with pytest.raises(ValueError, match="unknown family 'jumping'"):
        sample_item(4, family="jumping")


def test_nothing_stays_of_a_file_that_is_refused_or_a_block_that_fails(bare: Path, tmp_path: Path) -> None:
    before = tables()
    with pytest.raises(ValueError, match="'jumping' exists already"), registered([bare, bare]):
        pytest.fail("the same file twice")
    with pytest.raises(KeyError), registered([bare]):
        raise KeyError
    assert tables() == before


def test_seeds_draw_what_has_a_weight_and_else_as_ever(bare: Path, tmp_path: Path) -> None:
    seeds = range(12)
    ever = [sample_item(seed).input for seed in seeds]
    with registered([bare]):
        assert all(np.array_equal(sample_item(seed).input, each) for seed, each in zip(seeds, ever, strict=True))
    with registered([written(tmp_path / "often.py", f"{BARE}\nMIX = 50\n")]):
        assert [sample_item(seed).family for seed in seeds].count("jumping") > 9


def test_places_ways_and_kinds_are_used(tmp_path: Path) -> None:
    text = BARE.replace("floor_y=100.0)", 'floor_y=100.0, place="void")').replace(
        "body = pick(rng, bodies)", 'bodies[0] = body = replace(bodies[0], kind="blob"); start = start.with_body(body)'
    )
    text += """
from chronoedit.world.drawing import Paint
from chronoedit.world.geometry import box
from chronoedit.world.kinds import Kind, same
PLACES = {"void": lambda backdrop: [Paint(box(0, 0, 128, 128), (10, 20, 30))]}
KINDS = {"blob": Kind(nouns=("blob",), outline=same(box(-1, -1, 1, 1)),
                      paint=lambda body, light: [Paint(box(-1, -1, 1, 1), body.albedo)])}
WAYS = {"jump": "The {a} leaps into the air."}
"""
    with registered([written(tmp_path / "void.py", text)]):
        item = sample_item(6, family="jumping", split="in distribution")
        assert "blob" in item.end.body(item.subject or 0).name  # type: ignore[union-attr]
        assert "leaps into the air" in item.long_prompt
        corner = item.input[:8, :8].reshape(-1, 3).mean(axis=0)
    assert corner[2] > corner[0] and corner.mean() < 60


def test_text_annotations_and_ones_own_base_classes_work(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom typing import ClassVar\n" + BARE.replace(
        "class Jump(Scene):\n", "class Jump(Scene):\n    far: ClassVar[int] = 3\n"
    )
    text += "\nclass Base(Scene):\n    pass\n"
    with registered([written(tmp_path / "texts.py", text)]) as (file,):
        assert file.families == ("jumping",)
        assert sample_item(1, family="jumping").edit == "jump"


def test_several_scenes_in_one_file_and_checks_that_a_scene_chooses_itself(tmp_path: Path) -> None:
    second = BARE.partition("PHRASES")[0].replace("class Jump", "class Hop").replace('"jumping"', '"hopping"')
    second = second.replace("    checks: tuple = ()\n", "    @property\n    def checks(self):\n        return ()\n")
    with registered([written(tmp_path / "both.py", BARE + second)]) as (file,):
        assert file.families == ("jumping", "hopping")
        item = sample_item(4, family="hopping")
        assert score(item, item.target).success
    alike = BARE + second.replace('"hopping"', '"jumping"')
    with pytest.raises(ValueError, match="two scene classes"), registered([written(tmp_path / "alike.py", alike)]):
        pytest.fail("one of them is lost")


def test_two_files_and_a_family_with_words_that_exist(bare: Path, tmp_path: Path) -> None:
    other = BARE.replace('"jumping"', '"paling"').replace('("jump",)', '("recolour",)').replace("PHRASES", "WORDS")
    other = other.replace('{"a": body.name}', '{"a": body.name, "colour": "pale"}')
    with registered([bare, written(tmp_path / "paling.py", other)]) as files:
        assert [file.families for file in files] == [("jumping",), ("paling",)]
        assert "pale" in sample_item(2, family="paling").prompt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "x = 1\n", "defines no scene"),
        (lambda text: text + "\nhalf(", r"cannot be run: SyntaxError: .*line 3"),
        (lambda text: "import nowhere_at_all\n" + text, r"file.py:1 cannot be run: ModuleNotFoundError: No module"),
        (lambda text: text + "\n\n1 / 0\n", r"file.py:3\d cannot be run: ZeroDivisionError"),
        (lambda text: text.replace('"jumping"', '"table"'), "family 'table' exists already"),
        (lambda text: text.replace('"jumping"', '"Jumping!"'), "lower-case"),
        (lambda text: text.replace('    family = "jumping"\n', ""), "family is None"),
        (lambda text: text.replace('edits = ("jump",)', "edits = ()"), "a tuple of one name or more"),
        (lambda text: text.replace('{"jump": (', '{"leap": ('), "'jump' has no phrasings"),
        (lambda text: text.replace('{"jump": (', '{"push": ('), "'jump' has no phrasings"),
        (lambda text: text.replace("the {a} jumps", "the {b} jumps"), "same slots"),
        (lambda text: text.replace("the {a} jumps", "the {a jumps"), "same slots"),
        (lambda text: text + '\nPHRASES["jump"] = ("jump",)\n', "two phrasings or more"),
        (lambda text: text + '\nPHRASES["push"] = ("push", "shove")\n', "entry of PHRASES 'push' exists already"),
        (lambda text: text + '\nWAYS = {"jump": "The {b} jumps."}\n', "slot {b}"),
        (lambda text: text + '\nWAYS = {"leap": "It jumps."}\n', "of no edit"),
        (lambda text: text + '\nKINDS = {"blob": 3}\n', r"KINDS\['blob'\] must be a Kind"),
        (lambda text: text + '\nWAYS = {"jump": "It {jumps."}\n', "slots such as"),
        (lambda text: text + "\nKINDS = [3]\n", "KINDS is a list"),
        (lambda text: text + "\nMIX = 0\n", "MIX is 0"),
        (lambda text: text.replace("checks: tuple = ()", 'checks: tuple = ("floats",)'), "no check 'floats'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(change, message, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    before, path = tables(), written(tmp_path / "file.py", change(BARE))
    with pytest.raises(ValueError, match=message), registered([path]):
        pytest.fail("it was taken")
    assert tables() == before
    words = ["world", "sample", "--scenes", str(path), "--family", "jumping", "-o", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}") and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_words_that_are_no_phrasing_are_refused(tmp_path: Path) -> None:
    text = BARE.replace('say(rng, edit, {"a": body.name})', '"jump"')
    with registered([written(tmp_path / "mute.py", text)]), pytest.raises(ValueError, match="with `language.say`"):
        sample_item(4, family="jumping")


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "no.py", tmp_path):
        assert main(["world", "sample", "--scenes", str(path), "-o", str(tmp_path / "out")]) == 2
        assert f"scene file {path} cannot be read" in capsys.readouterr().err


def test_a_changed_file_is_run_as_it_is_now(tmp_path: Path) -> None:
    path = written(tmp_path / "jumping.py", BARE)
    with registered([path]) as (first,):
        before = sample_item(4, family="jumping").end
    written(path, BARE.replace("y - 40", "y - 30"))  # as long, and within the same second
    with registered([path]) as (second,):
        assert sample_item(4, family="jumping").end != before and first.sha256 != second.sha256
    assert list(tmp_path.iterdir()) == [path]


def test_the_skeleton_draws_and_is_scored(lamp: Path) -> None:
    with registered([lamp]):
        for seed in range(100_000, 100_012):
            item = sample_item(seed, family="garden_lamp")
            assert item.words.slots["a"].endswith("garden lamp") and "_" not in item.prompt + item.long_prompt
            assert score(item, item.target).success and not score(item, item.input).success
            wrong = [picture for how in SPOILINGS if (picture := spoiled(item, how)) is not None]
            assert len(wrong) > 2 and not any(score(item, picture).success for picture in wrong)
            assert [*item.start.others(item.subject or 0)] == [*item.end.others(item.subject or 0)]
        for split in ("in distribution", "held-out phrasing"):
            item = sample_item(100_001, family="garden_lamp", split=split)
            assert item.split == split and 80 <= len(item.long_prompt.split()) <= 100


def test_a_family_with_nothing_of_a_split_goes_by_the_other_turns(lamp: Path) -> None:
    """The benchmark's turns begin: in distribution, held-out combination, which no colour of this lamp has."""
    with registered([lamp]):
        splits = [sample_item(seed, family="garden_lamp", split="all").split for seed in range(100_000, 100_004)]
        assert splits == ["in distribution", "in distribution", "in distribution", "held-out phrasing"]
        with pytest.raises(ValueError, match="no garden_lamp of the split 'held-out combination'"):
            sample_item(100_001, family="garden_lamp", split="held-out combination")


@pytest.mark.parametrize("name", ["table", "cone", "Lamp", "9lives", "", "a-b", "lamp.py", "../x"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="already|cannot name"):
        skeleton_of(name)


@pytest.mark.parametrize("name", ["scene", "body", "state", "light", "a", "kind_", "class", "none"])
def test_names_that_python_or_the_skeleton_use_too(name: str, tmp_path: Path) -> None:
    with registered([written(tmp_path / f"{name}.py", skeleton_of(name))]) as (file,):
        item = sample_item(1, family=name)
        assert file.families == (name,) and score(item, item.target).success


def test_world_new_never_writes_over_a_file(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    assert main(["world", "new", "buoy"]) == 0 and capsys.readouterr().out == "buoy.py\n"
    written(Path("buoy.py"), "mine")
    assert main(["world", "new", "buoy"]) == 1 and "exists already" in capsys.readouterr().err
    assert Path("buoy.py").read_text() == "mine"
    assert main(["world", "new", "buoy", "-o", "scenes/second.py"]) == 0 and Path("scenes/second.py").is_file()
    assert main(["world", "new", "buoy", "-o", "scenes/third.txt"]) == 2 and "ends in .py" in capsys.readouterr().err
    assert main(["world", "new", "table"]) == 2 and "choose another name" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_from_the_skeleton_to_scores(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New, sample, score: true targets succeed, and others fail; in processes that share the work, too."""
    monkeypatch.chdir(tmp_path)
    own = ["--scenes", "buoy.py", "--family", "buoy"]
    assert main(["world", "new", "buoy"]) == 0
    assert main(["world", "sample", *own, "--seed", "100000", "--count", "2", "-o", "out"]) == 0
    for editor, picture in (("true", "target.png"), ("copied", "input.png")):
        Path(editor).mkdir()
        for seed in ("100000", "100001"):
            shutil.copy(f"out/{seed}/{picture}", f"{editor}/{seed}.png")
        run = ["eval", "world", *own, "--items", "2", "--batch-size", "1", "--workers", str(workers)]
        assert main([*run, "--editor", editor, "-o", f"{editor}-run"]) == 0
        records = read_records(Path(f"{editor}-run"))
        assert [record["rows"]["model"]["success"] for record in records] == [editor == "true"] * 2
        assert not any(success for record in records for success in record["spoiled"].values())
    assert main(["eval", "compare", "--a", "true-run", "--b", "copied-run", "--scenes", "buoy.py", "-o", "c.html"]) == 0
    assert Path("c.html").is_file() and "buoy" not in SCENES


def test_a_run_with_another_file_is_another_run(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    path = written(Path("jumping.py"), BARE)
    Path("edits").mkdir()
    Image.fromarray(np.zeros((WORLD_SIZE, WORLD_SIZE, 3), np.uint8)).save("edits/100000.png")
    words = ["eval", "world", "--family", "jumping", "--items", "1", "--editor", "edits", "-o", "run"]
    assert main([*words, "--scenes", "jumping.py"]) == 0
    assert json.loads(Path("run/run.json").read_text())["scenes"].keys() == {"jumping"}
    written(path, BARE + "\n# changed\n")
    assert main([*words, "--scenes", "jumping.py"]) == 1 and "scenes differ" in capsys.readouterr().err
    assert main(words) == 2 and "family 'jumping' is unknown" in capsys.readouterr().err
    assert WorldRun(items=1).identity()["scenes"] is None


def test_export_of_a_scene(bare: Path, tmp_path: Path) -> None:
    words = [
        "world",
        "export",
        "--scenes",
        str(bare),
        "--family",
        "jumping",
        "--count",
        "2",
        "-o",
        str(tmp_path / "set"),
    ]
    assert main(words) == 0 and main(words) == 0
    assert len((tmp_path / "set" / "metadata.csv").read_text().splitlines()) == 3
    with registered([bare]), pytest.raises(OutputError, match="scenes differ"):
        export_world(Export(count=2, family="jumping", scenes={"jumping": "another"}), tmp_path / "set")


def test_an_export_from_before_there_were_such_files_goes_on(tmp_path: Path) -> None:
    export_world(Export(count=1, family="any", clip_share=0.0), tmp_path)
    path = tmp_path / "export.json"
    claimed = json.loads(path.read_text())
    assert claimed.pop("scenes") is None
    path.write_text(json.dumps(claimed))
    export_world(Export(count=2, family="any", clip_share=0.0), tmp_path)
    assert len((tmp_path / "metadata.csv").read_text().splitlines()) == 3


def test_a_worker_refuses_a_file_that_was_changed_meanwhile(bare: Path) -> None:
    with registered([bare]) as files:
        factory = WithScenes(factory=dict, files=files)
    with registered([]):
        assert factory() == {} and "jumping" in SCENES
    written(bare, BARE + "\n# changed\n")
    with registered([]), pytest.raises(ValueError, match="was changed"):
        factory()


def test_lines_of_the_skeleton_stay_within_the_projects_width() -> None:
    assert max(len(line) for line in skeleton_of("grandfather_clock").splitlines()) <= 120
    compile(skeleton_of("grandfather_clock"), "clock.py", "exec")

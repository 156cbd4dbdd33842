"""Benchmarks: public files are read as they are, questions show what they name, figures are as the scripts make them.

Each fixture imitates a public file, named with it; words and pictures are of our own.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import DataError, OutputError, VlmRefusal
from chronoedit.evaluation.bench_answers import reason_from, scores_from
from chronoedit.evaluation.bench_formats import GEDIT_GROUPS, IMGEDIT_TYPES, KRIS_CATEGORIES
from chronoedit.evaluation.bench_prompts import KRIS_KNOWING
from chronoedit.evaluation.benches import BENCHES, bench_named
from chronoedit.evaluation.cases import Case, Verdict
from chronoedit.evaluation.judges import VlmJudge
from chronoedit.evaluation.pbench import MAX_WORDS, pbench_items, request_problem
from chronoedit.media import load_image
from chronoedit.vlm.asking import Question, VisionModel

SIZE = (40, 24)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, (shade, 90, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(shade))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def pbench_table(folder: Path) -> Path:
    """A user's table for PBench-Edit, as the ChronoEdit paper describes its items; no public file has them."""
    put(folder / "frames" / "a.png", 10)
    put(folder / "frames" / "b.png", 20)
    text = 'image,prompt,category,key\nframes/a.png,lift the cup,robot,r1\nframes/b.png,"turn, slowly",driving,\n'
    (folder / "pbench_edit.csv").write_text(text, encoding="utf-8")
    return folder


def imgedit_folder(folder: Path) -> Path:
    """`Benchmark/Basic/basic_edit.json` of PKU-YuanGroup/ImgEdit, and `original_images` as its readme has it."""
    put(folder / "original_images" / "animal" / "1.jpg", 30)
    put(folder / "original_images" / "style" / "2.jpg", 40)
    items = {
        "1082": {"id": "animal/1.jpg", "prompt": "Make the shell smooth.", "edit_type": "alter"},
        "673": {"id": "style/2.jpg", "prompt": "Make it a woodcut.", "edit_type": "style"},
    }
    write_json(folder / "basic_edit.json", items)
    return folder


GEDIT_ROWS = [
    {"task_type": "subject-add", "key": "k1", "instruction": "add a dog", "instruction_language": "en"},
    {"task_type": "subject-add", "key": "k1", "instruction": "加一只狗", "instruction_language": "cn"},
    {"task_type": "text_change", "key": "k2", "instruction": "write «hi»", "instruction_language": "en"},
]


def gedit_folder(folder: Path, rows: list[dict[str, Any]] = GEDIT_ROWS, picture: bytes | None = b"") -> Path:
    """The parquet of stepfun-ai/GEdit-Bench, columns as in stepfun-ai/Step1X-Edit, `generate_image_example.py`."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": png(50 + index) if picture == b"" else picture, "path": None} for index in range(len(rows))]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns |= {"Intersection_exist": [index != 2 for index in range(len(rows))]}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({**columns, "input_image": pa.array(pictures, kind), "input_image_raw": pa.array(pictures, kind)})
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet", row_group_size=2)
    return folder


RISE_ITEMS: list[dict[str, Any]] = [
    {
        "index": "temporal_reasoning_1", "category": "temporal_reasoning", "subtask": "Life Progression",
        "instruction": "Show it a week later.", "image": "temporal_reasoning_images/1.png",
        "reference": "It is rotten.",
    },
    {
        "index": "causal_reasoning_2", "category": "causal_reasoning", "subtask": "State Transition",
        "instruction": "Let it melt.", "image": "causal_reasoning_images/2.png", "reference": "A puddle.",
        "consistency_free": True, "reasoning_img": True,
    },
    {
        "index": "spatial_reasoning_3", "category": "spatial_reasoning", "subtask": "Component Assembly",
        "instruction": "Put it together.", "image": "spatial_reasoning_images/3.png",
        "reference_img": "spatial_reasoning_images/3_ref.png",
    },
    {
        "index": "logical_reasoning_4", "category": "logical_reasoning", "subtask": "Puzzle Solving",
        "instruction": "Fill in the number.", "image": "logical_reasoning_images/4.png", "reference_txt": "7",
    },
]  # fmt: skip


def rise_folder(folder: Path, items: list[dict[str, Any]] | None = None) -> Path:
    """`datav2_total_w_subtask.json` of PhoenixZ810/RISEBench, with the fields of its `gpt_eval.py`, and `data.zip`."""
    items = RISE_ITEMS if items is None else items
    for index, item in enumerate(items):
        for name in ("image", "reference_img"):
            if item.get(name):
                put(folder / "data" / item[name], 60 + index)
    write_json(folder / "datav2_total_w_subtask.json", items)
    return folder


def kris_folder(folder: Path) -> Path:
    """`KRIS_Bench/CATEGORY/annotation.json` of mercurystraw/Kris_Bench, for four kinds of categories."""
    sets: dict[str, dict[str, dict[str, Any]]] = {
        "chemistry": {"1": {"ori_img": "1.png", "gt_img": "", "ins_en": "Add sodium.", "explain_en": "It boils."}},
        "viewpoint_change": {
            "1": {"ori_img": "1.jpg", "gt_img": "1_gt.jpg", "ins_en": "Draw the top.", "explain_en": ""}
        },
        "temporal_prediction": {
            "16": {
                "ori_img": ["16-1.jpg", "16-3.jpg", "16-4.jpg"], "gt_img": "16-2.jpg", "ins_en": "Draw frame 2.",
                "explain_en": "",
            }
        },
        "multi-element_composition": {
            "31": {"ori_img": ["31-1.jpg", "31-2.jpg"], "gt_img": "", "ins_en": "Join them.", "explain_en": ""}
        },
    }  # fmt: skip
    for category, items in sets.items():
        write_json(folder / "KRIS_Bench" / category / "annotation.json", items)
        for item in items.values():
            names = item["ori_img"] if isinstance(item["ori_img"], list) else [item["ori_img"]]
            for index, name in enumerate([*names, *([item["gt_img"]] if item["gt_img"] else [])]):
                put(folder / "KRIS_Bench" / category / str(name), 80 + index)
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "pbench-edit": pbench_table,
    "imgedit": imgedit_folder,
    "gedit": gedit_folder,
    "rise": rise_folder,
    "kris": kris_folder,
}
KEYS = {
    "pbench-edit": ["r1", "3"],
    "imgedit": ["1082", "673"],
    "gedit": ["fullset/subject-add/en/k1", "fullset/subject-add/cn/k1", "fullset/text_change/en/k2"],
    "rise": [f"images/{item['category']}/{item['index']}" for item in RISE_ITEMS],
    "kris": ["chemistry/1", "multi-element_composition/31", "temporal_prediction/16", "viewpoint_change/1"],
}


def cases_of(name: str, folder: Path) -> list[Case]:
    return list(BENCHES[name].read(FOLDERS[name](folder)))


@pytest.mark.parametrize("name", BENCHES)
def test_public_files_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    cases = cases_of(name, tmp_path)
    assert [case.key for case in cases] == KEYS[name]
    assert all(case.prompt and case.category for case in cases)
    assert all(load_image(case.image.read()).size == SIZE for case in cases)


def test_what_the_questions_need_is_kept(tmp_path: Path) -> None:
    gedit = cases_of("gedit", tmp_path / "gedit")
    assert [case.details for case in gedit] == [
        {"language": "en", "intersection": True},
        {"language": "cn", "intersection": True},
        {"language": "en", "intersection": False},
    ]
    rise = cases_of("rise", tmp_path / "rise")
    assert [case.details["reference"] for case in rise] == ["It is rotten.", "A puddle.", "", "7"]
    assert [case.reference is not None for case in rise] == [False, False, True, False]
    kris = {case.category: case for case in cases_of("kris", tmp_path / "kris")}
    assert kris["chemistry"].details["explanation"] == "It boils."
    assert (kris["temporal_prediction"].details["frames"], kris["temporal_prediction"].details["frame"]) == (
        (1, 3, 4),
        2,
    )
    assert len(kris["multi-element_composition"].details["pictures"]) == 2
    assert kris["viewpoint_change"].reference is not None


def test_one_category_of_kris_and_its_own_folder(tmp_path: Path) -> None:
    folder = kris_folder(tmp_path) / "KRIS_Bench"
    assert len(list(BENCHES["kris"].read(folder))) == 4
    assert [case.key for case in BENCHES["kris"].read(folder / "chemistry")] == ["chemistry/1"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gone.png,p,robot,a", "row 2: its picture gone.png is not in"),
        (",p,robot,a", "row 2: it names no picture (image)"),
        ("x.png,  ,robot,a", "row 2: its prompt is empty"),
        ("x.png,p,cat,a", "row 2: its category is 'cat'; expected one of human, robot, driving"),
        ("x.png,p,robot,../a", "row 2: its key '../a' leads out of a folder"),
        ("x.png,p,robot,a\nx.png,p,robot,a", "row 3: the key a is there already"),
    ],
)
def test_broken_rows_of_a_table_are_named(tmp_path: Path, line: str, said: str) -> None:
    put(tmp_path / "x.png")
    (tmp_path / "t.csv").write_text(f"image,prompt,category,key\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(said)):
        BENCHES["pbench-edit"].read(tmp_path / "t.csv")


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,prompt\nx.png,p\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no column category; its columns: image, prompt"):
        BENCHES["pbench-edit"].read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(f"image,prompt,category\nx.png,{'p' * 200_000},robot\n", encoding="utf-8")
    with pytest.raises(DataError, match="after row 1: field larger than field limit"):
        BENCHES["pbench-edit"].read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"image,prompt,category\n\xff,p,robot\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        BENCHES["pbench-edit"].read(tmp_path / "t.csv")


def test_all_broken_rows_are_named_at_once_ten_of_them_by_name(tmp_path: Path) -> None:
    put(tmp_path / "x.png")
    rows = "".join("x.png,,robot,\n" for _ in range(12))
    (tmp_path / "t.csv").write_text(f"image,prompt,category,key\nx.png,p,robot,a\n{rows}", encoding="utf-8")
    with pytest.raises(DataError, match="12 rows cannot be used") as caught:
        BENCHES["pbench-edit"].read(tmp_path / "t.csv")
    assert str(caught.value).count("its prompt is empty") == 10


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("imgedit", {"id": "animal/gone.jpg"}, "1082: its picture animal/gone.jpg"),
        ("imgedit", {"edit_type": "dance"}, "1082: its edit_type is 'dance'"),
        ("imgedit", {"prompt": " "}, "1082: its prompt is empty"),
        ("rise", {"category": "odd"}, "item 1 (temporal_reasoning_1): its category is 'odd'"),
        ("rise", {"reference": ""}, "item 1 (temporal_reasoning_1): it has neither a description (reference)"),
        ("kris", {"ins_en": ""}, "chemistry/1: its ins_en is empty"),
        ("kris", {"gt_img": "gone.png"}, "chemistry/1: its picture gone.png"),
        ("kris", {"ori_img": []}, "chemistry/1: it names no picture (ori_img)"),
    ],
)
def test_broken_items_of_public_files_are_named(name: str, spoil: dict[str, Any], said: str, tmp_path: Path) -> None:
    FOLDERS[name](tmp_path)
    index = {
        "imgedit": tmp_path / "basic_edit.json",
        "rise": tmp_path / "datav2_total_w_subtask.json",
        "kris": tmp_path / "KRIS_Bench" / "chemistry" / "annotation.json",
    }[name]
    items = json.loads(index.read_text())
    first = items[0] if isinstance(items, list) else next(iter(items.values()))
    first |= spoil
    write_json(index, items)
    with pytest.raises(DataError, match=re.escape(said)):
        BENCHES[name].read(tmp_path)


def test_broken_rows_of_gedit_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("train-00000-of-00001.parquet:0.0: it has no picture")):
        BENCHES["gedit"].read(gedit_folder(tmp_path / "a", picture=None))
    rows = [{**GEDIT_ROWS[0], "task_type": "new"}]
    with pytest.raises(DataError, match=re.escape("parquet:0.0: its task_type is 'new'")):
        BENCHES["gedit"].read(gedit_folder(tmp_path / "b", rows))


@pytest.mark.parametrize("name", BENCHES)
def test_what_is_no_benchmark_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no "):
        BENCHES[name].read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"1": {}, "1": {}}'])
def test_damaged_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "basic_edit.json").write_text(text)
    with pytest.raises(DataError, match="is no JSON|is not an object|has no items"):
        BENCHES["imgedit"].read(tmp_path)


def test_an_unknown_benchmark_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="choose one of pbench-edit, imgedit, gedit, rise, kris"):
        bench_named("mmlu")
    assert bench_named("rise") is BENCHES["rise"]


INPUT, EDITED = Image.new("RGB", SIZE, (1, 2, 3)), Image.new("RGB", (80, 48), (9, 8, 7))


def red(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


def asked(case: Case, name: str) -> list[Question]:
    return [each.question for each in BENCHES[name].questions(case, INPUT, EDITED)]


@pytest.mark.parametrize("name", BENCHES)
def test_every_question_names_what_is_asked_and_reads_its_own_answers(name: str, tmp_path: Path) -> None:
    for case in cases_of(name, tmp_path):
        found: dict[str, float] = {}
        for each in BENCHES[name].questions(case, INPUT, EDITED):
            schema = each.question.schema
            assert schema is not None
            named = [criterion for criterion in schema["properties"] if criterion != "reason"]
            assert all(f"- {criterion}: " in each.question.text for criterion in named)
            assert len(each.question.images) == 1 or case.prompt in each.question.text
            top = schema["properties"][named[0]]["maximum"]
            found |= each.parse(json.dumps({"reason": "r", **dict.fromkeys(named, top)}))
        low, high = BENCHES[name].scale
        assert set(found) <= set(BENCHES[name].criteria)
        assert set(found.values()) == {high}
        assert low < high


def test_every_kind_of_imgedit_and_every_category_of_kris_has_its_questions(tmp_path: Path) -> None:
    case = cases_of("imgedit", tmp_path / "imgedit")[0]
    texts = {
        asked(Case(key="k", prompt="p", image=case.image, category=kind), "imgedit")[0].text for kind in IMGEDIT_TYPES
    }
    assert len(texts) == len(IMGEDIT_TYPES) - 1  # adjust and alter are one kind under two names
    details = {"explanation": "it boils", "pictures": (case.image,)}
    for category in KRIS_CATEGORIES:
        kris = Case(key="k", prompt="p", image=case.image, category=category, details=details)
        questions = asked(kris, "kris")
        assert [len(question.images) for question in questions] == [2, 2, 1]
        knowing = category in KRIS_KNOWING
        assert ("knowledge" in questions[1].text) == knowing
        assert ("it boils" in questions[1].text) == (knowing or category == "anomaly_correction")


def test_rise_shows_the_truth_and_asks_for_consistency_where_it_counts(tmp_path: Path) -> None:
    temporal, causal, spatial, logical = (asked(case, "rise") for case in cases_of("rise", tmp_path))
    assert [len(question.images) for question in temporal] == [2, 1, 1]
    assert "It is rotten." in temporal[1].text
    assert [len(question.images) for question in causal] == [2, 1]  # no consistency; the input is shown for reasoning
    assert [red(image) for image in spatial[1].images] == [62, 9]  # the true result, the edited one
    assert len(logical) == 1
    assert logical[0].schema is not None and logical[0].schema["properties"]["reasoning"]["maximum"] == 1


def test_a_logical_answer_of_no_or_yes_becomes_one_or_five(tmp_path: Path) -> None:
    case = cases_of("rise", tmp_path)[3]
    parse = BENCHES["rise"].questions(case, INPUT, EDITED)[0].parse
    assert parse('{"reason": "", "reasoning": 1, "consistency": 0}') == {"reasoning": 5, "consistency": 1}
    with pytest.raises(ValueError, match="no score from 0 to 1"):
        parse("reasoning: 5, consistency: 1")


def test_kris_shows_frames_in_their_order_and_the_true_view(tmp_path: Path) -> None:
    cases = {case.category: asked(case, "kris") for case in cases_of("kris", tmp_path)}
    frames = cases["temporal_prediction"][0].images
    assert [red(image) for image in frames] == [80, 9, 81, 82]
    assert "frame 2 is the edited one" in cases["temporal_prediction"][0].text
    assert [len(question.images) for question in cases["multi-element_composition"]] == [3, 3, 1]
    assert [len(question.images) for question in cases["viewpoint_change"]] == [2, 3, 1]


def test_gedit_shows_the_edited_picture_in_the_size_of_the_original(tmp_path: Path) -> None:
    semantic, quality = asked(cases_of("gedit", tmp_path)[0], "gedit")
    assert [image.size for image in semantic.images] == [SIZE, SIZE]
    assert [image.size for image in quality.images] == [SIZE]


TWO = ("naturalness", "freedom_from_artifacts")


@pytest.mark.parametrize(
    ("text", "criteria", "scores"),
    [
        ('{"reason": "fine", "quality": 4}', ("quality",), [4]),
        ('```json\n{"quality": "4/5"}\n```', ("quality",), [4]),
        ('Well: {"quality": 4}. Again: {"quality": 4}', ("quality",), [4]),
        ('{"score": 4, "reasoning": "x"}', ("quality",), [4]),
        ("4/5", ("quality",), [4]),
        ("4", ("quality",), [4]),
        ("Score: 4", ("quality",), [4]),
        ("**Final Score:** **4**", ("quality",), [4]),
        ("I looked at 3 things. It is 4 out of 5.", ("quality",), [4]),
        ("Quality: 4.5", ("quality",), [4.5]),
        ("Naturalness: 5\nFreedom from artifacts - score: 3", TWO, None),
        ("Naturalness: 5/5\nFreedom from artifacts: 3/5", TWO, [5, 3]),
        ('{"score": [5, 3]}', TWO, [5, 3]),
        ("[5, 3]", TWO, [5, 3]),
        ('{"Naturalness": 5, "Freedom From Artifacts": 3}', TWO, [5, 3]),
    ],
)
def test_scores_are_read_from_json_and_words(text: str, criteria: tuple[str, ...], scores: list[float] | None) -> None:
    if scores is None:
        with pytest.raises(ValueError, match="no score for freedom_from_artifacts"):
            scores_from(text, criteria, (1, 5))
    else:
        assert scores_from(text, criteria, (1, 5)) == dict(zip(criteria, scores, strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no score for quality"),
        ("It has 3 cats.", "no score for quality"),
        ("I cannot judge 2 persons.", "no score for quality"),
        ('{"quality": 7}', "no score from 1 to 5"),
        ('{"quality": true}', "no score from 1 to 5"),
        ('{"quality": null}', "no score from 1 to 5"),
        ('{"quality": NaN}', "no score from 1 to 5"),
        ("8/10", "no score from 1 to 5"),
        ("Score: -4", "no score from 1 to 5"),
        ("Score: 4. Score: 2", "several scores"),
        ('{"quality": 4} or {"quality": 2}', "several answers"),
        ("[4, 3]", "no score for quality"),
    ],
)
def test_what_is_no_score_is_not_taken_for_one(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scores_from(text, ("quality",), (1, 5))


def test_the_reason_is_read_too() -> None:
    assert reason_from('{"reason": " a seam ", "quality": 2}') == "a seam"
    assert reason_from(" It is a seam. Score: 2 ") == "It is a seam. Score: 2"


def a_case(key: str, category: str, **details: Any) -> Case:
    return Case(key=key, prompt="p", image=None, category=category, details=details)  # type: ignore[arg-type]


def verdict(*scores: float, of: tuple[str, ...]) -> Verdict:
    return Verdict(scores=dict(zip(of, scores, strict=True)), reason="r")


UNREAD = Verdict(scores={}, reason="well…", problem="unparsed: well…")
REFUSED = Verdict(scores={}, problem="refused: no", refused=True)
NO_PICTURE = Verdict(scores={}, problem="There is no picture.")


def figures(name: str, judged: list[tuple[Case, Verdict]]) -> tuple[dict[str, float], dict[str, float]]:
    return tuple(BENCHES[name].aggregate[kind](judged) for kind in ("official", "strict"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", BENCHES)
def test_nothing_judged_gives_no_figure_but_the_count(name: str) -> None:
    assert figures(name, []) == ({"items": 0}, {"items": 0})


def test_pbench_figures() -> None:
    of = BENCHES["pbench-edit"].criteria
    judged = [
        (a_case("a", "human"), verdict(5, 4, 3, of=of)),
        (a_case("b", "robot"), verdict(2, 5, 5, of=of)),
        (a_case("c", "robot"), UNREAD),
        (a_case("d", "driving"), REFUSED),
    ]
    official, strict = figures("pbench-edit", judged)
    assert official["items"] == 2 and official["overall"] == 4 and official["action_fidelity"] == 3.5
    assert official["robot/overall"] == 4 and "driving/overall" not in official
    assert strict["items"] == 4 and strict["overall"] == 2.5
    assert strict["robot/overall"] == 2.5 and strict["driving/overall"] == 1


def test_imgedit_rounds_and_keeps_what_breaks_the_rule_strict_caps_it() -> None:
    of = BENCHES["imgedit"].criteria
    judged = [
        (a_case("a", "add"), verdict(1, 5, 4, of=of)),
        (a_case("b", "add"), verdict(5, 5, 4, of=of)),
        (a_case("c", "style"), verdict(4, 4, 3, of=of)),
        (a_case("d", "style"), UNREAD),
    ]
    official, strict = figures("imgedit", judged)
    assert official["add/overall"] == 4.0  # (3.33 + 4.67) / 2
    assert official["style/overall"] == 3.67 and official["overall"] == pytest.approx(3.835)
    assert strict["add/overall"] == pytest.approx((1 + 14 / 3) / 2)
    assert strict["style/overall"] == pytest.approx((11 / 3 + 1) / 2)
    assert strict["editing_quality"] == (1 + 5 + 4 + 1) / 4


def test_imgedit_averages_what_scores_there_are() -> None:
    partial = Verdict(scores={"instruction_adherence": 4, "editing_quality": 2}, reason="r")
    official, strict = figures("imgedit", [(a_case("a", "add"), partial)])
    assert official["add/overall"] == 3
    assert strict["add/overall"] == pytest.approx(7 / 3)


def gedit_case(key: str, group: str, language: str = "en", intersection: bool = True) -> Case:
    return a_case(key, group, language=language, intersection=intersection)


def test_gedit_takes_the_lower_of_two_and_the_root_of_the_product() -> None:
    of = BENCHES["gedit"].criteria
    judged = [
        (gedit_case("a", GEDIT_GROUPS[0]), verdict(9, 4, 9, 10, of=of)),
        (gedit_case("b", GEDIT_GROUPS[0], intersection=False), verdict(0, 10, 10, 10, of=of)),
        (gedit_case("c", GEDIT_GROUPS[1]), verdict(8, 8, 8, 8, of=of)),
        (gedit_case("d", GEDIT_GROUPS[1], "cn"), verdict(2, 2, 2, 2, of=of)),
    ]
    official, strict = figures("gedit", judged)
    assert official == strict
    assert official[f"en/{GEDIT_GROUPS[0]}/overall"] == 3  # √(4·9) = 6, and 0
    assert official["en/overall"] == 5.5  # a mean of groups, not of items
    assert official["en/intersection/overall"] == 7
    assert official["cn/overall"] == 2 and official["overall"] == 3.75
    assert official["en/semantic"] == (2 + 8) / 2


def test_gedit_guesses_at_what_was_not_read_and_passes_over_what_was_not_answered() -> None:
    cases = [gedit_case(str(index), GEDIT_GROUPS[0]) for index in range(400)]
    official, strict = figures("gedit", [(case, UNREAD if index % 2 else REFUSED) for index, case in enumerate(cases)])
    assert strict["en/semantic"] == 0 and strict["overall"] == 0
    assert official["en/semantic"] == pytest.approx(5, abs=0.6)  # the mean of a guess from 0 to 10
    assert official["en/semantic"] != official["en/quality"]
    again, _ = figures("gedit", [(case, UNREAD) for case in cases])
    assert again == official
    official, strict = figures("gedit", [(cases[0], NO_PICTURE)])
    assert official == {"items": 0} and strict["overall"] == 0
    half = Verdict(scores={"editing_success": 6, "minimal_editing": 7}, reason="r", problem="unparsed")
    official, strict = figures("gedit", [(cases[0], half)])
    assert official["en/semantic"] == strict["en/semantic"] == 6 and strict["en/quality"] == 0


def rise_cases(tmp_path: Path, **changes: Any) -> list[Case]:
    return list(BENCHES["rise"].read(rise_folder(tmp_path, [{**item, **changes} for item in RISE_ITEMS])))


def test_rise_weights_halving_and_accuracy(tmp_path: Path) -> None:
    temporal, causal, spatial, logical = rise_cases(tmp_path, consistency_free=None)
    of = ("consistency", "reasoning", "plausibility")
    judged = [
        (temporal, verdict(4, 3, 5, of=of)),
        (causal, verdict(5, 1, 5, of=of)),
        (spatial, verdict(5, 5, 5, of=of)),
        (logical, verdict(1, 5, of=of[:2])),
    ]
    official, strict = figures("rise", judged)
    assert official == strict
    assert official["temporal_reasoning/overall"] == pytest.approx(0.3 * 4 + 0.5 * 3 + 0.2 * 5)
    assert official["causal_reasoning/overall"] == pytest.approx(1.5)  # 3, halved since reasoning is 1
    assert official["logical_reasoning/overall"] == pytest.approx(0.3 + 3.5)
    assert official["accuracy"] == 0.25 and official["spatial_reasoning/overall_percent"] == 100
    assert official["subtask Puzzle Solving/overall"] == pytest.approx(3.8)
    assert official["plausibility"] == 5


def test_rise_halving_stops_at_one(tmp_path: Path) -> None:
    case = rise_cases(tmp_path)[3]
    assert figures("rise", [(case, verdict(1, 1, of=("consistency", "reasoning")))])[0]["overall"] == 1


def test_rise_official_has_the_quirks_of_its_script_strict_has_not(tmp_path: Path) -> None:
    """`gpt_eval.py` on a table in which one item alone is marked: others are not-a-number there, which is true."""
    temporal, causal, spatial, _ = list(BENCHES["rise"].read(rise_folder(tmp_path)))
    assert [case.details["consistency_unweighted"] for case in (temporal, causal, spatial)] == [True, True, True]
    three, two = ("consistency", "reasoning", "plausibility"), ("reasoning", "plausibility")
    judged = [(temporal, verdict(1, 5, 5, of=three)), (causal, verdict(5, 5, of=two)), (spatial, UNREAD)]
    official, strict = figures("rise", judged)
    assert official["temporal_reasoning/overall"] == 5  # consistency has lost its weight
    assert strict["temporal_reasoning/overall"] == pytest.approx(3.8)
    assert official["causal_reasoning/accuracy"] == 0 and strict["causal_reasoning/accuracy"] == 1
    assert "spatial_reasoning/overall" not in official and official["spatial_reasoning/accuracy"] == 0
    assert strict["spatial_reasoning/overall"] == 1
    assert official["overall"] == 5 and official["accuracy"] == 0 and official["items"] == 3


def test_kris_counts_every_score_alike() -> None:
    plain, knowing = ("consistency", "quality", "instruction"), ("consistency", "quality", "instruction", "knowledge")
    judged = [
        (a_case("a", "count_change"), verdict(5, 5, 2, of=plain)),
        (a_case("b", "chemistry"), verdict(1, 5, 3, 3, of=knowing)),
        (a_case("c", "chemistry"), Verdict(scores={"quality": 5}, reason="r", problem="unparsed")),
        (a_case("d", "humanities"), UNREAD),
    ]
    official, strict = figures("kris", judged)
    assert official["attribute_perception/overall"] == 75 and official["factual_knowledge/overall"] == 75
    assert official["natural_science/overall"] == (0 + 100 + 50 + 50 + 100) / 5
    assert official["overall"] == (225 + 300) / 8 and official["knowledge"] == 50 and official["items"] == 3
    assert "social_science/overall" not in official and strict["social_science/overall"] == 0
    assert strict["natural_science/overall"] == (200 + 100) / 8
    assert strict["overall"] == (225 + 300) / 15


def test_a_judge_that_scores_every_criterion_counts_only_those_of_the_category() -> None:
    of = BENCHES["kris"].criteria
    official, _ = figures("kris", [(a_case("a", "count_change"), verdict(5, 5, 5, 1, of=of))])
    assert official["overall"] == 100 and "knowledge" not in official


@dataclass(kw_only=True)
class Scripted(VisionModel):
    """Answers by what is asked."""

    reply: Callable[[str], str]
    asked: list[Question] = field(default_factory=list)

    def _reply(self, turns: Any, question: Question, on_text: Any) -> str:
        self.asked.append(question)
        return self.reply(question.text)


@pytest.mark.parametrize("name", BENCHES)
def test_a_model_judges_the_cases_of_every_benchmark(name: str, tmp_path: Path) -> None:
    class Best(VisionModel):
        def _reply(self, turns: Any, question: Question, on_text: Any) -> str:
            assert question.schema is not None
            properties = question.schema["properties"].items()
            return json.dumps({key: each.get("maximum", "fine") for key, each in properties})

    cases = cases_of(name, tmp_path)
    judge = VlmJudge(bench=BENCHES[name], model=Best(name="m"))
    judged = [(case, judge.score(case, EDITED)) for case in cases]
    assert all(verdict.problem is None for _, verdict in judged)
    official, strict = figures(name, judged)
    assert strict["items"] == len(cases)
    assert strict["overall"] == {"gedit": 10, "kris": 100}.get(name, 5)
    assert official["overall"] == strict["overall"]


CAPTIONS = {
    "robot_task_001": "A gripper closes around the cup.",
    "human_12": "A woman stands up.",
    "av_3": "The car turns.",
    "physics_4": "A ball falls.",
}


def pbench_parquet(path: Path, rows: dict[str, str] | None = None, picture: bytes | None = b"") -> Path:
    """The parquet of nvidia/PBench on the hub: id, text_prompt, condition_image (bytes, path), qa_pairs (JSON)."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = CAPTIONS if rows is None else rows
    pictures = [{"bytes": png(90 + index) if picture == b"" else picture, "path": None} for index in range(len(rows))]
    image = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    columns = {"id": list(rows), "text_prompt": list(rows.values()), "condition_image": image}
    pq.write_table(pa.table({**columns, "qa_pairs": ["[]"] * len(rows)}), path)
    return path


def test_pbench_items_without_a_model_keep_the_captions(tmp_path: Path) -> None:
    made = pbench_items(pbench_parquet(tmp_path / "p.parquet"), tmp_path / "out")
    assert (made.items, made.other_domains, made.failed) == (3, 1, ())
    cases = list(BENCHES["pbench-edit"].read(tmp_path / "out"))
    assert [(case.key, case.category, case.prompt) for case in cases] == [
        ("robot_task_001", "robot", "A gripper closes around the cup."),
        ("human_12", "human", "A woman stands up."),
        ("av_3", "driving", "The car turns."),
    ]
    assert load_image(cases[1].image.read()).getpixel((0, 0)) == (91, 90, 200)


def test_pbench_items_ask_a_model_for_requests_and_name_what_has_none(tmp_path: Path) -> None:
    def reply(text: str) -> str:
        if "woman" in text:
            raise VlmRefusal("refused: no persons")
        return "word " * 70 if "car" in text else "Have the gripper hold the cup on the table."

    model = Scripted(name="m", reply=reply)
    made = pbench_items(pbench_parquet(tmp_path / "p.parquet"), tmp_path / "out", model=model)
    cases = list(BENCHES["pbench-edit"].read(made.table))
    assert [case.prompt for case in cases] == ["Have the gripper hold the cup on the table."]
    assert [problem.partition(":")[0] for problem in made.failed] == ["p.parquet", "p.parquet"]
    assert "human_12" in made.failed[0] and "refused" in made.failed[0]
    assert "av_3" in made.failed[1] and "70 words" in made.failed[1]
    assert not any("A ball falls" in question.text for question in model.asked)
    assert model.asked[0].images[0].size == SIZE


def test_pbench_rows_that_cannot_be_items_are_named(tmp_path: Path) -> None:
    rows = {"robot_1": "", "": "A dog runs."}
    made = pbench_items(pbench_parquet(tmp_path / "p.parquet", rows), tmp_path / "a")
    assert made.failed == ("p.parquet:1 (robot_1): its caption is empty", "p.parquet:2 (): it has no id")
    made = pbench_items(pbench_parquet(tmp_path / "q.parquet", {"av_1": "x"}, None), tmp_path / "b")
    assert made.failed == ("q.parquet:1 (av_1): it has no picture",)
    (tmp_path / "both").mkdir()
    for name in ("1", "2"):
        pbench_parquet(tmp_path / "both" / f"{name}.parquet", {"av_1": "x"})
    assert pbench_items(tmp_path / "both", tmp_path / "c").failed == ("2.parquet:1 (av_1): its id is there already",)


def test_pbench_items_leave_a_table_that_is_there(tmp_path: Path) -> None:
    parquet = pbench_parquet(tmp_path / "p.parquet")
    pbench_table(tmp_path / "out")
    before = (tmp_path / "out" / "pbench_edit.csv").read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        pbench_items(parquet, tmp_path / "out")
    assert (tmp_path / "out" / "pbench_edit.csv").read_bytes() == before


def test_another_parquet_is_no_pbench(tmp_path: Path) -> None:
    gedit = gedit_folder(tmp_path / "gedit")
    with pytest.raises(DataError, match="as PBench has"):
        pbench_items(gedit, tmp_path / "out")
    with pytest.raises(DataError, match="there is no parquet file"):
        pbench_items(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_request_is_short_english_prose() -> None:
    assert request_problem("Have the woman in the red coat stand up.") is None
    assert request_problem("x " * (MAX_WORDS + 1)) is not None
    assert request_problem("") is not None
    assert request_problem("Have her stand.\n\nThen the man.") == "It must be one paragraph."
    assert request_problem("Lass die Frau aufstehen und gehen.") == "It must be in English."

"""`eval bench`, `eval bench-compare`, `eval pairs` and `eval agreement` as they are typed, with a scripted server."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chronoedit.apps.main import main
from chronoedit.media import encode_image

from ..vlm.conftest import Script, script  # noqa: F401 - a fixture

PROMPTS = ['lift the "cup"; $(rm -rf x)', "turn it", "fail at it", "push it"]
NAMES = {"run.json", "edits.jsonl", "images", "items.jsonl", "summary.json", "report.html"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PBench-Edit as a table of four small pictures."""
    folder = tmp_path_factory.mktemp("pbench")
    with (folder / "pbench_edit.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "prompt", "category"])
        for number, prompt in enumerate(PROMPTS):
            pixels = np.random.default_rng(number).integers(80, 120, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", prompt, ("human", "robot")[number % 2]])
    return folder


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A command that turns a picture into its negative, and counts how often it ran."""
    path = tmp_path / "negative.py"
    path.write_text(
        "import sys\nfrom PIL import Image, ImageOps\n"
        f"open({str(tmp_path / 'ran')!r}, 'a').write('.')\n"
        "source, prompt, out = sys.argv[1:]\n"
        "if prompt.startswith('fail'): sys.exit('it was to fail')\n"
        "ImageOps.invert(Image.open(source)).save(out)\n"
    )
    return f"{sys.executable} {path} {{input}} {{prompt}} {{output}}"


def judged(action: int) -> Callable[[dict[str, Any]], Any]:
    """A server that gives every edit the same scores, and refuses to look at a cup."""

    def answer(asked: dict[str, Any]) -> Any:
        if "better" in json.dumps(asked.get("response_format", asked)):
            return json.dumps({"reason": "it looks so", "better": "first"})
        if "rm -rf" in json.dumps(asked["messages"]):
            return "no", {"finish_reason": "content_filter"}
        scores = {"action_fidelity": action, "identity_preservation": 3, "visual_coherence": 2}
        return json.dumps({"reason": "so it looks", **scores})

    def wrapped(asked: dict[str, Any]) -> Any:
        said = answer(asked)
        if isinstance(said, tuple):
            message = {"role": "assistant", "content": None, "refusal": "I will not look at a cup"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
        return said

    return wrapped


def bench(data: Path, output: Path, *words: str) -> list[str]:
    return ["eval", "bench", "pbench-edit", str(data), "-o", str(output), *words]


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_command_is_run_judged_and_judged_anew(
    data: Path,
    program: str,
    script: Script,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = bench(data, out, "--editor", program, "--vlm-url", script.url, "--concurrency", "2")
    script.answers = judged(5)
    assert main([*words, "--vlm-model", "one"]) == 0
    told = capsys.readouterr()
    assert "action_fidelity" in told.out and str(out / "report.html") in told.out and "it was to fail" in told.err
    assert {path.name for path in out.iterdir()} >= {*NAMES, "verdicts", "answers.sqlite"}
    editor = summary_of(out)["judges"]["vlm:one"]["editor"]
    assert (editor["judged"], editor["refused"], editor["unread"]) == (3, 1, 0)
    assert editor["official"]["action_fidelity"]["value"] == 5
    assert editor["strict"]["action_fidelity"]["value"] == pytest.approx((5 + 5 + 1 + 1) / 4)
    sent = len(script.asked)
    assert main([*words, "--vlm-model", "one"]) == 0
    assert len(script.asked) == sent and len((tmp_path / "ran").read_text()) == 4
    script.answers = judged(4)
    assert main([*words, "--vlm-model", "two"]) == 0
    assert len(script.asked) == 2 * sent and len((tmp_path / "ran").read_text()) == 4
    assert set(summary_of(out)["judges"]) == {"vlm:one", "vlm:two"}
    capsys.readouterr()
    compare = ["eval", "agreement", "--a", str(out), "--judge-a", "vlm:one", "--judge-b", "vlm:two"]
    assert main([*compare, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["action_fidelity"]["difference"]["value"] == 1
    assert found["figures"]["visual_coherence"]["equal"]["value"] == 1
    assert main(compare) == 0
    told = capsys.readouterr()
    assert "4 of them not scored by both" in told.out and "kappa, quadratic" in told.out and "first less" in told.out


def test_two_runs_side_by_side(
    data: Path,
    program: str,
    script: Script,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script.answers = judged(4)
    server = ["--vlm-url", script.url]
    a, b, pairs = tmp_path / "a", tmp_path / "b", tmp_path / "pairs"
    assert main(bench(data, a, "--editor", program, *server, "--no-baselines")) == 0
    results = tmp_path / "results"
    results.mkdir()
    keys = [json.loads(line)["case"] for line in (a / "edits.jsonl").read_text().splitlines()]
    for number, key in enumerate(keys):
        Image.open(data / f"{number}.png").save(results / f"{key}.png")
    script.answers = judged(2)
    assert main(bench(data, b, "--editor", str(results), *server, "--no-baselines")) == 0
    assert summary_of(b)["edits"]["editor"]["failed"] == 0
    assert set(summary_of(b)["objective"]) == {"editor"}
    capsys.readouterr()
    compare = ["eval", "bench-compare", "--a", str(a), "--b", str(b)]
    assert main([*compare, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["figures"]["action_fidelity"]
    assert found["difference"] == pytest.approx((0 + 2 - 1 + 2) / 4) and found["detectable"] > 0
    assert main(compare) == 0
    assert "detectable" in capsys.readouterr().out
    asked = ["eval", "pairs", "--a", str(a), "--b", str(b), "-o", str(pairs), *server]
    assert main([*asked, "--concurrency", "1"]) == 0
    assert "4 pairs, 0 wins a, 1 wins b, 3 ties, 3 contradictions" in capsys.readouterr().out
    assert {path.name for path in pairs.iterdir()} >= {"run.json", "pairs.jsonl", "summary.json", "report.html"}
    sent = len(script.asked)
    assert main(asked) == 0 and len(script.asked) == sent


def test_our_editor_and_a_judge_that_needs_no_model(
    data: Path, random_checkpoint_no_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ["--model-path", str(random_checkpoint_no_image), "--num-inference-steps", "1"]
    words = bench(data, tmp_path / "out", *model, "--judge", "none", "--limit", "2", "--repeats", "2", "--seed", "5")
    assert main(words) == 0
    edits = [json.loads(line) for line in (tmp_path / "out" / "edits.jsonl").read_text().splitlines()]
    assert [edit["seed"] for edit in edits if edit["row"] == "editor"] == [5, 6, 5, 6]
    assert {edit["row"] for edit in edits} == {"editor", "copy", "noise"} and not any(edit["error"] for edit in edits)
    assert summary_of(tmp_path / "out")["run"]["editor"]["settings"] == {"num_inference_steps": 1}
    assert summary_of(tmp_path / "out")["judges"] == {} and summary_of(tmp_path / "out")["items"] == 2

    def never(*_: object) -> None:
        raise AssertionError("a model was opened, and nothing was left to edit")

    monkeypatch.setattr("chronoedit.apps.commands.bench_eval.opened", never)
    assert main([word if word != "none" else "reference" for word in words]) == 0
    row = summary_of(tmp_path / "out")["judges"]["reference"]["editor"]
    assert row["unread"] == 4 and row["official"].get("overall") is None and row["strict"]["overall"]["value"] == 1
    assert main([*words, "--reasoning"]) == 1  # edits with other settings lie there


def test_our_editor_is_gone_before_a_judge_is_asked(
    data: Path, random_checkpoint_no_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronoedit.apps.commands import bench_eval
    from chronoedit.evaluation import bench_run

    real_opened, real_judge = bench_eval.opened, bench_run.judge_edits
    editors: list[weakref.ref[Any]] = []
    held: list[bool] = []

    @contextmanager
    def opened(flags: Any) -> Iterator[Any]:
        with real_opened(flags) as editor:
            editors.append(weakref.ref(editor))
            yield editor

    def judge_edits(*arguments: Any, **named: Any) -> str:
        held.append(editors[0]() is not None)
        return real_judge(*arguments, **named)

    monkeypatch.setattr(bench_eval, "opened", opened)
    monkeypatch.setattr(bench_run, "judge_edits", judge_edits)
    model = ["--model-path", str(random_checkpoint_no_image), "--num-inference-steps", "1", "--limit", "1"]
    assert main(bench(data, tmp_path / "out", *model, "--judge", "reference")) == 0
    assert held == [False]


def test_what_failed_is_done_again_when_asked(data: Path, program: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = bench(data, out, "--editor", program, "--judge", "none", "--editor-timeout-s", "30")
    assert main(words) == 0 and main([*words, "--retry-failed"]) == 0
    assert len((tmp_path / "ran").read_text()) == 5
    assert summary_of(out)["edits"]["editor"]["failed"] == 1


def test_a_time_out_is_a_failure(data: Path, tmp_path: Path) -> None:
    slow = f"{sys.executable} -c 'import time; time.sleep(20)' {{input}} {{output}}"
    words = bench(data, tmp_path / "out", "--editor", slow, "--judge", "none", "--limit", "1")
    assert main([*words, "--editor-timeout-s", "0.3"]) == 0
    edit = json.loads((tmp_path / "out" / "edits.jsonl").read_text().splitlines()[0])
    assert "longer than 0.3 s" in edit["error"]


def test_a_dry_run_sends_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(bench(data, tmp_path / "out", "--dry-run", "--limit", "2", "--repeats", "3")) == 0
    told = capsys.readouterr()
    assert "[picture, 64x48 px]" in told.out and 'lift the "cup"' in told.out and "turn it" not in told.out
    assert "for 2 items, 5 pictures of each; nothing was sent" in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--judge", "nobody"], "choose from vlm, reference, none"),
        (["--editor", "nowhere"], "no folder and no command"),
        (["--editor", "edit {input}"], "no {output}"),
        (["--editor", "edit {input} {output}", "--reasoning"], "go with --editor ours"),
        (["--editor", "edit {input} {output}", "--device", "cpu"], "go with --editor ours"),
        (["--repeats", "0"], "give 1 or more"),
        (["--limit", "0"], "--limit 0 is below 1"),
        (["--concurrency", "0"], "--concurrency 0 is below 1"),
        (["--guidance-scale", "0"], "guidance_scale 0 is too low"),
        (["--num-reasoning-steps", "0", "--reasoning"], "turn reasoning off"),
        (["--lora-scale", "1"], "name the LoRA file"),
        (["--vlm-max-requests", "0"], "1 or more"),
    ],
)
def test_bad_arguments(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(bench(data, tmp_path / "out", *words)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_not_there(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "bench", "nothing", str(data), "-o", str(tmp_path / "out")]) == 2
    assert "pbench-edit, imgedit, gedit, rise, kris" in capsys.readouterr().err
    for words in (["bench-compare", "--b", str(data)], ["agreement"]):
        assert main(["eval", *words, "--a", str(tmp_path)]) == 1
        assert "eval bench" in capsys.readouterr().err
    assert main(["eval", "pairs", "--a", str(tmp_path), "--b", str(data), "-o", str(tmp_path / "out")]) == 1
    assert "eval bench" in capsys.readouterr().err
    words = ["eval", "pairs", "--a", "x", "--b", "y", "-o", str(tmp_path / "out"), "--concurrency", "0"]
    assert main(words) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["bench", "bench-compare", "pairs", "agreement"])
def test_help_says_what_there_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", command, "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 90


def test_the_commands_of_the_page(
    data: Path,
    script: Script,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_checkpoint_no_image: Path,
) -> None:
    """As they stand in docs/evaluation.md, but for the address of the server, the program, and our model."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("chronoedit eval ")]
    lines = [line for line in lines if line.split()[2] not in ("world", "compare")]  # see test_world_editors.py
    assert len(lines) == 6
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, "items")
    (tmp_path / "results").mkdir()
    stub = tmp_path / "other.py"
    stub.write_text("import shutil, sys\nshutil.copy(sys.argv[1], sys.argv[5])\n")
    script.answers = judged(3)
    for line in lines:
        words = shlex.split(line.replace("http://localhost:8000/v1", script.url))[1:]
        words = [word.replace("other-editor", f"{sys.executable} {stub}") for word in words]
        if words[1] == "bench" and "--editor" not in words:
            words += ["--model-path", str(random_checkpoint_no_image), "--num-inference-steps", "1", "--limit", "4"]
        if words[1] == "agreement":
            first = next(iter(summary_of(tmp_path / "out" / "ours")["judges"]))
            words = [first if word.startswith("vlm:") else word for word in words]
        assert main(words) == 0, line
    assert summary_of(tmp_path / "out" / "other")["edits"]["editor"]["failed"] == 0
    assert summary_of(tmp_path / "out" / "results")["edits"]["editor"]["failed"] == 4
    assert summary_of(tmp_path / "out" / "pairs")["ties"] > 0


def test_items_of_pbench_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    picture = encode_image(Image.new("RGB", (40, 24), "red"), Path("x.png"))
    rows = {
        "id": ["robot_1", "common_2", "av_3"],
        "text_prompt": ["A gripper closes.", "A ball falls.", ""],
        "condition_image": [{"bytes": picture}] * 3,
    }
    pyarrow.parquet.write_table(pa.table(rows), tmp_path / "pbench.parquet")
    assert main(["eval", "pbench-items", str(tmp_path / "pbench.parquet"), "-o", str(tmp_path / "items")]) == 1
    found = capsys.readouterr()
    assert found.out.strip() == str(tmp_path / "items" / "pbench_edit.csv")
    assert "1 items; 1 rows of other domains" in found.err and "av_3" in found.err and "caption is empty" in found.err
    assert main(["eval", "pbench-items", str(tmp_path / "no.parquet"), "-o", str(tmp_path / "x")]) == 2
    assert main(["eval", "pbench-items", str(tmp_path / "pbench.parquet"), "-o", str(tmp_path / "items")]) == 1
    assert "is there already" in capsys.readouterr().err

"""`chronoedit batch` from argv to files: rows, combinations, kills, Ctrl-C and a cluster, on a random checkpoint."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from chronoedit import media
from chronoedit.apps import batch_sheet
from chronoedit.apps.commands.batch import BatchBar, BatchClusterFlags
from chronoedit.apps.main import main
from chronoedit.apps.record import Record
from chronoedit.request import Progress

torch = pytest.importorskip("torch")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, name in enumerate(("cat", "dog")):
        coarse = np.random.default_rng(k).integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def batch(random_checkpoint_no_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a batch into tmp_path/out in two steps; returns its exit code, stdout and stderr."""

    def run(*words: object, output: str = "out", steps: int = 2) -> tuple[int, str, str]:
        model = ("--model-path", random_checkpoint_no_image, "--num-inference-steps", steps)
        code = main(list(map(str, ["batch", *words, "-o", tmp_path / output, *model])))
        return code, *capsys.readouterr()

    return run


def table(tmp_path: Path, *rows: str, header: str = "image,prompt,key,seed") -> Path:
    path = tmp_path / "edits.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return path


def many(tmp_path: Path, count: int) -> Path:
    return table(tmp_path, *(f"photos/{('cat', 'dog')[k % 2]}.png,add {k} hats,{k},{k}" for k in range(count)))


def keys(folder: Path) -> list[str]:
    path = folder / "results.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["key"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.stem: np.asarray(media.load_image(path)).tobytes() for path in folder.glob("*-*.png")}


def test_a_manifest_with_bad_rows(
    batch: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], random_checkpoint_no_image: Path
) -> None:
    manifest = table(
        tmp_path, "photos/cat.png,rain,a,3", "photos/none.png,rain,,", "photos/dog.png,snow,b,", "photos/cat.png,x,,-1"
    )
    code, out, err = batch(manifest)
    folder = tmp_path / "out"
    assert code == 1 and out.split() == [str(folder / "cat-a.png"), str(folder / "dog-b.png")]
    assert f"not done: row 2 (line 3): there is no file {photos / 'none.png'}; check the path" in err
    assert "not done: row 4 (line 5): seed -1 is below 0" in err
    assert "64x64 px, seed 3, " in err
    assert "2 of 4 edits done, 2 rows not done, " in err and f" s an edit: {folder / 'results.jsonl'}" in err
    record = Record.read(folder / "cat-a.png")
    assert record.metadata["model"] == str(random_checkpoint_no_image)
    assert main(["edit", "--like", str(folder / "cat-a.png"), "-o", str(tmp_path / "again.png")]) == 0
    difference = np.abs(np.diff([load(tmp_path / "again.png"), load(folder / "cat-a.png")], axis=0))
    assert difference.max() <= 1  # done in a batch, and alone


def load(path: Path) -> np.ndarray:
    return np.asarray(media.load_image(path), int)


def test_done_before_nothing_is_loaded_or_changed(
    batch: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch(many(tmp_path, 2))[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("chronoedit.apps.commands.batch.opened", lambda flags: pytest.fail("nothing is to be done"))
    code, out, err = batch(many(tmp_path, 2))
    assert (code, out) == (0, "") and "2 of 2 edits done, 2 of them before: " in err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_every_picture_with_every_prompt_and_seed_and_a_sheet(batch: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("make it rain\nmake it snow\n")
    words = ("--images", photos, "--prompts", tmp_path / "prompts.txt", "--seeds", 1, 2, "--batch-size", 3, "--sheet")
    code, out, _ = batch(*words, steps=1)
    folder = tmp_path / "out"
    names = [f"{name}-p{p}-s{s}" for name in ("cat", "dog") for p in (1, 2) for s in (1, 2)]
    assert code == 0 and keys(folder) == names
    assert out.split() == [str(folder / f"{name}.png") for name in names] + [str(folder / "sheet.png")]
    sheet = media.load_image(folder / "sheet.png")
    assert sheet.width == 3 * (64 + 8) + 8 and sheet.height > 4 * 64  # the picture and two seeds, a row a prompt
    assert [json.loads(line)["together"] for line in (folder / "results.jsonl").read_text().splitlines()] == [3] * 6 + [
        2
    ] * 2


def test_a_long_batch_has_several_sheets(batch: Run, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(batch_sheet, "ROWS_A_PAGE", 1)
    code, out, _ = batch("--images", photos, "--prompts", "make it rain", "--sheet", steps=1)
    assert code == 0 and out.split()[-2:] == [str(tmp_path / "out" / name) for name in ("sheet.png", "sheet.2.png")]


def test_videos_flags_and_presets_reach_the_edits(batch: Run, photos: Path, tmp_path: Path) -> None:
    manifest = table(
        tmp_path, "photos/cat.png,go,a,,", "photos/dog.png,go,b,5,false", header="image,prompt,key,seed,reasoning"
    )
    words = ("--video", "--preset", "think", "--seed", 9, "--guidance-scale", 1, "--height", 32, "--width", 48)
    code, _, _ = batch(manifest, *words, "--negative-prompt", "blur", "--at-photo-size", "--disable-guardrails")
    folder = tmp_path / "out"
    first, second = (Record.read(folder / f"{name}.png").request(None) for name in ("cat-a", "dog-b"))
    assert code == 0 and (first.seed, second.seed) == (9, 5)
    assert (first.reasoning, second.reasoning) == (True, False)
    assert (first.height, first.width, first.guidance_scale, first.negative_prompt) == (32, 48, 1.0, "blur")
    assert media.load_image(folder / "cat-a.png").size == (64, 64)
    assert len(media.read_video(folder / "cat-a.mp4")) > len(media.read_video(folder / "dog-b.mp4")) == 5


def test_a_seed_of_zero_and_no_reasoning_are_values(batch: Run, photos: Path, tmp_path: Path) -> None:
    code, _, _ = batch(table(tmp_path, "photos/cat.png,go,a,"), "--seed", 0, steps=1)
    assert code == 0 and Record.read(tmp_path / "out" / "cat-a.png").request(None).seed == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what to edit: a manifest (.csv, .jsonl), or --images DIR with --prompts"),
        (("--images", "{photos}"), "say what to edit"),
        (("{manifest}", "--seeds", "1"), "take the place of a manifest; leave it out, or them"),
        (("--images", "{photos}", "--prompts", "a", "--seeds", "1", "--seed", "2"), "--seed and --seeds were both"),
        (("--images", "{photos}", "--prompts", "a", "--seeds", "1", "1"), "--seeds 1 1 names one twice"),
        (("--images", "{out}", "--prompts", "a"), "the results would lie among the pictures"),
        (("--images", "{photos}/none", "--prompts", "a"), "there is no folder"),
        (("{manifest}", "--batch-size", "0"), "--batch-size 0 is below 1"),
        (("{manifest}", "--ray-workers", "2"), "--ray-workers is for a cluster"),
        (("{manifest}", "--ray", "local", "--ray-workers", "0"), "--ray-workers 0 is below 1"),
        (("{manifest}", "--height", "721"), "height 721 is not a multiple of 16"),
        (("{manifest}", "--preset", "best"), "there is no preset 'best'"),
        (("{manifest}", "--device", "cuda:9"), "--device cuda:9: this machine has"),
        (("{manifest}", "--lora-path", "none.safetensors"), "there is no LoRA file"),
        (("none.csv",), "the manifest none.csv cannot be read"),
        (("{bad}",), "there is no column 'colour'"),
    ],
)
def test_bad_arguments_come_before_the_model(
    batch: Run, photos: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("image,prompt,colour\n")
    places = {"photos": photos, "out": tmp_path / "out", "manifest": many(tmp_path, 1), "bad": bad}
    code, out, err = batch(*(word.format(**places) for word in words))
    assert (code, out) == (2, "") and message in err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_batch_is_a_bad_argument(batch: Run, photos: Path, tmp_path: Path) -> None:
    assert batch(many(tmp_path, 1), steps=1)[0] == 0
    code, _, err = batch(many(tmp_path, 1), "--video", steps=1)
    assert code == 2 and "holds a batch made otherwise: video differ" in err
    code, _, err = batch(many(tmp_path, 1), "--precision", "int8", steps=1)
    assert code == 2 and "holds a batch made otherwise: precision differ" in err
    code, _, err = batch(many(tmp_path, 1), steps=3)
    assert code == 2 and "has cat-0 already, of another request than row 1 (line 2) asks for" in err


def test_rows_that_all_fail_load_no_model(batch: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronoedit.apps.commands.batch.opened", lambda flags: pytest.fail("nothing can be done"))
    code, _, err = batch(table(tmp_path, "none.png,go,,"))
    assert code == 1 and "0 of 1 edits done, 1 rows not done: " in err


def test_a_kill_loses_and_doubles_nothing(batch: Run, photos: Path, tmp_path: Path, random_checkpoint_no_image) -> None:
    manifest, words = many(tmp_path, 10), ("--batch-size", "2")
    steps = 30
    command = [sys.executable, "-m", "chronoedit", "batch", manifest, "-o", tmp_path / "out", *words]
    command += ["--model-path", random_checkpoint_no_image, "--num-inference-steps", steps]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(list(map(str, command)), env=environment, stdout=quiet, stderr=quiet) as process:
        wait_for(lambda: len(keys(tmp_path / "out")) >= 2 or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
    done = keys(tmp_path / "out")
    assert process.returncode == -signal.SIGKILL and 2 <= len(done) < 10
    code, out, err = batch(manifest, *words, steps=steps)
    assert code == 0 and f"10 of 10 edits done, {len(done)} of them before" in err
    assert len(out.split()) == 10 - len(done)
    assert batch(manifest, *words, steps=steps, output="whole")[0] == 0
    assert keys(tmp_path / "out") == keys(tmp_path / "whole")
    assert pixels(tmp_path / "out") == pixels(tmp_path / "whole") and len(pixels(tmp_path / "out")) == 10


def test_ctrl_c_ends_after_the_batch_under_way_and_the_next_run_goes_on(
    batch: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronoedit.editing.editor import Editor

    edit_batch = Editor.edit_batch

    def interrupted(self: Editor, requests: list, **options: object) -> list:
        os.kill(os.getpid(), signal.SIGINT)
        return edit_batch(self, requests, **options)

    monkeypatch.setattr(Editor, "edit_batch", interrupted)
    code, out, err = batch(many(tmp_path, 5), "--batch-size", 2)
    assert code == 130 and len(out.split()) == 2
    assert "stopped with 3 left; the same command goes on" in err
    monkeypatch.undo()
    code, _, err = batch(many(tmp_path, 5), "--batch-size", 2)
    assert code == 0 and "5 of 5 edits done, 2 of them before" in err
    assert len(keys(tmp_path / "out")) == len(set(keys(tmp_path / "out"))) == 5


def test_failed_edits_are_told_and_done_again_when_asked(
    batch: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronoedit.editing.editor import Editor
    from chronoedit.errors import ChronoEditError

    edit_batch = Editor.edit_batch

    def broken(self: Editor, requests: list, **options: object) -> list:
        if any(request.seed == 1 for request in requests):
            raise ChronoEditError("the latents are not finite")
        return edit_batch(self, requests, **options)

    monkeypatch.setattr(Editor, "edit_batch", broken)
    code, out, err = batch(many(tmp_path, 3), "--sheet", steps=1)
    assert code == 1 and len(out.split()) == 3  # two pictures and the sheet
    assert "failed: row 2 (line 3): the latents are not finite" in err and "2 of 3 edits done, 1 failed, " in err
    assert batch(many(tmp_path, 3), steps=1)[0] == 1
    monkeypatch.undo()
    code, _, err = batch(many(tmp_path, 3), "--retry-failed", steps=1)
    assert code == 0 and "3 of 3 edits done, 2 of them before" in err


def wait_for(condition: Callable[[], bool], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


@pytest.fixture
def quiet_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield
    assert not ray.is_initialized()


def workers_below(pid: int) -> list[int]:
    """The processes of Ray's actors that descend from this one."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except (OSError, ValueError):
            continue

    def descends(each: int) -> bool:
        while each in parents and each != pid:
            each = parents[each]
        return each == pid

    return [each for each, name in names.items() if name.startswith("ray::_Worker") and descends(each)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker in /proc")
def test_a_worker_of_a_cluster_is_killed_and_nothing_is_lost_or_doubled(
    batch: Run, photos: Path, tmp_path: Path, quiet_ray: None
) -> None:
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        wait_for(lambda: len(keys(tmp_path / "out")) >= 4 or ended.is_set())
        killed.extend(workers_below(os.getpid())[:1])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    words = ("--batch-size", 2, "--ray", "local", "--ray-workers", 2)
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        code, out, err = batch(many(tmp_path, 24), *words, steps=20)
    except Exception as error:  # which is all that Ray raises then
        if "timed out during startup" in str(error):
            pytest.skip("this machine is too busy: Ray gives itself 30 s to start")
        raise
    finally:
        ended.set()
    thread.join()
    assert code == 0 and len(killed) == 1 and "24 of 24 edits done, " in err
    told = [line for line in out.splitlines() if line.endswith(".png")]  # Ray tells of the dead worker beside them
    assert len(keys(tmp_path / "out")) == len(set(keys(tmp_path / "out"))) == len(told) == 24
    assert batch(many(tmp_path, 24), "--batch-size", 2, steps=20, output="here")[0] == 0
    there, here = pixels(tmp_path / "out"), pixels(tmp_path / "here")
    assert there.keys() == here.keys()
    for name, data in there.items():  # the workers compute with another number of threads
        assert np.abs(np.frombuffer(data, np.uint8).astype(int) - np.frombuffer(here[name], np.uint8)).max() <= 1


@pytest.mark.parametrize(
    ("there", "device", "asked", "workers", "gpus"),
    [
        ({"CPU": 8.0, "GPU": 4.0}, None, None, 4, 1.0),
        ({"CPU": 8.0, "GPU": 4.0}, "cpu", None, 8, 0.0),
        ({"CPU": 8.0, "GPU": 4.0}, None, 2, 2, 1.0),
        ({"CPU": 8.0, "GPU": 1.0}, None, 2, 2, 0.5),
        ({"CPU": 3.0}, None, None, 3, 0.0),
    ],
)
def test_a_worker_for_each_gpu_else_for_each_cpu(
    monkeypatch: pytest.MonkeyPatch, there: dict, device: str | None, asked: int | None, workers: int, gpus: float
) -> None:
    monkeypatch.setattr("chronoedit.runtime.cluster.resources_of", lambda address: there)
    settings = BatchClusterFlags(ray="auto", ray_workers=asked).settings(device)
    assert (settings.workers, settings.gpus) == (workers, gpus)


def test_the_bar_counts_items_and_the_steps_of_the_batch_under_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from chronoedit.editing.batch_job import Batch

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    under_way = Batch(items=(), wanted=frozenset("abcd"), group=0)
    with BatchBar(tmp_path, total=10, done=2, console=console) as bar:
        bar.on_progress(under_way, Progress("denoise", 5, 10))
        assert bar._bars.tasks[0].completed == 4.0
        bar.on_item({"status": "done", "files": ["a-1.png"], "size": [8, 6], "seed": 3, "time_s": 0.5, "row": "row 1"})
        assert bar._bars.tasks[0].completed == 3.0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'a-1.png'}\n"
    assert "3/10" in console.file.getvalue() and "left" in console.file.getvalue()  # type: ignore[attr-defined]


DOCS = Path(__file__).parents[2] / "docs" / "batch.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_page_s_commands_and_code_run(
    photos: Path, tmp_path: Path, random_checkpoint_no_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table_on_the_page = blocks("csv")[0]
    Path("edits.csv").write_text(table_on_the_page.replace(",20", ",2"))
    Path("prompts.txt").write_text("open the door\n")
    lines = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) == 3
    for program, *words in lines:
        model = ["--model-path", str(random_checkpoint_no_image), "--num-inference-steps", "1"]
        assert program == "chronoedit" and main([*words, *model]) == 0
    assert keys(Path("results")) == ["cat-glasses", "dog-00002"] and len(keys(Path("weather"))) == 12
    assert Path("weather/sheet.png").exists() and Path("driving/cat-p1.mp4").exists()
    code = blocks("python")[0].replace("load()", f"load({str(random_checkpoint_no_image)!r})")
    exec(code.replace('"results"', '"from_python"'), {})
    assert keys(Path("from_python")) == ["cat-glasses", "dog-00002"]


def test_two_jobs_do_not_share_a_folder(batch: Run, photos: Path, tmp_path: Path) -> None:
    from chronoedit.ledger import locked

    assert batch(many(tmp_path, 1), steps=1)[0] == 0
    with locked(tmp_path / "out" / "batch.json") as is_ours:
        assert is_ours
        code, _, err = batch(many(tmp_path, 2), steps=1)
    assert code == 2 and "another process is at work in" in err
    assert batch(many(tmp_path, 2), steps=1)[0] == 0 and keys(tmp_path / "out") == ["cat-0", "dog-1"]


def test_rows_that_cannot_fit_are_named_and_the_others_done(
    batch: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronoedit.apps import batch_memory
    from chronoedit.runtime.plan_stages import Machine

    free = Machine(kind="cpu", device_bytes=300_000_000, host_bytes=300_000_000)
    monkeypatch.setattr(batch_memory, "machine_for", lambda device: free)
    rows = ("photos/cat.png,go,a,1,", "photos/cat.png,go,b,1,4096", "photos/dog.png,go,c,1,")
    manifest = table(tmp_path, *rows, header="image,prompt,key,seed,height")
    code, out, err = batch(manifest, steps=1)
    assert code == 1 and keys(tmp_path / "out") == ["cat-a", "dog-c"]
    assert "not done: row 2 (line 3): this edit needs about" in err and "or try all the same with --memory off" in err
    assert "2 of 3 edits done, 1 rows not done, " in err
    code, _, err = batch(manifest, steps=1)
    assert code == 1 and "2 of 3 edits done, 2 of them before, 1 rows not done: " in err


def test_the_largest_rows_decide_how_the_parts_are_arranged(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_checkpoint_no_image: Path
) -> None:
    from chronoedit.apps import batch_memory
    from chronoedit.apps.options import ModelFlags
    from chronoedit.data.manifest import RowDefaults, read_manifest
    from chronoedit.editing.batch_job import grouped
    from chronoedit.model.checkpoint import open_checkpoint
    from chronoedit.runtime.plan import LAYOUTS
    from chronoedit.runtime.plan_stages import Machine

    rows = ("photos/cat.png,go,a,1,", "photos/cat.png,go,b,1,512")
    items = read_manifest(table(tmp_path, *rows, header="image,prompt,key,seed,height"), RowDefaults()).items
    model = ModelFlags(model_path=str(random_checkpoint_no_image))
    groups = grouped(items, open_checkpoint(random_checkpoint_no_image, device="cpu").settings)

    def layout(groups: list, megabytes: int) -> int:
        machine = Machine(kind="cuda", device_bytes=megabytes * 10**6, host_bytes=10**10)
        monkeypatch.setattr(batch_memory, "machine_for", lambda device: machine)
        fitted = batch_memory.fitted_rows(model, "auto", groups, video=False)
        return -1 if fitted.refused else list(LAYOUTS).index(str(fitted.model.layout))

    for megabytes in (20, 50, 100, 200, 400, 800, 3200):
        small, large, both = (layout(each, megabytes) for each in (groups[:1], groups[1:], groups))
        assert both == (-1 if -1 in (small, large) else max(small, large))
    assert layout(groups, 3200) == 0 and layout(groups, 20) == -1

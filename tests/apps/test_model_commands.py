"""`chronoedit convert` and `chronoedit info`, run as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from chronoedit.apps.main import main
from chronoedit.media import save_image
from chronoedit.model import keys
from chronoedit.model.checkpoint import open_checkpoint

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def test_there_and_back(random_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single, back = tmp_path / "wan.safetensors", tmp_path / "back"
    assert main(["convert", str(random_checkpoint), str(single), "--unused-norm"]) == 0
    assert main(["convert", str(single), str(back), "--base", str(random_checkpoint), "--max_shard_gb", "0.0005"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {single} (original layout)" in out
    assert f"wrote {back} (published layout)" in out
    expected = load_file(random_checkpoint / WEIGHTS)
    found = {name: t for path in (back / "transformer").glob("*.safetensors") for name, t in load_file(path).items()}
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(list((back / "transformer").glob("*.safetensors"))) > 1


def test_another_type_and_prefix(random_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "comfy.safetensors"
    arguments = ["--dtype", "bfloat16", "--prefix", "model.diffusion_model.", "--to", "original"]
    assert main(["convert", str(random_checkpoint), str(output), *arguments]) == 0
    tensors = load_file(output)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(name.startswith("model.diffusion_model.") for name in tensors)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "MODEL", "OUT/o", "--prefix", "a."], 2, "belong to original names"),
        (["convert", "MODEL", "OUT/o.gguf", "--to", "original"], 2, "must end in .safetensors"),
        (["convert", "MODEL", "OUT/o", "--max-shard-gb", "0"], 2, "--max-shard-gb is 0.0; a number above 0"),
        (["convert", "MODEL/nothing", "OUT/o"], 1, "no file or folder"),
        (["convert", "MODEL", "OUT/o", "--ema"], 2, "is no folder of torch.distributed.checkpoint"),
        (["convert", f"MODEL/{WEIGHTS}", "OUT/o"], 1, "--base FOLDER"),
        (["convert", "MODEL"], 2, "OUTPUT|PATH|required"),
        (["info", "nowhere/at/all"], 1, "no file or folder nowhere/at/all; expected tiny"),
        (["info", "MODEL/model_index.json"], 1, "is of no kind that is known here; expected a folder, or one of"),
        (["info", "MODEL/vae/diffusion_pytorch_model.safetensors"], 1, "known LoRA dialect"),
    ],
)
def test_errors_and_exit_codes(
    arguments: list[str],
    code: int,
    message: str,
    random_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.replace("MODEL", str(random_checkpoint)).replace("OUT", str(tmp_path)) for word in arguments]
    assert main(words) == code
    shown = capsys.readouterr().err
    assert any(part in shown for part in message.split("|"))
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def described(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["info", str(path)]) == 0
    return capsys.readouterr().out


def test_info_of_a_folder(random_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = described(random_checkpoint, capsys)
    assert "published layout (ChronoEditPipeline, ChronoEditTransformer3DModel)" in text
    parameters = sum(tensor.numel() for tensor in load_file(random_checkpoint / WEIGHTS).values())
    row = next(line for line in text.splitlines() if line.startswith("transformer "))
    assert row.split()[1:] == [f"{parameters:,}", f"{parameters * 4:,}", "F32", "(87)"]
    assert "num_layers: 2" in text
    assert "num_inference_steps: 4" in text
    assert f"model hash: {open_checkpoint(random_checkpoint, device='cpu').model_hash}" in text


def test_info_of_transformer_files(random_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a transformer alone, published names" in described(random_checkpoint / WEIGHTS, capsys)
    prefixed = {f"model.diffusion_model.{name}": torch.ones(2) for name in ("head.head.weight", "head.head.bias")}
    save_file(prefixed, tmp_path / "comfy.safetensors")
    text = described(tmp_path / "comfy.safetensors", capsys)
    assert "a transformer alone, original Wan names after the prefix model.diffusion_model." in text
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "wan.gguf"), "wan")
    writer.add_tensor("head.head.weight", torch.ones(4, 32).numpy())
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    text = described(tmp_path / "wan.gguf", capsys)
    assert "a transformer in GGUF" in text
    assert "128" in text


def test_training_checkpoints(random_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch.distributed.checkpoint as dcp

    weights = load_file(random_checkpoint / WEIGHTS)
    state = {"model": weights, "ema": {name: -t.double() for name, t in weights.items()}, "step": 3}
    dcp.save({**state, "optim": {"exp_avg": torch.ones(5)}}, checkpoint_id=tmp_path / "run/model", no_dist=True)
    count, parameters = len(weights), sum(tensor.numel() for tensor in weights.values())
    text = described(tmp_path / "run", capsys)
    assert "run/model: a training checkpoint (torch.distributed.checkpoint)" in text
    assert f"weights under model.: {parameters:,} parameters, float32 ({count}), published names" in text
    assert f"average under ema.: {parameters:,} parameters, float64 ({count}), published names" in text
    assert f"in all: {2 * count + 1} tensors, {12 * parameters + 20:,} bytes, 1 data files" in text
    arguments = ["--base", str(random_checkpoint), "--ema", "--dtype", "float32"]
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "out"), *arguments]) == 0
    found = load_file(tmp_path / "out" / WEIGHTS)
    assert all(torch.equal(found[name], -tensor) for name, tensor in weights.items())
    (tmp_path / "run/model/.metadata").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    assert main(["info", str(tmp_path / "run")]) == 1
    assert "names posix.system" in capsys.readouterr().err


def test_info_of_a_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {}
    for block in range(7):
        stem = f"diffusion_model.blocks.{block}.self_attn.q"
        tensors |= {f"{stem}.lora_down.weight": torch.ones(4, 8), f"{stem}.lora_up.weight": torch.ones(8, 4)}
    save_file(tensors, tmp_path / "lora.safetensors")
    text = described(tmp_path / "lora.safetensors", capsys)
    assert "a LoRA in the comfyui dialect" in text
    assert "ranks: 4 (7 modules)" in text
    assert "modules: 7: blocks.0.attn1.to_q, " in text
    assert "and 2 more" in text


def test_info_of_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.new("RGB", (32, 32), (1, 2, 3))
    metadata = {
        "version": "0.1.0",
        "request": {"prompt": "add [bold]a hat", "seed": 7},
        "hashes": {"model": "abc", "loras": ["def"]},
        "timings_s": {"total": 1.5},
    }
    save_image(picture, tmp_path / "made.png", metadata)
    text = described(tmp_path / "made.png", capsys)
    assert "a picture made by chronoedit 0.1.0" in text
    for line in ("prompt: add [bold]a hat", "seed: 7", "model: abc", f"loras: {json.dumps(['def'])}", "total: 1.5"):
        assert f"  {line}\n" in text
    save_image(picture, tmp_path / "plain.png")
    assert main(["info", str(tmp_path / "plain.png")]) == 1
    assert "carries no record of an edit" in capsys.readouterr().err


def test_info_of_errors_by_layer(random_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchao")
    found = {}
    for precision in ("bf16", "int8", "fp8", "int4"):
        assert main(["info", str(random_checkpoint), "--precision", precision]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
        found[precision] = {line[0]: float(line[1].rstrip("%")) for line in lines}
    assert set(found["int8"]) >= {"attn1.to_q", "attn2.to_k", "attn2.add_k_proj", "ffn.net.0.proj", "ffn.net.2"}
    for layer, error in found["int8"].items():
        assert found["bf16"][layer] == 0 < error < found["fp8"][layer] < 5 < found["int4"][layer] < 12
    assert main(["info", str(random_checkpoint), "--precision", "int4", "--against", "tiny"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_info_of_what_a_file_has_lost(
    random_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(random_checkpoint / WEIGHTS)
    changed = {"blocks.1.ffn.net.2.weight": 1.25, "blocks.0.ffn.net.2.weight": 0.5, "proj_out.bias": 0.0}
    lossy = {str(keys.to_original(name)): tensor * changed.get(name, 1.0) for name, tensor in weights.items()}
    save_file(lossy, tmp_path / "lossy.safetensors")
    assert main(["info", str(tmp_path / "lossy.safetensors"), "--against", str(random_checkpoint)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    kinds = {re.sub(r"^blocks\.\d+\.", "b ", name) for name in weights}
    assert lines[:-1] == [["ffn.net.2", "37.50%", "50.00%", "0"], ["proj_out.bias", "100.00%", "100.00%"]]
    assert " ".join(lines[-1]) == f"equal: {len(kinds) - 2} of {len(kinds)} kinds of parameters"
    assert main(["info", str(tmp_path / "lossy.safetensors"), "--against", "tiny"]) == 1
    assert "the first model against the second: of" in capsys.readouterr().err

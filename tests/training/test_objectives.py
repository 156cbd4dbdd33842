"""Objectives against their definitions."""

from __future__ import annotations

import pytest
import torch

from chronoedit.training.objectives import (
    add_noise,
    change_weight,
    detail_map,
    flow_loss,
    kl_divergence,
    logit_normal_sigmas,
    psnr,
    reconstruction_loss,
)


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_noise_and_velocity_agree() -> None:
    latents, noise = seeded(3, 4, 2, 5, 5), seeded(3, 4, 2, 5, 5).flip(0)
    sigmas = torch.tensor([0.0, 0.3, 1.0])
    noisy, velocity = add_noise(latents, noise, sigmas)
    assert torch.equal(noisy[0], latents[0])
    assert torch.equal(noisy[2], noise[2])
    shaped = sigmas.view(3, 1, 1, 1, 1)
    assert torch.allclose(noisy - shaped * velocity, latents, atol=1e-6)
    assert torch.allclose(noisy + (1 - shaped) * velocity, noise, atol=1e-6)


def test_sigmas_are_logit_normal_through_the_shift() -> None:
    sigmas = logit_normal_sigmas(20_000, 3.0, torch.Generator().manual_seed(0))
    unshifted = sigmas / (3.0 - 2.0 * sigmas)
    logits = torch.log(unshifted / (1 - unshifted))
    assert abs(logits.mean()) < 0.03
    assert abs(logits.std() - 1) < 0.03
    assert sigmas.median() == pytest.approx(0.75, abs=0.01)


def test_changed_cells_weigh_more_and_frames_weigh_alike() -> None:
    latents = torch.zeros(2, 4, 3, 4, 4)
    latents[0, :, 2, 0, 0] = 1.0
    weight = change_weight(latents, 3.0)
    assert weight.shape == (2, 1, 3, 4, 4)
    assert torch.allclose(weight.mean(dim=(-2, -1)), torch.ones(2, 1, 3))
    assert weight[0, 0, 2, 0, 0] == pytest.approx(4 * weight[0, 0, 2, 1, 1].item())
    assert torch.equal(change_weight(latents, 0.0), torch.ones(2, 1, 3, 4, 4))


def test_flow_loss_is_a_weighted_mean_of_squares() -> None:
    velocity, target = seeded(2, 4, 2, 3, 3), seeded(2, 4, 2, 3, 3).flip(-1)
    plain = flow_loss(velocity, target, torch.ones(2, 1, 2, 3, 3))
    assert torch.allclose(plain, (velocity - target).square().flatten(1).mean(1))
    assert torch.allclose(flow_loss(velocity, target, torch.full((2, 1, 2, 3, 3), 2.0)), 2 * plain)


def test_detail_is_near_edges() -> None:
    images = torch.zeros(1, 3, 40, 40)
    images[:, 0, 18:22, 18:22] = 1.0
    detail = detail_map(images)
    assert detail[0, 0, 20, 20] == 1
    assert detail[0, 0, 14, 14] == 1
    assert detail[0, 0, 2, 2] == 0
    assert detail_map(torch.zeros(1, 3, 16, 16)).sum() == 0


def test_reconstruction_loss_counts_colour_edges_and_detail() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[..., 16:] = 0.5
    assert reconstruction_loss(images, images, edge_weight=1.0, detail_weight=2.0) == 0
    shifted = images + 0.1
    plain = reconstruction_loss(shifted, images, edge_weight=1.0, detail_weight=0.0)
    assert plain == pytest.approx(0.1, abs=1e-6)  # a constant error has no edges
    assert reconstruction_loss(shifted, images, edge_weight=0.0, detail_weight=2.0) > plain
    spot = images.clone()
    spot[..., 4, 4] += 0.1
    assert reconstruction_loss(spot, images, edge_weight=1.0, detail_weight=0.0) > reconstruction_loss(
        spot, images, edge_weight=0.0, detail_weight=0.0
    )


def test_divergence_is_zero_for_the_unit_normal() -> None:
    zeros = torch.zeros(2, 3)
    assert kl_divergence(zeros, zeros) == 0
    assert kl_divergence(zeros + 2, zeros) == 2
    assert kl_divergence(zeros, zeros - 1) > 0


def test_psnr_in_decibels() -> None:
    images = torch.zeros(1, 3, 8, 8)
    assert psnr(images + 0.2, images) == pytest.approx(20.0, abs=1e-4)  # peak to peak 2
    weight = torch.zeros(1, 1, 8, 8)
    weight[..., 0] = 1
    damaged = images.clone()
    damaged[..., 1:] = 0.9
    damaged[..., 0] = 0.02
    assert psnr(damaged, images, weight) == pytest.approx(40.0, abs=1e-3)

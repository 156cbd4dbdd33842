"""What all tests share: how many seeds a property is tried on, and the skipping of tests that need a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-seeds", action="store_true", help="try slow properties on 1000 seeds instead of 50")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; this machine has none"))


@pytest.fixture(scope="session")
def property_seeds(request: pytest.FixtureRequest) -> range:
    """The seeds that a slow property is tried on: 50 with `make test`, 1000 with `make test-all`."""
    return range(1000 if request.config.getoption("--all-seeds") else 50)


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint in the published layout, image branch included; shared, so never written to."""
    from chronoedit.model.random_checkpoint import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint")


@pytest.fixture(scope="session")
def random_checkpoint_no_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint without image branch, as the embedded model is; shared, so never written to."""
    from chronoedit.model.random_checkpoint import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("random_no_image") / "checkpoint", image_branch=False)

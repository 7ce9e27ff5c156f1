"""What the tests of SUPIR share: no gradients, and a tiny model that stays in memory."""

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")


@pytest.fixture(autouse=True)
def _no_gradients():
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def pipe():
    """A tiny pipeline with random weights; tests leave it as it is."""
    from tests.tiny_supir import pipeline

    made = pipeline()
    made.set_progress_bar_config(disable=True)
    return made

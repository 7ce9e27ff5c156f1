"""Tiny diffusion pipelines, built once for all tests of restorers."""

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Gives the folder of the tiny pipeline that a restorer takes."""
    from tests import tiny_diffusion

    made = {}

    def build(name):
        if name not in made:
            made[name] = tiny_diffusion.BUILDERS[name](tmp_path_factory.mktemp(name))
        return str(made[name])

    return build


@pytest.fixture
def small_qwen(monkeypatch):
    """The editing model at 128 x 128 instead of a megapixel."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

    from restore_bridge.restorers.diffusion import qwen_edit

    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 128 * 128)
    monkeypatch.setattr(qwen_edit, "AREA", 128 * 128)

"""What all tests share."""

import os

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    """No test depends on plug-ins or switches of the machine it runs on."""
    for name in ("ZOOMIQA_RAISE_ERRORS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny models lose more by handing their work to threads than those save."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory):
    """Folder of a tiny Qwen2.5-VL with random weights."""
    from tests.tiny_vlm import build_tiny_vlm

    return build_tiny_vlm(tmp_path_factory.mktemp("tiny") / "vlm")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of six small real photographs, cut from those that scikit-image brings."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    sources = {"astronaut": data.astronaut(), "coffee": data.coffee(), "chelsea": data.chelsea()}
    for name, pixels in sources.items():
        Image.fromarray(pixels).resize((360, 300)).save(folder / f"{name}.png")
        Image.fromarray(pixels[40:280, 60:420]).save(folder / f"{name}-part.jpg", quality=90)
    os.utime(folder)
    return folder

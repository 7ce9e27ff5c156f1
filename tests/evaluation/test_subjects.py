"""From a record to its picture: where it is looked for, and what is refused."""

import os

import pytest
from PIL import Image

from zoomiqa.batch import OpenOptions, file_digest
from zoomiqa.errors import ImageNotFound, OptionInvalid
from zoomiqa.evaluation.subjects import find_picture, open_subject


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two pictures below an image root, one beside it, and a link that leads out."""
    for name in ("root/sub/a.png", "root/b.png", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 9, 9)).save(tmp_path / name)
    (tmp_path / "root/link.png").symlink_to(tmp_path / "c.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


def record(path, annotated=None):
    row = {} if annotated is None else {"evaluation": {"image": annotated}}
    return {"image": {"path": path, "sha256": None}, **row}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (record("b.png"), "b.png"),
        (record("sub/a.png"), "sub/a.png"),
        (record("/elsewhere/b.png"), "b.png"),
        (record("data/sub/a.png"), None),
        (record("data/sub/a.png", "sub/a.png"), "sub/a.png"),
        (record("data/b.png", "old/b.png"), "b.png"),
        (record(None, "b.png"), "b.png"),
        (record("../c.png"), None),
        (record("c.png"), None),
        (record("b.png", "../c.png"), "b.png"),
        (record("link.png"), None),
        (record("x" * 300 + ".png"), None),
        (record("a\0b"), None),
        (record(["b.png"]), None),
        ({"image": "b.png", "evaluation": 3}, None),
        ({}, None),
    ],
)
def test_a_picture_is_looked_for_below_the_root_and_never_outside(root, given, found):
    assert find_picture(given, root) == (None if found is None else root / found)


def test_without_a_root_it_is_where_it_was_opened(root):
    assert find_picture(record("c.png", "b.png"), None).samefile("c.png")
    assert find_picture(record(None, "b.png"), None) is None


def test_another_picture_and_none_are_refused(root):
    options, path = OpenOptions(), root / "b.png"
    assert open_subject({"sha256": file_digest(path)}, path, options).size == (8, 8)
    assert open_subject({}, path, options).size == (8, 8), "of one from memory nothing is known"
    with pytest.raises(OptionInvalid, match="not the one"):
        open_subject({"sha256": "0" * 64}, path, options)
    with pytest.raises(ImageNotFound, match="--image-root"):
        open_subject({"path": os.fspath(path)}, None, options)

"""Annotation files, as the released evaluator reads them, and the fields added to them."""

import json
import os
import time

import pytest

from tests.shared import need
from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation import Annotation, load_annotations

ROW = {"image": "a.png", "gt_score": 3.5}


def load(tmp_path, rows, name="set.json"):
    file = tmp_path / name
    file.write_text(json.dumps(rows), "utf-8")
    return load_annotations(file, tmp_path)


def test_the_least_entry(tmp_path):
    expected = Annotation(id="set:0", path=tmp_path / "a.png", gt_score=3.5, dataset="set")
    assert load(tmp_path, [ROW]) == [expected]


def test_the_default_id_counts_rows_from_0_and_names_the_file(tmp_path):
    rows = [ROW, ROW | {"id": 7}, {"img_path": "b/c.png", "gt_score": 1}]
    loaded = load(tmp_path, rows, "koniq-10k.train.json")
    assert [item.id for item in loaded] == ["koniq-10k.train:0", "7", "koniq-10k.train:2"]
    assert loaded[2].path == tmp_path / "b" / "c.png"
    assert loaded[2].gt_score == 1.0


def test_added_fields(tmp_path):
    added = {"dataset": "spaq", "split": "test", "subset": "ss01", "mos": 61.5, "attributes": {"noise": 4, "sky": 1.5}}
    (item,) = load(tmp_path, [ROW | added])
    assert (item.dataset, item.split, item.subset, item.mos) == ("spaq", "test", "ss01", 61.5)
    assert item.attributes == {"noise": 4.0, "sky": 1.5}


@pytest.mark.parametrize("key", ["value", "content"])
def test_the_question_loses_the_mark_of_the_picture_and_the_history_keeps_it(tmp_path, key):
    (item,) = load(tmp_path, [ROW | {"conversations": [{key: "<|image|>How good?\n"}, {key: "an answer"}]}])
    assert item.question == "How good?\n"
    assert item.history_question == "<|image|>How good?\n"


@pytest.mark.parametrize("conversations", [[], None, "How good?", ["How good?"], [{"value": "  "}], [{"value": 3}], {}])
def test_without_a_question_there_is_none(tmp_path, conversations):
    (item,) = load(tmp_path, [ROW | {"conversations": conversations}])
    assert item.question is item.history_question is None


def test_a_byte_order_mark_is_no_content(tmp_path):
    file = tmp_path / "set.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps([ROW]).encode())
    assert load_annotations(file, tmp_path)[0].gt_score == 3.5


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.png", "not an object"),
        ({"gt_score": 3}, "names no picture"),
        (ROW | {"image": ["a.png"]}, "names no picture"),
        ({"image": "a.png"}, "`gt_score` is no finite number"),
        (ROW | {"gt_score": "3.5"}, "`gt_score` is no finite number, got 3.5"),
        (ROW | {"gt_score": True}, "`gt_score`"),
        (ROW | {"gt_score": float("nan")}, "`gt_score`"),
        (ROW | {"gt_score": 10**400}, "`gt_score`"),
        (ROW | {"mos": "high"}, "`mos` is no finite number, got high"),
        (ROW | {"attributes": {"noise": None}}, "`noise` is no finite number"),
        (ROW | {"attributes": [1]}, "`attributes` is not an object"),
        (ROW | {"image": "../a.png"}, "outside the image root"),
        (ROW | {"image": "b/../a.png"}, "outside the image root"),
        (ROW | {"image": "/etc/passwd"}, "outside the image root"),
        (ROW | {"image": "a\0.png"}, "outside the image root"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, words):
    with pytest.raises(OptionInvalid) as caught:
        load(tmp_path, [ROW, ROW, row])
    assert str(caught.value).startswith("set.json, row 2: ")
    assert words in str(caught.value)


def test_links_that_lead_outside_are_refused_and_others_are_not(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").touch()
    (root / "a.png").touch()
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "outside.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(root)
    file = tmp_path / "set.json"
    for name, fine in [("inside.png", True), ("outside.png", False), ("folder/secret.png", False)]:
        file.write_text(json.dumps([ROW | {"image": name}]))
        if fine:
            assert load_annotations(file, tmp_path / "link")[0].path == tmp_path / "link" / name
        else:
            with pytest.raises(OptionInvalid, match="outside the image root"):
                load_annotations(file, root)


@pytest.mark.parametrize("content", [b"", b"{", b'{"image": "a.png"}', b"\xff\xfe[\x00]\x00", b"[" * 100_000])
def test_what_is_no_such_file(tmp_path, content):
    file = tmp_path / "set.json"
    file.write_bytes(content)
    with pytest.raises(OptionInvalid, match="annotation file"):
        load_annotations(file, tmp_path)
    with pytest.raises(OptionInvalid, match="cannot be read"):
        load_annotations(tmp_path / "none.json", tmp_path)


def test_ten_thousand_rows_are_read_without_asking_the_disk_for_each(tmp_path):
    rows = [{"image": f"{number % 5}/{number}.png", "gt_score": 3.0} for number in range(10_000)]
    for folder in range(5):
        os.mkdir(tmp_path / str(folder))
    start = time.process_time()
    assert len(load(tmp_path, rows)) == 10_000
    assert time.process_time() - start < 5, "seconds of one core; a third of one on an idle machine"


def test_a_real_file():
    folder = need("data/BIQ2021_train_part")
    loaded = load_annotations(folder / "annotations.json", folder)
    assert len(loaded) == 3_600
    assert {item.subset for item in loaded} == {"ss01", "ss02", "ss03"}
    assert all(1 <= item.gt_score <= 5 for item in loaded)
    assert loaded[0].path.is_file()

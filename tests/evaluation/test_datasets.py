"""Data sets as their authors publish them, whole, in part and damaged."""

import csv
import gzip
import hashlib
import io
import json
import random
import re
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tests.shared import need
from zoomiqa.cli import main
from zoomiqa.errors import ExtraMissing, OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.evaluation import load_annotations
from zoomiqa.evaluation.datasets import DATASETS, find_dataset, prepare_dataset
from zoomiqa.evaluation.datasets.matlab import MatlabError, read_variable
from zoomiqa.vocabulary import ATTRIBUTES

KONIQ = """image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set
1.jpg,0,0,0,0,1,100,3.91176470588,0.5,training
2.jpg,0,0,0,0,1,100,88.3888888889,0.6,test
3.jpg,0,0,0,0,1,100,46.15,0.7,validation
4.jpg,0,0,0,0,1,100,67.2,0.8,training
"""


def small(name, total, **splits):
    """The spec of a set as if so few pictures had been published."""
    return replace(DATASETS[name], total=total, splits=splits)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def read(out, stem):
    return json.loads((out / f"{stem}.json").read_text("utf-8"))


@pytest.fixture
def koniq(tmp_path):
    """A whole KonIQ-10k of four pictures: its source folder and its spec."""
    source = tmp_path / "koniq"
    touch(source, *(f"1024x768/{number}.jpg" for number in range(1, 5)))
    (source / "koniq10k_distributions_sets.csv").write_text(KONIQ)
    return source, small("koniq-10k", 4, train=2, val=1, test=1)


def test_koniq(koniq, tmp_path):
    source, spec = koniq
    touch(source, *(f"512x384/{number}.jpg" for number in range(1, 5)))
    out = tmp_path / "new" / "out"
    done = prepare_dataset(spec, source, out)
    names = ["koniq-10k.json", "koniq-10k.train.json", "koniq-10k.val.json", "koniq-10k.test.json"]
    assert [path.name for path in done.files] == [*names, "koniq-10k.card.json"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "koniq-10k.card.json"])
    rows = read(out, "koniq-10k")
    assert rows[0] == {
        "id": "koniq-10k:1.jpg",
        "image": "1024x768/1.jpg",
        "gt_score": 1.0,
        "mos": 3.91176470588,
        # .5 rating points are 13.91 units of the 0..100 MOS, whose range of 84.477 becomes 4 points.
        "std": pytest.approx(0.5 * 27.82 / 84.477 * 4, abs=1e-4),
        "dataset": "koniq-10k",
        "split": "train",
    }
    assert [row["gt_score"] for row in rows] == pytest.approx([1, 5, 3, 3.9967], abs=1e-3)
    assert [row["id"] for row in read(out, "koniq-10k.train")] == ["koniq-10k:1.jpg", "koniq-10k:4.jpg"]
    assert [row["split"] for row in read(out, "koniq-10k.test")] == ["test"]

    loaded = load_annotations(out / "koniq-10k.val.json", source)
    assert loaded[0].path.is_file()
    assert (loaded[0].dataset, loaded[0].split, loaded[0].mos) == ("koniq-10k", "val", 46.15)


def test_the_card_says_where_the_numbers_come_from(koniq, tmp_path):
    source, spec = koniq
    card = prepare_dataset(spec, source, tmp_path / "out").card
    assert card == read(tmp_path / "out", "koniq-10k.card")
    assert card["complete"] is True
    assert card["notes"] == []
    assert card["counts"]["published"] == card["counts"]["labelled"] == card["counts"]["written"] == 4
    label_file = source / "koniq10k_distributions_sets.csv"
    assert card["labels"]["files"] == [
        {"file": label_file.name, "sha256": hashlib.sha256(label_file.read_bytes()).hexdigest()}
    ]
    assert (card["scale"]["low"], card["scale"]["high"]) == (3.91176470588, 88.3888888889)
    assert card["scale"]["direction"] == "higher is better"
    assert "column `set`" in card["split_origin"]
    assert card["folders"] == ["1024x768"]
    for file in card["files"]:
        content = (tmp_path / "out" / file["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert file["count"] == len(json.loads(content))
    assert str(tmp_path) not in json.dumps(card)


def test_the_same_download_gives_the_same_bytes(koniq, tmp_path):
    source, spec = koniq
    one = prepare_dataset(spec, source, tmp_path / "one")
    two = prepare_dataset(spec, source, tmp_path / "two")
    assert [path.read_bytes() for path in one.files] == [path.read_bytes() for path in two.files]


def test_koniq_without_its_split_file(koniq, tmp_path):
    source, spec = koniq
    (source / "koniq10k_distributions_sets.csv").rename(source / "koniq10k_scores_and_distributions.csv")
    (source / "koniq10k_scores_and_distributions.csv").write_text(
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore\n"
        "1.jpg,0,0,0,0,1,100,1.1,0.5,3.91176470588\n2.jpg,0,0,0,0,1,100,4.3,0.5,88.3888888889\n"
        "3.jpg,0,0,0,0,1,100,3,0.5,46.15\n4.jpg,0,0,0,0,1,100,3.5,0.5,67.2\n"
    )
    done = prepare_dataset(spec, source, tmp_path)
    assert [path.name for path in done.files] == ["koniq-10k.json", "koniq-10k.card.json"]
    assert [row["gt_score"] for row in read(tmp_path, "koniq-10k")] == pytest.approx([1, 5, 3, 3.9967], abs=1e-3)
    assert "split" not in read(tmp_path, "koniq-10k")[0]
    assert done.card["split_origin"] is None


def write_workbook(path, rows, sheet="Sheet1"):
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl writes the workbook")
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.title = "Notes" if sheet != "Sheet1" else sheet
    page = book.active if sheet == "Sheet1" else book.create_sheet(sheet)
    for row in rows:
        page.append(row)
    book.save(path)


SPAQ_ROWS = [
    ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"],
    ["00001.jpg", 2, 50, 25.5, 100, 0, 75],
    ["00002.jpg", 96.0, 0, 0, 0, 100, 100],
    ["00003.jpg", 48.86, 10, 20, 30, 40, 50],
]


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_spaq_has_attributes(tmp_path, kind):
    file = tmp_path / "Annotations" / f"MOS and Image attribute scores.{kind}"
    if kind == "xlsx":
        write_workbook(file, SPAQ_ROWS)
    else:
        file.parent.mkdir()
        with open(file, "w", newline="") as text:
            csv.writer(text).writerows(SPAQ_ROWS)
    touch(tmp_path, *(f"TestImage/0000{number}.jpg" for number in (1, 2, 3)))
    done = prepare_dataset(small("spaq", 3), tmp_path, tmp_path)
    one, two, three = read(tmp_path, "spaq")
    assert one["attributes"] == {"brightness": 3, "colorfulness": 2.02, "contrast": 5, "noise": 1, "sharpness": 4}
    assert (one["gt_score"], two["gt_score"]) == (1, 5)
    assert three["gt_score"] == pytest.approx(1 + 4 * (48.86 - 2) / 94, abs=1e-6)
    assert "std" not in one
    assert set(one["attributes"]) & set(ATTRIBUTES) == {"noise", "sharpness"}
    assert done.card["attributes"]["noise"]["column"] == "Noisiness"
    assert done.card["attributes"]["noise"]["plcc_with_mos"] > 0.9
    assert load_annotations(tmp_path / "spaq.json", tmp_path)[0].attributes["sharpness"] == 4


def write_live(folder, names, scores, deviations):
    folder.mkdir(parents=True, exist_ok=True)
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    savemat(folder / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(folder / "AllMOS_release.mat", {"AllMOS_release": np.asarray([scores], float)})
    savemat(folder / "AllStdDev_release.mat", {"AllStdDev_release": np.asarray([deviations], float)})


def test_live_in_the_wild_leaves_the_practice_pictures_out(tmp_path):
    practice = [f"t{number}.bmp" for number in range(1, 8)]
    write_live(tmp_path / "Data", [*practice, "3.bmp", "4.JPG"], [*[50] * 7, 3.42, 92.432], [*[1] * 7, 20, 10])
    touch(tmp_path, "Images/3.bmp", "Images/4.JPG", *(f"Images/trainingImages/{name}" for name in practice))
    done = prepare_dataset(small("live-wild", 2), tmp_path, tmp_path / "out")
    rows = read(tmp_path / "out", "live-wild")
    assert [(row["image"], row["gt_score"]) for row in rows] == [("Images/3.bmp", 1), ("Images/4.JPG", 5)]
    assert rows[0]["std"] == pytest.approx(20 * 4 / 89.012, abs=1e-6)
    assert "copyright notice" in done.card["licence"]
    hashed = [file["file"] for file in done.card["labels"]["files"]]
    assert hashed == [f"Data/All{name}_release.mat" for name in ("MOS", "Images", "StdDev")]
    other = prepare_dataset(
        small("live-wild", 2), tmp_path, tmp_path / "other", labels=[tmp_path / "Data" / "AllMOS_release.mat"]
    )
    assert other.files[0].read_bytes() == done.files[0].read_bytes()


def test_kadid_has_references_and_its_dmos_is_a_mos(tmp_path):
    (tmp_path / "dmos.csv").write_text(
        "dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.93,0.2\nI02_25_05.png,I02.png,1,0.5\n"
    )
    touch(tmp_path, *(f"images/{name}.png" for name in ("I01", "I02", "I01_01_01", "I02_25_05")))
    prepare_dataset(small("kadid-10k", 2), tmp_path, tmp_path)
    one, two = read(tmp_path, "kadid-10k")
    assert (one["gt_score"], one["reference"]) == (5, "images/I01.png")
    assert (two["gt_score"], two["reference"]) == (1, "images/I02.png")
    assert two["std"] == pytest.approx(0.5 * 4 / 3.93, abs=1e-6)


@pytest.mark.parametrize("layout", ["Distortion_{}", "Train_Dist", "Distortion_{0}/Distortion_{0}"])
def test_pipal_in_the_layouts_its_archives_unpack_to(tmp_path, layout):
    touch(tmp_path, "Train_Ref/A0001.bmp", "Train_Ref/A0002.bmp")
    (tmp_path / "Train_Label").mkdir()
    (tmp_path / "Train_Label" / "A0001.txt").write_text("A0001_00_00.bmp,916.7136\r\nA0001_01_02.bmp,1835.9856\r\n")
    (tmp_path / "Train_Label" / "A0002.txt").write_text("A0002_00_00.bmp,1376.3496\n")
    for number, name in enumerate(["A0001_00_00.bmp", "A0001_01_02.bmp", "A0002_00_00.bmp"], start=1):
        touch(tmp_path, f"{layout.format(number)}/{name}")
    done = prepare_dataset(small("pipal", 3), tmp_path, tmp_path)
    rows = read(tmp_path, "pipal")
    assert [row["gt_score"] for row in rows] == [1, 5, 3]
    assert rows[2]["reference"] == "Train_Ref/A0002.bmp"
    assert all((tmp_path / row["image"]).is_file() for row in rows)
    assert len(done.card["labels"]["files"]) == 2


CSIQ_ROWS = [
    ["remarks"],
    [],
    [],
    [None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos", None, "more"],
    [None, None, None, 1600, 1, "noise", 1, 0.05, 0.0],
    [None, None, None, "boston", 5, "jpeg 2000", 5, 0.1, 1.0],
    [None, None, None, "boston", 6, "contrast", 4, 0.1, 0.25],
    [None] * 10 + ["a remark"],
]


@pytest.mark.parametrize("kind", ["workbook", "text"])
def test_csiq_is_turned_round(tmp_path, kind):
    if kind == "workbook":
        write_workbook(tmp_path / "csiq.DMOS.xlsx", CSIQ_ROWS, "all_by_image")
    else:
        text = "1600.AWGN.1.png\t0\nboston.jpeg2000.5.png   1.000\nboston.contrast.4.png 0.25\n"
        (tmp_path / "csiq_label.txt").write_text(text)
    touch(
        tmp_path,
        "dst_imgs/awgn/1600.AWGN.1.png",
        "dst_imgs/jpeg2000/boston.jpeg2000.5.png",
        "dst_imgs/contrast/boston.contrast.4.png",
        "src_imgs/1600.png",
        "src_imgs/boston.png",
    )
    card = prepare_dataset(small("csiq", 3), tmp_path, tmp_path).card
    rows = read(tmp_path, "csiq")
    assert [row["gt_score"] for row in rows] == [5, 1, 4]
    assert [row["reference"] for row in rows] == ["src_imgs/1600.png", "src_imgs/boston.png", "src_imgs/boston.png"]
    assert [row.get("std") for row in rows] == ([0.2, 0.4, 0.4] if kind == "workbook" else [None] * 3)
    assert card["scale"]["direction"] == "lower is better"
    assert card["scale"]["gt_score"] == "5 - 4 * (mos - low) / (high - low)"


@pytest.mark.parametrize("folder", ["dst_imgs", "dst_imgs_all"])
def test_csiq_in_one_folder(tmp_path, folder):
    (tmp_path / "csiq_label.txt").write_text("1600.AWGN.1.png 0\n1600.BLUR.5.png 1\n")
    touch(tmp_path, f"{folder}/1600.AWGN.1.png", f"{folder}/1600.BLUR.5.png", "src_imgs/1600.png")
    prepare_dataset(small("csiq", 2), tmp_path, tmp_path)
    assert read(tmp_path, "csiq")[1]["image"] == f"{folder}/1600.BLUR.5.png"


def test_tid2013_writes_names_in_either_case(tmp_path):
    (tmp_path / "mos_with_names.txt").write_text("7.21429 I01_01_1.bmp\n0.24242 i25_24_5.bmp\n")
    (tmp_path / "mos_std.txt").write_text("0.1\n0.2\n")
    touch(tmp_path, "distorted_images/i01_01_1.bmp", "distorted_images/I25_24_5.BMP")
    touch(tmp_path, "reference_images/I01.BMP", "reference_images/i25.bmp")
    prepare_dataset(small("tid2013", 2), tmp_path, tmp_path)
    one, two = read(tmp_path, "tid2013")
    assert (one["gt_score"], one["image"]) == (5, "distorted_images/i01_01_1.bmp")
    assert one["reference"] == "reference_images/I01.BMP"
    assert (two["image"], two["reference"]) == ("distorted_images/I25_24_5.BMP", "reference_images/i25.bmp")
    assert two["std"] == pytest.approx(0.2 * 4 / (7.21429 - 0.24242), abs=1e-6)

    (tmp_path / "mos_std.txt").write_text("0.1\n")
    with pytest.raises(OptionInvalid, match=r"different lengths, got mos_with_names\.txt 2, mos_std\.txt 1"):
        prepare_dataset(small("tid2013", 2), tmp_path, tmp_path, overwrite=True)


BIQ_ROWS = [("ss01 (1).jpg", "0.25"), ("ss02 (34).jpg", "0.5"), ("ss03 (5).jpg", "1")]


def write_biq(folder, names):
    for name, rows in zip(names, (BIQ_ROWS[:2], BIQ_ROWS[2:]), strict=True):
        (folder / name).write_text("Image Name,MOS,,\n" + "".join(f"{image},{mos},,\n" for image, mos in rows))
    touch(folder, *(f"Images/{image}" for image, _ in BIQ_ROWS))


@pytest.mark.parametrize(
    "names", [("Train (Images and MOS).csv", "Test (Images and MOS).csv"), ("Train.csv", "Test.csv")]
)
def test_biq2021_has_a_file_for_each_split(tmp_path, names):
    write_biq(tmp_path, names)
    card = prepare_dataset(small("biq2021", 3, train=2, test=1), tmp_path, tmp_path).card
    rows = read(tmp_path, "biq2021")
    # The authors' scale is 0..1 whatever the smallest label is.
    assert [(row["gt_score"], row["split"], row["subset"]) for row in rows] == [
        (2, "train", "ss01"),
        (3, "train", "ss02"),
        (5, "test", "ss03"),
    ]
    assert card["scale"]["ends"] == "ends of the authors' scale"
    assert load_annotations(tmp_path / "biq2021.test.json", tmp_path)[0].subset == "ss03"


def test_a_missing_split_file_is_named_and_an_empty_split_not_written(tmp_path):
    write_biq(tmp_path, ("Train (Images and MOS).csv", "Test (Images and MOS).csv"))
    (tmp_path / "Test (Images and MOS).csv").unlink()
    spec = small("biq2021", 3, train=2, test=1)
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(spec, tmp_path, tmp_path / "out")
    assert "3 labels expected, 2 found, 1 missing (train 2 of 2, test 0 of 1)" in str(caught.value)
    assert "there is no Test (Images and MOS).csv" in str(caught.value)
    assert "without a label: ss03 (5).jpg" in str(caught.value)
    done = prepare_dataset(spec, tmp_path, tmp_path / "out", allow_partial=True)
    assert [path.name for path in done.files] == ["biq2021.json", "biq2021.train.json", "biq2021.card.json"]


def test_labels_of_both_splits_by_hand(tmp_path):
    write_biq(tmp_path, ("Train.csv", "Test.csv"))
    files = [tmp_path / "Train.csv", tmp_path / "Test.csv"]
    done = prepare_dataset(small("biq2021", 3, train=2, test=1), tmp_path, tmp_path / "out", labels=files)
    assert len(done.files) == 4
    assert [row["split"] for row in read(tmp_path / "out", "biq2021")] == ["train", "train", "test"]


# A part of a set


def test_a_part_keeps_the_constants_of_the_whole(koniq, tmp_path):
    source, spec = koniq
    whole = prepare_dataset(spec, source, tmp_path / "whole")
    (source / "1024x768" / "1.jpg").unlink()
    with pytest.raises(OptionInvalid, match=r"4 pictures expected, 3 found, 1 missing: 1\.jpg; complete it, or pass"):
        prepare_dataset(spec, source, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    part = prepare_dataset(spec, source, tmp_path / "part", allow_partial=True)
    assert read(tmp_path / "part", "koniq-10k") == read(tmp_path / "whole", "koniq-10k")[1:]
    assert part.card["complete"] is False
    assert part.card["counts"]["written"] == 3
    assert part.card["notes"] == ["4 pictures expected, 3 found, 1 missing: 1.jpg"]
    assert part.card["scale"] == whole.card["scale"]


def test_missing_labels_are_named_by_their_pictures(koniq, tmp_path):
    source, spec = koniq
    (source / "koniq10k_distributions_sets.csv").write_text("\n".join(KONIQ.splitlines()[:-2]))
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(spec, source, tmp_path / "out")
    assert "4 labels expected, 2 found, 2 missing (train 1 of 2, val 0 of 1, test 1 of 1)" in str(caught.value)
    assert "without a label: 3.jpg, 4.jpg" in str(caught.value)
    assert len(prepare_dataset(spec, source, tmp_path / "out", allow_partial=True).card["notes"]) == 1


def test_a_long_list_is_cut(koniq, tmp_path):
    source, _ = koniq
    with pytest.raises(OptionInvalid, match=r"10073 labels expected, 4 found, 10069 missing"):
        prepare_dataset(DATASETS["koniq-10k"], source, tmp_path / "out")
    touch(source, *(f"1024x768/x{number}.jpg" for number in range(9)))
    with pytest.raises(OptionInvalid, match=r"without a label: x0\.jpg, x1\.jpg, x2\.jpg and 6 more"):
        prepare_dataset(DATASETS["koniq-10k"], source, tmp_path / "out")


def test_a_missing_reference_is_missing(tmp_path):
    (tmp_path / "dmos.csv").write_text("dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.93,0\nI02_01_01.png,,1,0\n")
    touch(tmp_path, "images/I01_01_01.png", "images/I02_01_01.png", "images/I01.png")
    spec = small("kadid-10k", 2)
    with pytest.raises(OptionInvalid, match=r"1 pristine pictures missing: I02\.png"):
        prepare_dataset(spec, tmp_path, tmp_path)
    prepare_dataset(spec, tmp_path, tmp_path, allow_partial=True)
    assert ["reference" in row for row in read(tmp_path, "kadid-10k")] == [True, False]


# Another version of a set is refused whatever is allowed


def test_more_labels_than_published(koniq, tmp_path):
    source, _ = koniq
    with pytest.raises(OptionInvalid, match="has 3 labelled pictures, the label files more, got 4"):
        prepare_dataset(small("koniq-10k", 3), source, tmp_path / "out", allow_partial=True)


def test_other_extremes_than_published(koniq, tmp_path):
    source, spec = koniq
    file = source / "koniq10k_distributions_sets.csv"
    file.write_text(KONIQ.replace("88.3888888889", "81.3"))
    with pytest.raises(OptionInvalid, match=r"should run from 3\.91176 to 88\.3889, got 3\.91176 to 81\.3"):
        prepare_dataset(spec, source, tmp_path / "out", allow_partial=True)


def test_other_splits_than_published(koniq, tmp_path):
    source, spec = koniq
    (source / "koniq10k_distributions_sets.csv").write_text(KONIQ.replace("validation", "training"))
    with pytest.raises(OptionInvalid, match="should be train 2, val 1, test 1, got train 3, test 1"):
        prepare_dataset(spec, source, tmp_path / "out", allow_partial=True)


# Damaged label files


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("MOS,SD", "mos,SD", "koniq10k_distributions_sets.csv lacks the column 'MOS'"),
        ("MOS,SD", "MOS,MOS", "more than one column 'MOS'"),
        ("46.15", "high", "line 4: MOS is no number, got high"),
        ("46.15", "", "line 4: MOS is no number, got nothing"),
        ("46.15", "nan", "line 4: MOS is no number, got nan"),
        ("46.15", "4_6", "line 4: MOS is no number, got 4_6"),
        ("46.15", '"46,15"', "line 4: MOS is no number, got 46,15"),
        ("46.15", "146.15", "line 4: MOS is outside the published 3.91176..88.3889, got 146.15"),
        ("46.15", "-1", "MOS is outside the published"),
        ("0.7,", "-0.7,", "line 4: SD is below zero"),
        ("3.jpg", "2.jpg", "line 4 names a picture again, got 2.jpg; first in koniq10k_distributions_sets.csv, line 3"),
        ("3.jpg", "../3.jpg", "line 4 names no plain picture file, got ../3.jpg"),
        ("3.jpg", "/etc/passwd", "names no plain picture file"),
        ("3.jpg", "..\\3.jpg", "names no plain picture file"),
        ("3.jpg", "c:3.jpg", "names no plain picture file"),
        ("3.jpg", "..", "names no plain picture file"),
        ("3.jpg", "", "names no plain picture file, got nothing"),
        ("validation", "holdout", "line 4 has an unknown split, got holdout; known: training, validation, test"),
        (",0.7,validation", "", "line 4 is too short"),
        ("3.jpg", '"3.jpg', "no CSV"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(koniq, tmp_path, old, new, words):
    source, spec = koniq
    (source / "koniq10k_distributions_sets.csv").write_text(KONIQ.replace(old, new, 1))
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(spec, source, tmp_path / "out", allow_partial=True)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def pack_bomb(_):
    return gzip.compress(bytes(80_000_000), 9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.encode("utf-16"), "not UTF-8 text, got koniq10k_distributions_sets.csv, byte 0"),
        (lambda text: text.replace("3.jpg", "ä.jpg").encode("latin-1"), "not UTF-8 text"),
        (lambda text: b"", "the label file is empty"),
        (lambda text: text.splitlines()[0].encode(), "the label files hold no labels"),
        (lambda text: gzip.compress(text.encode())[:-20], "damaged"),
        (lambda text: b"\x1f\x8bnothing", "damaged"),
        (pack_bomb, "too large"),
    ],
    ids=["utf-16", "latin-1", "empty", "header only", "cut gzip", "no gzip", "bomb"],
)
def test_a_file_that_is_no_table(koniq, tmp_path, change, words):
    source, spec = koniq
    (source / "koniq10k_distributions_sets.csv").write_bytes(change(KONIQ))
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(spec, source, tmp_path / "out", allow_partial=True)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\n\n").encode() + b"\n,,,,,,,,,\n",
        lambda text: text.replace(",", " , ").encode(),
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["byte order mark", "CRLF", "blank lines", "white space", "gzip"],
)
def test_the_same_table_in_other_clothes(koniq, tmp_path, change):
    source, spec = koniq
    plain = prepare_dataset(spec, source, tmp_path / "plain")
    (source / "koniq10k_distributions_sets.csv").write_bytes(change(KONIQ))
    other = prepare_dataset(spec, source, tmp_path / "other")
    assert other.files[0].read_bytes() == plain.files[0].read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no workbook at all"])
def test_a_damaged_workbook(tmp_path, content):
    pytest.importorskip("openpyxl", reason="openpyxl reads workbooks")
    (tmp_path / "csiq.DMOS.xlsx").write_bytes(content)
    with pytest.raises(OptionInvalid, match=r"the workbook cannot be read, got csiq\.DMOS\.xlsx"):
        prepare_dataset(DATASETS["csiq"], tmp_path, tmp_path)


def test_a_workbook_that_unpacks_to_too_much(tmp_path):
    pytest.importorskip("openpyxl", reason="openpyxl reads workbooks")
    with zipfile.ZipFile(tmp_path / "csiq.DMOS.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(80_000_000))
    with pytest.raises(OptionInvalid, match="the workbook is too large"):
        prepare_dataset(DATASETS["csiq"], tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("rows", "sheet", "words"),
    [
        (CSIQ_ROWS, "all", "lacks a sheet, got all_by_image in csiq.DMOS.xlsx"),
        (CSIQ_ROWS[:3], "all_by_image", "lacks the column 'image'"),
        ([*CSIQ_ROWS[:4], [None] * 3 + ["x", 1, "fog", 1, 0, 0]], "all_by_image", "unknown distortion, got fog"),
    ],
)
def test_another_workbook(tmp_path, rows, sheet, words):
    write_workbook(tmp_path / "csiq.DMOS.xlsx", rows, sheet)
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(DATASETS["csiq"], tmp_path, tmp_path)
    assert words in str(caught.value)


def test_without_openpyxl_its_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "csiq.DMOS.xlsx").write_bytes(b"PK")
    with pytest.raises(ExtraMissing, match=r"needs openpyxl, got csiq\.DMOS\.xlsx; pip install openpyxl"):
        prepare_dataset(DATASETS["csiq"], tmp_path, tmp_path)


def test_damaged_matlab_files(tmp_path):
    spec = small("live-wild", 2)
    touch(tmp_path, "Images/3.bmp", "Images/4.bmp")
    write_live(tmp_path / "Data", ["3.bmp", "4.bmp"], [3.42, 92.432, 50], [1, 1])
    with pytest.raises(OptionInvalid, match="different lengths, got AllImages_release 2, AllMOS_release 3"):
        prepare_dataset(spec, tmp_path, tmp_path)
    write_live(tmp_path / "Data", ["3.bmp", "4.bmp"], [3.42, float("nan")], [1, 1])
    with pytest.raises(OptionInvalid, match=r"AllMOS_release\.mat, value 2: AllMOS_release is no number"):
        prepare_dataset(spec, tmp_path, tmp_path)
    write_live(tmp_path / "Data", ["3.bmp", "../4.bmp"], [3.42, 92.432], [1, 1])
    with pytest.raises(OptionInvalid, match="names no plain picture file"):
        prepare_dataset(spec, tmp_path, tmp_path)
    savemat(tmp_path / "Data" / "AllMOS_release.mat", {"other": [1]})
    with pytest.raises(OptionInvalid, match="lacks a variable"):
        prepare_dataset(spec, tmp_path, tmp_path)
    (tmp_path / "Data" / "AllMOS_release.mat").write_bytes(b"MATLAB 5.0 cut")
    with pytest.raises(OptionInvalid, match="cannot be read"):
        prepare_dataset(spec, tmp_path, tmp_path)
    (tmp_path / "Data" / "AllStdDev_release.mat").unlink()
    write_live(tmp_path / "Data", ["3.bmp", "4.bmp"], [3.42, 92.432], [1, 1])
    (tmp_path / "Data" / "AllImages_release.mat").unlink()
    with pytest.raises(OptionInvalid, match=r"cannot be read, got AllImages_release\.mat; No such file"):
        prepare_dataset(spec, tmp_path, tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "int16", "int64"])
def test_matlab_values_are_what_scipy_wrote(packed, kind):
    numbers = np.array([[3, 4, 120]], kind)
    cells = np.empty((2, 1), object)
    cells[:, 0] = ["3.bmp", "é (1).JPG"]
    file = io.BytesIO()
    savemat(file, {"first": numbers, "second": cells, "one": 2.5}, do_compression=packed)
    assert read_variable(file.getvalue(), "first", 1_000_000) == [3, 4, 120]
    assert read_variable(file.getvalue(), "second", 1_000_000) == ["3.bmp", "é (1).JPG"]
    assert read_variable(file.getvalue(), "one", 1_000_000) == [2.5]
    assert read_variable(file.getvalue(), "other", 1_000_000) is None
    if packed:
        with pytest.raises(MatlabError, match="too large"):
            read_variable(file.getvalue(), "second", 100)


def matlab_file(order, letters):
    """A cell of one text of 16-bit letters, as MATLAB itself writes it."""

    def element(kind, content):
        return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)

    def array(kind, name, content):
        flags = element(6, struct.pack(f"{order}II", kind, 0))
        return element(14, flags + element(5, struct.pack(f"{order}ii", 1, 1)) + element(1, name) + content)

    text = element(6, struct.pack(f"{order}II", 4, 0)) + element(5, struct.pack(f"{order}ii", 1, len(letters)))
    text += element(1, b"") + element(4, letters.encode("utf-16-le" if order == "<" else "utf-16-be"))
    mark = b"\0\1IM" if order == "<" else b"\1\0MI"
    return b"MATLAB 5.0 MAT-file".ljust(124) + mark + array(1, b"AllImages_release", element(14, text))


@pytest.mark.parametrize("order", ["<", ">"])
def test_matlab_text_of_either_byte_order(order):
    data = matlab_file(order, "t1.bmp")
    assert read_variable(data, "AllImages_release", 1_000) == ["t1.bmp"]
    if order == "<":
        assert loadmat(io.BytesIO(data))["AllImages_release"][0, 0][0] == "t1.bmp"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1 + 2j, "complex"),
        ("text", "neither numbers nor cells"),
        ({"a": 1}, "neither numbers nor cells"),
        (np.array([[1.0, "a"]], object), "a cell without a line of text"),
        (np.array([[["ab", "cd"], "a"]], object), "a cell without a line of text"),
    ],
)
def test_matlab_variables_of_other_kinds(value, words):
    file = io.BytesIO()
    savemat(file, {"x": value})
    with pytest.raises(MatlabError, match=words):
        read_variable(file.getvalue(), "x", 1_000_000)


def test_damaged_matlab_bytes_never_do_harm():
    """SciPy's own reader ends the process on some of these."""
    cells = np.empty((3, 1), object)
    cells[:, 0] = ["3.bmp", "4.bmp", "5.JPG"]
    draw = random.Random(0)
    refused = 0
    for variable in (cells, np.array([[3.42, 92.432, 50]])):
        file = io.BytesIO()
        savemat(file, {"x": variable})
        for _ in range(1_000):
            data = bytearray(file.getvalue())
            for _ in range(draw.randint(1, 4)):
                data[draw.randrange(124, len(data))] = draw.randrange(256)
            try:
                read_variable(bytes(data[: draw.randint(100, 2 * len(data))]), "x", 1_000_000)
            except MatlabError:
                refused += 1
    assert refused > 1_000


# Folders


def test_what_is_not_there(tmp_path, koniq):
    source, spec = koniq
    with pytest.raises(OptionInvalid, match="there is no source folder"):
        prepare_dataset(spec, tmp_path / "none", tmp_path)
    with pytest.raises(OptionInvalid, match=r"no label file of SPAQ in the source folder .*--labels"):
        prepare_dataset(DATASETS["spaq"], source, tmp_path)
    (source / "1024x768").rename(source / "pictures")
    with pytest.raises(OptionInvalid, match=r"no folder with the pictures in the source folder \(looked for 1024x768"):
        prepare_dataset(spec, source, tmp_path)
    touch(source, "512x384/another.jpg")
    with pytest.raises(OptionInvalid, match="none of KonIQ-10k's pictures is in its folder, got 512x384"):
        prepare_dataset(spec, source, tmp_path, allow_partial=True)


@pytest.mark.parametrize(
    ("name", "command"),
    [("koniq.zip", "unzip koniq.zip -d FOLDER"), ("tid2013.rar", "unrar x"), ("spaq.tar.gz", "tar -xf spaq.tar.gz")],
)
def test_an_archive_is_to_be_unpacked_first(tmp_path, name, command):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(DATASETS["koniq-10k"], tmp_path / name, tmp_path)
    assert f"unpack it first ({command}" in str(caught.value)


def test_links_out_of_the_source_are_refused(koniq, tmp_path):
    source, spec = koniq
    touch(tmp_path, "elsewhere/3.jpg")
    (source / "1024x768" / "3.jpg").unlink()
    (source / "1024x768" / "3.jpg").symlink_to(tmp_path / "elsewhere" / "3.jpg")
    with pytest.raises(OptionInvalid, match="a picture is a link that leads outside the source folder"):
        prepare_dataset(spec, source, tmp_path / "out")
    (source / "1024x768").rename(tmp_path / "moved")
    (source / "1024x768").symlink_to(tmp_path / "moved")
    with pytest.raises(OptionInvalid, match="a folder is a link that leads outside the source folder"):
        prepare_dataset(spec, source, tmp_path / "out")
    # The source folder itself may be a link, as data often lie on another disk.
    (tmp_path / "moved" / "3.jpg").unlink()
    touch(tmp_path, "moved/3.jpg")
    (source / "1024x768").unlink()
    (tmp_path / "moved").rename(source / "1024x768")
    (tmp_path / "link").symlink_to(source)
    done = prepare_dataset(spec, tmp_path / "link", tmp_path / "out")
    assert len(load_annotations(done.files[0], tmp_path / "link")) == 4


def test_names_that_differ_in_case_alone_are_not_guessed(tmp_path):
    touch(tmp_path, "distorted_images/i01_01_1.bmp", "distorted_images/I01_01_1.BMP", "reference_images/I01.BMP")
    (tmp_path / "mos_with_names.txt").write_text("7.21429 I01_01_1.bmp\n")
    if len(list((tmp_path / "distorted_images").iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    with pytest.raises(OptionInvalid, match="none of TID2013's pictures"):
        prepare_dataset(DATASETS["tid2013"], tmp_path, tmp_path)


# Writing


def test_nothing_is_overwritten_unasked(koniq, tmp_path):
    source, spec = koniq
    out = tmp_path / "out"
    out.mkdir()
    (out / "koniq-10k.test.json").write_text("mine")
    with pytest.raises(OutputWouldOverwrite, match="--overwrite"):
        prepare_dataset(spec, source, out)
    assert [path.name for path in out.iterdir()] == ["koniq-10k.test.json"]
    assert (out / "koniq-10k.test.json").read_text() == "mine"
    prepare_dataset(spec, source, out, overwrite=True)
    assert len(read(out, "koniq-10k.test")) == 1


def test_a_split_file_of_an_earlier_run_is_told_of(koniq, tmp_path):
    source, spec = koniq
    prepare_dataset(spec, source, tmp_path / "out")
    listing = tmp_path / "listing.txt"
    listing.write_text("dis_img_path,dis_type,score\nKonIQ-10k/1024x768/1.jpg,Authentic,2.5\n")
    done = prepare_dataset(spec, source, tmp_path / "out", labels=[listing], allow_partial=True, overwrite=True)
    assert "koniq-10k.train.json is of an earlier run" in done.card["notes"]


def test_a_folder_that_cannot_be_made(koniq, tmp_path):
    source, spec = koniq
    (tmp_path / "file").touch()
    with pytest.raises(OutputFailed):
        prepare_dataset(spec, source, tmp_path / "file" / "out")
    with pytest.raises(OutputFailed):
        prepare_dataset(spec, source, tmp_path / "file")


# Label files given by hand


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "a,b\n1,2\n", "no form that KonIQ-10k is known in, got x.csv"),
        ("x.csv", "", "no form that KonIQ-10k is known in"),
        ("x.txt", "dis_img_path,score\nA/../1.jpg,3\n", "names no plain picture file, got A/../1.jpg"),
        ("x.txt", "dis_img_path,score\n/A/1.jpg,3\n", "names no plain picture file"),
    ],
)
def test_labels_of_no_known_form(koniq, tmp_path, name, content, words):
    source, spec = koniq
    (tmp_path / name).write_text(content)
    with pytest.raises(OptionInvalid) as caught:
        prepare_dataset(spec, source, tmp_path / "out", labels=[tmp_path / name], allow_partial=True)
    assert words in str(caught.value)


def test_labels_of_different_forms(koniq, tmp_path):
    source, spec = koniq
    (tmp_path / "x.txt").write_text("dis_img_path,score\nA/1.jpg,3\n")
    files = [tmp_path / "x.txt", source / "koniq10k_distributions_sets.csv"]
    with pytest.raises(OptionInvalid, match="different forms"):
        prepare_dataset(spec, source, tmp_path / "out", labels=files)
    with pytest.raises(OptionInvalid, match="cannot be read"):
        prepare_dataset(spec, source, tmp_path / "out", labels=[tmp_path / "none.csv"])


# The label files as they were published


def lay_out(root, names, folder):
    """Empty files in place of the pictures: a label file is checked against names alone."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / name).touch()


def listed(file):
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize(
    ("file", "name", "low", "high"),
    [
        ("KonIQ-10k.txt.gz", "koniq-10k", 1.09615384615385, 4.31),
        ("SPAQ.txt.gz", "spaq", 2, 96),
        ("KADID-10k.txt.gz", "kadid-10k", 1, 4.93),
        ("PIPAL.txt.gz", "pipal", 916.7136, 1835.9856),
        ("CSIQ.txt.gz", "csiq", 0, 1),
        ("TID2013.txt.gz", "tid2013", 0.24242, 7.21429),
    ],
)
def test_a_published_listing(tmp_path, file, name, low, high):
    labels = need(f"data/labels/{file}")
    rows = listed(labels)
    spec = DATASETS[name]
    folder = re.sub(r"\[1-4\]$", "1", spec.pictures[0]).replace("*", "all")
    lay_out(tmp_path, (Path(row["dis_img_path"]).name for row in rows), folder)
    if spec.references:
        lay_out(tmp_path, {Path(row["ref_img_path"]).name for row in rows}, spec.references[0])
    card = prepare_dataset(spec, tmp_path, tmp_path / "out", labels=[labels]).card
    assert card["complete"] is True
    assert (card["scale"]["low"], card["scale"]["high"]) == (low, high)
    entries = read(tmp_path / "out", name)
    assert len(entries) == spec.total == len(rows)
    assert min(entry["gt_score"] for entry in entries) == pytest.approx(1, abs=1e-4)
    assert max(entry["gt_score"] for entry in entries) == pytest.approx(5, abs=1e-4)
    sign = -1 if name == "csiq" else 1
    scores = [sign * float(row["score"]) for row in rows]
    ratings = [entry["gt_score"] for entry in entries]
    assert np.corrcoef(scores, ratings)[0, 1] == pytest.approx(1)
    if spec.references:
        for row, entry in zip(rows, entries, strict=True):
            assert Path(entry["reference"]).name == Path(row["ref_img_path"]).name
    assert len(load_annotations(tmp_path / "out" / f"{name}.json", tmp_path)) == spec.total


def test_koniq_as_published(tmp_path):
    labels = need("data/labels/koniq10k_distributions_sets.csv.gz")
    lay_out(tmp_path, (row["image_name"] for row in listed(labels)), "1024x768")
    done = prepare_dataset(DATASETS["koniq-10k"], tmp_path, tmp_path / "out", labels=[labels])
    assert {file["file"]: file["count"] for file in done.card["files"]} == {
        "koniq-10k.json": 10_073,
        "koniq-10k.train.json": 7_058,
        "koniq-10k.val.json": 1_000,
        "koniq-10k.test.json": 2_015,
    }
    rows = read(tmp_path / "out", "koniq-10k")
    assert (min(row["gt_score"] for row in rows), max(row["gt_score"] for row in rows)) == (1, 5)
    assert 0.3 < np.mean([row["std"] for row in rows]) < 1.5


def test_the_two_mos_of_koniq_nearly_agree(tmp_path):
    by_name = {row["image_name"]: row for row in listed(need("data/labels/koniq10k_distributions_sets.csv.gz"))}
    rows = listed(need("data/labels/KonIQ-10k.txt.gz"))
    means = [float(row["score"]) for row in rows]
    scores = [float(by_name[Path(row["dis_img_path"]).name]["MOS"]) for row in rows]
    assert np.polyfit(means, scores, 1)[0] == pytest.approx(27.82, abs=0.01)
    assert np.corrcoef(means, scores)[0, 1] > 0.995


def test_agiqa_as_published(tmp_path):
    labels = need("data/labels/AGIQA-3K_data.csv.gz")
    rows = listed(labels)
    lay_out(tmp_path, (row["name"] for row in rows), "images")
    (tmp_path / "data.csv").write_bytes(gzip.decompress(labels.read_bytes()))
    card = prepare_dataset(DATASETS["agiqa-3k"], tmp_path, tmp_path / "out").card
    assert (card["counts"]["written"], card["scale"]["low"], card["scale"]["high"]) == (2_982, 0, 4.488740784)
    entries = read(tmp_path / "out", "agiqa-3k")
    alignments = [entry["attributes"]["alignment"] for entry in entries]
    assert (min(alignments), max(alignments)) == (1, 5)
    assert entries[0]["std"] == pytest.approx(float(rows[0]["std_quality"]) * 4 / 4.488740784, abs=1e-6)


def test_the_listing_of_live_in_the_wild_lacks_a_picture(tmp_path):
    """Its 1,161 rows leave 100.bmp out; the set has 1,162 pictures."""
    labels = need("data/labels/LIVE_Challenge.txt.gz")
    rows = listed(labels)
    lay_out(tmp_path, [*(Path(row["dis_img_path"]).name for row in rows), "100.bmp"], "Images")
    spec = DATASETS["live-wild"]
    with pytest.raises(OptionInvalid, match=r"1162 labels expected, 1161 found, 1 missing; without a label: 100\.bmp"):
        prepare_dataset(spec, tmp_path, tmp_path / "out", labels=[labels])
    card = prepare_dataset(spec, tmp_path, tmp_path / "out", labels=[labels], allow_partial=True).card
    assert (card["scale"]["low"], card["scale"]["high"]) == (3.42, 92.432)
    ratings = [row["gt_score"] for row in read(tmp_path / "out", "live-wild")]
    assert (len(ratings), min(ratings), max(ratings)) == (1_161, 1, 5)


def test_biq2021_agrees_with_its_known_ratings(tmp_path):
    folder = need("data/BIQ2021_train_part")
    known = load_annotations(folder / "annotations.json", folder)
    rows = [(re.sub(r"(ss\d\d)_(\d+)", r"\1 (\2)", item.path.name), (item.gt_score - 1) / 4) for item in known]
    text = io.StringIO()
    csv.writer(text).writerows([("Image Name", "MOS", "", ""), *((name, f"{mos:.4f}", "", "") for name, mos in rows)])
    (tmp_path / "Train (Images and MOS).csv").write_text(text.getvalue())
    lay_out(tmp_path, (name for name, _ in rows), "Images")
    card = prepare_dataset(DATASETS["biq2021"], tmp_path, tmp_path / "out", allow_partial=True).card
    assert card["counts"]["written"] == 3_600
    entries = read(tmp_path / "out", "biq2021")
    assert [entry["gt_score"] for entry in entries] == pytest.approx([item.gt_score for item in known], abs=1e-4)
    assert [entry["subset"] for entry in entries] == [item.subset for item in known]


# The table of sets and the command


def test_every_spec_is_sound():
    for name, spec in DATASETS.items():
        assert name == spec.name
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert not spec.splits or sum(spec.splits.values()) == spec.total
        assert bool(spec.references) == (spec.reference_name is not None)
        assert bool(spec.splits) == (spec.split_origin is not None)
        for form in spec.forms:
            assert form.scale.low < form.scale.high
            assert set(form.split_names.values()) <= set(spec.splits)
            assert {file.split for file in form.files if file.split} <= set(spec.splits)
    assert find_dataset("KonIQ-10k") is DATASETS["koniq-10k"]


def test_an_unknown_name_gets_advice():
    with pytest.raises(OptionInvalid, match="did you mean koniq-10k"):
        find_dataset("koniq10k")
    with pytest.raises(OptionInvalid, match="known names: koniq-10k, spaq"):
        find_dataset("zzz")


def test_the_list(capsys):
    assert main(["datasets", "list"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == len(DATASETS)
    assert "koniq-10k     10073  KonIQ-10k (train 7058, val 1000, test 2015)" in out
    assert main(["datasets", "list", "--json"]) == 0
    sets = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert sets.keys() == DATASETS.keys()
    assert sets["csiq"]["full_reference"] is True
    assert sets["spaq"]["splits"] == {}


def test_the_command_prints_paths_and_a_summary(koniq, tmp_path, capsys):
    source, _ = koniq
    out = tmp_path / "out"
    arguments = ["datasets", "prepare", "koniq-10k", str(source), "--out", str(out)]
    assert main(arguments) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "OptionInvalid[ZIQ-501]: KonIQ-10k is not complete: 10073 labels expected, 4 found" in stderr
    assert stderr.count("\n") == 1

    assert main([*arguments, "--allow-partial"]) == 0
    stdout, stderr = capsys.readouterr()
    names = ["koniq-10k.json", "koniq-10k.train.json", "koniq-10k.val.json", "koniq-10k.test.json"]
    assert stdout.splitlines() == [str(out / name) for name in [*names, "koniq-10k.card.json"]]
    assert "KonIQ-10k: 4 of 10073 pictures; labels 3.91176 to 88.3889 (higher is better)" in stderr
    assert "note: 10073 labels expected" in stderr

    assert main([*arguments, "--allow-partial"]) == 2
    assert "OutputWouldOverwrite[ZIQ-601]" in capsys.readouterr().err
    assert main([*arguments, "--allow-partial", "--overwrite"]) == 0


def test_labels_on_the_command_line(koniq, tmp_path, capsys):
    source, _ = koniq
    (tmp_path / "l.csv.gz").write_bytes(gzip.compress(b"dis_img_path,score\nKonIQ-10k/1024x768/1.jpg,4.31\n"))
    arguments = ["--out", str(tmp_path / "out"), "--labels", str(tmp_path / "l.csv.gz"), "--allow-partial"]
    assert main(["datasets", "prepare", "KONIQ-10K", str(source), *arguments]) == 0
    assert read(tmp_path / "out", "koniq-10k")[0]["gt_score"] == 5
    assert main(["datasets", "prepare", "coniq-10k", str(source), *arguments]) == 2
    assert "did you mean koniq-10k" in capsys.readouterr().err


def test_openpyxl_is_loaded_for_workbooks_alone():
    code = "import sys, zoomiqa.evaluation.datasets, zoomiqa.cli.datasets; print('openpyxl' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr

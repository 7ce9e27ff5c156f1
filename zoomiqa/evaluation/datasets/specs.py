"""What each public data set looks like, as data. It must not know how a file is read or written.

File names, columns, totals and score ranges are those of the authors' downloads. Ranges marked as observed are the
smallest and the largest label of the whole set: a part of a set is mapped with the same constants as the whole.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from zoomiqa.errors import OptionInvalid

Reader = Literal["table", "tid_text", "csiq_workbook", "live_matlab"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How a set's labels become ratings of 1 (worst) to 5 (best)."""

    low: float
    high: float
    lower_is_better: bool = False
    """True for DMOS: differences from the reference, 0 for none."""

    is_observed: bool = True
    """The ends are labels of the set; False where they are the ends of the rating scale that the authors state."""

    def covers(self, value: float) -> bool:
        """Whether `value` lies on the scale, but for rounding in the published file."""
        slack = self.slack
        return self.low - slack <= value <= self.high + slack

    @property
    def slack(self) -> float:
        """What rounding may add: a thousandth of the range."""
        return 1e-3 * (self.high - self.low)

    def rating(self, value: float) -> float:
        """Min-max mapping to 1..5: `1 + 4 * (value - low) / (high - low)`, turned round for DMOS."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return 1 + 4 * (1 - share if self.lower_is_better else share)

    def spread(self, std: float) -> float:
        """A standard deviation of labels in rating points."""
        return 4 * std / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column of attribute scores, higher is better."""

    column: str
    name: str
    """As in `zoomiqa.vocabulary.ATTRIBUTES` where it is the same quality, else a snake_case name of its own."""

    scale: Scale


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a table the parts of a label stand."""

    name: str
    mos: str
    std: str | None = None
    split: str | None = None
    attributes: tuple[Attribute, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that a table of this form has."""
        optional = (self.std, self.split, *(attribute.column for attribute in self.attributes))
        return (self.name, self.mos, *(column for column in optional if column is not None))


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A file of labels in a download."""

    patterns: tuple[str, ...]
    """Glob patterns below the source folder; the first that matches counts, with all its matches."""

    split: str | None = None
    """The split that all its rows belong to."""


@dataclass(frozen=True, slots=True)
class LabelForm:
    """One form in which the labels of a set are published."""

    title: str
    files: tuple[LabelFile, ...]
    """Empty for a form that only `--labels` names."""

    columns: Columns
    scale: Scale
    reader: Reader = "table"
    header: tuple[str, ...] = ()
    """Names of the columns where the file has no header line; empty where its first line is one."""

    delimiter: str | None = ","
    """`None` for any run of white space."""

    std_unit: float = 1.0
    """Units of the label per unit of its published standard deviation."""

    split_names: Mapping[str, str] = field(default_factory=dict)
    """The file's words for splits, and ours."""

    beside: tuple[str, ...] = ()
    """Files that are read along with a label file, from the same folder."""

    left_out: frozenset[str] = frozenset()
    """Pictures in the file that are no part of the set."""

    names_are_paths: bool = False
    """The name column holds paths of somebody's folders, of which only the last part counts."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A public data set of pictures with human scores."""

    name: str
    """Stem of its annotation files."""

    title: str
    total: int
    """Labelled pictures in the publication."""

    forms: tuple[LabelForm, ...]
    """Forms of its labels, best first."""

    pictures: tuple[str, ...]
    """Glob patterns of the folders that hold the pictures; the first that matches counts."""

    citation: str
    licence: str
    """As far as known; "unknown" where it is not."""

    splits: Mapping[str, int] = field(default_factory=dict)
    """Pictures in each published split."""

    split_origin: str | None = None
    references: tuple[str, ...] = ()
    """Glob patterns of the folders that hold the pristine pictures of a full-reference set."""

    reference_name: tuple[str, str] | None = None
    """Regular expression for a picture's whole name, and the template of its pristine picture's name."""

    subset: str | None = None
    """Regular expression whose first group, at the start of a picture's name, is its subset."""

    def pristine_name(self, name: str) -> str | None:
        """The name of the pristine picture that `name` was made of; `None` without one, or for a foreign name."""
        if self.reference_name is None:
            return None
        pattern, template = self.reference_name
        match = re.fullmatch(pattern, name)
        return match.expand(template) if match else None

    def subset_of(self, name: str) -> str | None:
        """The subset of the picture called `name`."""
        match = re.match(self.subset, name) if self.subset is not None else None
        return match[1] if match else None


_UNKNOWN = "unknown; see the authors' page"


def _listing(scale: Scale) -> LabelForm:
    """The table that the IQA-Dataset collection (icbcbicc, MIT) gives for each set."""
    return LabelForm(
        title="listing of the IQA-Dataset collection (dis_img_path, score)",
        files=(),
        columns=Columns("dis_img_path", "score"),
        scale=scale,
        names_are_paths=True,
    )


_KONIQ = Scale(3.91176470588, 88.3888888889)
_KONIQ_SLOPE = 27.82
"""Units of KonIQ's 0..100 MOS per point of its five-point ratings, of which `SD` is the deviation: the slope of a
straight line through both MOS of all 10,073 pictures (r = .995)."""

_BIQ2021 = Scale(0, 1, is_observed=False)
_SPAQ_SLIDER = Scale(0, 100, is_observed=False)
_CSIQ = Scale(0, 1, lower_is_better=True)
_TID2013 = Scale(0.24242, 7.21429)
_PIPAL = Scale(916.7136, 1835.9856)
_KADID = Scale(1, 4.93)
_LIVE = Scale(3.42, 92.432)
_AGIQA = Scale(0, 4.488740784)
_SPAQ = Scale(2, 96)

_SPAQ_COLUMNS = Columns(
    "Image name",
    "MOS",
    attributes=(
        Attribute("Brightness", "brightness", _SPAQ_SLIDER),
        Attribute("Colorfulness", "colorfulness", _SPAQ_SLIDER),
        Attribute("Contrast", "contrast", _SPAQ_SLIDER),
        # A quality score like the others: high is clean, as 5 is in our vocabulary.
        Attribute("Noisiness", "noise", _SPAQ_SLIDER),
        Attribute("Sharpness", "sharpness", _SPAQ_SLIDER),
    ),
)

_SPECS = (
    DatasetSpec(
        name="koniq-10k",
        title="KonIQ-10k",
        total=10_073,
        forms=(
            LabelForm(
                title="koniq10k_distributions_sets.csv (MOS 0..100 from z-scores, official split)",
                files=(LabelFile(("koniq10k_distributions_sets.csv", "*/koniq10k_distributions_sets.csv")),),
                columns=Columns("image_name", "MOS", std="SD", split="set"),
                scale=_KONIQ,
                std_unit=_KONIQ_SLOPE,
                split_names={"training": "train", "validation": "val", "test": "test"},
            ),
            LabelForm(
                title="koniq10k_scores_and_distributions.csv (MOS_zscore, no split)",
                files=(
                    LabelFile(("koniq10k_scores_and_distributions.csv", "*/koniq10k_scores_and_distributions.csv")),
                ),
                columns=Columns("image_name", "MOS_zscore", std="SD"),
                scale=_KONIQ,
                std_unit=_KONIQ_SLOPE,
            ),
            # This listing has the plain means of the five-point ratings, not the z-score MOS.
            _listing(Scale(1.09615384615385, 4.31)),
        ),
        pictures=("1024x768", "*/1024x768", "512x384", "*/512x384"),
        citation="Hosu, Lin, Sziranyi, Saupe: KonIQ-10k, IEEE TIP 29, 2020",
        licence=_UNKNOWN,
        splits={"train": 7_058, "val": 1_000, "test": 2_015},
        split_origin="column `set` of the authors' koniq10k_distributions_sets.csv",
    ),
    DatasetSpec(
        name="spaq",
        title="SPAQ",
        total=11_125,
        forms=(
            LabelForm(
                title="MOS and Image attribute scores (workbook, or the same saved as CSV)",
                files=(
                    LabelFile(
                        (
                            "Annotations/MOS and Image attribute scores.xlsx",
                            "MOS and Image attribute scores.xlsx",
                            "*/MOS and Image attribute scores.xlsx",
                            "Annotations/MOS and Image attribute scores.csv",
                            "MOS and Image attribute scores.csv",
                        )
                    ),
                ),
                columns=_SPAQ_COLUMNS,
                scale=_SPAQ,
            ),
            _listing(_SPAQ),
        ),
        pictures=("TestImage", "*/TestImage"),
        citation="Fang, Zhu, Zeng, Ma, Wang: Perceptual Quality Assessment of Smartphone Photography, CVPR 2020",
        licence=_UNKNOWN,
    ),
    DatasetSpec(
        name="live-wild",
        title="LIVE In the Wild (LIVE Challenge)",
        total=1_162,
        forms=(
            LabelForm(
                title="AllMOS_release.mat with AllImages_release.mat and AllStdDev_release.mat beside it",
                files=(LabelFile(("Data/AllMOS_release.mat", "AllMOS_release.mat", "*/Data/AllMOS_release.mat")),),
                columns=Columns("AllImages_release", "AllMOS_release", std="AllStdDev_release"),
                scale=_LIVE,
                reader="live_matlab",
                beside=("AllImages_release.mat", "AllStdDev_release.mat"),
                left_out=frozenset(f"t{number}.bmp" for number in range(1, 8)),  # shown to raters for practice
            ),
            _listing(_LIVE),
        ),
        pictures=("Images", "*/Images"),
        citation="Ghadiyaram, Bovik: Massive Online Crowdsourced Study of Subjective and Objective Picture Quality, "
        "IEEE TIP 25, 2016",
        licence="University of Texas at Austin: use, copying and change are free where the copyright notice is kept "
        "and the source is acknowledged",
    ),
    DatasetSpec(
        name="kadid-10k",
        title="KADID-10k",
        total=10_125,
        forms=(
            LabelForm(
                # Both names mislead: `dmos` is a mean of 1..5 ratings where high is good, `var` a standard deviation
                # (30 ratings of 4 and 5 with mean 4.57 have one of .496, which is what stands there).
                title="dmos.csv (dmos is a MOS, var a standard deviation)",
                files=(LabelFile(("dmos.csv", "*/dmos.csv")),),
                columns=Columns("dist_img", "dmos", std="var"),
                scale=_KADID,
            ),
            _listing(_KADID),
        ),
        pictures=("images", "*/images", "distorted_images", "*/distorted_images"),
        citation="Lin, Hosu, Saupe: KADID-10k: A Large-scale Artificially Distorted IQA Database, QoMEX 2019",
        licence=_UNKNOWN,
        references=("images", "*/images", "reference_images", "*/reference_images"),
        reference_name=(r"(I\d+)_\d+_\d+\.png", r"\1.png"),
    ),
    DatasetSpec(
        name="pipal",
        title="PIPAL (its labelled training part)",
        total=23_200,
        forms=(
            LabelForm(
                title="Train_Label/*.txt (Elo scores)",
                files=(LabelFile(("Train_Label/*.txt", "*/Train_Label/*.txt", "Train_Label/Train_Label/*.txt")),),
                columns=Columns("name", "score"),
                scale=_PIPAL,
                header=("name", "score"),
            ),
            _listing(_PIPAL),
        ),
        pictures=(
            "Distortion_[1-4]/Distortion_[1-4]",
            "Distortion_[1-4]",
            "Train_Dist/Distortion_[1-4]",
            "Train_Dist",
            "*/Distortion_[1-4]",
            "*/Train_Dist",
        ),
        citation="Gu, Cai, Chen, Ye, Ren, Dong: PIPAL: a Large-Scale Image Quality Assessment Dataset for Perceptual "
        "Image Restoration, ECCV 2020",
        licence=_UNKNOWN,
        references=("Train_Ref", "*/Train_Ref", "Train_Ref/Train_Ref"),
        reference_name=(r"(A\d+)_\d+_\d+\.bmp", r"\1.bmp"),
    ),
    DatasetSpec(
        name="csiq",
        title="CSIQ",
        total=866,
        forms=(
            LabelForm(
                title="csiq.DMOS.xlsx (sheet all_by_image)",
                files=(LabelFile(("csiq.DMOS.xlsx", "*/csiq.DMOS.xlsx")),),
                columns=Columns("image", "dmos", std="dmos_std"),
                scale=_CSIQ,
                reader="csiq_workbook",
            ),
            LabelForm(
                title="csiq_label.txt (name and DMOS)",
                files=(LabelFile(("csiq_label.txt", "*/csiq_label.txt")),),
                columns=Columns("name", "dmos"),
                scale=_CSIQ,
                header=("name", "dmos"),
                delimiter=None,
            ),
            _listing(_CSIQ),
        ),
        pictures=("dst_imgs/*", "dst_imgs", "dst_imgs_all", "*/dst_imgs/*"),
        citation="Larson, Chandler: Most apparent distortion, J. Electronic Imaging 19(1), 2010",
        licence=_UNKNOWN,
        references=("src_imgs", "*/src_imgs"),
        reference_name=(r"([^.]+)\.[^.]+\.\d\.png", r"\1.png"),
    ),
    DatasetSpec(
        name="agiqa-3k",
        title="AGIQA-3K",
        total=2_982,
        forms=(
            LabelForm(
                title="data.csv (mos_quality; mos_align is the attribute `alignment`)",
                files=(LabelFile(("data.csv", "*/data.csv")),),
                columns=Columns(
                    "name",
                    "mos_quality",
                    std="std_quality",
                    attributes=(Attribute("mos_align", "alignment", Scale(0.021462288, 4.286204297)),),
                ),
                scale=_AGIQA,
            ),
        ),
        pictures=("images", "Images", "image", "file", "*/images", "*/Images"),
        citation="Li et al.: AGIQA-3K: An Open Database for AI-Generated Image Quality Assessment, IEEE TCSVT, 2023",
        licence="MIT",
    ),
    DatasetSpec(
        name="tid2013",
        title="TID2013",
        total=3_000,
        forms=(
            LabelForm(
                title="mos_with_names.txt (with mos_std.txt where it lies beside it)",
                files=(LabelFile(("mos_with_names.txt", "*/mos_with_names.txt")),),
                columns=Columns("name", "mos"),
                scale=_TID2013,
                reader="tid_text",
                beside=("mos_std.txt",),
                header=("mos", "name"),
                delimiter=None,
            ),
            _listing(_TID2013),
        ),
        pictures=("distorted_images", "*/distorted_images"),
        citation="Ponomarenko et al.: Image database TID2013, Signal Processing: Image Communication 30, 2015",
        licence=_UNKNOWN,
        references=("reference_images", "*/reference_images"),
        reference_name=(r"([Ii]\d+)_\d+_\d\.[Bb][Mm][Pp]", r"\1.bmp"),
    ),
    DatasetSpec(
        name="biq2021",
        title="BIQ2021",
        total=12_000,
        forms=(
            LabelForm(
                title="Train and Test (Images and MOS).csv",
                files=(
                    LabelFile(("Train (Images and MOS).csv", "*/Train (Images and MOS).csv"), "train"),
                    LabelFile(("Test (Images and MOS).csv", "*/Test (Images and MOS).csv"), "test"),
                ),
                columns=Columns("Image Name", "MOS"),
                scale=_BIQ2021,
            ),
            LabelForm(
                title="Train.csv and Test.csv (a later release, with slightly smaller scores)",
                files=(
                    LabelFile(("Train.csv", "*/Train.csv"), "train"),
                    LabelFile(("Test.csv", "*/Test.csv"), "test"),
                ),
                columns=Columns("Image Name", "MOS"),
                scale=_BIQ2021,
            ),
            _listing(_BIQ2021),
        ),
        pictures=("Images", "*/Images", "images"),
        citation="Ahmed, Asif: BIQ2021: a large-scale blind image quality assessment database, J. Electronic Imaging "
        "31(5), 2022",
        licence="none stated; treat it as research use",
        splits={"train": 10_000, "test": 2_000},
        split_origin="the authors' two files, one for training and one for test",
        subset=r"(ss\d\d)",
    ),
)

DATASETS: Mapping[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
"""Every data set that can be prepared, by name."""


def find_dataset(name: str) -> DatasetSpec:
    """The data set called `name`.

    Raises:
        OptionInvalid: none is; the message names the nearest.
    """
    spec = DATASETS.get(name.lower())
    if spec is None:
        near = difflib.get_close_matches(name.lower(), DATASETS, n=2, cutoff=0.5)
        advice = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(DATASETS)}"
        raise OptionInvalid("there is no data set of that name", name, advice)
    return spec

"""The signals' names, units, directions and papers, and the values of one picture. It must not measure anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]
Direction = Literal["lower", "higher", "middle"]


@dataclass(frozen=True, slots=True)
class SignalInfo:
    """What a signal's figure means."""

    name: str
    unit: str
    low: float
    """Smallest possible value."""

    high: float
    """Largest possible value; infinity where there is none."""

    better: Direction
    """Which end is better; "middle" where both ends are flaws."""

    is_native: bool
    """Whether it needs unreduced pixels (it is `None` on a reduced picture)."""

    has_map: bool
    meaning: str
    source: str
    """Paper the estimator comes from, or "this project"."""


def _table(*entries: SignalInfo) -> Mapping[str, SignalInfo]:
    return MappingProxyType({entry.name: entry for entry in entries})


_INF = math.inf
_CHEN = "Chen, Zhu, Heng, ICCV 2015"
_ZHUO = "Zhuo, Sim, Pattern Recognition 44, 2011"
_WANG = "Wang, Sheikh, Bovik, ICIP 2002 (grid phase estimated here)"

SIGNALS: Mapping[str, SignalInfo] = _table(
    # sharpness.py
    SignalInfo("edge_sigma", "px", 0, _INF, "lower", False, True,
               "Gaussian width of the sharpest quarter of the reliable edges, in pixels of what was measured", _ZHUO),
    SignalInfo("edge_sigma_median", "px", 0, _INF, "lower", False, False, "the same, of the median edge", _ZHUO),
    SignalInfo("edge_share", "share", 0, 1, "higher", False, True,
               "pixels that are reliable edges; near 0 nothing can be said of sharpness", _ZHUO),
    SignalInfo("motion_ratio", "ratio", 1, _INF, "lower", False, False,
               "edge width across the blurriest direction divided by that across the sharpest", _ZHUO),
    SignalInfo("motion_sigma", "px", 0, _INF, "lower", False, False,
               "edge width across the blurriest direction", _ZHUO),
    SignalInfo("motion_angle", "degrees", 0, 180, "middle", False, False,
               "direction of that motion, counter-clockwise from horizontal", _ZHUO),
    SignalInfo("oversharp_share", "share", 0, 1, "lower", True, True,
               "edges with a dip and a peak beside them, beyond what a plain step has", "this project"),
    # resolution.py
    SignalInfo("resolution", "share of Nyquist", 0, 1, "higher", False, True,
               "frequency up to which the spectrum of the measured picture holds signal",
               "Vu, Phan, Chandler, S3, TIP 2012 (spectral part)"),
    SignalInfo("resolution_least", "share of Nyquist", 0, 1, "higher", False, False,
               "the same in the direction where it is lowest", "this project, after Vu, Phan, Chandler, TIP 2012"),
    SignalInfo("resolution_angle", "degrees", 0, 180, "middle", False, False,
               "that direction, counter-clockwise from horizontal", "this project"),
    SignalInfo("cutoff_cliff", "dB", 0, _INF, "lower", False, False,
               "steepest fall of the spectrum over 1/16 cycle per pixel: a filter's cliff, the cause of ringing",
               "Gibbs phenomenon; this project"),
    SignalInfo("interpolation", "ratio", 0, _INF, "lower", True, False,
               "height of the periodic peak that enlarging leaves in the second differences", "Gallagher, CRV 2005"),
    # noise.py
    SignalInfo("noise_sigma", "levels of 255", 0, 255, "lower", True, True,
               "standard deviation of noise in the green channel", _CHEN),
    SignalInfo("noise_floor", "levels of 255", 0, 255, "lower", True, False,
               "noise_sigma of the quietest eighth of unclipped cells: noise is everywhere, texture is not",
               "Chen, Zhu, Heng, ICCV 2015, per cell"),
    SignalInfo("chroma_noise_sigma", "levels of 255", 0, 255, "lower", True, True,
               "noise of R-G divided by the square root of 2; 0 where noise is grey or chroma compressed", _CHEN),
    # compression.py
    SignalInfo("blocking", "ratio", 0, _INF, "lower", True, True,
               "excess of differences across the 8-pixel grid over those within blocks", _WANG),
    SignalInfo("blocking_step", "levels of 255", 0, _INF, "lower", True, True,
               "mean excess step at the grid: what is seen of it", _WANG),
    SignalInfo("grid_zeroed", "share", -1, 1, "lower", True, False,
               "share of block-transform coefficients that are zero on the grid, less that half a block beside it",
               "Fan, de Queiroz, TIP 2003 (idea)"),
    SignalInfo("banding", "share", 0, 1, "lower", True, True,
               "steps between two exactly flat runs, among all changes in smooth places",
               "this project, after CAMBI (PCS 2021)"),
    # tone.py
    SignalInfo("brightness", "share of white", 0, 1, "middle", False, True, "mean luma", "this project"),
    SignalInfo("luma_p05", "share of white", 0, 1, "middle", False, False, "5th percentile of luma", "this project"),
    SignalInfo("luma_p50", "share of white", 0, 1, "middle", False, False, "median of luma", "this project"),
    SignalInfo("luma_p95", "share of white", 0, 1, "middle", False, False, "95th percentile of luma", "this project"),
    SignalInfo("luma_p99", "share of white", 0, 1, "middle", False, False, "99th percentile of luma", "this project"),
    SignalInfo("shadows_clipped", "share", 0, 1, "lower", False, True, "pixels with luma of at most 5 levels",
               "this project"),
    SignalInfo("highlights_clipped", "share", 0, 1, "lower", False, True,
               "pixels with a channel of at least 252 levels and luma of at least 200", "this project"),
    SignalInfo("contrast_rms", "share of white", 0, 0.5, "higher", False, True, "standard deviation of luma",
               "Peli, JOSA A 1990"),
    SignalInfo("contrast_range", "share of white", 0, 1, "higher", False, False, "99th less 1st percentile of luma",
               "this project"),
    SignalInfo("haze", "share", 0, 1, "lower", False, True,
               "veil: the dark channel's 5th percentile", "He, Sun, Tang, CVPR 2009"),
    SignalInfo("dark_channel", "share of white", 0, 1, "lower", False, False,
               "mean of the dark channel", "He, Sun, Tang, CVPR 2009"),
    # exposure.py
    SignalInfo("exposure", "stops", -6, 6, "middle", False, False,
               "light more or less than the scene wants, by small networks; near 0 when in doubt", "this project"),
    # color.py
    SignalInfo("colorfulness", "levels", 0, _INF, "middle", False, False, "spread and mean of opponent colours",
               "Hasler, Suesstrunk, SPIE 2003"),
    SignalInfo("saturation", "Lab chroma", 0, _INF, "middle", False, False, "mean CIELAB chroma", "CIE 15"),
    SignalInfo("saturation_p95", "Lab chroma", 0, _INF, "middle", False, False, "95th percentile of CIELAB chroma",
               "CIE 15"),
    SignalInfo("gamut_clipped", "share", 0, 1, "lower", False, False,
               "saturated pixels with a channel at an end of its range", "this project"),
    SignalInfo("cast", "log gain / 100", 0, _INF, "lower", False, False,
               "gains of the light (red against blue counts 0.7), by small networks; near 0 when in doubt",
               "this project, after Barron, ICCV 2015"),
    SignalInfo("cast_hue", "degrees", 0, 360, "middle", False, False, "hue angle of the cast in CIELAB", "CIE 15"),
)  # fmt: skip
"""Every signal by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """The measured signals of one picture. A signal that cannot be told there is `None`, never a guess."""

    size: tuple[int, int]
    """(width, height) in pixels of what was measured."""

    scale: float
    """How much it had been reduced: 1.0 is native."""

    values: Mapping[str, float | None]
    maps: Mapping[str, FloatMap] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """The figure of `name`, or `None` where it cannot be told. An unknown name raises `KeyError`."""
        if name not in SIGNALS:
            raise KeyError(name)
        return self.values.get(name)

    def map(self, name: str) -> FloatMap | None:
        """Rows x columns of even cells over the picture (NaN where a cell has nothing to measure), or `None`."""
        if name not in SIGNALS:
            raise KeyError(name)
        return self.maps.get(name)

    @property
    def is_native(self) -> bool:
        return self.scale >= NATIVE_SCALE

    def to_dict(self) -> dict[str, Any]:
        """The figures without the maps, rounded to five places."""
        return {
            "size": list(self.size),
            "scale": round(self.scale, 5),
            "values": {
                name: (None if value is None else round(value, 5)) for name, value in sorted(self.values.items())
            },
        }


NATIVE_SCALE = 0.97
"""A picture reduced by less than 3 % still counts as native: the grid is gone, but noise and blur are not."""

"""Metrics of pyiqa, an optional package: what each means, and its value. It must not know files or tables.

pyiqa is under a licence that forbids commercial use, so nothing of it comes along: it is reached only where the user
has installed it, and every mention says so. Three of its habits are kept from the rest of the program. It prints to
stdout, which belongs to records. It fetches weights without a limit of time. And it unpickles them: they are read here
as tensors alone, and metrics that would run code from the hub are refused.

Source: pyiqa 0.1.16 (`default_model_configs.py`, `models/inference_model.py`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from restore_bridge.metric import Kind, Metric, Pixels, check_same_size
from zoomiqa.errors import (
    BackendFailed,
    BackendUnknown,
    ExtraMissing,
    OptionInvalid,
    WeightsMissing,
    WeightsRefused,
    ZoomIQAError,
)

PREFIX = "pyiqa:"
LICENCE = "pyiqa: PolyForm Noncommercial 1.0.0; its weights mostly CC BY-NC-SA 4.0; no commercial use"

WITHOUT_DOWNLOAD = (
    "psnr",
    "psnry",
    "ssim",
    "ssimc",
    "ms_ssim",
    "cw_ssim",
    "fsim",
    "vsi",
    "vif",
    "gmsd",
    "nlpd",
    "mad",
    "entropy",
    "piqe",
)
"""Metrics of pyiqa that need no weights (each was run without a network)."""

OF_SETS = ("fid", "sfid", "fid_dinov2", "inception_score")
"""They judge folders of pictures, not one."""

RUNS_HUB_CODE = ("qalign", "compare2score")
"""Names, or beginnings of names, of metrics for which pyiqa runs code that it fetches from the hub."""

STALL_SECONDS = 20.0
"""A download that gives nothing for so long has failed."""

REACH_SECONDS = 5.0
"""How long the hub may take to answer at all before it counts as out of reach."""

SEED = 123
"""pyiqa's own default; some of its metrics judge random crops."""


def is_installed() -> bool:
    """Whether pyiqa is there; it is not imported."""
    return importlib.util.find_spec("pyiqa") is not None


def describe_all() -> list[dict[str, Any]]:
    """Every metric of the installed pyiqa, as `Metric.to_dict` says it; nothing is loaded.

    Raises:
        ExtraMissing: pyiqa is not installed.
    """
    _import_pyiqa("")
    configurations = _configurations()
    return [
        _describe(short, configurations[short], _no_value).to_dict() for short in configurations if _is_usable(short)
    ]


@lru_cache(maxsize=8)
def load(name: str) -> Metric:
    """The metric called `name` ("pyiqa:NAME"), with its weights.

    Raises:
        ExtraMissing: pyiqa is not installed.
        BackendUnknown: it has no such metric.
        OptionInvalid: the metric judges sets of pictures, or needs code from the hub.
        WeightsMissing: its weights are not on this machine and cannot be fetched.
        WeightsRefused: its weights hold more than tensors.
        BackendFailed: pyiqa cannot make it for another reason.
    """
    short = name.removeprefix(PREFIX)
    pyiqa = _import_pyiqa(name)
    configurations = _configurations()
    if short not in configurations:
        import difflib

        near = difflib.get_close_matches(short, configurations, n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else "see `restore-bridge score --list`"
        raise BackendUnknown(f"pyiqa {pyiqa.__version__} has no metric of that name", short, advice)
    if short in OF_SETS:
        raise OptionInvalid("this metric judges sets of pictures, not one", name, "run it by pyiqa's own command")
    if short.startswith(RUNS_HUB_CODE):
        raise OptionInvalid(
            "pyiqa runs code from the hub for this metric", name, "run it by pyiqa itself if you trust that code"
        )
    import torch

    try:
        with _guarded(short):
            model = pyiqa.create_metric(short, device=torch.device("cpu"))
    except Exception as error:
        raise _as_known(name, error) from error
    return _describe(short, configurations[short], _computer(name, model))


def _computer(name: str, model: Any) -> Callable[[Pixels, Pixels | None], float]:
    import torch

    def tensor(pixels: Pixels) -> Any:
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255

    def compute(picture: Pixels, reference: Pixels | None) -> float:
        given = [tensor(picture)]
        if model.metric_mode == "FR":
            if reference is None:
                raise OptionInvalid("this metric compares two pictures", "no reference", "give the reference")
            check_same_size(picture, reference)
            given.append(tensor(reference))
        try:
            with _quiet(), _own_draws(), torch.inference_mode():
                return float(model(*given))
        except MemoryError:
            reason = "memory ran out"
        except Exception as error:
            reason = _first_line(error)
        raise OptionInvalid(f"{name} cannot judge this picture", reason, "leave it out for pictures like this one")

    return compute


def _describe(short: str, configuration: Any, compute: Callable[[Pixels, Pixels | None], float]) -> Metric:
    kind: Kind = "full-reference" if configuration["metric_mode"] == "FR" else "no-reference"
    stated = configuration.get("score_range")
    download = "" if short in WITHOUT_DOWNLOAD else "; fetches its weights on first use"
    return Metric(
        PREFIX + short,
        kind,
        not configuration.get("lower_better", False),
        read_range(stated),
        f"{short} by pyiqa, its usual range as stated there: {stated or 'none'}{download}",
        compute,
        licence=LICENCE,
        is_range_rough=True,
        version=f"pyiqa {_import_pyiqa('').__version__}",
    )


def read_range(stated: str | None) -> tuple[float | None, float | None]:
    """pyiqa's range as numbers: "0, 1", "~0, ~10" (roughly) or "~, 2" (no lower bound).

    `None` stands for an end without a bound, and for both where nothing or something else is stated.
    """
    ends = [word.strip().lstrip("~") for word in (stated or "").split(",")]
    try:
        low, high = (float(end) if end else None for end in ends)
    except ValueError:
        return (None, None)
    return (low, high)


def _import_pyiqa(name: str) -> Any:
    if not is_installed():
        raise ExtraMissing(
            "metrics of pyiqa are not installed; its licence (PolyForm Noncommercial) forbids commercial use",
            name or None,
            'if yours is allowed, run: pip install "zoomiqa[metrics]"',
        )
    try:
        with _quiet():
            import pyiqa
    except Exception as error:
        raise BackendFailed(
            "pyiqa is installed but cannot be imported", _first_line(error), "install it anew, or leave its metrics out"
        ) from error
    return pyiqa


def _configurations() -> dict[str, Any]:
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    return dict(DEFAULT_CONFIGS)


def _is_usable(short: str) -> bool:
    return short not in OF_SETS and not short.startswith(RUNS_HUB_CODE)


def _no_value(picture: Pixels, reference: Pixels | None) -> float:  # noqa: ARG001
    raise BackendFailed("this metric was described, not loaded", None, "load it by its name")


@contextlib.contextmanager
def _guarded(short: str) -> Iterator[None]:
    """Make a metric: no talk on stdout, no endless download, no pickled code; all settings are put back."""
    before = socket.getdefaulttimeout(), os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    socket.setdefaulttimeout(STALL_SECONDS)
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # pyiqa asks torch for the unsafe reader
    try:
        with _quiet(), _own_draws(), contextlib.ExitStack() as stack:
            if short not in WITHOUT_DOWNLOAD and not hub_answers():
                stack.enter_context(_from_cache_alone())
            yield
    finally:
        socket.setdefaulttimeout(before[0])
        if before[1] is None:
            os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before[1]


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Whether the model hub can be reached; asked once per process."""
    import urllib.error
    import urllib.request

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not address.startswith(("https://", "http://")):
        return False
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the scheme was tested just above
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):  # noqa: S310 - likewise
            return True
    except urllib.error.HTTPError:
        return True  # it answered, if only to refuse this
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _from_cache_alone() -> Iterator[None]:
    """Keep Hugging Face's client from trying a hub out of reach again and again: 23 seconds for every file."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pyiqa's talk goes to stderr; warnings of a package that this project does not choose are no one's business."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _own_draws() -> Iterator[None]:
    """Random crops from a fixed seed; the global generators go on as if nothing had been drawn."""
    import torch

    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            np.random.seed(SEED)
            yield
    finally:
        np.random.set_state(state)


_NETWORK_PACKAGES = ("httpx", "huggingface_hub", "requests", "urllib3", "aiohttp")


def _as_known(name: str, error: Exception) -> ZoomIQAError:
    """What went wrong while a metric was made, as an error of this project."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any(isinstance(item, pickle.UnpicklingError) for item in chain):
        return WeightsRefused(
            f"the weights of {name} hold more than tensors, and reading that could run code",
            None,
            "use another metric; pyiqa itself would read them unchecked",
        )
    if any(isinstance(item, OSError) or type(item).__module__.split(".")[0] in _NETWORK_PACKAGES for item in chain):
        return WeightsMissing(
            f"the weights of {name} are not on this machine and cannot be fetched",
            _first_line(error),
            "run it once with a network (weights stay in the folders of TORCH_HOME and HF_HOME), or choose one that"
            f" needs none: {', '.join(WITHOUT_DOWNLOAD)}",
        )
    return BackendFailed(
        f"pyiqa cannot make {name}", _first_line(error), "use another metric, or another version of it"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__

"""The configuration of a run: a file of `configs/` over verl's own defaults, then `name=value` from the command line.

It must not know what the options mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from zoomiqa.errors import ExtraMissing, OptionInvalid

CONFIGS = Path(__file__).with_name("configs")

INSTALL = "see training/cluster/README.md: verl needs an environment of its own"


def compose(name: str, overrides: Sequence[str] = ()) -> Any:
    """A run's configuration, with this adapter's classes filled in.

    Args:
        name: Of a file in `configs/`, or the path of a file of one's own.
        overrides: In Hydra's form, `data.train_batch_size=32`.

    Returns:
        An OmegaConf `DictConfig`.

    Raises:
        ExtraMissing: verl is not installed.
        OptionInvalid: there is no such file, or an override names no option.
    """
    try:
        hydra, errors = import_module("hydra"), import_module("hydra.errors")
        import_module("verl")
    except ImportError as error:
        raise ExtraMissing("training on a cluster needs verl", error.name, INSTALL) from error
    file = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
        raise OptionInvalid("there is no such configuration", name, f"use {known}, or the path of a file")
    package = __package__
    filled = [
        "hydra.searchpath=[pkg://verl.trainer.config]",
        f"actor_rollout_ref.model.external_lib={package}.looks",
        f"data.custom_cls.path=pkg://{package}.data",
        "data.custom_cls.name=LaidOutPictures",
    ]
    try:
        with hydra.initialize_config_dir(str(file.resolve().parent), version_base=None):
            return hydra.compose(file.stem, overrides=[*filled, *overrides])
    except errors.HydraException as error:
        raise OptionInvalid("the configuration cannot be made", str(error).splitlines()[0], "see the file") from error

"""`python -m training.cluster`: compose the configuration, refuse what would not work, train. See README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from zoomiqa.errors import ZoomIQAError

from .configuration import compose
from .settings import check


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="GRPO of Zoom-IQA on a cluster, with verl 0.9.1."
    )
    parser.add_argument("--config", default="zoom_iqa_7b", help="a file of configs/, or a path (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="check the configuration, print it, and stop")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="options, in Hydra's form")
    given = parser.parse_args(arguments)
    try:
        config = compose(given.config, given.overrides)
        check(config)
    except ZoomIQAError as error:
        print(error, file=sys.stderr)
        return 2
    if given.show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(config))
        return 0

    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from .controller import train

    auto_set_device(config)
    validate_config(config, need_reference_policy(config), need_critic(config))
    train(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m deployments.environment serve_config.yaml``: the variables of a cluster's processes, for the shell.

They must be in the environment before Ray starts on a node, and in that of `serve run` or `serve deploy`:

    eval "$(python -m deployments.environment serve_config.yaml)"
    ray start --head

``--env-file`` prints lines without quotes, as Docker's ``--env-file`` and ``kubectl create configmap --from-env-file``
read them. Where a setting of the router changes, the front's variable changes too: print them anew.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.check import checked
from router.ingress import environment
from serve_args.cluster_environment import CLUSTER
from vlm.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Print the variables; the exit code is 1 where the config cannot be read, or cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.environment", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("config", type=Path, help="the Serve config whose router the cluster is to run")
    parser.add_argument("--env-file", action="store_true", help="NAME=value, without quotes and without export")
    options = parser.parse_args(argv)
    try:
        values = variables(options.config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, value in values.items():
        print(f"{name}={value}" if options.env_file else f"export {name}={shlex.quote(value)}")
    return 0


def variables(config: Path) -> Mapping[str, str]:
    """What the processes of a cluster need in their environment for the router of ``config``.

    Raises:
        ConfigError: The config cannot be read, or ``deployments.check --no-folders`` finds what would go wrong: the
            checkpoints' folders need not be on the machine where the variables are printed.
    """
    return {**CLUSTER, **environment(checked(config, folders=False))}


if __name__ == "__main__":
    sys.exit(main())

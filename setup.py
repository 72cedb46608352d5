"""Puts the bundled checkpoints and the config that serves them into the wheel; pyproject.toml says all the rest.

Sources outside a package can only be added by code. An installation in development mode has them beside the packages.
"""

from pathlib import Path
from shutil import copy2

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
BUNDLED = ("serve_config.local.yaml", "miniatures")
WITHIN = Path("deployments", "bundle")  # deployments/config.py looks there


class BuildWithBundle(build_py):
    """Copies the files behind the packages."""

    def run(self) -> None:
        """Build the packages, then add the bundle."""
        super().run()
        if self.editable_mode:
            return
        for source in (path for name in BUNDLED for path in _files(ROOT / name)):
            target = Path(self.build_lib) / WITHIN / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            copy2(source, target)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())


setup(cmdclass={"build_py": BuildWithBundle})

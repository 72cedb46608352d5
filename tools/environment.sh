#!/bin/sh
# Brings .venv to the versions in requirements/; returns at once if it has them already.
#
#   tools/environment.sh run|dev [GOAL]     GOAL is the target of make, for messages
#
# From the environment: PYTHON, the interpreter to make it with; TORCH_INDEX, the package index to take torch from, and
# nothing else; and PIP_EXTRA, further options for pip.
#
# .venv/made-of records what .venv was made of. It is removed first and written last, so a set-up that was interrupted or
# has failed has none, and .venv is then made again from scratch: pip takes a package for installed even if it was killed
# while it installed it. Downloads stay in pip's cache.

set -eu
cd "$(dirname "$0")/.."
kind=$1
goal=${2:-setup}
: "${PYTHON:=python3}" "${TORCH_INDEX:=}" "${PIP_EXTRA:=}"

fail() {
    echo "error: $*" >&2
    exit 1
}

sum() { cat "$@" | cksum; }
version_of() { "$1" -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
recorded() { grep -qxF "$1" .venv/made-of 2>/dev/null; }

# Scripts in .venv/bin and the installation of the sources name the folder; a system's upgrade can put another Python
# behind the same link.
place="place: $(pwd -P)"
run="run: $(sum requirements/run.lock requirements/torch.lock)"
dev="dev: $(sum requirements/dev.lock)"
project="project: $(sum pyproject.toml)"
python="python: $(version_of .venv/bin/python || echo none)"

# Development needs everything that running needs, so an environment for development serves both.
sound=no
if recorded "$place" && recorded "$run" && recorded "$python"; then
    if recorded "$dev"; then kind=dev sound=yes; fi
    if ! grep -q '^dev: ' .venv/made-of; then sound=yes; fi
fi
if [ $sound = yes ] && recorded "$project" && { [ "$kind" = run ] || recorded "$dev"; }; then exit 0; fi

if [ $sound = no ]; then
    advice="name a Python 3.11, 3.12 or 3.13: make $goal PYTHON=python3.12"
    command -v "$PYTHON" >/dev/null || fail "$PYTHON is not found; $advice"
    version=$(version_of "$PYTHON") || fail "$PYTHON does not run; $advice"
    case $version in
    3.11 | 3.12 | 3.13) ;;
    *) fail "$PYTHON is Python $version; $advice" ;;
    esac
    echo "Making .venv with Python $version: one to three minutes, 1.7 GB on the disk, and with torch for CPUs 400 MB"
    echo "to download, less what pip has in its cache."
    if [ "$(uname)" = Linux ] && [ -z "$TORCH_INDEX$PIP_EXTRA" ] && [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null; then
        echo "There is no NVIDIA GPU here, but on Linux torch from PyPI includes CUDA, 2.7 GB to download. Unless pip is"
        echo "set up to find the build for CPUs, press Ctrl-C and take it from PyTorch's own index:"
        echo "    make $goal TORCH_INDEX=https://download.pytorch.org/whl/cpu"
    fi
fi

rm -f .venv/made-of
[ $sound = yes ] || "$PYTHON" -m venv --clear .venv

pip() {
    # shellcheck disable=SC2086  # these are several words
    .venv/bin/python -m pip --disable-pip-version-check "$@" $PIP_EXTRA
}

# A lock has all dependencies, so pip need not resolve any; only torch's are resolved, because what its CUDA build needs
# is in no lock. The sources come last, so that the locked setuptools builds them and not a newer one.
echo "1 of 3: the packages of requirements/$kind.lock ..."
pip install --quiet --require-hashes --no-deps --requirement "requirements/$kind.lock"
echo "2 of 3: torch ..."
# An index that is given holds for torch alone. As an extra index for everything, it could offer a package under the name
# of any of ours. What torch itself needs is installed by now, save for CUDA's libraries.
pip install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement requirements/torch.lock
echo "3 of 3: the packages of this repository ..."
PYTHONWARNINGS=ignore pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -m pip check >.venv/conflicts || {
    cat .venv/conflicts >&2
    fail "the locks in requirements/ do not fit pyproject.toml; \`make lock\` renews them"
}

{
    printf '%s\n' "$place" "$run" "$project" "python: $(version_of .venv/bin/python)"
    [ "$kind" = run ] || echo "$dev"
} >.venv/made-of.part
mv .venv/made-of.part .venv/made-of

#!/bin/sh
# Makes .venv what the locks in requirements/ say, or does nothing where it is that already.
#
#   tools/environment.sh run|dev [GOAL]     GOAL is what make was asked for, and is only named in advice
#
# From the environment: PYTHON, the interpreter to make it with, and PIP_EXTRA, further options for pip.
#
# .venv/made-of says what .venv was made of. It is removed before anything is touched and written last, and so a set-up
# that was interrupted or has failed has none. Without it .venv is made again from nothing: pip takes a package that it
# was killed over for installed, and what is there cannot be trusted. What was downloaded is in pip's cache.

set -eu
cd "$(dirname "$0")/.."
kind=$1
goal=${2:-setup}
: "${PYTHON:=python3}" "${PIP_EXTRA:=}"

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

# What development needs is beyond what running does: such an environment does for both, and stays one.
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
    echo "to download, but for what pip has in its cache."
    if [ "$(uname)" = Linux ] && [ -z "$PIP_EXTRA" ] && [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null; then
        echo "No NVIDIA GPU is seen here, yet on Linux torch from PyPI brings CUDA along, 2.7 GB to download. Unless pip is"
        echo "set up to find the build for CPUs, press Ctrl-C and take it from PyTorch's own index:"
        echo "    make $goal PIP_EXTRA=\"--extra-index-url https://download.pytorch.org/whl/cpu\""
    fi
fi

rm -f .venv/made-of
[ $sound = yes ] || "$PYTHON" -m venv --clear .venv

pip() {
    # shellcheck disable=SC2086  # these are several words
    .venv/bin/python -m pip --disable-pip-version-check "$@" $PIP_EXTRA
}

# A lock names whatever its packages need, and so pip needs to look for nothing further. torch needs its own look: what
# its CUDA build brings along is in no lock. The sources last, built by the locked setuptools, and not by a newer one.
echo "1 of 3: what requirements/$kind.lock names ..."
pip install --quiet --require-hashes --no-deps --requirement "requirements/$kind.lock"
echo "2 of 3: torch ..."
pip install --quiet --requirement requirements/torch.lock
echo "3 of 3: this folder's packages, where they lie ..."
PYTHONWARNINGS=ignore pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -m pip check >.venv/conflicts || {
    cat .venv/conflicts >&2
    fail "the locks in requirements/ do not fit pyproject.toml; \`make lock\` writes them anew"
}

{
    printf '%s\n' "$place" "$run" "$project" "python: $(version_of .venv/bin/python)"
    [ "$kind" = run ] || echo "$dev"
} >.venv/made-of.part
mv .venv/made-of.part .venv/made-of

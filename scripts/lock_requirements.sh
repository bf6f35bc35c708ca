#!/bin/sh
# Rewrites requirements/*.txt: names, versions and hashes of every file of a release, for Python 3.11 to 3.14 on any
# architecture. The hashes are the whole trust: no index address is written, so any mirror serves.
# usage: scripts/lock_requirements.sh [--upgrade]      (needs uv: pip install uv)
set -eu
cd "$(dirname "$0")/.."

lock() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}

lock "$@" pyproject.toml requirements/build.in --output-file requirements/runtime.txt
lock "$@" --constraints requirements/runtime.txt requirements/dev.in --output-file requirements/dev.txt

#!/usr/bin/env bash
# Remake the pinned locks: `make lock`, or `UPGRADE=1 make lock` to move every pin to its newest allowed version.
#
# Both are resolved by uv from metadata alone, for Linux x86_64 and Python 3.11 (the resolution for 3.12 and 3.13 is
# the same for the CPU). Input: pyproject.toml with its extra `dev`, plus per kind
#   KIND.in         what the lock holds besides
#   KIND.overrides  what it leaves out, and why
# Pins already in a lock are kept as long as they are allowed; the GPU lock starts from the CPU lock's pins, so that
# the two differ only where they must.
set -euo pipefail
cd "$(dirname "$0")/../.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet uv

resolve() {
    local kind=$1 tested=$2
    local resolved=$scratch/$kind.txt
    "$scratch/venv/bin/uv" pip compile pyproject.toml --extra dev "launch/locks/$kind.in" \
        --override "launch/locks/$kind.overrides" --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --no-annotate --no-header --quiet ${UPGRADE:+--upgrade} --output-file "$resolved" >/dev/null
    {
        echo "# The pinned $kind environment of Keel, tools of the extra dev included. Made by launch/locks/remake.sh with uv,"
        echo "# from metadata alone, for Linux x86_64 and Python 3.11. $tested"
        echo "# Install: first torch with its own requirements, then this with --no-deps (launch/setup.py does both)."
        cat "$resolved"
    } >"launch/locks/$kind.txt"
}

pins() { if [ -f "$1" ]; then grep -v '^#' "$1"; fi; }

pins launch/locks/cpu.txt >"$scratch/cpu.txt"
resolve cpu "Installed and tested on CPU machines."
# Pins of the CPU lock win over older ones of the GPU lock: a name's first line is the one kept.
{ pins launch/locks/cpu.txt; pins launch/locks/gpu.txt; } | awk -F== '!seen[$1]++' >"$scratch/gpu.txt"
resolve gpu "Resolved only: no machine with a GPU has installed it yet."

#!/usr/bin/env bash
# Builds the native core beside its sources, for work on it: build_native.sh [PYTHON [cmake options]].
#
# Needs nanobind in PYTHON's environment, and cmake and ninja there or on the PATH. Only what has changed is compiled;
# build/ keeps a folder for each interpreter. Where there is no C++ compiler it says so and succeeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(command -v "${1:-python3}")
shift || true
PATH="$(dirname "$python"):$PATH"
suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
build="build/native${suffix%.so}"
mkdir -p "$build"
exec 9> "$build/lock"
if command -v flock > /dev/null; then flock 9; fi  # ninja does not guard a folder against a second ninja

if [[ ! -f $build/_core$suffix || $# -gt 0 ]]; then
    cmake -S . -B "$build" -G Ninja --log-level=WARNING -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$python" "$@"
fi
cmake --build "$build" -- --quiet
if [[ -f $build/_core$suffix ]]; then
    # Renamed into place: a process that has the old one mapped keeps it.
    target=src/loquent/native/_core$suffix
    cmp --silent "$build/_core$suffix" "$target" || { cp "$build/_core$suffix" "$target.new" && mv "$target.new" "$target"; }
fi

#!/usr/bin/env bash
# Installs the engines that benchmarks/cpu.py compares with, each into an environment of its own; nothing of the package.
#
#   benchmarks/install_peers.sh [FOLDER] [--python PYTHON] [--transformers-python PYTHON] [--only NAME]
#
# FOLDER               where the environments go: ~/.cache/loquent-peers without it
# --python             makes the environments: python3 without it
# --transformers-python  an interpreter that has transformers and torch already, whose packages are then shared
# --only               transformers, llama or ctranslate2
#
# TORCH_INDEX=URL takes torch from another package index, such as the one of the builds without CUDA.
# llama.cpp is built from source for this very machine, with cmake and a C++ compiler (JOBS=2 at a time): that takes
# about five to thirty minutes on two cores. Everything else are wheels.
set -euo pipefail

folder="$HOME/.cache/loquent-peers" python=python3 shared="" only=""
while (($#)); do
    case $1 in
        --python) python=$2; shift 2 ;;
        --transformers-python) shared=$2; shift 2 ;;
        --only) only=$2; shift 2 ;;
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit ;;
        -*) echo "unknown option $1; see --help" >&2; exit 2 ;;
        *) folder=$1; shift ;;
    esac
done
case $only in "" | transformers | llama | ctranslate2) ;; *) echo "--only takes transformers, llama or ctranslate2, not $only" >&2; exit 2 ;; esac

pip() { # environment, arguments
    local environment=$1
    shift
    "$folder/$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

environment() { # name: made where it is not there yet
    echo "$folder/$1 ..." >&2
    [[ -x "$folder/$1/bin/python" ]] || "$python" -m venv "$folder/$1"
}

wanted() { [[ -z $only || $only == "$1" ]]; }

mkdir -p "$folder"

if wanted transformers; then # measures transformers, and writes CTranslate2's folders with its converter
    environment transformers
    if [[ -n $shared ]]; then
        site='import sysconfig; print(sysconfig.get_path("purelib"))'
        "$shared" -c "$site" >"$("$folder/transformers/bin/python" -c "$site")/shared.pth"
    else
        pip transformers torch==2.13.0 ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
        pip transformers transformers==5.23.0
    fi
    pip transformers ctranslate2==4.8.5
fi

if wanted ctranslate2; then # without torch, as CTranslate2 is meant to be run
    environment ctranslate2
    pip ctranslate2 ctranslate2==4.8.5 tokenizers==0.22.2
fi

if wanted llama; then
    environment llama
    CMAKE_ARGS="-DGGML_NATIVE=ON" CMAKE_BUILD_PARALLEL_LEVEL="${JOBS:-2}" \
        pip llama --no-binary llama-cpp-python llama-cpp-python==0.3.36 gguf==0.19.0 safetensors==0.8.0
fi

#!/bin/sh
# What MXFP4 costs glm-nano in right answers, perplexity and divergence: builds quern, makes the
# models with `quern quantize`, measures them with `quern eval`, prints the table of docs/quality.md.
set -eu

packages="gcc g++ libc6-dev cmake ninja-build pkg-config libjansson-dev libpcre2-dev libxxhash-dev libedit-dev
 libmicrohttpd-dev libcurl4-gnutls-dev python3 python3-numpy git"

usage() {
    cat <<'END'
usage: bench/quality.sh [--limit N] [--keep FOLDER] [--text FILE] [--no-install]

  --limit N       problems of each task (200: all of tests/eval)
  --keep FOLDER   models and results stay there, and what is there is not made again
  --text FILE     the text that is read (the questions of tests/eval, first 10,000 tokens)
  --no-install    fail instead of installing missing packages

13 minutes of CPU time, 250 MB of disk for models and 250 MB for logits.
END
}

limit=200
keep=""
text=""
may_install=yes
while [ $# -gt 0 ]; do
    case $1 in
    --limit | --keep | --text)
        [ $# -gt 1 ] || { echo "quality: error: $1: nothing follows, expected a value" >&2; exit 2; }
        case $1 in
        --limit) limit=$2 ;;
        --keep) keep=$(realpath -m "$2") ;;
        --text) text=$(realpath "$2") ;;
        esac
        shift ;;
    --no-install) may_install=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quality: error: $1: no such option, expected one of --help" >&2; exit 2 ;;
    esac
    shift
done
cd "$(dirname "$0")/.."

. tools/packages.sh
install_packages "$may_install" $packages >&2

{
    cmake --preset release
    cmake --build --preset release -j "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" --target quern
} >&2

. bench/models.sh
open_folder "$keep"
quantize() { # OPTION... SOURCE TARGET
    build/release/quern quantize -q "$@"
}
make experts quantize models/glm-nano
make experts-mse quantize --scale mse models/glm-nano
make experts-mtp quantize --mtp mxfp4 models/glm-nano
make mlp quantize --recipe mlp models/glm-nano
make fp8 /usr/bin/python3 -B bench/models.py fp8 models/glm-nano
make fp8-experts quantize "$folder/fp8"

/usr/bin/python3 -B bench/quality.py --limit "$limit" ${text:+--text "$text"} "$folder"

#!/bin/sh
# quern quantize against cp, memcpy and AMD Quark on this machine: builds it, makes the files,
# measures in turns and prints the tables of docs/performance.md.
set -eu

packages="gcc g++ libc6-dev cmake ninja-build pkg-config libjansson-dev libpcre2-dev libxxhash-dev libedit-dev
 libmicrohttpd-dev libcurl4-gnutls-dev libcmocka-dev binutils python3 python3-venv python3-numpy"

usage() {
    cat <<'END'
usage: bench/quantize.sh [--quick] [--keep FOLDER] [--venv FOLDER] [--no-quark] [--experts N]
                         [--threads N] [--rounds N] [--no-install]

Measures a dense and a sparse layer of GLM-5.2 in bf16, dummy values.  Takes about ten minutes,
three times the files' size on the disk of FOLDER, and 6 GB for Quark the first time.

  --quick         2 experts, one round: shows that all of it works
  --keep FOLDER   the files stay there, and are taken from there (else a folder in build/)
  --venv FOLDER   Quark in a virtual environment, made when it is not there (build/quark)
  --no-quark      without Quark
  --experts N     of 75 MB (48: 4.8 GB in all; 256 are the whole layer, 20.5 GB)
  --threads N     of quern, and the most of Quark (one for each CPU)
  --rounds N      repeats (5)
  --no-install    fail instead of installing missing packages
END
}

quick=""
keep=""
venv=build/quark
quark=yes
experts=48
threads=$(nproc)
rounds=5
may_install=yes
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    --keep | --venv | --experts | --threads | --rounds)
        [ $# -gt 1 ] || { echo "quantize: error: $1: nothing follows, expected a value" >&2; exit 2; }
        case $1 in
        --keep) keep=$(realpath -m "$2") ;;
        --venv) venv=$(realpath -m "$2") ;;
        --experts) experts=$2 ;;
        --threads) threads=$2 ;;
        --rounds) rounds=$2 ;;
        esac
        shift ;;
    --no-quark) quark=no ;;
    --no-install) may_install=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quantize: error: $1: no such option, expected one of --help" >&2; exit 2 ;;
    esac
    shift
done
if [ -n "$quick" ]; then
    experts=2
    rounds=1
fi
cd "$(dirname "$0")/.."

. tools/packages.sh
install_packages "$may_install" $packages >&2

jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
{
    cmake --preset release
    cmake --build --preset release -j "$jobs" --target quern kernelcheck
} >&2

files=$keep
if [ -z "$files" ]; then
    mkdir -p build
    files=$(mktemp -d build/quantize.XXXXXX)
    trap 'rm -rf "$files"' EXIT
    trap 'exit 130' INT TERM
fi
mkdir -p "$files"
layer=$files/layer-$experts
if [ ! -e "$layer" ]; then
    echo "Making a layer with $experts experts" >&2
    rm -rf "$files/new"
    /usr/bin/python3 -B bench/models.py layer "$files/new" "$experts"
    mv "$files/new" "$layer"
fi
[ "$quark" = no ] || set -- --venv "$venv"
python3 -B bench/quantize.py --threads "$threads" --rounds "$rounds" "$@" "$layer" "$files/out"

#!/bin/sh
# quern against llama.cpp on this CPU: builds both, makes the models, measures them in turns and
# prints the tables of docs/performance.md.
set -eu

packages="gcc g++ libc6-dev cmake ninja-build pkg-config libjansson-dev libpcre2-dev libxxhash-dev libedit-dev
 binutils python3 python3-venv git"
# The versions that the figures of docs/performance.md are about.
peer="llama-cpp-python==0.3.36"
peer_needs="gguf==0.19.0 numpy"

usage() {
    cat <<'END'
usage: bench/cpu_peer.sh [--quick] [--keep FOLDER] [--peer FOLDER] [--threads N] [--no-install]
                         [TASK.jsonl...]

Measures glm-nano and a seeded model of 1.3 billion parameters, in bf16 and with MXFP4 experts, in
both programs, and quern's FP8. Takes about half an hour and 8 GB of disk the first time.

  TASK.jsonl      problems whose answers tell how the default compute mode differs from f32, lines
                  {"messages": [...]}; without one, a few prompts of bench/cpu_peer.py
  --quick         one round, few repeats, nothing at depth 4,096: shows that all of it works
  --keep FOLDER   the made models stay there, and are taken from there
  --peer FOLDER   llama.cpp in a virtual environment, made when it is not there (build/peer)
  --threads N     threads of both programs (2)
  --no-install    fail instead of installing missing packages
END
}

quick=""
keep=""
peer_folder=build/peer
threads=2
may_install=yes
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick ;;
    --keep | --peer | --threads)
        [ $# -gt 1 ] || { echo "cpu_peer: error: $1: nothing follows, expected a value" >&2; exit 2; }
        case $1 in
        --keep) keep=$(realpath -m "$2") ;;
        --peer) peer_folder=$(realpath -m "$2") ;;
        --threads) threads=$2 ;;
        esac
        shift ;;
    --no-install) may_install=no ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "cpu_peer: error: $1: no such option, expected one of --help" >&2; exit 2 ;;
    *) break ;;
    esac
    shift
done

for task in "$@"; do # from here on paths are the same in every folder
    shift
    set -- "$@" "$(realpath "$task")"
done
cd "$(dirname "$0")/.."

. tools/packages.sh
install_packages "$may_install" $packages >&2

jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
{
    cmake --preset release
    cmake --build --preset release -j "$jobs" --target quern bench_cpu_speed bench_read_bandwidth
} >&2

python="$peer_folder/venv/bin/python"
if ! "$python" -c "import llama_cpp, gguf" 2>/dev/null; then
    mkdir -p "$peer_folder"
    python3 -m venv "$peer_folder/venv"
    CMAKE_BUILD_PARALLEL_LEVEL=$jobs \
        CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF" \
        "$python" -m pip install --no-binary llama-cpp-python "$peer" $peer_needs >&2
fi

models=$keep
if [ -z "$models" ]; then
    models=$(mktemp -d build/models.XXXXXX)
    trap 'rm -rf "$models"' EXIT
    trap 'exit 130' INT TERM
fi
mkdir -p "$models"

# make NAME COMMAND...: one file or folder of models.py, not made again and never half there.
make() {
    name=$1
    shift
    [ -e "$models/$name" ] && return
    echo "Making $name" >&2
    rm -rf "$models/new"
    "$python" -B bench/models.py "$@" "$models/new"
    mv "$models/new" "$models/$name"
}
make nano-mxfp4 mxfp4 models/glm-nano
make nano-bf16.gguf gguf models/glm-nano
make nano-mxfp4.gguf gguf "$models/nano-mxfp4"
make dummy-bf16 dummy
make dummy-mxfp4 mxfp4 "$models/dummy-bf16"
make dummy-fp8 fp8 "$models/dummy-bf16"
make dummy-bf16.gguf gguf "$models/dummy-bf16"
make dummy-mxfp4.gguf gguf "$models/dummy-mxfp4"

"$python" -B bench/cpu_peer.py $quick --threads "$threads" "$models" "$@"

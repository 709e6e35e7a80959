# Sourced by bench/cpu_peer.sh, batch_peer.sh, serve_peer.sh and server_reports.sh, which set usage(), $program, $targets
# and, where the seeded model is not needed, only_nano=yes: takes their options, builds quern and
# llama.cpp, makes the models.  Leaves $quick, $rounds, $python, $peer, $peer_folder, $models, $jobs and
# $threads behind, make() of bench/models.sh and model(), the working folder in the root, and what follows the
# options in "$@".

packages="gcc g++ libc6-dev cmake ninja-build pkg-config libjansson-dev libpcre2-dev libxxhash-dev libedit-dev
 libmicrohttpd-dev libcurl4-gnutls-dev binutils python3 python3-venv git"
# The versions that the figures of docs/performance.md are about.
peer="llama-cpp-python==0.3.36"
peer_needs="gguf==0.19.0 numpy"

quick=""
rounds=""
keep=""
peer_folder=build/peer
threads=${threads:-2}
may_install=yes
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick ;;
    --keep | --peer | --threads | --rounds)
        [ $# -gt 1 ] || { echo "$program: error: $1: nothing follows, expected a value" >&2; exit 2; }
        case $1 in
        --keep) keep=$(realpath -m "$2") ;;
        --peer) peer_folder=$(realpath -m "$2") ;;
        --threads) threads=$2 ;;
        --rounds) rounds="--rounds $2" ;;
        esac
        shift ;;
    --no-install) may_install=no ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "$program: error: $1: no such option, expected one of --help" >&2; exit 2 ;;
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
    cmake --build --preset release -j "$jobs" --target $targets
} >&2

python="$peer_folder/venv/bin/python"
if ! "$python" -c "import llama_cpp, gguf" 2>/dev/null; then
    mkdir -p "$peer_folder"
    python3 -m venv "$peer_folder/venv"
    CMAKE_BUILD_PARALLEL_LEVEL=$jobs \
        CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF" \
        "$python" -m pip install --no-binary llama-cpp-python "$peer" $peer_needs >&2
fi

. bench/models.sh
open_folder "$keep" build # GB, for which /tmp may have no room
models=$folder
model() { # COMMAND... TARGET: a file or folder of models.py
    "$python" -B bench/models.py "$@"
}
# need_python_server: llama_cpp.server with what it needs, in that virtual environment.
need_python_server() {
    "$python" -c "import llama_cpp.server.app" 2>/dev/null ||
        "$python" -m pip install -q --no-binary llama-cpp-python "llama-cpp-python[server]${peer#*python}" >&2
}

if [ "${only_nano:-no}" = no ]; then
    make nano-mxfp4 model mxfp4 models/glm-nano
    make nano-bf16.gguf model gguf models/glm-nano
    make nano-mxfp4.gguf model gguf "$models/nano-mxfp4"
    make dummy-bf16 model dummy
    make dummy-mxfp4 model mxfp4 "$models/dummy-bf16"
    make dummy-bf16.gguf model gguf "$models/dummy-bf16"
    make dummy-mxfp4.gguf model gguf "$models/dummy-mxfp4"
fi

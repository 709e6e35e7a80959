# Sourced by the scripts of this folder: where programs are, which GPU is meant.
# They run from the source and from a bundle (tools/gpu/bundle.sh).

top=$(cd "$(dirname "$0")/../.." && pwd)
program=$(basename "$0")
if [ -n "${QUERN_BUILD:-}" ] || [ ! -x "$top/bin/quern" ]; then
    QUERN_BUILD=${QUERN_BUILD:-$top/build/release}
    quern=$QUERN_BUILD/quern
    tests=$QUERN_BUILD/tests
else
    quern=$top/bin/quern
    tests=$top/bin
fi
gpucheck=$tests/gpucheck
device=cuda
[ -e /dev/nvidiactl ] || [ ! -e /dev/kfd ] || device=hip

# fail TEXT...
fail() {
    echo "$program: error: $*" >&2
    exit 2
}

# need OPTION N_ARGUMENTS: an option that takes a value is not the last.
need() {
    [ "$2" -gt 1 ] || fail "$1: nothing behind it, a value expected"
}

need_gpucheck() {
    [ -x "$gpucheck" ] || fail "$gpucheck: not there, expected cmake --build to have made it" \
        "(it needs clang-22, lld-22, libzstd-dev, libcmocka-dev)"
}

# find_tool NAME: prints its path; CUDA's toolkit is in PATH of few.
find_tool() {
    command -v "$1" && return 0
    for found in /usr/local/cuda/bin/"$1" /opt/nvidia/*/*/"$1" /usr/local/cuda*/bin/"$1" \
        /usr/local/cuda/"$1"/"$1"; do
        [ -x "$found" ] && [ ! -d "$found" ] && echo "$found" && return 0
    done
    return 1
}

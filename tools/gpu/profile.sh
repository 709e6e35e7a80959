#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One operation below NVIDIA's profilers, at the sizes of its benchmark.
set -u
. "$(dirname "$0")/common.sh"

usage() {
    cat <<END
usage: tools/gpu/profile.sh [--tool ncu|nsys] [--device NAME] [--kernel REGEX] [--count N]
                            [--output NAME] [--help] OP

Profiles the benchmark of an operation of gpucheck --list: by ncu (counters of single launches,
which needs their permission) where it is found, else by nsys (when each kernel ran).

  --tool NAME     ncu or nsys; ncu if not given, nsys where there is no ncu
  --device NAME   cuda[:N]; $device if not given
  --kernel REGEX  of ncu: kernels by name; all but those that measure the machine if not given
  --count N       of ncu: launches to look at, 10 if not given
  --output NAME   of the report, without its suffix; the name of the operation if not given

QUERN_BUILD: a build folder, where it is not build/release or this bundle.
END
}

tool=""
kernel='^qn_gpu_(r[^o]|ro[^o]|[^r])' # not roof_
count=10
output=""
op=""
while [ $# -gt 0 ]; do
    case $1 in
    --tool) need "$1" $#; tool=$2; shift ;;
    --device) need "$1" $#; device=$2; shift ;;
    --kernel) need "$1" $#; kernel=$2; shift ;;
    --count) need "$1" $#; count=$2; shift ;;
    --output) need "$1" $#; output=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) [ -z "$op" ] || { usage >&2; exit 2; }
        op=$1 ;;
    esac
    shift
done
[ -n "$op" ] || { usage >&2; exit 2; }
need_gpucheck
output=${output:-$op}
case $tool in
"" | ncu | nsys) ;;
*) fail "--tool: $tool, ncu or nsys expected" ;;
esac
# The first that was asked for and is there.
for name in ${tool:-ncu nsys}; do
    if found=$(find_tool "$name"); then
        tool=$name
        break
    fi
done
[ -n "${found:-}" ] ||
    fail "${tool:-ncu, nsys}: not found, expected in PATH or /usr/local/cuda/bin (Nsight of CUDA's toolkit)"

set -- "$gpucheck" --device "$device" --only "$op" --bench --unchecked
if [ "$tool" = ncu ]; then
    exec "$found" --set full --kernel-name-base function --kernel-name "regex:$kernel" \
        --launch-count "$count" --force-overwrite --export "$output" "$@"
fi
exec "$found" profile --trace cuda --cuda-graph-trace node --stats true --force-overwrite true \
    --output "$output" "$@"

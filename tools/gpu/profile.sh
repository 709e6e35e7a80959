#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One operation below NVIDIA's profilers, at the sizes of its benchmark, or a whole model.
set -u
. "$(dirname "$0")/common.sh"

usage() {
    cat <<END
usage: tools/gpu/profile.sh [--tool ncu|nsys] [--device NAME] [--kernel REGEX] [--count N]
                            [--output NAME] [--help] OP
       tools/gpu/profile.sh --whole [--device NAME] [--output NAME] MODEL [OPTION...]

Profiles the benchmark of an operation of gpucheck --list: by ncu (counters of single launches,
which needs their permission) where it is found, else by nsys (when each kernel ran).

With --whole CUDA's CUPTI says when each kernel, copy and fill of 'quern bench engine MODEL OPTION...' ran
(one sequence with five drafts and dummy weights if no option is given). Behind what that prints stands how
long the device had work once the model was loaded, and how long it had none between two of them. What is
longer than 50 us is not such a gap but a wait for the host. It needs a C compiler, and CUPTI of CUDA's
toolkit in /usr/local/cuda, or where the variable CUPTI says: a folder with include/ and lib64/ or lib/.

  --tool NAME     ncu or nsys; ncu if not given, nsys where there is no ncu
  --device NAME   cuda[:N]; $device if not given
  --kernel REGEX  of ncu: kernels by name; all but those that measure the machine if not given
  --count N       of ncu: launches to look at, 10 if not given
  --output NAME   of the report, without its suffix; the name of the operation, or whole, if not given
                  (whole.csv: a line "start,duration,name" in ns for each kernel, copy and fill)

QUERN_BUILD: a build folder, where it is not build/release or this bundle.
END
}

tool=""
whole=""
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
    --whole) whole=yes ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) [ -z "$op" ] || fail "$1: behind $op, expected nothing (--whole stands in front of MODEL)"
        op=$1
        [ -z "$whole" ] || { shift; break; } ;; # the rest is for quern
    esac
    shift
done
[ -n "$op" ] || { usage >&2; exit 2; }

# Sums of a trace in order, behind the kernels that load; awk's numbers are exact for 104 days of ns.
sum_gaps() {
    awk -F, -v most=50000 '
        $3 ~ /^qn_gpu_(pack|dummy)$/ { n = gaps = waits = n_gaps = n_waits = 0; next }
        n++ == 0 { first = last = $1 }
        $1 > last && $1 - last <= most { gaps += $1 - last; n_gaps++ }
        $1 > last && $1 - last > most { waits += $1 - last; n_waits++ }
        $1 + $2 > last { last = $1 + $2 }
        END {
            if (n == 0) { exit 1 }
            busy = last - first - gaps - waits
            printf "%d kernels, copies and fills: %.3f ms of work\n", n, busy * 1e-6
            printf "%d gaps: %.3f ms, %.2f us in the mean, %.1f %% of work and gaps\n", n_gaps, gaps * 1e-6,
                (n_gaps > 0) ? gaps / n_gaps * 1e-3 : 0, 100 * gaps / (busy + gaps)
            printf "%d waits: %.3f ms\n", n_waits, waits * 1e-6
        }'
}

# Makes $trace, the library that writes a trace, of trace.c and CUPTI.
make_tracer() {
    if [ -n "${CUPTI:-}" ]; then
        set -- "$CUPTI"
    else
        set -- /usr/local/cuda/extras/CUPTI /usr/local/cuda/targets/*-linux
    fi
    for cupti in "$@"; do
        for library in "$cupti"/lib64/libcupti.so* "$cupti"/lib/libcupti.so*; do
            [ ! -e "$library" ] || [ ! -e "$cupti/include/cupti_activity.h" ] || break 2
        done
        library=""
    done
    [ -n "$library" ] || fail "CUPTI: no include/cupti_activity.h and lib64/libcupti.so in $*, expected those of" \
        "CUDA's toolkit (CUPTI names their folder)"
    "${CC:-cc}" -std=gnu11 -O2 -Wall -shared -fPIC -I"$cupti/include" -I"$cupti/../../include" \
        -I/usr/local/cuda/include "$top/tools/gpu/trace.c" -o "$trace" "$library" \
        -Xlinker -rpath -Xlinker "$(dirname "$library")" ||
        fail "trace.c: not compiled, expected a C compiler and the headers of CUDA's toolkit"
}

if [ -n "$whole" ]; then
    [ -x "$quern" ] || fail "$quern: not there, expected cmake --build to have made it"
    folder=$(mktemp -d) || exit
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 130' INT TERM
    trace=$folder/trace.so
    make_tracer
    [ $# -gt 0 ] || set -- --load-format dummy --batch 1 --context 0 --prompt-tokens 16 --output-tokens 256 \
        --draft-tokens 5 --acceptance-length 3.61 --repeat 1
    output=${output:-whole}.csv
    CUDA_INJECTION64_PATH=$trace QUERN_TRACE=$folder/trace.csv \
        "$quern" bench engine "$op" --device "$device" "$@" || exit
    [ -e "$folder/trace.csv" ] || fail "$device: no trace of it, expected one of an NVIDIA GPU that CUPTI knows"
    sort -t , -n -k 1,1 "$folder/trace.csv" >"$output" || exit
    sum_gaps <"$output" || fail "$output: no kernels, copies or fills, some expected behind the load of a model"
    exit 0
fi
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

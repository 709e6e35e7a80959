#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# compute-sanitizer over gpucheck; ends with "N clean, N findings".
set -u
. "$(dirname "$0")/common.sh"

usage() {
    cat <<END
usage: tools/gpu/sanitize.sh [--tool NAME]... [--device NAME] [--timeout SECONDS] [--help] [OP...]

Runs the operations of gpucheck with small shapes below compute-sanitizer (of CUDA's toolkit), once
for each tool. With OPs, those alone, each in a process of its own.

  --tool NAME        memcheck, racecheck, synccheck or initcheck; the first three if not given
  --device NAME      cuda[:N]; $device if not given
  --timeout SECONDS  of one run; 600 if not given. What runs out of time is a finding

The last line counts runs without a finding, and findings.
QUERN_BUILD: a build folder, where it is not build/release or this bundle.
END
}

tools=""
ops=""
limit=600
while [ $# -gt 0 ]; do
    case $1 in
    --tool) need "$1" $#; tools="$tools $2"; shift ;;
    --device) need "$1" $#; device=$2; shift ;;
    --timeout) need "$1" $#; limit=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) ops="$ops $1" ;;
    esac
    shift
done
need_gpucheck
sanitizer=$(find_tool compute-sanitizer) ||
    fail "compute-sanitizer: not found, expected in PATH or /usr/local/cuda/bin (CUDA's toolkit has it)"

case " ${tools:-racecheck} " in
*" racecheck "*)
    version=$(timeout 10 "$sanitizer" --version 2>/dev/null | sed -n 's/^Version \(20[0-9.]*\).*/\1/p')
    # Its release notes: "Fixed multiple false-positives in racecheck involving mbarrier usage".
    if [ -n "$version" ] && [ "$(printf '%s\n2025.4\n' "$version" | sort -V | head -1)" != 2025.4 ]; then
        echo "sanitize.sh: warning: compute-sanitizer $version takes reads behind barriers in shared memory for" \
            "races (matmul, matmul_chain), 2025.4 or later expected" >&2
    fi
    ;;
esac

clean=0
findings=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# sanitize TOOL NAME GPUCHECK-OPTION...
sanitize() {
    tool=$1
    name=$2
    shift 2
    started=$(date +%s)
    # A kernel is looked for in every module: that some calls find none is no error.
    timeout "$limit" "$sanitizer" --tool "$tool" --report-api-errors no \
        "$gpucheck" --device "$device" --sanitized "$@" >"$log" 2>&1
    status=$?
    [ "$status" != 124 ] || echo "no end after $limit s" >>"$log"
    # "ERROR SUMMARY: 0 errors", "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    n=$(sed -n 's/.* SUMMARY: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    if [ "$status" != 0 ] && [ "${n:-0}" = 0 ]; then
        n=1
    elif [ -z "$n" ]; then # no word of the sanitizer
        n=1
    fi
    if [ "$n" = 0 ]; then
        clean=$((clean + 1))
    else
        findings=$((findings + n))
        head -60 "$log"
        tail -5 "$log"
    fi
    echo "$tool $name: $n findings, $(($(date +%s) - started)) s"
}

for tool in ${tools:-memcheck racecheck synccheck}; do
    [ -n "$ops" ] || sanitize "$tool" "all operations"
    for op in $ops; do
        sanitize "$tool" "$op" --only "$op"
    done
done
echo "$clean clean, $findings findings"
[ "$findings" = 0 ]

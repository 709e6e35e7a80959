#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tests of GPUs, on the one of this machine; ends with "N passed, N failed".
set -u
. "$(dirname "$0")/common.sh"

usage() {
    cat <<END
usage: tools/gpu/check.sh [--device NAME] [--only OP] [--seed N] [--help]

Holds every operation of a GPU against references on the CPU (gpucheck), and the driver
against what is expected of it (unit_device_cuda, NVIDIA only).

  --device NAME  cuda[:N] or hip[:N]; $device if not given
  --only OP      one operation of gpucheck --list, and not the driver
  --seed N       seed of the inputs, 1 if not given

QUERN_BUILD: a build folder, where it is not build/release or this bundle.
END
}

only=""
seed=1
while [ $# -gt 0 ]; do
    case $1 in
    --device) need "$1" $#; device=$2; shift ;;
    --only) need "$1" $#; only=$2; shift ;;
    --seed) need "$1" $#; seed=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
need_gpucheck

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# count PASSED FAILED STATUS: a program that ended badly failed at least once.
count() {
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-0}))
    [ "$3" = 0 ] || [ "${2:-0}" -gt 0 ] || failed=$((failed + 1))
}

"$quern" devices
"$gpucheck" --device "$device" --seed "$seed" ${only:+--only "$only"} >"$log" 2>&1
status=$?
cat "$log"
# shellcheck disable=SC2046
count $(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed on .*/\1 \2/p' "$log" | grep . || echo 0 0) $status

case $device in
cuda*)
    if [ -z "$only" ] && [ -x "$tests/unit_device_cuda" ]; then
        # The test takes the first that it sees, and others where there are more.
        number=${device#cuda}
        number=${number#:}
        if [ -n "$number" ] && [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
            number=$(echo "$CUDA_VISIBLE_DEVICES" | cut -d , -f "$((number + 1))")
        fi
        env ${number:+"CUDA_VISIBLE_DEVICES=$number"} "$tests/unit_device_cuda" >"$log" 2>&1
        status=$?
        cat "$log"
        count "$(sed -n 's/.*  PASSED  \] \([0-9]*\) test.*/\1/p' "$log")" \
            "$(sed -n 's/.*  FAILED  \] \([0-9]*\) test.*/\1/p' "$log")" $status
    fi
    ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

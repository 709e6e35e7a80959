#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Times of every operation on the GPU of this machine, as a table and as JSON.
set -u
. "$(dirname "$0")/common.sh"

usage() {
    cat <<END
usage: tools/gpu/bench.sh [--device NAME] [--only OP] [--output FILE] [--help]

Checks each operation (gpucheck), then times it with a cold cache, beside what the machine reads
and multiplies in the same run.

  --device NAME  cuda[:N] or hip[:N]; $device if not given
  --only OP      one operation of gpucheck --list
  --output FILE  rows as JSON; gpucheck.json if not given

QUERN_BUILD: a build folder, where it is not build/release or this bundle.
END
}

only=""
output=gpucheck.json
while [ $# -gt 0 ]; do
    case $1 in
    --device) need "$1" $#; device=$2; shift ;;
    --only) need "$1" $#; only=$2; shift ;;
    --output) need "$1" $#; output=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
need_gpucheck
"$quern" --version
"$quern" devices
if smi=$(find_tool nvidia-smi); then
    "$smi" --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv
fi
exec "$gpucheck" --device "$device" --bench --json "$output" ${only:+--only "$only"}

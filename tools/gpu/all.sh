#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# All that is checked and measured on a GPU, one thing after the other: what fails does not keep the rest
# from being run.
set -u
. "$(dirname "$0")/common.sh"

steps="check model engine cache quality layer bench tune whole sanitize"
usage() {
    cat <<END
usage: tools/gpu/all.sh [--device NAME] [--limit SECONDS] [--output FOLDER] [--help] [STEP...]

Runs these, or those that are named, from the source as it was built; a log each in FOLDER. Ends with
"N passed, N failed".

  check     tools/gpu/check.sh: every operation, and the driver
  model     gpumodel_test: layers of tiny models; 200 problems beside transformers in bf16
  engine    gpuengine_test: steps of many sequences
  cache     golden_cache: conversations cold, warm, evicted and in a crowd of 64, bit for bit with
            --deterministic, some of them in FP8 and MXFP4, too; near without
  quality   bench/gpu_quality.sh: bf16, FP8, MXFP4 against the CPU in f32
  layer     tools/gpu/layer.sh: one layer of GLM-5.2's shape at 65,536 positions
  bench     tools/gpu/bench.sh: every operation, its result in bench.json
  tune      quern tune of one rank of four of GLM-5.2, into tuning.csv
  whole     bench/gpu_whole.sh --rate 0.3: a server of such a rank; needs 140 GB
  sanitize  tools/gpu/sanitize.sh: memcheck, racecheck, synccheck

cache and quality make glm-nano in FP8, for which python3 needs numpy.

  --device NAME      cuda[:N] or hip[:N]; $device if not given
  --limit SECONDS    of a program; 1800 if not given
  --output FOLDER    build/gpu if not given

QUERN_BUILD: a build folder, where it is not build/release.
END
}

limit=1800
output=$top/build/gpu
chosen=""
while [ $# -gt 0 ]; do
    case $1 in
    --device) need "$1" $#; device=$2; shift ;;
    --limit) need "$1" $#; limit=$2; shift ;;
    --output) need "$1" $#; output=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *)
        case " $steps " in
        *" $1 "*) chosen="$chosen $1" ;;
        *) fail "$1: no such step, expected one of $steps" ;;
        esac
        ;;
    esac
    shift
done
need_gpucheck
output=$(realpath -m "$output")
mkdir -p "$output" || exit 2
cd "$top" || exit 2
export QUERN_BUILD
QUERN=$quern
export QUERN

# limited COMMAND...
limited() {
    timeout "$limit" "$@"
}
run_check() { limited tools/gpu/check.sh --device "$device"; }
run_model() { limited "$tests/gpumodel_test" "$device"; }
run_engine() { limited "$tests/gpuengine_test" "$device"; }
run_cache() {
    limited "$tests/golden_cache" --all --device "$device" || return
    limited "$tests/golden_cache" --all --device "$device" --free || return
    . bench/models.sh
    open_folder "$output/models"
    make_formats "$quern"
    for model in fp8 mxfp4; do
        echo "== $model"
        limited "$tests/golden_cache" --device "$device" --model "$folder/$model" || return
    done
}
run_quality() { limited bench/gpu_quality.sh --device "$device" --keep "$output/models"; }
run_layer() { limited tools/gpu/layer.sh --device "$device"; }
run_bench() { limited tools/gpu/bench.sh --device "$device" --output "$output/bench.json"; }
run_tune() {
    limited "$quern" tune configs/glm-5.2-mxfp4-tp4 --load-format dummy --device "$device" \
        --out "$output/tuning.csv"
}
run_whole() { limited bench/gpu_whole.sh --device "$device" --rate 0.3 "$output/whole"; }
run_sanitize() { limited tools/gpu/sanitize.sh --device "$device"; }

rm -rf "$output/models" # of another build
passed=0
failed=0
for step in ${chosen:-$steps}; do
    started=$(date +%s)
    if "run_$step" >"$output/$step.log" 2>&1; then
        outcome=passed
        passed=$((passed + 1))
    else
        outcome=FAILED
        failed=$((failed + 1))
    fi
    echo "$step: $outcome, $(($(date +%s) - started)) s: $(tail -n 1 "$output/$step.log")"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

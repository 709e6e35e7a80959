#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Is glm-nano on a GPU the model that it is on the CPU? In bf16, FP8 and MXFP4: teacher-forced over 200
# problems beside what transformers loses in bf16, and in right answers.
set -u

program=gpu_quality
usage() {
    cat <<'END'
usage: bench/gpu_quality.sh [--device NAME] [--limit N] [--keep FOLDER]

Makes glm-nano in FP8 (bench/models.py, which needs numpy) and MXFP4 (quern quantize), and for each
holds the GPU against the CPU in f32 with the same weights:
  gpumodel     log-probabilities of 200 problems and their answers, at most 1.5 times as far apart as
               transformers in bf16 and in f32
  quern eval   right answers; zero has to be within the interval of the paired difference
Ends with "N passed, N failed".

  --device NAME  cuda, cuda:N or hip (cuda)
  --limit N      problems of each task that are answered (25)
  --keep FOLDER  models and results stay there, and models that are there are not made again

QUERN_BUILD: a build folder, where it is not build/release.
END
}

device=cuda
limit=25
keep=""
while [ $# -gt 0 ]; do
    case $1 in
    --device | --limit | --keep)
        [ $# -gt 1 ] || { echo "$program: error: $1: nothing follows, expected a value" >&2; exit 2; }
        case $1 in
        --device) device=$2 ;;
        --limit) limit=$2 ;;
        --keep) keep=$(realpath -m "$2") ;;
        esac
        shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "$program: error: $1: no such option, expected one of --help" >&2; exit 2 ;;
    esac
    shift
done
cd "$(dirname "$0")/.." || exit 2
build=${QUERN_BUILD:-build/release}
for needed in "$build/quern" "$build/tests/gpumodel"; do
    [ -x "$needed" ] || {
        echo "$program: error: $needed: not there, expected cmake --build to have made it" >&2
        exit 2
    }
done

. bench/models.sh
open_folder "$keep"
make_formats "$build/quern"

passed=0
failed=0
count() { # STATUS WHAT...
    status=$1
    shift
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $*"
    fi
}

tasks=$(echo tests/eval/nano_*.jsonl | tr ' ' ',')
for name in bf16 fp8 mxfp4; do
    model=$folder/$name
    [ "$name" != bf16 ] || model=models/glm-nano
    echo "== $name"
    if [ ! -e "$model" ]; then
        count 1 "$name: the model could not be made"
        continue
    fi
    "$build/tests/gpumodel" --device "$device" --free "$model" tests/golden/greedy.safetensors
    count $? "$name: log-probabilities"
    result=$folder/eval-$name.json
    "$build/quern" eval "$model" --tasks "$tasks" --limit "$limit" --max-tokens 512 --device "$device" \
        --against-device cpu --against-compute f32 --json -q >"$result" &&
        python3 -B -c '
import json, sys
result = json.load(open(sys.argv[1]))
pair = result["paired"]
print("right on %s %d, on the CPU in f32 %d, of %d; difference %+.3f (%+.3f to %+.3f)" % (
    result["device"], result["all"]["right"], result["against"]["all"]["right"], result["all"]["n"],
    pair["difference"], pair["low"], pair["high"]))
sys.exit(not pair["low"] <= 0 <= pair["high"])' "$result"
    count $? "$name: right answers"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

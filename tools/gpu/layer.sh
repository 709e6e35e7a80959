#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One layer of GLM-5.2's shape at a long context on a GPU, against the CPU in f32.
set -eu
. "$(dirname "$0")/common.sh"

usage() {
    cat <<END
usage: tools/gpu/layer.sh [--device NAME] [--context N] [--rows N] [--kv-dtype bf16|fp8] [--help] [CONFIG]

Makes a model of one layer of CONFIG (configs/glm-5.2/config.json of the source): sparse attention with
an indexer of its own, and experts, with dummy weights and a small vocabulary. Compares its stream with
the CPU's at the first positions, and log-probabilities at all of them; the GPU may be three times as far
from the CPU in f32 as the CPU in bf16 is. The CPU takes minutes on 16 cores, and 60 GB.

  --device NAME         cuda[:N] or hip[:N]; $device if not given
  --context N           positions (65536)
  --rows N              of a pass (1024)
  --kv-dtype bf16|fp8   rows of the cache (bf16)

QUERN_BUILD: a build folder, where it is not build/release.
END
}

context=65536
rows=1024
kv_dtype=bf16
config=$top/configs/glm-5.2/config.json
while [ $# -gt 0 ]; do
    case $1 in
    --device) need "$1" $#; device=$2; shift ;;
    --context) need "$1" $#; context=$2; shift ;;
    --rows) need "$1" $#; rows=$2; shift ;;
    --kv-dtype) need "$1" $#; kv_dtype=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) config=$1 ;;
    esac
    shift
done
[ -x "$tests/gpumodel" ] || fail "$tests/gpumodel: not there, expected cmake --build to have made it"
[ -r "$config" ] || fail "$config: cannot be read, expected the configuration of a model"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -B - "$config" "$folder/config.json" <<'END'
import json, sys
config = json.load(open(sys.argv[1], encoding="utf-8"))
config.update(num_hidden_layers=1, num_nextn_predict_layers=0, first_k_dense_replace=0, mlp_layer_types=["sparse"],
              indexer_types=["full"], vocab_size=1024, eos_token_id=[1], pad_token_id=0)
json.dump(config, open(sys.argv[2], "w", encoding="utf-8"))
END
"$tests/gpumodel" --device "$device" --dummy --kv-dtype "$kv_dtype" --rows "$rows" "$folder" "$context"

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A whole server on one GPU at full size, without weights: one rank of GLM-5.2 in MXFP4, made up by the
# device, under the load of the published measurements.
set -eu

program=gpu_whole
usage() {
    cat <<'END'
usage: bench/gpu_whole.sh [--quick] [--model DIR] [--device NAME] [--rate R] [--scale X] [--cache SIZE] [OUTPUT]

Starts `quern serve` with dummy weights, five drafts of the MTP layer of which steps take 3.61 tokens
whatever they are, waits until it is ready, and measures it with `quern bench serve`: four minutes of
the wafer workload at one rate, then single requests of 10,000 tokens. OUTPUT (build/gpu_whole) gets
folders wafer and single-stream, and server.log.

  --quick        about a minute of load: shows that all of it works
  --model DIR    another config.json (configs/glm-5.2-mxfp4-tp4)
  --device NAME  cuda, cuda:N, hip or cpu (cuda)
  --rate R       requests a second of wafer (0.5)
  --scale X      of all lengths, for models of a small context (1)
  --cache SIZE   of the page cache (what the device has left; of a CPU a quarter)

QUERN: the program, where it is not build/release/quern of this source.
END
}

top=$(cd "$(dirname "$0")/.." && pwd)
quern=${QUERN:-$top/build/release/quern}
model=configs/glm-5.2-mxfp4-tp4
device=cuda
rate=0.5
scale=1
cache=""
duration=240
n_singles=5
while [ $# -gt 0 ]; do
    case $1 in
    --quick) duration=40 n_singles=1 ;;
    --model | --device | --rate | --scale | --cache)
        [ $# -gt 1 ] || { echo "$program: error: $1: nothing follows, expected a value" >&2; exit 2; }
        case $1 in
        --model) model=$(realpath "$2") ;;
        --device) device=$2 ;;
        --rate) rate=$2 ;;
        --scale) scale=$2 ;;
        --cache) cache=$2 ;;
        esac
        shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "$program: error: $1: no such option, expected one of --help" >&2; exit 2 ;;
    *) break ;;
    esac
    shift
done
output=$(realpath -m "${1:-$top/build/gpu_whole}")
[ -x "$quern" ] || {
    echo "$program: error: $quern: not there, expected cmake --build to have made it" >&2
    exit 2
}
quern=$(realpath "$quern")
cd "$top"
mkdir -p "$output"

server=""
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=""
}
trap stop EXIT
trap 'exit 130' INT TERM

# python PROGRAM [ARGUMENT]...
python() {
    python3 -c "$@"
}

port=$(python 'import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])')
url=http://127.0.0.1:$port

# The longest request has 21,000 tokens. 32 of them that share 12,000 take 17 GB of a cache in FP8.
context=$(python 'import sys; print(int(21504 * float(sys.argv[1])) + 64)' "$scale")
"$quern" serve "$model" --port "$port" --device "$device" --load-format dummy --kv-dtype fp8 \
    --context "$context" --max-num-seqs 32 ${cache:+--page-cache "$cache"} --draft-tokens 5 \
    --acceptance-length 3.61 >"$output/server.log" 2>&1 &
server=$!
deadline=$(($(date +%s) + 900))
until python 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/ready")' "$url" 2>/dev/null; do
    if ! kill -0 "$server" 2>/dev/null; then
        echo "$program: error: quern serve: ended, expected it to become ready" >&2
        tail -n 5 "$output/server.log" >&2
        exit 1
    fi
    if [ "$(date +%s)" -gt "$deadline" ]; then
        echo "$program: error: $url/ready: not 200 after 900 s, expected it to become ready" >&2
        tail -n 5 "$output/server.log" >&2
        exit 1
    fi
    sleep 0.5
done

case $model in
*-tp4) share="one rank of four, no communication, " ;;
*-tp8) share="one rank of eight, no communication, " ;;
*) share="" ;;
esac

# measure NAME OPTION...: a report of that name. Prompts are ids that any of these models has; a folder
# without weights has no tokenizer either.
measure() {
    name=$1
    shift
    "$quern" bench serve --base-url "$url" --workload "$name" --scale "$scale" --ids \
        --tokenizer models/glm-nano "$@" \
        --note "title=dummy weights, ${share}acceptance pinned 3.61" --output "$output/$name"
}

measure wafer --request-rate "$rate" --duration "$duration"
measure single-stream --num-prompts "$n_singles"
echo "$output"

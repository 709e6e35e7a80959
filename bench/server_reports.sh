#!/bin/sh
# The reports of docs/reports: llama-cpp-python's server and quern serve under the same load, one
# command each, and the two compared in a third.
set -eu

program=server_reports
targets="quern"
only_nano=yes
threads=1

usage() {
    cat <<'END'
usage: bench/server_reports.sh [--quick] [--rounds N] [--keep FOLDER] [--peer FOLDER] [--threads N] [--no-install] [OUTPUT]

Starts `python -m llama_cpp.server` and `quern serve` one after the other, both with glm-nano in
bf16, measures each with the scaled wafer workload of `quern bench serve` and compares the results.
OUTPUT (docs/reports) gets folders llama.cpp, quern and compare. Takes ten minutes, the first time a
quarter of an hour more. Client and server share the machine: of two cores each server has one, at
a lower priority, and rates are such that llama-cpp-python's, which answers one request at a time,
keeps up.

  --quick         short runs of a low rate: shows that all of it works
  --rounds N      runs of each rate (3)
  --keep FOLDER   the made model stays there, and is taken from there
  --peer FOLDER   llama.cpp in a virtual environment, made when it is not there (build/peer)
  --threads N     threads of both servers (1)
  --no-install    fail instead of installing missing packages
END
}

. "$(dirname "$0")/peer.sh"
make nano-text.gguf model gguf models/glm-nano
need_python_server

output=${1:-docs/reports}
mkdir -p "$output"
quern=build/release/quern
rates=0.3,0.6
duration=45
repeats=${rounds#--rounds }
if [ -n "$quick" ]; then
    rates=0.4
    duration=8
    repeats=1
fi

# Answers have their full length on both: the model's stop tokens cannot be drawn.
body=$("$python" -c 'import json
ids = json.load(open("models/glm-nano/config.json"))["eos_token_id"]
print(json.dumps({"logit_bias": {str(i): -100 for i in ids}, "temperature": 0}))')

server=""
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    server=""
}
trap 'stop; [ -n "$keep" ] || rm -rf "$models"' EXIT
trap 'exit 130' INT TERM

# measure NAME PORT COMMAND...: start a server, load it, end it.
measure() {
    name=$1
    port=$2
    shift 2
    mkdir -p "$output/$name"
    nice -n 19 "$@" >"$models/$name.log" 2>&1 &
    server=$!
    tries=0
    until "$python" -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/v1/models')" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 300 ] || ! kill -0 "$server" 2>/dev/null; then
            echo "$program: error: $name: does not answer, expected /v1/models" >&2
            tail -n 5 "$models/$name.log" >&2
            exit 1
        fi
        sleep 0.2
    done
    "$quern" bench serve --base-url "http://127.0.0.1:$port" --model glm-nano \
        --tokenizer models/glm-nano --workload wafer --scale 0.05 --ramp "$rates" \
        --duration "$duration" --repeat "${repeats:-3}" --salt 1 --extra-body "$body" \
        --note "quantization=none" --note "weights=trained" --output "$output/$name"
    stop
}

# free_port: one that nobody listens on.
free_port() {
    "$python" -c 'import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])'
}

port=$(free_port)
measure llama.cpp "$port" "$python" -m llama_cpp.server --model "$models/nano-text.gguf" \
    --model_alias glm-nano --port "$port" --n_ctx 2048 --n_threads "$threads" \
    --n_threads_batch "$threads" --interrupt_requests false
port=$(free_port)
measure quern "$port" "$quern" serve models/glm-nano --port "$port" --threads "$threads" --context 2048
"$quern" bench compare "$output/llama.cpp" "$output/quern" --output "$output/compare"

#!/bin/sh
# 2,000 streams of 20 tokens a second: is the bench's client in time where it shares two cores with
# the server?  Prints the lag of each round; the server is a mock that sends on a timer.
set -eu
cd "$(dirname "$0")/.."
quern=${QUERN:-build/release/quern}
mock=${MOCK:-build/release/tests/mock_server}
rounds=3
streams=2000

usage() {
    cat <<END
usage: bench/streams.sh [--rounds N] [--streams N]

Needs \`./check release\`, or a build in build/release (QUERN and MOCK name other programs), and two
cores without other work.
END
}
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --streams) streams=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "streams: error: $1: no such option, expected --rounds, --streams or --help" >&2; exit 2 ;;
    esac
done

folder=$(mktemp -d)
echo '{"tpot_ms": 50, "ttft_ms": [20, 1000], "model": "mock"}' >"$folder/script"
ulimit -n "$(ulimit -H -n)" # the mock has a connection each
taskset -c 0,1 "$mock" --script "$folder/script" >"$folder/address" &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
until [ -s "$folder/address" ]; do sleep 0.1; done
round=0
while [ "$round" -lt "$rounds" ]; do
    taskset -c 0,1 "$quern" bench serve -q --base-url "$(cat "$folder/address")" --input-len 100 --output-len 200 \
        --num-prompts $((streams * 2)) --max-concurrency "$streams" --json --power none >"$folder/result" || true
    python3 -c '
import json, sys
run = json.load(open(sys.argv[1]))["runs"][0]
print(run["label"], {key: round(value, 3) for key, value in run["lag"].items()}, "tokens/s %.0f" % run["output_throughput"],
      "completed %d failed %d" % (run["completed"], run["failed"]), "valid" if run["is_valid"] else run["invalid"])' "$folder/result"
    round=$((round + 1))
done

#!/bin/sh
# quern against llama.cpp on this CPU: builds both, makes the models, measures them in turns and
# prints the tables of docs/performance.md.
set -eu

program=cpu_peer
targets="quern bench_cpu_speed bench_read_bandwidth"

usage() {
    cat <<'END'
usage: bench/cpu_peer.sh [--quick] [--rounds N] [--keep FOLDER] [--peer FOLDER] [--threads N] [--no-install]
                         [TASK.jsonl...]

Measures glm-nano and a seeded model of 1.3 billion parameters, in bf16 and with MXFP4 experts, in
both programs, and quern's FP8. Takes about half an hour and 8 GB of disk the first time.

  TASK.jsonl      problems whose answers tell how the default compute mode differs from f32, lines
                  {"messages": [...]}; without one, a few prompts of bench/cpu_peer.py
  --quick         one round, few repeats, nothing at depth 4,096: shows that all of it works
  --rounds N      of which the table has the medians (3)
  --keep FOLDER   the made models stay there, and are taken from there
  --peer FOLDER   llama.cpp in a virtual environment, made when it is not there (build/peer)
  --threads N     threads of both programs (2)
  --no-install    fail instead of installing missing packages
END
}

. "$(dirname "$0")/peer.sh"
make dummy-fp8 model fp8 "$models/dummy-bf16"

"$python" -B bench/cpu_peer.py $quick $rounds --threads "$threads" "$models" "$@"

#!/bin/sh
# quern against llama.cpp on this CPU with many sequences at once: builds both, makes the models,
# measures them in turns and prints the table of docs/performance.md.
set -eu

program=batch_peer
targets="quern bench_batch_speed bench_read_bandwidth"

usage() {
    cat <<'END'
usage: bench/batch_peer.sh [--quick] [--rounds N] [--keep FOLDER] [--peer FOLDER] [--threads N] [--no-install]

Tokens/s of 1, 4, 16 and 64 sequences of glm-nano and of a seeded model of 1.3 billion parameters,
in bf16 and with MXFP4 experts, in both programs. Takes about half an hour and 8 GB of disk the
first time.

  --quick         one round, few tokens, at most 4 sequences: shows that all of it works
  --rounds N      of which the table has the medians (3)
  --keep FOLDER   the made models stay there, and are taken from there
  --peer FOLDER   llama.cpp in a virtual environment, made when it is not there (build/peer)
  --threads N     threads of both programs (2)
  --no-install    fail instead of installing missing packages
END
}

. "$(dirname "$0")/peer.sh"

"$python" -B bench/batch_peer.py $quick $rounds --threads "$threads" "$models"

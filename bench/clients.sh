#!/bin/sh
# Load generators of PyPI, unmodified, against `quern serve` with glm-nano.
set -eu

program=clients

usage() {
    cat <<'END'
usage: bench/clients.sh [--venv FOLDER] aiperf|guidellm

Installs the program in FOLDER (build/load/NAME; aiperf has 1.2 GB, guidellm 5.9 GB), unless it is
there, and has it send 20 requests of 64 tokens for answers of 32, 4 at once. Exit status 0: all were
answered.
END
}

. "$(dirname "$0")/../tools/load_clients.sh"
exec /usr/bin/python3 -B bench/clients.py "$client"

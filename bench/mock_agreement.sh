#!/bin/sh
# `quern bench serve` and another client of PyPI on the same scripted server: do they agree?
set -eu

program=mock_agreement

usage() {
    cat <<'END'
usage: bench/mock_agreement.sh [--venv FOLDER] aiperf|guidellm

Installs the program in FOLDER (build/load/NAME; aiperf has 1.2 GB, guidellm 5.9 GB), unless it is
there. Both send 100 chats of 64 tokens for 32, 10 at once, to build/release/tests/mock_server with
one script. Exit status 0: TTFT and TPOT agree within 5 % (p50), tokens exactly, with each other and
with the server's own log.
END
}

. "$(dirname "$0")/../tools/load_clients.sh"
exec /usr/bin/python3 -B bench/mock_agreement.py "$client"

#!/bin/sh
# Load generators of PyPI, unmodified, against `quern serve` with glm-nano.
set -eu

usage() {
    cat <<'END'
usage: bench/clients.sh [--venv FOLDER] aiperf|guidellm

Installs the program in FOLDER (build/load/NAME; aiperf has 1.2 GB, guidellm 5.9 GB), unless it is
there, and has it send 20 requests of 64 tokens for answers of 32, 4 at once. Exit status 0: all were
answered.
END
}

venv=""
client=""
while [ $# -gt 0 ]; do
    case $1 in
    --venv) [ $# -gt 1 ] || { usage >&2; exit 2; }
        venv=$(realpath -m "$2"); shift ;;
    -h | --help) usage; exit 0 ;;
    aiperf | guidellm) client=$1 ;;
    *) echo "clients: error: $1: expected aiperf or guidellm, or one of --help" >&2; exit 2 ;;
    esac
    shift
done
[ -n "$client" ] || { usage >&2; exit 2; }
cd "$(dirname "$0")/.."
. tools/load_clients.sh
venv=${venv:-$PWD/build/load/$client}
make_load_client "$client" "$venv"
exec /usr/bin/python3 -B bench/clients.py "$venv/bin/$client"

# Sourced by bench/clients.sh and bench/mock_agreement.sh, which set usage() and $program: takes their
# options, installs that load generator of PyPI, unmodified, unless it is there.  Leaves its program
# as $client behind, and the working folder in the root.

venv=""
client=""
while [ $# -gt 0 ]; do
    case $1 in
    --venv) [ $# -gt 1 ] || { usage >&2; exit 2; }
        venv=$(realpath -m "$2"); shift ;;
    -h | --help) usage; exit 0 ;;
    aiperf | guidellm) client=$1 ;;
    *) echo "$program: error: $1: expected aiperf or guidellm, or one of --help" >&2; exit 2 ;;
    esac
    shift
done
[ -n "$client" ] || { usage >&2; exit 2; }
cd "$(dirname "$0")/.."
venv=${venv:-$PWD/build/load/$client}
if [ ! -x "$venv/bin/$client" ]; then
    version=0.13.0
    [ "$client" = aiperf ] || version=0.8.1
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --retries 10 "$client==$version"
fi
client=$venv/bin/$client

# Sourced by bench/clients.sh and bench/mock_agreement.sh: load generators of PyPI, unmodified.

# make_load_client aiperf|guidellm FOLDER: a virtual environment with it, unless it is there.
make_load_client() {
    [ ! -x "$2/bin/$1" ] || return 0
    version=0.13.0
    [ "$1" = aiperf ] || version=0.8.1
    /usr/bin/python3 -m venv "$2"
    "$2/bin/python" -m pip install -q --disable-pip-version-check --retries 10 "$1==$version"
}

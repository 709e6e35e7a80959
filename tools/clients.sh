# Sourced by check: the packages of tests/e2e/requirements.txt in a virtual environment.

# make_clients yes|no: build/clients, kept while the requirements are the same; no: it must be there.
make_clients() {
    wanted=tests/e2e/requirements.txt
    cmp -s "$wanted" build/clients/requirements.txt && return 0
    if [ "$1" = no ]; then
        echo "error: build/clients: not as $wanted, expected ./check without --no-install to make it"
        return 1
    fi
    rm -rf build/clients
    # Debian's python3, for which python3-venv is.
    /usr/bin/python3 -m venv build/clients &&
        build/clients/bin/python -m pip install -q --disable-pip-version-check --retries 10 \
            --timeout 60 -r "$wanted" &&
        cp "$wanted" build/clients/requirements.txt # last: says that all of it is there
}

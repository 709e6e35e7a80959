#!/bin/sh
# quern serve against llama.cpp's two servers on this CPU: builds all, then has one client load them
# in turns and prints the table of docs/performance.md.
set -eu

program=serve_peer
targets="quern"
only_nano=yes

usage() {
    cat <<'END'
usage: bench/serve_peer.sh [--quick] [--rounds N] [--keep FOLDER] [--peer FOLDER] [--threads N] [--no-install]

Output tokens/s and time to the first token of glm-nano at 1, 8 and 32 streams, from `quern serve`,
`python -m llama_cpp.server` and llama-server, which is built from the sources that the same package
of PyPI carries. Takes some minutes, the first time half an hour more.

  --quick         one round, few requests, at most 8 streams: shows that all of it works
  --rounds N      of which the table has the medians (3)
  --keep FOLDER   the made model stays there, and is taken from there
  --peer FOLDER   llama.cpp in a virtual environment and llama-server beside it, made when they are
                  not there (build/peer)
  --threads N     threads of all servers (2)
  --no-install    fail instead of installing missing packages
END
}

. "$(dirname "$0")/peer.sh"
make nano-text.gguf model gguf models/glm-nano
need_python_server
server=$peer_folder/llama-server
if [ ! -x "$server" ]; then
    sources=$(mktemp -d "$peer_folder/sources.XXXXXX")
    "$python" -m pip download -q --no-deps --no-binary llama-cpp-python -d "$sources" "$peer" >&2
    tar -xzf "$sources"/llama_cpp_python-*.tar.gz -C "$sources" --strip-components 1
    {
        cmake -S "$sources/vendor/llama.cpp" -B "$sources/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
            -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
        cmake --build "$sources/build" -j "$jobs" --target llama-server
    } >&2
    mv "$sources/build/bin/llama-server" "$server"
    rm -rf "$sources"
fi

"$python" -B bench/serve_peer.py $quick $rounds --threads "$threads" --server "$server" \
    "$models/nano-text.gguf"

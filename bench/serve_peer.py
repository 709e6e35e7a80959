#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The measuring half of bench/serve_peer.sh: loads three servers in turns, prints Markdown.

    bench/serve_peer.py [--quick] [--rounds N] [--threads N] --server LLAMA-SERVER MODEL.gguf

In each round every server is started, warmed up and loaded by `quern bench serve` at each number of
streams; the order turns round by round.  Every figure is the median of the rounds.  All answers have
the same length: stop tokens are not heeded, or cannot be drawn.  No two prompts begin alike.
Progress goes to stderr.
"""
import argparse
import collections
import contextlib
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from cpu_peer import NANO, OTHERS_MOST, QUERN, ROOT, Others, say

STREAMS = (1, 8, 32)
OUTPUT_TOKENS, PROMPT_TOKENS, CONTEXT = 128, 32, 1024
STOP_IDS = json.loads((ROOT / "models/glm-nano/config.json").read_text())["eos_token_id"]
NO_EOS = ("--extra-body", json.dumps({"logit_bias": {str(i): -100 for i in STOP_IDS}}))
GOAL_MANY = 1.5  # times the better of the two, at the most streams; elsewhere 1

# command: {port} and so on are filled in; flags: of the client, for answers of full length.
Peer = collections.namedtuple("Peer", "command ready flags")
PEERS = {
    "llama-cpp-python": Peer(
        [sys.executable, "-m", "llama_cpp.server", "--model", "{model}", "--port", "{port}",
         "--n_ctx", str(CONTEXT), "--n_threads", "{threads}", "--n_threads_batch", "{threads}",
         "--interrupt_requests", "false"], "/v1/models", NO_EOS),
    "llama-server": Peer(
        ["{server}", "-m", "{model}", "--port", "{port}", "-np", "32", "-c", str(32 * CONTEXT), "-t",
         "{threads}"], "/health", ("--ignore-eos",)),
    "quern": Peer(
        [QUERN, "serve", NANO, "--port", "{port}", "--threads", "{threads}", "--context",
         str(CONTEXT)], "/ready", ("--ignore-eos",)),
}


def free_port():
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(name, options):
    """URL of a server that answers; it is ended behind the block."""
    port = free_port()
    values = {"model": options.model, "port": port, "threads": options.threads,
              "server": options.server}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([part.format(**values) for part in PEERS[name].command],
                                   stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, PEERS[name].ready)).close()
                    break
                except (urllib.error.URLError, OSError):
                    if process.poll() is not None or time.monotonic() > deadline:
                        log.seek(0)
                        sys.exit("serve_peer: error: %s: %s" % (name, log.read()[-2000:].decode()))
                    time.sleep(0.1)
            yield "http://127.0.0.1:%d" % port
        finally:
            process.terminate()
            process.wait()


def load(url, name, n_streams, options):
    """The run as the client tells it."""
    n_requests = 2 if options.quick else options.requests
    command = [QUERN, "bench", "serve", "-q", "--json", "--base-url", url, "--tokenizer", NANO,
               "--random-input-len", PROMPT_TOKENS, "--random-output-len", OUTPUT_TOKENS,
               "--temperature", 0, "--max-concurrency", n_streams, "--num-prompts",
               n_streams * n_requests, "--num-warmups", n_streams, "--power", "none",
               *PEERS[name].flags]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        sys.exit("serve_peer: error: %s: the client ended with %d" % (name, done.returncode))
    run = json.loads(done.stdout)["runs"][0]
    if run["total_output_tokens"] != n_streams * n_requests * OUTPUT_TOKENS:
        sys.exit("serve_peer: error: %s: %s" % (name, run))
    return run


def measure(options):
    """{(streams, server): [(tokens/s, first token ms)]}"""
    results = collections.defaultdict(list)
    names = list(PEERS)
    for i_round in range(1 if options.quick else options.rounds):
        for name in names[i_round % len(names):] + names[:i_round % len(names)]:
            with serving(name, options) as url:
                for n_streams in STREAMS[:2] if options.quick else STREAMS:
                    run = load(url, name, n_streams, options)
                    results[n_streams, name].append((run["output_throughput"],
                                                     run["p95_ttft_ms"]))
                    say("round %d: %s: %d streams: %.1f tokens/s, first token p95 %.1f ms"
                        % (i_round + 1, name, n_streams, *results[n_streams, name][-1]))
    return results


def print_table(results):
    """A row for each number of streams."""
    print("| streams |" + "".join(" %s: tokens/s | first token p95, ms |" % name for name in PEERS) +
          " ratio to the better | met |\n|---|" + "---|---|" * len(PEERS) + "---|---|")
    for n_streams in sorted({n for n, _ in results}):
        cells = {name: [statistics.median(values) for values in zip(*results[n_streams, name])]
                 for name in PEERS}
        rate, first = cells["quern"]
        others = [cells[name] for name in PEERS if name != "quern"]
        ratio = rate / max(other[0] for other in others)
        is_met = ratio >= (GOAL_MANY if n_streams == STREAMS[-1] else 1) and \
            first <= min(other[1] for other in others)
        print("| %d |" % n_streams + "".join(" %s | %.1f |" % (format(cell[0], ",.1f"), cell[1])
                                             for cell in cells.values()) +
              " %.2f | %s |" % (ratio, "yes" if is_met else "**no**"))


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=6, help="of each stream")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--server", type=pathlib.Path, required=True)
    parser.add_argument("model", type=pathlib.Path)
    options = parser.parse_args()
    others = Others()
    results = measure(options)
    share = others.share()
    print("* prompts of %d tokens, answers of %d tokens, %d a stream; medians of %d rounds\n"
          "* other processes took %.1f %% of the CPUs meanwhile%s\n"
          % (PROMPT_TOKENS, OUTPUT_TOKENS, 2 if options.quick else options.requests,
             1 if options.quick else options.rounds, 100 * share,
             ": **too much, measure again**" if share > OTHERS_MOST else ""))
    print_table(results)


if __name__ == "__main__":
    main()

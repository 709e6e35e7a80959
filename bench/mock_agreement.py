#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""See bench/mock_agreement.sh: mock_agreement.py PROGRAM, one of aiperf and guidellm."""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/e2e"))
from clients import make_cache  # noqa: E402
from mocking import Bench, Mock  # noqa: E402
from serving import NANO  # noqa: E402

N_REQUESTS, N_AT_ONCE, N_INPUT, N_OUTPUT = 100, 10, 64, 32
SCRIPT = {"ttft_ms": [200, 300], "tpot_ms": [18, 26], "seed": 1}
NEAR = 0.05


def run_aiperf(program, url, folder):
    """TTFT and TPOT (p50, ms), input and output tokens of all requests, by its report."""
    subprocess.run(
        [program, "profile", "--model", "mock", "--url", url, "--endpoint-type", "chat",
         "--streaming", "--tokenizer", "local/glm-nano", "--concurrency", str(N_AT_ONCE),
         "--request-count", str(N_REQUESTS), "--isl", str(N_INPUT), "--osl", str(N_OUTPUT),
         "--use-server-token-count", "--ui", "none", "--artifact-dir", folder],
        env=make_cache(folder), timeout=500, check=True)
    with open(next(pathlib.Path(folder).rglob("profile_export_aiperf.json")),
              encoding="utf-8") as file:
        report = json.load(file)
    return (report["time_to_first_token"]["p50"], report["inter_token_latency"]["p50"],
            round(report["total_isl"]["avg"]) if "total_isl" in report else None,
            round(report["total_output_tokens"]["avg"]))


def run_guidellm(program, url, folder):
    """The same."""
    subprocess.run(
        [program, "run", "--backend", "kind=openai_http,target=%s,model=mock" % url,
         "--profile", "kind=concurrent,streams=[%d]" % N_AT_ONCE, "--constraint",
         "kind=max_requests,count=%d" % N_REQUESTS, "--data",
         "kind=synthetic_text,prompt_tokens=%d,output_tokens=%d" % (N_INPUT, N_OUTPUT),
         "--tokenizer", "kind=huggingface_auto,model=local/glm-nano", "--output",
         "kind=json,path=%s/result.json" % folder, "--disable-console-interactive"],
        env=make_cache(folder), timeout=500, check=True)
    with open(os.path.join(folder, "result.json"), encoding="utf-8") as file:
        benchmark = json.load(file)["benchmarks"][0]
    metrics = benchmark["metrics"]
    median = {name: metrics[name]["successful"]["percentiles"]["p50"]
              for name in ("time_to_first_token_ms", "inter_token_latency_ms")}
    return (median["time_to_first_token_ms"], median["inter_token_latency_ms"],
            round(metrics["prompt_token_count"]["successful"]["total_sum"]),
            round(metrics["output_token_count"]["successful"]["total_sum"]))


def run_ours(_, url, folder):
    """The same."""
    del folder
    run = Bench(url, "--backend", "openai-chat", "--tokenizer", NANO, "--dataset-name", "random",
                "--random-input-len", N_INPUT, "--random-output-len", N_OUTPUT, "--num-prompts",
                N_REQUESTS, "--max-concurrency", N_AT_ONCE).run
    return (run["median_ttft_ms"], run["median_tpot_ms"], run["total_input_tokens"],
            run["total_output_tokens"])


def served(mock):
    """The same, as the server has it: of the last requests, since probes come before."""
    entries = [entry for entry in mock.requests() if entry["end"] == "done"][-N_REQUESTS:]
    return (statistics.median(1e3 * (e["chunk_s"][0] - e["arrived_s"]) for e in entries),
            statistics.median(1e3 * (e["chunk_s"][-1] - e["chunk_s"][0]) / (e["output_tokens"] - 1)
                              for e in entries),
            sum(e["prompt_tokens"] for e in entries), sum(e["output_tokens"] for e in entries))


def main(program):
    """Returns the exit status."""
    name = os.path.basename(program)
    theirs = run_aiperf if name == "aiperf" else run_guidellm
    rows, is_same = [], True
    with Mock(**SCRIPT) as mock:
        for who, run in ((name, theirs), ("quern", run_ours)):
            mock.set(**SCRIPT)
            with tempfile.TemporaryDirectory() as folder:
                rows.append((who, run(program, mock.url, folder)))
            rows.append(("its server", served(mock)))
    print("%-12s %10s %10s %10s %10s" % ("", "TTFT p50", "TPOT p50", "input", "output"))
    for who, (ttft, tpot, n_input, n_output) in rows:
        print("%-12s %10.2f %10.3f %10s %10d" % (who, ttft, tpot, n_input, n_output))
    for (_, seen), (_, other) in ((rows[0], rows[1]), (rows[2], rows[3]), (rows[0], rows[2])):
        is_same &= all(abs(a - b) <= NEAR * b for a, b in zip(seen[:2], other[:2]))
        is_same &= seen[3] == other[3] == N_REQUESTS * N_OUTPUT
    for (_, seen), (_, other) in ((rows[0], rows[1]), (rows[2], rows[3])):
        is_same &= seen[2] in (None, other[2])
    print("they agree" if is_same else "they do not agree")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

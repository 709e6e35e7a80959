#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The measuring half of bench/cpu_peer.sh: runs quern and llama.cpp in turns, prints Markdown.

    bench/cpu_peer.py [--quick | --compute-only] [--threads N] MODELS [TASK.jsonl...]

MODELS is the folder that bench/cpu_peer.sh fills.  In each round each cell of the table is run by
both programs, the one that went first last time going second; every figure is the median of the
rounds.  Before and after each run the memory is read, and a share of the bandwidth is a share of
the mean of the two.  Progress goes to stderr.

--compute-only prints the last table alone, quern's default compute mode against f32, which needs
no llama.cpp and of MODELS nano-mxfp4 (bench/models.py).
"""
import argparse
import collections
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import models

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/release"
QUERN = str(BUILD / "quern")
NANO = str(ROOT / "models/glm-nano")

# What one process measures; 0 tokens: not this.
Cell = collections.namedtuple("Cell", "model dtype depth prefill decode")
CELLS = [cell for dtype in ("bf16", "mxfp4") for cell in (
    Cell("nano", dtype, 0, 0, 256), Cell("nano", dtype, 0, 512, 0),
    Cell("nano", dtype, 0, 2048, 0), Cell("nano", dtype, 2048, 0, 256))]
CELLS += [cell for dtype in ("bf16", "mxfp4") for cell in (
    Cell("dummy", dtype, 0, 0, 32), Cell("dummy", dtype, 0, 512, 0),
    Cell("dummy", dtype, 4096, 512, 32))]
CELLS += [Cell("dummy", "fp8", 0, 0, 32)]  # llama.cpp has no such weights

# Times llama.cpp's speed, by model, what, and depth or tokens of the prompt.
RATIO_GOALS = {("nano", "decode", 0): 2.5, ("nano", "decode", 2048): 3.0,
               ("nano", "prefill", 512): 2.5, ("nano", "prefill", 2048): 3.0,
               ("dummy", "prefill", 0): 4.0, ("dummy", "prefill", 4096): 6.0}
SHARE_GOALS = {"bf16": 0.88, "mxfp4": 0.80, "fp8": 0.80}  # of the bandwidth, at depth 0
DEPTH_GOAL = 0.92  # of the speed at depth 0 that is left at 4,096
OTHERS_MOST = 0.05  # of the CPUs' time, above which nothing can be said
FIRST_TOKEN_GOAL_S, PEAK_RSS_GOAL, BINARY_GOAL = 0.15, 150e6, 3e6
TOP1_LEAST = 0.95  # share of equal likeliest tokens, below which the two compute different things

PROMPTS = ("What is 12 + 30?", "Write a C function that returns the larger of two numbers.",
           "Quinn has 30 cookies and gives 2 of them to Kira. How many cookies are left?",
           "Sort these numbers: 7, 3, 9, 1, 4.", "Tell me about rivers and mountains.",
           "What does a compiler do?")


def say(text):
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def output(*command):
    """What a command prints; an error ends everything."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"cpu_peer: error: {command[0]}: status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def json_lines(*command):
    """Objects that a command prints."""
    return [json.loads(line) for line in output(*command).splitlines()]


def quern_path(folder, model, dtype):
    """A model's folder."""
    return NANO if (model, dtype) == ("nano", "bf16") else str(folder / f"{model}-{dtype}")


def bandwidth(options):
    """GB/s that the threads read together now; of one thread as well."""
    lines = json_lines(BUILD / "bench_read_bandwidth", "--threads", options.threads, "--repeats",
                       1 if options.quick else 2)
    return lines[-1]["gb_per_s"], lines[0]["gb_per_s"]


def run_cell(engine, cell, options):
    """Lines of one program for one cell."""
    if engine == "quern":
        command = [BUILD / "bench_cpu_speed"]
        path = quern_path(options.models, cell.model, cell.dtype)
    else:
        command = [sys.executable, "-B", ROOT / "bench/peer.py"]
        path = options.models / f"{cell.model}-{cell.dtype}.gguf"
    return json_lines(*command, "--depth", cell.depth, "--prefill", cell.prefill, "--decode",
                      cell.decode, "--repeats", 1 if options.quick else 3, "--threads",
                      options.threads, path)


class Others:
    """How much of the CPUs other processes took since this was made."""

    def __init__(self):
        self.start = self.times()

    @staticmethod
    def times():
        """Seconds of all CPUs, those of them not idle, those that this process and its took."""
        with open("/proc/stat", encoding="utf-8") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
        own = os.times()
        unit = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) / unit, (sum(ticks) - ticks[3] - ticks[4]) / unit, sum(own[:4]))

    def share(self):
        """Part of the time of all CPUs."""
        whole, busy, own = (now - then for now, then in zip(self.times(), self.start))
        return max(0.0, busy - own) / whole


def measure(options):
    """{(cell, what): {engine: [(tokens/s, GB/s of reading)]}}, all [(GB/s, of one thread)], and
    what quern computes with."""
    results = collections.defaultdict(lambda: collections.defaultdict(list))
    reads = [bandwidth(options)]
    modes = set()
    for i_round in range(1 if options.quick else options.rounds):
        for cell in CELLS:
            if options.quick and cell.depth == 4096:
                continue
            engines = ["quern"] if cell.dtype == "fp8" else ["quern", "llama.cpp"]
            for engine in reversed(engines) if i_round % 2 else engines:
                lines = run_cell(engine, cell, options)
                reads.append(bandwidth(options))
                around = (reads[-2][0] + reads[-1][0]) / 2
                for line in lines:
                    results[cell, line["what"]][engine].append((line["tokens_per_s"], around))
                    if engine == "quern":
                        modes.add(f"{cell.model} {cell.dtype}: compute {line['compute']}, kernels "
                                  f"{line['kernels']}, cache {line['kv_dtype']}")
                    say(f"round {i_round + 1}: {engine}: {cell.model} {cell.dtype} {line['what']} "
                        f"{line['tokens']} at {cell.depth}: {line['tokens_per_s']:.1f} tokens/s, "
                        f"reads {around:.1f} GB/s")
    return results, reads, sorted(modes)


def median_rate(runs):
    """Tokens/s; None without a run."""
    return statistics.median(rate for rate, _ in runs) if runs else None


def share(runs, n_bytes):
    """Part of the bandwidth that the weights of one token take."""
    return statistics.median(rate * n_bytes / (reads * 1e9) for rate, reads in runs) if runs else None


def verdict(cell, what, ratio, part, at_zero, rate):
    """A goal in words and whether it is met."""
    goals = []
    wanted = RATIO_GOALS.get((cell.model, what, cell.prefill if cell.model == "nano" and
                              what == "prefill" else cell.depth))
    if wanted is not None:
        goals.append((f"{wanted:g}x", ratio >= wanted))
    if cell.model == "dummy" and what == "decode" and cell.depth == 0:
        wanted = SHARE_GOALS[cell.dtype]
        goals.append((f"{wanted:.0%} of reading", part >= wanted))
    if cell.model == "dummy" and what == "decode" and cell.depth > 0:
        goals.append((f"{DEPTH_GOAL:.0%} of depth 0", rate >= DEPTH_GOAL * at_zero))
    return ", ".join(text for text, _ in goals), " ".join("yes" if met else "**no**" for _, met in goals)


def print_table(results, options):
    """One row for each cell and what it measured."""
    print("| model | weights | what | depth | llama.cpp | quern | ratio | llama.cpp reads | "
          "quern reads | goal | met |\n|---|---|---|---|---|---|---|---|---|---|---|")
    rates = {}
    for (cell, what), runs in results.items():
        ours, theirs = median_rate(runs["quern"]), median_rate(runs["llama.cpp"])
        rates[cell.model, cell.dtype, what, cell.depth] = ours
        ratio = ours / theirs if theirs else None
        parts = [None, None]
        if cell.model == "dummy" and what == "decode":
            n_bytes = models.decode_bytes(quern_path(options.models, cell.model, cell.dtype))
            parts = [share(runs[engine], n_bytes) for engine in ("llama.cpp", "quern")]
        goal, met = verdict(cell, what, ratio, parts[1],
                            rates.get((cell.model, cell.dtype, what, 0)), ours)
        print(f"| {'glm-nano' if cell.model == 'nano' else 'dummy 1.3 B'} | {cell.dtype} "
              f"| {f'prefill {cell.prefill:,}' if what == 'prefill' else what} | {cell.depth:,} "
              f"| {'' if theirs is None else format(theirs, ',.1f')} | {ours:,.1f} "
              f"| {'' if ratio is None else format(ratio, '.2f')} "
              f"| {' | '.join('' if part is None else format(part, '.0%') for part in parts)} "
              f"| {goal} | {met} |")


def log_probabilities(path):
    """Log-softmax of the logits in a file that quern run --logits wrote."""
    data = np.fromfile(path, np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    entry = json.loads(bytes(data[8:start]))["logits"]
    begin, end = entry["data_offsets"]
    return log_softmax(data[start + begin:start + end].view("<f4").reshape(entry["shape"]))


def log_softmax(logits):
    """In f64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def quern_logits(model, ids, compute, scratch):
    """Log-probabilities after each id."""
    path = scratch / "logits.safetensors"
    output(QUERN, "run", model, "-q", "--ids", ",".join(map(str, ids)), "--max-tokens", 0,
           "--compute", compute, "--logits", path)
    return log_probabilities(path)


def compare(pairs):
    """Of [(ids, log-probabilities, others)]: tokens, mean and 99.9th percentile of the difference
    for the ids of the text, share of equal likeliest tokens."""
    differences, equal = [], []
    for ids, ours, others in pairs:
        rows, following = np.arange(len(ids) - 1), np.array(ids[1:])
        differences.append(np.abs(ours[rows, following] - others[rows, following]))
        equal.append(ours.argmax(axis=1) == others.argmax(axis=1))
    differences, equal = np.concatenate(differences), np.concatenate(equal)
    return len(differences), differences.mean(), np.quantile(differences, 0.999), equal.mean()


def texts(options, scratch):
    """Ids of prompts with glm-nano's own greedy answers."""
    problems = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    if options.tasks:
        problems = []
        for task in options.tasks:
            lines = pathlib.Path(task).read_text().splitlines()[:2 if options.quick else 20]
            problems += [json.loads(line)["messages"] for line in lines]
    for messages in problems:
        (scratch / "messages.json").write_text(json.dumps(messages))
        done = json.loads(output(QUERN, "run", NANO, "-q", "--json", "--messages",
                                 scratch / "messages.json", "--temperature", 0, "--max-tokens", 256,
                                 "--compute", "f32"))
        yield done["prompt_ids"] + done["ids"]


def print_compute(options, all_ids, scratch):
    """The default compute mode against f32."""
    print("\n| glm-nano | compute | tokens | mean difference | 99.9th percentile | same likeliest |\n"
          "|---|---|---|---|---|---|")
    for dtype in ("bf16", "mxfp4"):
        path = quern_path(options.models, "nano", dtype)
        pairs = [(ids, quern_logits(path, ids, "auto", scratch),
                  quern_logits(path, ids, "f32", scratch)) for ids in all_ids]
        mode = json.loads(output(QUERN, "run", path, "-q", "--json", "--ids", "1", "--max-tokens",
                                 1))["compute"]
        count, mean, high, equal = compare(pairs)
        print(f"| {dtype} | {mode} | {count:,} | {mean:.5f} | {high:.4f} | {equal:.2%} |")


def print_agreement(options, all_ids, scratch):
    """Does llama.cpp compute the same model?  The answer has to be yes."""
    ids = max(all_ids, key=len)
    for dtype in ("bf16", "mxfp4"):
        path = scratch / "peer.npy"
        output(sys.executable, "-B", ROOT / "bench/peer.py", "--logits", path, "--ids",
               ",".join(map(str, ids)), options.models / f"nano-{dtype}.gguf")
        theirs = log_softmax(np.load(path)[:-1])
        ours = quern_logits(quern_path(options.models, "nano", dtype), ids, "f32", scratch)
        count, mean, high, equal = compare([(ids, ours, theirs)])
        print(f"* llama.cpp and quern (f32), {dtype}, {count} tokens: log-probabilities differ by "
              f"{mean:.4f} on average, {high:.3f} at the 99.9th percentile; the likeliest token is "
              f"the same in {equal:.1%}")
        if equal < TOP1_LEAST:
            sys.exit("cpu_peer: error: llama.cpp computes another model: nothing to compare")


def first_token_s():
    """From the start of the process to the first byte of the answer."""
    start = time.perf_counter()
    with subprocess.Popen([QUERN, "run", NANO, "-q", "--thinking", "off", "--temperature", "0", "-p",
                           PROMPTS[0]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.read(1)
        taken = time.perf_counter() - start
        process.stdout.read()
    return taken


def print_footprint(scratch):
    """What quern takes, beside speed."""
    first = statistics.median(first_token_s() for _ in range(9))
    answer = json.loads(output(QUERN, "run", NANO, "-q", "--json", "--temperature", 0, "--max-tokens",
                               512, "--ignore-eos", "-p", PROMPTS[1]))
    output("strip", "-o", scratch / "quern", QUERN)
    size = (scratch / "quern").stat().st_size
    peak = answer["peak_rss_bytes"]
    print(f"* first token {first:.3f} s after the start of the process (goal {FIRST_TOKEN_GOAL_S})"
          f"\n* peak memory of 512 tokens {peak / 1e6:.0f} MB (goal {PEAK_RSS_GOAL / 1e6:.0f})"
          f"\n* program, stripped, {size / 1e6:.2f} MB (goal {BINARY_GOAL / 1e6:.0f})")


def last_level_cache():
    """Its size as Linux tells it."""
    caches = pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
    known = [(int((c / "level").read_text()), (c / "size").read_text().strip()) for c in caches]
    return max(known, default=(0, "unknown size"))[1]


def print_head(options, script):
    """Date, machine, commit, command, versions."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), "unknown CPU")
    cores = output("nproc").strip()
    commit = output("git", "-C", ROOT, "describe", "--always", "--dirty").strip()
    compiler = output("gcc", "--version").splitlines()[0]
    version = output(QUERN, "--version").splitlines()[0]
    packages = output(sys.executable, "-m", "pip", "list", "--format", "freeze").splitlines()
    peer = next(line for line in packages if line.startswith("llama"))
    tasks = " ".join(pathlib.Path(task).name for task in options.tasks)
    print(f"{datetime.date.today()}, {cpu}, {cores} cores, last-level cache {last_level_cache()}; "
          f"commit {commit}; {compiler}; {version}; {peer}; {options.threads} threads\n\n"
          f"    {script}{' --quick' if options.quick else f' --rounds {options.rounds}'}{' ' + tasks if tasks else ''}\n")


def main():
    """Head, agreement, table, the rest."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compute-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("tasks", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        if options.compute_only:
            print_compute(options, list(texts(options, scratch)), scratch)
            return
        print_head(options, "bench/cpu_peer.sh")
        say("Comparing logits")
        all_ids = list(texts(options, scratch))
        print_agreement(options, all_ids, scratch)
        print_footprint(scratch)
        others = Others()
        results, reads, modes = measure(options)
        print(f"* other processes took {others.share():.1%} of the CPUs meanwhile"
              f"{': **too much, measure again**' if others.share() > OTHERS_MOST else ''}")
        print(f"* memory is read with {min(r[0] for r in reads):.1f} to {max(r[0] for r in reads):.1f}"
              f" GB/s, median {statistics.median(r[0] for r in reads):.1f}; by one thread "
              f"{statistics.median(r[1] for r in reads):.1f}\n* quern: {'; '.join(modes)}\n")
        print_table(results, options)
        print_compute(options, all_ids, scratch)


if __name__ == "__main__":
    main()

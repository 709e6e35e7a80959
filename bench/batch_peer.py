#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The measuring half of bench/batch_peer.sh: runs quern and llama.cpp in turns, prints Markdown.

    bench/batch_peer.py [--quick] [--peer-only] [--threads N] MODELS

MODELS is the folder that bench/batch_peer.sh fills.  In each round each cell of the table is run by
both programs with the same prompts, the one that went first last time going second; every figure is
the median of the rounds.  Of llama.cpp's two ways to keep many sequences the faster one counts, cell
by cell.  Progress goes to stderr.
"""
import argparse
import collections
import json
import pathlib
import statistics
import sys
import tempfile

import cpu_peer
import models
from cpu_peer import BUILD, NANO, OTHERS_MOST, QUERN, ROOT, json_lines, output, quern_path, say

# What one process measures; decode: tokens of each sequence and repeat.
Cell = collections.namedtuple("Cell", "model dtype depth sequences decode")
CELLS = [Cell("nano", dtype, depth, n, 32) for dtype in ("bf16", "mxfp4") for depth in (0, 2048)
         for n in (1, 4, 16, 64)]
# Not 64 at 4,096: prompts of 262,144 tokens take llama.cpp an hour, and 4 GB of cache.
CELLS += [Cell("dummy", dtype, depth, n, 16) for dtype in ("bf16", "mxfp4") for depth in (0, 4096)
          for n in ((1, 4, 16) if depth else (1, 4, 16, 64))]
GOAL = 2.5
N_SHORT = 32  # ids of the dummy's prompt at depth 0
N_OWN = 64  # ids at the end of the dummy's long prompts, which no other sequence has


def problems(task):
    """What users ask in a file of tests/eval."""
    lines = (ROOT / f"tests/eval/nano_{task}.jsonl").read_text().splitlines()
    return [json.loads(line)["messages"][-1]["content"] for line in lines]


def chat_ids(text, scratch):
    """The prompt of one user message."""
    (scratch / "text").write_text(text)
    return json.loads(output(QUERN, "tokenize", NANO, "--chat", "--json", "-f",
                             scratch / "text"))["ids"]


def nano_prompts(depth, scratch):
    """Questions whose answers are long; at a depth behind a text of as many tokens as fit."""
    before = ""
    questions = [text for pair in zip(problems("code"), problems("word_problem")) for text in pair]
    questions = list(dict.fromkeys(questions))[:64]
    if depth:
        longest = max(len(chat_ids(text, scratch)) for text in questions)
        for text in problems("needle"):
            longer = before + text.split("\n\n")[0] + "\n"
            if len(chat_ids(longer, scratch)) + longest > depth:
                break
            before = longer
    return [chat_ids(before + text, scratch) for text in questions]


def dummy_prompts(depth):
    """Arithmetic sequences, as bench/peer.py has them."""
    n_vocab = models.DUMMY["vocab_size"]
    n_own = N_OWN if depth else N_SHORT
    common = [(i * 7919 + 1) % n_vocab for i in range(max(0, depth - n_own))]
    return [common + [(i * 7919 + (i_sequence + 1) * 104729 + 1) % n_vocab for i in range(n_own)]
            for i_sequence in range(64)]


def write_prompts(scratch):
    """{(model, depth): prompts}"""
    return {("nano", depth): nano_prompts(depth, scratch) for depth in (0, 2048)} | \
        {("dummy", depth): dummy_prompts(depth) for depth in (0, 4096)}


def engines_of(cell, options):
    """Who measures a cell; speculation only where weights are trained."""
    if options.peer_only:
        return ["llama.cpp"]
    return ["quern", "llama.cpp"] + (["quern, MTP"] if cell.model == "nano" else [])


def run_cell(engine, cell, options, prompts, scratch):
    """Objects that one program prints for one cell."""
    path = scratch / "prompts.json"
    path.write_text(json.dumps(prompts[cell.model, cell.depth][:cell.sequences]))
    if engine == "llama.cpp":
        command = [sys.executable, "-B", ROOT / "bench/peer.py"]
        model = options.models / f"{cell.model}-{cell.dtype}.gguf"
    else:
        command = [BUILD / "bench_batch_speed", "--draft",
                   "auto" if engine == "quern, MTP" else "none"]
        model = quern_path(options.models, cell.model, cell.dtype)
    return json_lines(*command, "--prompts", path, "--decode", 8 if options.quick else cell.decode,
                      "--repeats", 1 if options.quick else 3, "--threads", options.threads, model)


def measure(options, prompts, scratch):
    """{cell: {engine or (engine, way): [tokens/s]}}, {cell: [tokens a step, MTP]}, what quern
    computes with, and the share of the CPUs that others took."""
    results = collections.defaultdict(lambda: collections.defaultdict(list))
    steps = collections.defaultdict(list)
    modes = set()
    others = cpu_peer.Others()
    for i_round in range(1 if options.quick else options.rounds):
        for cell in CELLS:
            if options.quick and (cell.sequences > 4 or cell.depth == 4096):
                continue
            engines = engines_of(cell, options)
            for engine in reversed(engines) if i_round % 2 else engines:
                for line in run_cell(engine, cell, options, prompts, scratch):
                    name = (engine, line["way"]) if "way" in line else engine
                    results[cell][name].append(line["tokens_per_s"])
                    if engine == "quern":
                        modes.add(f"{cell.model} {cell.dtype}: compute {line['compute']}, kernels "
                                  f"{line['kernels']}, cache {line['kv_dtype']}")
                    if engine == "quern, MTP":
                        steps[cell].append(line["tokens_per_step"] / cell.sequences)
                    say(f"round {i_round + 1}: {name}: {cell.model} {cell.dtype} "
                        f"{cell.sequences} at {cell.depth}: {line['tokens_per_s']:.1f} tokens/s")
    return results, steps, sorted(modes), others.share()


def print_table(results, steps):
    """One row for each cell."""
    print("| model | weights | depth | sequences | llama.cpp | its faster way | quern | ratio "
          "| met | quern with MTP | tokens a step |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for cell, runs in results.items():
        rates = {name: statistics.median(rate) for name, rate in runs.items()}
        theirs, way = max((rate, name[1]) for name, rate in rates.items() if name[0] == "llama.cpp")
        ours, mtp = rates.get("quern"), rates.get("quern, MTP")
        print(f"| {'glm-nano' if cell.model == 'nano' else 'dummy 1.3 B'} | {cell.dtype} "
              f"| {cell.depth:,} | {cell.sequences} | {theirs:,.1f} | {way} "
              f"| {'' if ours is None else format(ours, ',.1f')} "
              f"| {'' if ours is None else format(ours / theirs, '.2f')} "
              f"| {'' if ours is None else 'yes' if ours >= GOAL * theirs else '**no**'} "
              f"| {'' if mtp is None else format(mtp, ',.1f')} "
              f"| {'' if mtp is None else format(statistics.median(steps[cell]), '.2f')} |")


def main():
    """Head, agreement, table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-only", action="store_true", help="llama.cpp alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("models", type=pathlib.Path)
    options = parser.parse_args()
    options.tasks = []
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        cpu_peer.print_head(options, "bench/batch_peer.sh")
        say("Comparing logits")
        cpu_peer.print_agreement(options, list(cpu_peer.texts(options, scratch)), scratch)
        prompts = write_prompts(scratch)
        for (model, depth), lists in prompts.items():
            say(f"{model} at {depth}: prompts of {min(map(len, lists))} to "
                f"{max(map(len, lists))} tokens")
        results, steps, modes, share = measure(options, prompts, scratch)
    print(f"* other processes took {share:.1%} of the CPUs meanwhile"
          f"{': **too much, measure again**' if share > OTHERS_MOST else ''}\n"
          f"* quern: {'; '.join(modes)}\n* goal: {GOAL:g} times llama.cpp, in every cell\n")
    print_table(results, steps)


if __name__ == "__main__":
    main()

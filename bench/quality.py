#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `quern eval` on the models that bench/quality.sh makes, and prints the tables.

    bench/quality.py [--limit N] [--text FILE] FOLDER

A result that FOLDER/results has is not measured again.
"""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUERN = ROOT / "build/release/quern"
NANO = ROOT / "models/glm-nano"
TASKS = sorted((ROOT / "tests/eval").glob("nano_*.jsonl"))
TEXT_TOKENS, MAX_TOKENS = 10000, 512
# Name, label, folder of the second model (None: the first once more), options, is the text read too?
RUNS = [
    ("experts", "experts", "experts", [], True),
    ("experts-mse", "experts, `--scale mse`", "experts-mse", [], True),
    ("mlp", "mlp", "mlp", [], True),
    ("fp8", "FP8", "fp8", [], True),
    ("fp8-experts", "FP8, then experts", "fp8-experts", [], True),
    ("experts-silent", "experts, thinking off", "experts", ["--thinking", "off"], False),
    ("compute", "bf16, its first side with `--compute f32`", None,
     ["--compute", "f32", "--against-compute", "auto"], True),
]
# Models that answer with speculation and without.
SPECULATION = [("bf16", None), ("experts", "experts"), ("experts, MTP layer too", "experts-mtp"),
               ("mlp", "mlp"), ("FP8, then experts", "fp8-experts")]


def write_questions(path):
    """What the problems say, one after the other."""
    with open(path, "w", encoding="utf-8") as out:
        for task in TASKS:
            for line in task.read_text(encoding="utf-8").splitlines():
                out.write(json.loads(line)["messages"][-1]["content"] + "\n")


def measure(folder, name, arguments):
    """The result of a run, measured unless it is there."""
    path = folder / "results" / (name + ".json")
    if not path.exists():
        print("Measuring " + name, file=sys.stderr, flush=True)
        done = subprocess.run([QUERN, "eval", *arguments, "--json", "-q"], check=True,
                              stdout=subprocess.PIPE)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(done.stdout)
    return json.loads(path.read_text(encoding="utf-8"))


def points(pair):
    return "%+.1f (%+.1f to %+.1f)" % tuple(100 * pair[key] for key in ("difference", "low", "high"))


def rights(result, key, name=None):
    """Right answers of both sides, of one task or of a whole."""
    sides = [one[key] if name is None else one[key][name] for one in (result, result["against"])]
    return "%d / %d" % (sides[0]["right"], sides[1]["right"])


def print_tasks(rows):
    names = list(rows[0][1]["tasks"])
    print("| second model | %s | all | points | p | same answers |" % " | ".join(names))
    print("|---|%s---|---|---|---|" % ("---|" * len(names)))
    for label, result in rows:
        pair = result["paired"]
        print("| %s | %s | %s | %s | %.2g | %d of %d |" % (
            label, " | ".join(rights(result, "tasks", name) for name in names),
            rights(result, "all"), points(pair), pair["p"], pair["same_answers"], pair["n"]))


def print_text(rows):
    print("\n| second model | tokens | perplexity, first | second | KL a token | median | 99 % | "
          "same likeliest |")
    print("|---|---|---|---|---|---|---|---|")
    for label, result in rows:
        if "divergence" in result:
            d = result["divergence"]
            print("| %s | %d | %.2f | %.2f | %.2g (%.2g to %.2g) | %.2g | %.2g | %.1f %% |" % (
                label, d["tokens"], result["text"]["perplexity"],
                result["against"]["text"]["perplexity"], d["mean"], d["low"], d["high"], d["p50"],
                d["p99"], 100 * d["same_top"]))


def print_speculation(rows):
    print("\n| model | right with MTP / without | same answers | tokens a step |")
    print("|---|---|---|---|")
    for label, result in rows:
        pair = result["paired"]
        print("| %s | %s | %d of %d | %.2f |" % (label, rights(result, "all"), pair["same_answers"],
                                                 pair["n"],
                                                 result["speculation"]["acceptance_length"]))


def main():
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=200, help="problems of a task (default 200)")
    parser.add_argument("--text", type=pathlib.Path, help="text that is read")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    folder = options.folder
    text = options.text or folder / "questions.txt"
    if options.text is None:
        write_questions(text)
    asked = ["--tasks", ",".join(map(str, TASKS)), "--limit", str(options.limit), "--max-tokens",
             str(MAX_TOKENS)]
    rows = []
    for name, label, model, more, reads_text in RUNS:
        against = ["--against", folder / model] if model else []
        read = ["--text", text, "--text-tokens", str(TEXT_TOKENS), "--spool", folder]
        rows.append((label, measure(folder, name, [NANO, *asked, *more, *against,
                                                   *(read if reads_text else [])])))
    drafts = ["--draft-tokens", "5", "--against-draft-tokens", "0"]
    pairs = [(label, measure(folder, "speculation-" + (model or "bf16"),
                             [folder / model if model else NANO, *asked, *drafts]))
             for label, model in SPECULATION]
    print_tasks(rows)
    print_text(rows)
    print_speculation(pairs)
    other = [label for label, result in pairs
             if result["paired"]["same_answers"] != result["paired"]["n"]]
    if other:
        print("quality: error: %s: other answers with speculation than without, the same expected"
              % ", ".join(other), file=sys.stderr)
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())

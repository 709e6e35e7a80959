#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Public problem sets, from files of your own, as lines for `quern eval --tasks`.

    tools/eval_tasks.py gsm8k test.jsonl > gsm8k.jsonl
    tools/eval_tasks.py gpqa gpqa_diamond.csv --seed 0 > gpqa.jsonl

gsm8k takes {"question", "answer"} lines whose answers end in "#### 42".  gpqa takes the CSV with the
columns Question, Correct Answer and Incorrect Answer 1 to 3; the seed shuffles the choices, so other
seeds are other orders of the same questions.  Standard library only; nothing is downloaded.
"""
import argparse
import csv
import json
import random
import sys

GSM8K_ASK = "\n\nSolve this step by step. End with one line: The answer is N."
GPQA_ASK = "\n\nThink step by step. End with one line: Answer: X, where X is the letter of your choice."
GPQA_COLUMNS = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2",
                "Incorrect Answer 3"]


class BadInput(Exception):
    """What was seen and what was expected, in a place."""


def task(name, number, text, answer):
    return {"task": name, "id": f"{name}-{number}", "answer": answer,
            "messages": [{"role": "user", "content": text}]}


def gsm8k(path, _):
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                problem = json.loads(line)
                text, (_, answer) = problem["question"], problem["answer"].rsplit("####", 1)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise BadInput(f'{path}: line {number}: {line.strip()[:40]}, {{"question", "answer"}} '
                               'with "#### NUMBER" at the end expected') from None
            yield task("gsm8k", number, text.strip() + GSM8K_ASK, answer.strip())


def gpqa(path, seed):
    order = random.Random(seed)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in GPQA_COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise BadInput(f"{path}: no column {missing[0]!r}, {', '.join(GPQA_COLUMNS)} expected")
        for number, row in enumerate(reader, 1):
            choices = [(row[name] or "").strip() for name in GPQA_COLUMNS[1:]]
            places = order.sample(range(4), 4)
            text = "\n".join(f"({letter}) {choices[place]}" for letter, place in zip("ABCD", places))
            yield task("gpqa", number, row["Question"].strip() + "\n\n" + text + GPQA_ASK,
                       "ABCD"[places.index(0)])


def main():
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["gsm8k", "gpqa"])
    parser.add_argument("file", help="the set as its authors publish it")
    parser.add_argument("--seed", type=int, default=0, help="order of gpqa's choices (default 0)")
    options = parser.parse_args()
    try:
        lines = list({"gsm8k": gsm8k, "gpqa": gpqa}[options.kind](options.file, options.seed))
        if not lines:
            raise BadInput(f"{options.file}: no problem, at least one expected")
    except (BadInput, OSError, UnicodeDecodeError) as error:
        print(f"eval_tasks: error: {error}", file=sys.stderr)
        return 3
    for line in lines:
        print(json.dumps(line, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Right answers by compute mode: what the default arithmetic costs in quality.

    bench/answers.py [--limit N] [--modes f32,auto] MODEL TASK.jsonl...

A line of a task is {"task", "messages", "answer", "tools"?}.  Every problem is answered greedily in
each mode by build/release/quern; the table counts right answers, and answers that are the same text.
"""
import argparse
import json
import pathlib
import re
import subprocess
import tempfile

QUERN = pathlib.Path(__file__).parent.parent / "build/release/quern"


def parse(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_right(problem, said):
    """A call or an object by its value, a program by its text, all else by how the answer ends."""
    answer, text = problem["answer"], said["text"]
    if problem["task"] == "tool_call":
        calls = [{"name": call["function"]["name"],
                  "arguments": parse(call["function"]["arguments"])} for call in said["tool_calls"]]
        return calls == [parse(answer)]
    if problem["task"] == "extract":
        return parse(text) == parse(answer)
    if problem["task"] == "code":
        return answer.strip() in text
    return re.search(r"(?<!\w)%s\W*$" % re.escape(answer), text) is not None


def solve(model, problem, mode, folder):
    (folder / "messages.json").write_text(json.dumps(problem["messages"]))
    command = [QUERN, "run", model, "-q", "--json", "--temperature", "0", "--max-tokens", "512",
               "--compute", mode, "--messages", folder / "messages.json"]
    if "tools" in problem:
        (folder / "tools.json").write_text(json.dumps(problem["tools"]))
        command += ["--tools", folder / "tools.json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=200, help="problems of a task (default 200)")
    parser.add_argument("--modes", default="f32,auto", help="compute modes (default f32,auto)")
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="+")
    options = parser.parse_args()
    modes = options.modes.split(",")
    print("| task | problems | %s | same text |" % " | ".join(modes))
    print("|---|---|%s---|" % ("---|" * len(modes)))
    with tempfile.TemporaryDirectory() as name:
        for task in options.tasks:
            lines = pathlib.Path(task).read_text(encoding="utf-8").splitlines()[:options.limit]
            problems = [json.loads(line) for line in lines]
            n_right, n_same = [0] * len(modes), 0
            for problem in problems:
                said = [solve(options.model, problem, mode, pathlib.Path(name)) for mode in modes]
                for i, answer in enumerate(said):
                    n_right[i] += is_right(problem, answer)
                n_same += len({answer["text"] + answer["reasoning"] for answer in said}) == 1
            print("| %s | %d | %s | %d |" % (problems[0]["task"], len(problems),
                                             " | ".join(map(str, n_right)), n_same), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern eval as users run it: results, comparisons, a killed run that goes on, what is refused.

QUERN names the program; without it build/release/quern is taken.  QUERN_EVAL_LONG=1 asks for more of
what takes long.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUERN = os.environ.get("QUERN", str(ROOT / "build/release/quern"))
NANO = str(ROOT / "models/glm-nano")
NAMES = ["arithmetic", "choice", "code", "extract", "needle", "tool_call", "transform",
         "word_problem"]
TASKS = {name: str(ROOT / ("tests/eval/nano_%s.jsonl" % name)) for name in NAMES}
Z = 1.959963984540054
# More kills of a run that goes on, and more problems: minutes.
IS_LONG = os.environ.get("QUERN_EVAL_LONG") == "1"


def quern(*arguments, limits=None):
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "QN_CPU_MASK")}
    return subprocess.run([QUERN, *arguments], capture_output=True, text=True, timeout=300,
                          check=False, env=environment, preexec_fn=limits)


def evaluate(*arguments):
    done = quern("eval", *arguments, "--json", "-q")
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    if done.stdout.count("\n") != 1:
        raise AssertionError("more than one line: " + done.stdout)
    return json.loads(done.stdout)


def without_times(result):
    """A result without what depends on the clock."""
    if isinstance(result, dict):
        return {k: without_times(v) for k, v in result.items() if k not in ("timing", "time_s")}
    return result


def wilson(n_right, n):
    share, scale = n_right / n, 1 + Z * Z / n
    center = (share + Z * Z / (2 * n)) / scale
    half = Z * (share * (1 - share) / n + Z * Z / (4 * n * n)) ** 0.5 / scale
    return max(0.0, center - half), min(1.0, center + half)


def damaged(folder):
    """glm-nano with the down projections of all experts of one layer zeroed."""
    shutil.copytree(NANO, folder)
    for path in pathlib.Path(folder).iterdir():
        path.chmod(0o644)
    for path in pathlib.Path(folder).glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        (length,) = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(bytes(data[8:8 + length])).items():
            if re.match(r"model\.layers\.2\.mlp\.(experts\.\d+|shared_experts)\.down_proj", name):
                begin, end = entry["data_offsets"]
                data[8 + length + begin:8 + length + end] = bytes(end - begin)
        path.write_bytes(data)
    return str(folder)


def loud(folder):
    """glm-nano with final norms a million times as large: the likeliest token is all but sure."""
    shutil.copytree(NANO, folder)
    for path in pathlib.Path(folder).glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        (length,) = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(bytes(data[8:8 + length])).items():
            if name == "model.norm.weight":
                begin, end = entry["data_offsets"]
                data[8 + length + begin:8 + length + end] = b"\x80\x49" * ((end - begin) // 2)
        path.chmod(0o644)
        path.write_bytes(data)
    return str(folder)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quern-eval-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return str(self.folder / name)

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.path(name)

    def lines(self, name="report.jsonl"):
        return [json.loads(line) for line in
                (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def start(self, *arguments):
        return subprocess.Popen([QUERN, "eval", *arguments], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def wait_for_lines(self, process, name, n_lines):
        """Until the report has so many, or the program has ended."""
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                if (self.folder / name).read_bytes().count(b"\n") >= n_lines:
                    return
            time.sleep(0.002)

    def assert_fails(self, status, pattern, *arguments):
        done = quern("eval", *arguments)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertRegex(done.stderr, "^quern: error: .*" + pattern)


class Results(Case):
    def test_every_task_has_its_count_and_interval(self):
        n = 8 if IS_LONG else 4
        result = evaluate(NANO, "--tasks", ",".join(TASKS.values()), "--limit", str(n),
                          "--max-tokens", "200")
        self.assertEqual(list(result["tasks"]), NAMES)
        for name, task in result["tasks"].items():
            self.assertEqual(task["n"], n)
            self.assertAlmostEqual(task["accuracy"], task["right"] / n)
            low, high = wilson(task["right"], n)
            self.assertAlmostEqual(task["low"], low, places=8)
            self.assertAlmostEqual(task["high"], high, places=8)
            self.assertGreaterEqual(task["right"], 1 if name == "choice" else n - 1, name)
        self.assertEqual(result["all"]["right"], sum(t["right"] for t in result["tasks"].values()))
        self.assertEqual(result["model"], NANO)
        self.assertEqual(result["weights"], "trained")
        self.assertNotIn("paired", result)
        self.assertGreater(result["usage"]["completion_tokens"], 32)
        self.assertGreater(result["speculation"]["acceptance_length"], 2)

    def test_the_table_says_what_the_json_says(self):
        arguments = ["eval", NANO, "--tasks", TASKS["arithmetic"], "--tasks", TASKS["tool_call"],
                     "--limit", "5", "--against-draft-tokens", "0"]
        report = ("--report", self.path("report.jsonl"), "--resume")
        table = quern(*arguments, *report, "-q")
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        result = evaluate(*arguments[1:], *report)  # of the same answers
        for name, first, second, pair in (
                ("tool_call", result["tasks"]["tool_call"],
                 result["against"]["tasks"]["tool_call"], result["paired"]["tasks"]["tool_call"]),
                ("all tasks", result["all"], result["against"]["all"], result["paired"])):
            (row,) = [line for line in table.stdout.splitlines() if line.startswith(name)]
            self.assertLessEqual(len(row), 80)
            numbers = [float(n) for n in re.findall(r"[-+]?\d+(?:\.\d+)?", row)]
            expected = [first["n"], 100 * first["accuracy"], 100 * second["accuracy"],
                        100 * pair["difference"], 100 * pair["low"], 100 * pair["high"], pair["p"]]
            for seen, wanted in zip(numbers, expected, strict=True):
                self.assertAlmostEqual(seen, wanted, delta=0.0501)
        alone = quern(*arguments[:-2], "-q").stdout
        self.assertRegex(alone, r"(?m)^tool_call +5 +100\.0 % \( 56\.6 to 100\.0\)$")
        self.assertIn("10 of 10 answers are the same, token for token", table.stdout)
        self.assertNotIn("lossless", table.stdout)

    def test_limits_are_of_tasks_and_files_may_mix_them(self):
        lines = []
        for name in ("extract", "arithmetic"):
            lines += pathlib.Path(TASKS[name]).read_text(encoding="utf-8").splitlines()[:4]
        mixed = self.write("mixed.jsonl", "\n".join(lines[::-1]) + "\n\n")
        result = evaluate(NANO, "--tasks", mixed, "--limit", "3")
        self.assertEqual({k: v["n"] for k, v in result["tasks"].items()},
                         {"arithmetic": 3, "extract": 3})

    def test_dummy_weights_are_said(self):
        result = evaluate(NANO, "--tasks", TASKS["arithmetic"], "--limit", "2", "--max-tokens", "4",
                          "--load-format", "dummy")
        self.assertEqual(result["weights"], "dummy")
        self.assertEqual(result["all"]["cut"], 2)


class Comparisons(Case):
    def test_a_model_against_itself_shows_no_difference(self):
        result = evaluate(NANO, "--tasks", TASKS["arithmetic"], "--limit", "10", "--against", NANO)
        paired = result["paired"]
        self.assertEqual((paired["n"], paired["difference"], paired["p"]), (10, 0, 1))
        self.assertEqual(paired["only_first"] + paired["only_second"], 0)
        self.assertLess(paired["low"], 0)
        self.assertGreater(paired["high"], 0)
        self.assertEqual(paired["same_answers"], 10)
        self.assertEqual(result["against"]["tasks"], result["tasks"])

    def test_speculation_changes_no_token(self):
        tasks = ",".join(TASKS[name] for name in ("transform", "tool_call", "word_problem"))
        n = 10 if IS_LONG else 3
        result = evaluate(NANO, "--tasks", tasks, "--limit", str(n), "--draft-tokens", "5",
                          "--against-draft-tokens", "0")
        self.assertEqual(result["paired"]["same_answers"], 3 * n)
        self.assertEqual(result["against"]["speculation"]["acceptance_length"], 1)

    def test_a_damaged_model_is_significantly_worse(self):
        bad = damaged(self.folder / "bad")
        tasks = ",".join(TASKS[name] for name in ("arithmetic", "word_problem", "extract"))
        arguments = (NANO, "--tasks", tasks, "--limit", "20" if IS_LONG else "6", "--max-tokens",
                     "60", "--against", bad, "--report", self.path("report.jsonl"), "--resume")
        paired = evaluate(*arguments)["paired"]
        self.assertLess(paired["p"], 0.001)
        self.assertLess(paired["difference"], paired["high"])
        self.assertLess(paired["high"], 0)
        self.assertIn("The second is worse", quern("eval", *arguments, "-q").stdout)

    def test_thinking_off_is_a_side(self):
        result = evaluate(NANO, "--tasks", TASKS["word_problem"], "--limit", "5",
                          "--against-thinking", "off")
        self.assertEqual((result["thinking"], result["against"]["thinking"]), ("on", "off"))
        self.assertLess(result["paired"]["same_answers"], 5)

    def test_a_second_device_is_a_second_side(self):
        result = evaluate(NANO, "--tasks", TASKS["arithmetic"], "--limit", "5", "--max-tokens", "8",
                          "--against-device", "cpu")
        self.assertEqual((result["device"], result["against"]["device"]), ("cpu", "cpu"))
        self.assertEqual(result["paired"]["same_answers"], 5)
        for status, device in ((4, "hip:99"), (2, "nonsense")):
            self.assert_fails(status, "--against-device: ", NANO, "--tasks", TASKS["arithmetic"],
                              "--against-device", device)

    def test_strict_refuses_kernels_that_are_not_made_for_the_machine(self):
        self.assert_fails(4, "fallbacks", NANO, "--tasks", TASKS["arithmetic"], "--limit", "1",
                          "--cpu-mask", "ref", "--strict")

    def test_a_text_gives_perplexity_and_divergence(self):
        text = str(ROOT / "docs/model.md")
        result = evaluate(NANO, "--text", text, "--text-tokens", "600", "--context-tokens", "202",
                          "--against-compute", "f32")
        self.assertEqual(result["tasks"], {})
        self.assertEqual(result["text"]["tokens"], 600)
        self.assertEqual((result["text"]["windows"], result["text"]["window_tokens"]), (3, 200))
        self.assertLess(result["text"]["low"], result["text"]["perplexity"])
        self.assertLess(result["text"]["perplexity"], result["text"]["high"])
        divergence = result["divergence"]
        self.assertEqual(divergence["tokens"], 600)
        self.assertTrue(0 < divergence["p50"] < divergence["p99"] <= divergence["max"])
        self.assertTrue(0 < divergence["mean"] < 0.01)
        self.assertGreater(divergence["same_top"], 0.9)
        table = quern("eval", NANO, "--text", text, "--text-tokens", "60", "--against", NANO)
        self.assertIn("Logits of the text wait on disk", table.stderr)
        self.assertIn("KL divergence a token: mean 0", table.stdout)


    def test_a_perplexity_beyond_numbers(self):
        arguments = (loud(self.folder / "loud"), "--text", str(ROOT / "docs/model.md"),
                     "--text-tokens", "1")
        text = evaluate(*arguments)["text"]
        self.assertIsNone(text["perplexity"])
        self.assertGreater(text["loss"], 709)
        table = quern("eval", *arguments, "-q")
        self.assertEqual((table.returncode, table.stderr), (0, ""))
        self.assertRegex(table.stdout, r"text: perplexity - .*, loss \d+\.\d+, of 1 token in 1 window\n")


class Reports(Case):
    LIMIT = 25 if IS_LONG else 6
    N = 4 * LIMIT  # answers: two tasks, two sides
    ARGUMENTS = (NANO, "--tasks", TASKS["arithmetic"] + "," + TASKS["tool_call"], "--limit",
                 str(LIMIT), "--max-tokens", "40", "--against-kv-dtype", "fp8")

    def test_a_line_for_each_answer(self):
        report = self.path("report.jsonl")
        result = evaluate(*self.ARGUMENTS, "--report", report)
        header, *answers = self.lines()
        self.assertEqual(header["model"], NANO)
        self.assertEqual(len(header["fingerprint"]), 64)
        self.assertEqual(len(answers), self.N)
        self.assertEqual([(a["side"], a["problem"]) for a in answers],
                         [(side, i) for side in (0, 1) for i in range(self.N // 2)])
        self.assertEqual(sum(a["right"] for a in answers[:self.N // 2]), result["all"]["right"])
        self.assertEqual((result["draft_tokens"], answers[0]["draft_tokens"]), (5, 5))
        self.assertEqual((answers[0]["model"], answers[0]["answer"]), (NANO, "0"))
        self.assertEqual(answers[0]["line"], 1)
        self.assertIn("The answer is 0.", answers[0]["text"])
        call = json.loads(answers[self.LIMIT]["tool_calls"])
        self.assertEqual(call[0]["name"], "send_message")
        self.assertEqual(answers[self.N // 2]["kv_dtype"], "fp8")

    def test_a_killed_run_goes_on_to_the_same_result(self):
        expected = without_times(evaluate(*self.ARGUMENTS, "--report", self.path("whole.jsonl")))
        for n_lines in ((1, 8, 24, 52, 77) if IS_LONG else (1, 8, 17)):
            with self.start(*self.ARGUMENTS, "--report", self.path("report.jsonl"),
                            "--resume") as process:
                self.wait_for_lines(process, "report.jsonl", n_lines)
                self.assertIsNone(process.poll(), "it ended before it was killed")
                process.kill()
        with open(self.path("report.jsonl"), "a", encoding="utf-8") as file:
            file.write('{"side": 0, "prob')  # what a kill in the middle of a write leaves
        result = evaluate(*self.ARGUMENTS, "--report", self.path("report.jsonl"), "--resume")
        self.assertEqual(without_times(result), expected)
        self.assertEqual([without_times(a) for a in self.lines()],
                         [without_times(a) for a in self.lines("whole.jsonl")])
        again = evaluate(*self.ARGUMENTS, "--report", self.path("report.jsonl"), "--resume")
        self.assertEqual(without_times(again), expected)

    def test_an_interrupt_ends_with_130_and_keeps_what_there_is(self):
        with self.start(*self.ARGUMENTS, "--report", self.path("report.jsonl")) as process:
            self.wait_for_lines(process, "report.jsonl", 4)
            process.send_signal(signal.SIGINT)
            error = process.stderr.read().decode()
        self.assertEqual(process.returncode, 130, error)
        self.assertRegex(error, r"^quern: error: eval: interrupted after \d+ of %d answers.*--resume goes on" % self.N)
        n_lines = len(self.lines())
        self.assertGreaterEqual(n_lines, 4)
        evaluate(*self.ARGUMENTS, "--report", self.path("report.jsonl"), "--resume")
        self.assertEqual(len(self.lines()), self.N + 1)

    def test_a_report_is_for_one_run(self):
        report = self.path("report.jsonl")
        base = (NANO, "--tasks", TASKS["tool_call"], "--limit", "2", "--report", report)
        evaluate(*base)
        self.assert_fails(1, "exists, a new name expected, or --resume", *base)
        before = (self.folder / "report.jsonl").read_bytes()
        self.assert_fails(3, 'thinking: "on", "off" expected', *base, "--resume", "--thinking",
                          "off")
        self.assert_fails(3, "tasks_0_sha256", NANO, "--tasks", TASKS["arithmetic"], "--limit",
                          "2", "--report", report, "--resume")
        self.assert_fails(3, "against_model|version", *base, "--resume", "--against", NANO)
        self.assertEqual((self.folder / "report.jsonl").read_bytes(), before)

    def test_another_checkpoint_under_the_same_name_is_noticed(self):
        model = self.path("model")
        shutil.copytree(NANO, model)
        base = (model, "--tasks", TASKS["tool_call"], "--limit", "1", "--report",
                self.path("report.jsonl"))
        evaluate(*base)
        os.utime(os.path.join(model, "model-00002-of-00003.safetensors"), (1, 1))
        self.assert_fails(3, "fingerprint", *base, "--resume")


class Conclusions(Case):
    """What the table says of answers that a report makes up: no model has to give them."""

    def conclusion(self, both, only_first, only_second, neither):
        n = both + only_first + only_second + neither
        line = '{"task": "t", "messages": [{"role": "user", "content": "x"}], "answer": "a"}\n'
        tasks = self.write("tasks.jsonl", line * n)
        arguments = (NANO, "--tasks", tasks, "--max-tokens", "1", "--against-draft-tokens", "0",
                     "--report", self.path("report.jsonl"), "--resume")
        (self.folder / "report.jsonl").unlink(missing_ok=True)
        with self.start(*arguments) as process:
            self.wait_for_lines(process, "report.jsonl", 2)
            process.kill()
        header, answer = (self.folder / "report.jsonl").read_text().splitlines()[:2]
        rest = json.dumps({k: v for k, v in json.loads(answer).items()
                           if k not in ("side", "problem", "right", "ids_hash")})[1:]
        rights = (["true"] * (both + only_first) + ["false"] * (only_second + neither),
                  ["true"] * both + ["false"] * only_first + ["true"] * only_second
                  + ["false"] * neither)
        with open(self.path("report.jsonl"), "w", encoding="utf-8") as file:
            file.write(header + "\n")
            file.writelines(
                '{"side": %d, "problem": %d, "right": %s, "ids_hash": "%016x", %s\n'
                % (side, i, right, right == "true", rest)
                for side in (0, 1) for i, right in enumerate(rights[side]))
        done = quern("eval", *arguments, "-q")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split("token for token. ", 1)[1]

    def test_p_and_interval_agree_on_a_difference(self):
        text = self.conclusion(10, 8, 0, 2)
        self.assertIn("The second is worse: a split so uneven has p = 0.0078", text)
        self.assertNotIn("never below", text)
        self.assertIn("The second is better", self.conclusion(10, 0, 8, 2))

    def test_p_and_interval_agree_on_none(self):
        text = self.conclusion(10, 2, 1, 7)
        self.assertIn("No difference is shown", text)
        self.assertRegex(text, r"anything from -\d+\.\d to \+\d+\.\d points")
        self.assertIn("With fewer than 6 problems", text)

    def test_the_interval_alone_leaves_out_0(self):
        text = self.conclusion(60, 5, 0, 15)
        self.assertRegex(text, r"Borderline: .* p = 0\.062 .* interval, -\d+ to -0\.\d+ points, "
                               r"leaves out 0\.")
        self.assertNotIn("No difference", text)
        self.assertNotIn("The second is", text)

    def test_p_alone_is_small(self):
        text = self.conclusion(19794, 0, 6, 200)
        self.assertRegex(text, r"Borderline: .* p = 0\.031 .* -[\d.e-]+ to \+0\.063 points, holds 0\.")
        self.assertNotIn("The second is", text)


class Refusals(Case):
    def test_usage(self):
        tasks = TASKS["arithmetic"]
        self.assert_fails(2, "eval: no model")
        self.assert_fails(2, "--tasks FILE", NANO)
        self.assert_fails(2, "--report", NANO, "--tasks", tasks, "--resume")
        self.assert_fails(2, "--tasks: \".*,\"", NANO, "--tasks", tasks + ",")
        self.assert_fails(2, "--against-draft-tokens: \"9\"", NANO, "--tasks", tasks,
                          "--against-draft-tokens", "9")
        self.assert_fails(2, "--limit", NANO, "--tasks", tasks, "--limit", "0")
        self.assert_fails(2, "one argument too many", NANO, NANO, "--tasks", tasks)

    def test_missing_files(self):
        self.assert_fails(3, "/nowhere", NANO, "--tasks", "/nowhere/tasks.jsonl")
        self.assert_fails(3, "/nowhere", "/nowhere", "--tasks", TASKS["arithmetic"])
        self.assert_fails(3, "/nowhere", NANO, "--tasks", TASKS["arithmetic"], "--against",
                          "/nowhere")
        self.assert_fails(3, "/nowhere", NANO, "--text", "/nowhere")
        self.assert_fails(1, "/nowhere", NANO, "--tasks", TASKS["arithmetic"], "--report",
                          "/nowhere/report.jsonl")

    def test_bad_lines_are_named(self):
        good = pathlib.Path(TASKS["arithmetic"]).read_text(encoding="utf-8").splitlines()[0]
        for line, pattern in (
                ("{", "line 2, column 2: the end"),
                ("[]", "line 2: a list, an object expected"),
                ("{}", "line 2: task: nothing, a name"),
                ('{"task": "t", "messages": 3, "answer": "a"}', "line 2: messages: 3, a list"),
                ('{"task": "t", "messages": [{"role": "user", "content": 3}], "answer": "a"}',
                 r"line 2: messages\[0\]"),
                ('{"task": "t", "messages": [{}]}', "line 2: answer: nothing"),
                ('{"task": "gsm8k", "messages": [{}], "answer": "x"}',
                 'line 2: answer: "x", a number expected')):
            path = self.write("bad.jsonl", good + "\n" + line + "\n")
            self.assert_fails(3, re.escape(path) + ": " + pattern, NANO, "--tasks", path)

    def test_the_spool_needs_a_folder(self):
        self.assert_fails(1, "--spool", NANO, "--text", str(ROOT / "docs/model.md"), "--against",
                          NANO, "--spool", "/nowhere")


class Converter(Case):
    """tools/eval_tasks.py: public sets in their own form to task lines."""

    def convert(self, *arguments):
        done = subprocess.run([sys.executable, "-B", ROOT / "tools/eval_tasks.py", *arguments],
                              capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def test_gsm8k(self):
        path = self.write("gsm8k.jsonl", json.dumps(
            {"question": "Two and 1,000?", "answer": "2 + 1000 = <<2+1000=1002>>1002\n#### 1,002"})
            + "\n")
        status, out, err = self.convert("gsm8k", path)
        self.assertEqual((status, err), (0, ""))
        line = json.loads(out)
        self.assertEqual((line["task"], line["answer"]), ("gsm8k", "1,002"))
        self.assertIn("Two and 1,000?", line["messages"][-1]["content"])
        tasks = self.write("tasks.jsonl", out)
        self.assertEqual(evaluate(NANO, "--tasks", tasks, "--max-tokens", "20")["all"]["n"], 1)

    def test_gpqa_shuffles_by_seed_and_knows_the_answer(self):
        head = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
        path = self.write("gpqa.csv", head + '"Which, then?",right,w1,w2,"w\n3"\n' * 40)
        status, out, err = self.convert("gpqa", path, "--seed", "1")
        self.assertEqual((status, err), (0, ""))
        letters = set()
        for line in map(json.loads, out.splitlines()):
            self.assertRegex(line["messages"][-1]["content"],
                             r"\(%s\) right(\n|$)" % line["answer"])
            letters.add(line["answer"])
        self.assertEqual(letters, set("ABCD"))
        self.assertEqual(self.convert("gpqa", path, "--seed", "1")[1], out)
        self.assertNotEqual(self.convert("gpqa", path, "--seed", "2")[1], out)

    def test_what_is_no_such_file_is_said(self):
        for kind, text in (("gsm8k", '{"question": "x"}\n'), ("gsm8k", "no json\n"),
                           ("gpqa", "a,b\n1,2\n")):
            status, out, err = self.convert(kind, self.write("bad", text))
            self.assertEqual((status, out), (3, ""), err)
            self.assertRegex(err, "^eval_tasks: error: .*bad.*expected")


if __name__ == "__main__":
    unittest.main()

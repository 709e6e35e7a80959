#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern bench engine as users run it: what a result has, and that its figures fit together.  How
fast the machine is, no test says.
"""
import json
import os
import signal
import unittest

from test_cli import NANO, Case, start

SHORT = ["--prompt-tokens", "20", "--output-tokens", "24", "--repeat", "2", "--threads", "2"]


class BenchEngine(Case):
    def bench(self, *arguments):
        result = self.succeed("bench", "engine", NANO, "-q", "--json", *SHORT, *arguments)
        self.assertEqual(result.out.count("\n"), 1)
        return json.loads(result.out)

    def test_every_cell_is_measured_and_its_figures_fit(self):
        # Of one round, so that the figures are of the same time and fit on any machine: of several
        # each is a median of its own.
        result = self.bench("--batch", "1,3", "--context", "0,200", "--draft-tokens", "0,5",
                            "--repeat", "1")
        self.assertEqual([(c["draft_tokens"], c["context"], c["batch"]) for c in result["cells"]],
                         [(d, c, b) for d in (0, 5) for c in (0, 200) for b in (1, 3)])
        one = {}
        for c in result["cells"]:
            rate, step_s = c["decode_tokens_per_s"], c["step_ms"] / 1e3
            self.assertGreater(c["prefill_tokens_per_s"], 0)
            self.assertAlmostEqual(c["decode_tokens_per_s_per_sequence"] * c["batch"] / rate, 1, 5)
            self.assertAlmostEqual(c["acceptance_length"] * c["batch"] / step_s / rate, 1, 5)
            if c["batch"] == 1:
                one[c["draft_tokens"], c["context"]] = rate
            self.assertAlmostEqual(c["ratio_to_batch_1"],
                                   rate / one[c["draft_tokens"], c["context"]], 5)
            if c["draft_tokens"] == 0:
                self.assertEqual(c["acceptance_length"], 1)
            else:
                self.assertTrue(1 <= c["acceptance_length"] <= 6)
            self.assertEqual(c["synthetic"], False)
            n_positions = c["context"] + 20
            self.assertGreaterEqual(c["peak_pages"] * 64, c["batch"] * n_positions)

    def test_a_result_says_where_it_is_from(self):
        result = self.bench("--batch", "2", "--context", "0", "--draft-tokens", "0",
                            "--compute", "f32")
        for key in ("kernels", "commit", "version", "date", "machine"):
            self.assertTrue(result[key], key)
        self.assertEqual({key: result[key] for key in (
            "kind", "model", "weights", "quantization", "compute", "kv_dtype", "threads",
            "deterministic", "synthetic", "pinned_acceptance_length", "prompt_tokens",
            "output_tokens", "repeats", "shared_prefix")}, {
                "kind": "engine", "model": NANO, "weights": "trained", "quantization": "none",
                "compute": "f32", "kv_dtype": "f32", "threads": 2, "deterministic": True, "synthetic": False,
                "pinned_acceptance_length": None, "prompt_tokens": 20, "output_tokens": 24,
                "repeats": 2, "shared_prefix": False})
        self.assertRegex(result["date"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertIsNone(result["cells"][0]["ratio_to_batch_1"])

    def test_pinned_acceptance_is_kept_and_called_synthetic(self):
        result = self.bench("--batch", "2", "--context", "0", "--draft-tokens", "0,3,5",
                            "--acceptance-length", "2.5", "--output-tokens", "200")
        self.assertEqual((result["synthetic"], result["pinned_acceptance_length"]), (True, 2.5))
        for c, is_pinned in zip(result["cells"], (False, True, True)):
            self.assertEqual(c["synthetic"], is_pinned)
            self.assertLess(abs(c["acceptance_length"] - (2.5 if is_pinned else 1)), 0.2)
        table = self.succeed("bench", "engine", NANO, "-q", *SHORT, "--batch", "1", "--context",
                             "0", "--draft-tokens", "2", "--acceptance-length", "2").out
        self.assertIn("Synthetic: acceptance is pinned at 2", table)

    def test_a_shared_prefix_is_kept_once(self):
        pages = {}
        for flag in ([], ["--shared-prefix"]):
            (cell,) = self.bench("--batch", "4", "--context", "512", "--draft-tokens", "0",
                                 *flag)["cells"]
            pages[len(flag)] = cell["peak_pages"]
        self.assertGreater(pages[0], 4 * 8)
        self.assertLess(pages[1], 8 + 4 * 4)

    def test_files_and_table(self):
        out = self.path("result")
        result = self.succeed("bench", "engine", NANO, *SHORT, "--batch", "1,2", "--context", "0",
                              "--draft-tokens", "auto", "--output", out)
        self.assertIn("trained weights", result.out)
        rows = [line.split() for line in result.out.splitlines()]
        self.assertIn(["2", "0", "auto"], [row[:3] for row in rows])
        with open(os.path.join(out, "result.json"), encoding="utf-8") as file:
            cells = json.load(file)["cells"]
        self.assertEqual([c["draft_tokens"] for c in cells], ["auto", "auto"])
        with open(os.path.join(out, "report.md"), encoding="utf-8") as file:
            report = file.read()
        self.assertIn("| 2 | 0 | auto | %s |" % "{:,.0f}".format(cells[1]["prefill_tokens_per_s"]),
                      report)
        self.assertIn("quern bench engine", report)
        with open(os.path.join(out, "report.html"), encoding="utf-8") as file:
            self.assertIn("</html>", file.read())

    def test_dummy_weights_without_a_tokenizer(self):
        os.mkdir(self.path("dummy"))
        with open(os.path.join(os.path.dirname(__file__), "../..", NANO, "config.json"),
                  encoding="utf-8") as file:
            self.write("dummy/config.json", file.read())
        result = self.succeed("bench", "engine", self.path("dummy"), "-q", "--json", *SHORT,
                              "--load-format", "dummy", "--batch", "2", "--context", "0")
        self.assertEqual(json.loads(result.out)["weights"], "dummy")

    def test_usage(self):
        self.fail_with(2, ["bench", "engine"], "no model")
        for flags in (["--batch", "0"], ["--batch", "1,"], ["--batch", "1025"], ["--context", "x"],
                      ["--draft-tokens", "9"], ["--repeat", "0"], ["--output-tokens", "1"],
                      ["--context", "99999999"], ["--page-cache", "x"], ["--batch", "2,1,2"],
                      ["--context", "0,00"], ["--draft-tokens", "auto,5,auto"]):
            self.fail_with(2, ["bench", "engine", NANO, *flags], flags[0])
        self.fail_with(2, ["bench", "engine", NANO, "--acceptance-length", "4", "--draft-tokens",
                           "2,5"], "--acceptance-length")
        self.fail_with(2, ["bench", "engine", NANO, "--acceptance-length", "2", "--draft-tokens",
                           "auto"], "--acceptance-length")
        self.fail_with(2, ["bench", "engine", NANO, "--acceptance-length", "3", "--draft-tokens",
                           "0"], "--acceptance-length")
        self.fail_with(2, ["bench", "engine", NANO, "--context", "500000"], "--context")
        self.fail_with(2, ["bench", "engine", NANO, "-q", "--page-cache", "1M", "--batch", "64",
                           "--context", "64"], "--context", "--prompt-tokens", "--page-cache")

    def test_depths_without_a_flag(self):
        result = self.bench("--batch", "1", "--context", "0")
        self.assertEqual([c["draft_tokens"] for c in result["cells"]], [0, 5, "auto"])
        pinned = self.bench("--batch", "1", "--context", "0", "--acceptance-length", "2")
        self.assertEqual([c["draft_tokens"] for c in pinned["cells"]], [0, 5])

    def test_ctrl_c_ends_it(self):
        process = start("bench", "engine", NANO, "--batch", "16", "--context", "1024", "--repeat",
                        "100")
        process.stderr.readline()  # a line of progress, after 10 s at most
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
        self.assertEqual((process.returncode, out), (130, b""))


if __name__ == "__main__":
    unittest.main()

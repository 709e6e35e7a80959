#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern bench kernels as users run it: which kernels it times, that its figures fit together.  How
fast the machine is, no test says.
"""
import json
import os
import unittest

from test_cli import NANO, Case

SHAPE = ("operation", "weights", "variant", "source", "n_in", "n_out", "n_uses", "n_rows")


class BenchKernels(Case):
    def bench(self, *arguments):
        result = self.succeed("bench", "kernels", "-q", "--json", *arguments)
        self.assertEqual(result.out.count("\n"), 1)
        return json.loads(result.out)

    def test_each_kernel_is_timed_and_its_figures_fit(self):
        folder = self.path("out")
        result = self.bench(NANO, "--rows", "1,3", "--context", "300", "--threads", "2",
                            "--output", folder)
        self.assertEqual((result["format"], result["weights"]), ("quern-bench-kernels/1", "trained"))
        self.assertEqual((result["n_threads"], result["context_tokens"]), (2, 300))
        operations = {k["operation"] for k in result["kernels"]}
        self.assertEqual(operations, {"matmul", "moe", "mla", "indexer", "top-k", "router", "norm",
                                      "activations", "sample"})
        limits = result["limits"]
        for k in result["kernels"]:
            self.assertIn(k["n_rows"], (1, 3))
            self.assertGreaterEqual(k["median_s"], k["min_s"])
            self.assertGreater(k["min_s"], 0)
            self.assertAlmostEqual(k["bytes_per_s"] * k["median_s"] / k["bytes"], 1, 6)
            if k["operation"] in ("matmul", "moe"):
                self.assertEqual(k["ops"], 2 * k["n_rows"] * k["n_in"] * k["n_out"])
                self.assertGreaterEqual(k["bytes"], 2 * k["n_in"] * k["n_out"])
            if k["ops"] is None:
                self.assertIsNone(k["limit_share"])
                continue
            by_ops = k["ops"] / limits[k["activations"] + "_ops_per_s"]
            by_bytes = k["bytes"] / limits["read_bytes_per_s"] if k["limit"] == "reading" else 0
            self.assertAlmostEqual(k["limit_share"] * k["median_s"] / max(by_ops, by_bytes), 1, 5)
        heads = [k for k in result["kernels"] if k["operation"] == "mla"]
        self.assertEqual([k["n_out"] for k in heads], [256, 256])  # of 300 positions, those chosen
        with open(os.path.join(folder, "result.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["kernels"], result["kernels"])
        for name in ("report.md", "report.html"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                self.assertIn("top-k", file.read())

    def test_a_config_alone_has_the_shapes_of_its_model(self):
        def shapes(result):
            return [[k[name] for name in SHAPE] for k in result["kernels"]]
        with open(os.path.join(os.path.dirname(__file__), "../..", NANO, "config.json"),
                  encoding="utf-8") as file:
            config = file.read()
        os.mkdir(self.path("config"))
        self.write("config/config.json", config)
        alone = self.bench(self.path("config"), "--load-format", "dummy", "--rows", "1")
        self.assertEqual(alone["weights"], "none")
        self.assertEqual(shapes(alone), shapes(self.bench(NANO, "--rows", "1")))
        experts = self.bench(self.path("config"), "--load-format", "dummy", "--rows", "1",
                             "--experts", "mxfp4", "--compute", "int8")
        self.assertEqual({(k["weights"], k["activations"]) for k in experts["kernels"]
                          if k["operation"] == "moe"}, {("mxfp4", "int8")})

    def test_as_a_table(self):
        table = self.succeed("bench", "kernels", NANO, "-q", "--rows", "2").out
        self.assertIn("Limits, measured now: reading ", table)
        self.assertRegex(table, r"(?m)^matmul +bf16 .* 2 .*% of ")
        self.assertRegex(table, r"(?m)^sample +f32 .* -  -$")

    def test_usage(self):
        for flags in (["--rows", "0"], ["--rows", "5000"], ["--rows", "1,1"], ["--rows", ""],
                      ["--experts", "int3"], ["--experts", "mxfp4"], ["--context", "9999999"],
                      ["--context", "0"]):
            self.fail_with(2, ["bench", "kernels", NANO, *flags], flags[0])
        self.fail_with(2, ["bench", "kernels", NANO, "--strict"], "--strict", "no such option")
        self.fail_with(2, ["bench", "kernels"], "no model")
        self.fail_with(3, ["bench", "kernels", self.path("none")], "none")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern tune and --tuning on a machine without a GPU: what is refused, and how it is said.  What is
measured, tests/gputune and tests/unit/kernels test.
"""
import os
import unittest

from test_cli import NANO, Case

HEAD = "op,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us\n"


class Tune(Case):
    def test_without_a_gpu_it_says_so(self):
        self.fail_with(4, ["tune", NANO, "--device", "auto"], "no GPU")
        self.fail_with(2, ["tune", NANO, "--device", "cpu"], "--device")
        self.fail_with(4, ["tune", NANO, "--device", "cuda:0"], "cuda")

    def test_what_cannot_be_tuned_is_refused_first(self):
        self.fail_with(2, ["tune"], "no model")
        self.fail_with(3, ["tune", self.path("none")], "none")
        for rows in ("3", "0", "8192", "2,1", "x", ""):
            self.fail_with(2, ["tune", NANO, "--rows", rows], "--rows")
        self.fail_with(2, ["tune", NANO, "--experts", "mxfp4"], "--experts", "dummy")
        self.fail_with(2, ["tune", NANO, "--load-format", "dummy", "--experts", "int4"],
                       "int4", "mxfp4")
        self.fail_with(1, ["tune", NANO, "--out", self.path("no/such/table.csv")], "table.csv")
        self.assertFalse(os.path.exists(self.path("no")))

    def test_what_changes_nothing_here_is_refused(self):
        for option in ("--compute=f32", "--kv-dtype=fp8", "--threads=1", "--cpu-mask=ref", "--strict",
                       "--chat-format=auto", "--deterministic", "--tokenizer=" + NANO):
            self.fail_with(2, ["tune", NANO, option], option.split("=")[0], "no such option")

    def test_a_bad_table_is_named_by_line_and_field(self):
        for line, field in (("gemm,bf16,1,1,0,1,1,plain,0,0,1", 'op "gemm"'),
                            ("matmul,bf16,1,1,0,1,3,plain,0,0,1", 'rows "3"'),
                            ("matmul,bf16,1,1,0,1,1,plain,0,0", "fields")):
            path = self.write("bad.csv", "# a note\n" + HEAD + line + "\n")
            self.fail_with(3, ["tune", NANO, "--tuning", path], "bad.csv: line 3", field)
        self.fail_with(3, ["tune", NANO, "--tuning", self.path("none.csv")], "none.csv")

    def test_a_cpu_has_no_table(self):
        path = self.write("good.csv", HEAD)
        self.fail_with(2, ["run", NANO, "--ids", "1", "--device", "cpu", "--tuning", path],
                       "--tuning")

    def test_strict_refuses_fallbacks_of_every_command(self):
        masked = ["--cpu-mask", "ref", "--strict"]
        self.fail_with(4, ["run", NANO, "--ids", "1", "--max-tokens", "1", *masked],
                       "fallbacks", ": ref; and 15 more)", "--strict")
        self.fail_with(4, ["bench", "engine", NANO, "--batch", "1", *masked], "fallbacks")


if __name__ == "__main__":
    unittest.main()

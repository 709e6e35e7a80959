#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/benchmarking.md: those that take seconds run as they stand there, but for the
server's place and the folder of results; of the others every option exists."""
import json
import os
import re
import shlex
import subprocess
import tempfile
import unittest

from serving import LONG_S, QUERN, ROOT, Server

PLACE, FOLDER = "http://127.0.0.1:8000", "build/"


def commands():
    with open(os.path.join(ROOT, "docs/benchmarking.md"), encoding="utf-8") as file:
        return re.findall(r"^    (quern .*)$", file.read(), re.M)


def takes_seconds(command):
    return "bench serve" not in command or "--scale 0.05" in command


class Documents(unittest.TestCase):
    def run_command(self, command, *more):
        done = subprocess.run([QUERN, *shlex.split(command)[1:], *more], capture_output=True,
                              text=True, check=False, timeout=LONG_S, cwd=ROOT)
        self.assertEqual(done.returncode, 0, command + "\n" + done.stderr)
        return done.stdout

    def test_each_command_runs_or_parses(self):
        found = [command for command in commands() if not command.startswith("quern serve")]
        quick = [command for command in found if takes_seconds(command)]
        self.assertEqual((len(found), len(quick)), (11, 7))
        for command in found:
            self.assertIn("Usage: quern bench", self.run_command(command, "--help"))
        with tempfile.TemporaryDirectory() as folder, \
                Server("--max-num-seqs", "8", "--page-cache", "64M") as server:
            for command in quick:
                command = command.replace(PLACE, server.url).replace(FOLDER, folder + "/")
                # On a busy machine the client may be late: a result that says so is compared too.
                more = ["--allow", "invalid"] if "bench compare" in command else []
                self.assertGreater(len(self.run_command(command, *more)), 100)
                output = re.search(r"--output (\S+)", command)
                for name in ("report.md", "report.html") if output else ():
                    self.assertTrue(os.path.exists(os.path.join(output[1], name)), command)
            with open(os.path.join(folder, "both/compare.json"), encoding="utf-8") as file:
                comparison = json.load(file)
            # The second run must not find the prompts of the first.
            hits = comparison["runs"][0]["figures"]["hit_rate"]
            self.assertAlmostEqual(hits["a"], hits["b"], delta=0.02)
            self.assertNotIn("in the cache", str(comparison["warnings"]))
            self.assertTrue(comparison["has_same_prompts"])


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What README.md, docs/serving.md and docs/clients.md tell clients to do works as it stands there,
but for the port."""
import json
import os
import re
import subprocess
import sys
import unittest

from serving import LONG_S, QUERN, ROOT, Server, use_clients

# Of other programs.
FOREIGN = {"--batch", "--format", "--health-on-failure"}
PLACE = "http://127.0.0.1:8000"


def text_of(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


class Options(unittest.TestCase):
    def test_of_serving_and_operations_are_there(self):
        page = subprocess.run([QUERN, "help", "serve"], capture_output=True, text=True, check=True,
                              timeout=LONG_S).stdout
        there = set(re.findall(r"--[a-z-]+[a-z]", page))
        for name in ("docs/serving.md", "docs/operations.md"):
            named = set(re.findall(r"(?<![\w-])--[a-z-]+[a-z]", text_of(name))) - FOREIGN
            self.assertGreater(len(named), 8)
            self.assertEqual(named - there, set(), name)


class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", "4", "--page-cache", "64M")
        cls.addClassCleanup(cls.server.stop)

    def run_text(self, command, text):
        done = subprocess.run([*command, text.replace(PLACE, self.server.url)], capture_output=True,
                              text=True, check=False, timeout=LONG_S, cwd=ROOT,
                              env={**os.environ, "KEY": "none"})
        self.assertEqual(done.returncode, 0, text + done.stderr)
        return done.stdout

    def test_programs_print_an_answer(self):
        blocks = [block for name in ("README.md", "docs/clients.md")
                  for block in re.findall("```python\n(.*?)```", text_of(name), re.S)]
        self.assertEqual(len(blocks), 4)
        for block in blocks:
            self.assertRegex(self.run_text([sys.executable, "-B", "-c"], block), r"\d", block)

    def test_commands_get_an_answer(self):
        commands = [command for name in ("README.md", "docs/serving.md", "docs/clients.md")
                    for command in re.findall(r"^    (curl .*(?:\n      .*)*)", text_of(name), re.M)]
        self.assertEqual(len(commands), 5)
        for command in commands:
            out = self.run_text(["sh", "-c"], command)
            if "data: " in out:
                self.assertTrue(out.rstrip().endswith("data: [DONE]"), out)
            else:
                self.assertNotIn("error", json.loads(out))


if __name__ == "__main__":
    use_clients()
    unittest.main()

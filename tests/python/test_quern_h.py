#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The example in the head comment of include/quern/quern.h is a program that compiles."""
import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "quern" / "quern.h"
HEAD = "#include <quern/quern.h>\n#include <stdio.h>\n#include <string.h>\n\nint main(void)\n{\n"
TAIL = "    return 0;\n}\n"


def example():
    """The lines that the head comment sets in by four columns more than its text."""
    comment = re.search(r"/\*\*\n \* @file quern\.h.*?\*/", HEADER.read_text(encoding="utf-8"), re.S)
    return "".join(line + "\n" for line in re.findall(r"^ \*(     .*)$", comment.group(), re.M))


def compiler_says(code):
    done = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror",
                           "-fsyntax-only", "-Iinclude", "-x", "c", "-"],
                          cwd=ROOT, input=HEAD + code + TAIL, capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"},
                          check=False)
    return done.returncode, done.stderr


class QuernH(unittest.TestCase):
    def test_example_compiles(self):
        self.assertGreater(example().count("\n"), 10)
        self.assertEqual(compiler_says(example()), (0, ""))

    def test_example_with_an_argument_less_does_not(self):
        old = example().replace("n_ids, NULL, NULL, &err", "n_ids, &err")
        self.assertNotEqual(old, example())
        status, output = compiler_says(old)
        self.assertNotEqual(status, 0)
        self.assertIn("too few arguments", output)


if __name__ == "__main__":
    unittest.main()

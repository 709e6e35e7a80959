#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The examples in the head comment of include/quern/quern.h and in docs/api.md compile; the guide's also run."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "quern" / "quern.h"
GUIDE = ROOT / "docs" / "api.md"
HEAD = "#include <quern/quern.h>\n#include <stdio.h>\n#include <string.h>\n\n"
MAIN = "int main(void)\n{\n"
TAIL = "    return 0;\n}\n"


def header_example():
    """The lines that the head comment sets in by four columns more than its text."""
    comment = re.search(r"/\*\*\n \* @file quern\.h.*?\*/", HEADER.read_text(encoding="utf-8"), re.S)
    lines = re.findall(r"^ \*(     .*)$", comment.group(), re.M)
    return HEAD + MAIN + "".join(line + "\n" for line in lines) + TAIL


def guide_example():
    """All snippets of the guide: functions stand before main(), the rest is its body."""
    snippets = re.findall(r"^```c\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.S | re.M)
    functions = [s for s in snippets if s.startswith("static ")]
    body = [s for s in snippets if not s.startswith("static ")]
    return HEAD + "\n".join(functions) + MAIN + "\n".join(body) + TAIL


def compiler_says(code, *options):
    done = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Werror",
                           "-Iinclude", "-x", "c", "-", *options],
                          cwd=ROOT, input=code, capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"}, check=False)
    return done.returncode, done.stderr


class QuernH(unittest.TestCase):
    def test_example_compiles(self):
        self.assertGreater(header_example().count("\n"), 20)
        self.assertEqual(compiler_says(header_example(), "-fsyntax-only"), (0, ""))

    def test_example_with_an_argument_less_does_not(self):
        old = header_example().replace("model, NULL, messages", "model, messages")
        self.assertNotEqual(old, header_example())
        status, output = compiler_says(old, "-fsyntax-only")
        self.assertNotEqual(status, 0)
        self.assertIn("too few arguments", output)


class Guide(unittest.TestCase):
    def test_snippets_compile(self):
        self.assertGreater(guide_example().count("\n"), 80)
        self.assertEqual(compiler_says(guide_example(), "-fsyntax-only"), (0, ""))

    def test_snippets_run_and_answer(self):
        build = os.environ.get("QUERN_BUILD", "")
        if not pathlib.Path(build, "libquern.so").exists():
            self.skipTest("no libquern.so in QUERN_BUILD")
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "guide")
            self.assertEqual(compiler_says(guide_example(), "-o", program, "-L" + build, "-lquern"), (0, ""))
            done = subprocess.run([program], cwd=ROOT, env={**os.environ, "LD_LIBRARY_PATH": build},
                                  capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("models/glm-nano: 4 layers, trained weights", done.stdout)
        self.assertIn("(stop)", done.stdout)
        self.assertIn("The answer is 42.It is 42.", done.stdout)


if __name__ == "__main__":
    unittest.main()

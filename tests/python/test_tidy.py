#!/usr/bin/env python3
"""tools/tidy.py reports each planted violation of the house rules, and nothing in a clean tree."""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).resolve().parents[2] / "tools" / "tidy.py"
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"
PUBLIC = SPDX + "/** @file a.h  A. */\n"
KERNEL_DOC = "/**\n * Add.  Shapes: [n].  Error: exact.  Source: none.\n */\n"
CLEAN = {
    "src/base/a.h": SPDX + "/** @file a.h  A. */\nint qn_a(void);\n",
    "src/format/b.c": SPDX + '#include "base/a.h"\n\nint qn_b(void)\n{\n    return qn_a();\n}\n',
    "src/kernels/kernels.h": SPDX + "/** @file kernels.h  K. */\n" + KERNEL_DOC
                             + "typedef void qn_add_fn(float *out, int n);\n",
    "tests/kernelcheck/check_add.c": SPDX + "void check_add(void);\n",
    "include/quern/a.h": PUBLIC + "/** Value. */\nint qn_value(void);\n"
                         "/** S. */\ntypedef struct qn_s {\n    int n; /**< Count. */\n} qn_s;\n",
}


class Tidy(unittest.TestCase):
    def run_on(self, files):
        """Exit status and output of tidy on the clean tree with `files` laid over it."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**CLEAN, **files}.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            done = subprocess.run([sys.executable, "-B", str(TIDY), folder],
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout

    def refused(self, message, files):
        status, output = self.run_on(files)
        self.assertEqual(status, 1, output)
        self.assertEqual(len(output.splitlines()), 1, output)
        self.assertIn(message, output)

    def accepted(self, files):
        self.assertEqual(self.run_on(files), (0, "tidy: clean\n"))

    def test_clean_tree_is_accepted(self):
        self.accepted({})

    def test_include_upwards(self):
        self.refused("src/base must not include src/model",
                     {"src/base/c.c": SPDX + '#include "model/glm.h"\n'})

    def test_include_sideways(self):
        self.refused("src/format must not include src/kernels",
                     {"src/format/c.c": SPDX + '#include "kernels/kernels.h"\n'})

    def test_cli_sees_no_module_but_json(self):
        self.refused("src/cli must not include src/api",
                     {"src/cli/c.c": SPDX + '#include "api/internal.h"\n'})
        self.accepted({"src/cli/c.c": SPDX + '#include "base/json.h"\n#include "quern/a.h"\n'})

    def test_missing_licence(self):
        self.refused("no SPDX line", {"src/base/c.c": "int c;\n"})

    def test_header_without_file_line(self):
        self.refused("no '@file c.h", {"src/base/c.h": SPDX + "/** @file a.h  Wrong. */\n"})

    def test_banned_call(self):
        self.refused("strcpy() is banned",
                     {"src/base/c.c": SPDX + "int c(void)\n{\n    strcpy(a, b);\n}\n"})

    def test_banned_name_in_comment_or_text_is_no_call(self):
        self.accepted({"src/base/c.c": SPDX + '/* strcpy(a) */\nconst char *c = "strcpy(a)";\n'})

    def test_getenv_outside_its_place(self):
        body = SPDX + 'const char *c(void)\n{\n    return getenv("C");\n}\n'
        self.refused("getenv() belongs", {"src/base/c.c": body})
        self.accepted({"src/base/env.c": body})

    def test_line_width(self):
        self.refused("over 100 columns", {"src/base/c.c": SPDX + "int " + "c" * 100 + ";\n"})

    def test_file_length_and_ratchet(self):
        long = {"src/base/c.c": SPDX + "int c;\n" * 1000}
        self.refused("file has 1002 lines", long)
        self.accepted({**long, "tools/tidy-ratchet.txt": "src/base/c.c\n"})

    def test_function_length_and_ratchet(self):
        body = SPDX + "void qn_c(void)\n{\n" + "    c();\n" * 69 + "}\n"
        self.refused("qn_c() has 71 lines", {"src/base/c.c": body})
        self.accepted({"src/base/c.c": body, "tools/tidy-ratchet.txt": "src/base/c.c:qn_c\n"})
        self.accepted({"src/base/c.c": body.replace("    c();\n", "", 1)})

    def test_public_function_undocumented(self):
        self.refused("public function without", {"include/quern/a.h": PUBLIC + "\nint qn_x(void);\n"})

    def test_public_type_undocumented(self):
        self.refused("public type without", {"include/quern/a.h": PUBLIC + "\ntypedef int qn_x;\n"})

    def test_public_field_undocumented(self):
        self.refused("public field or value", {
            "include/quern/a.h": PUBLIC + "/** X. */\ntypedef struct qn_x {\n    int n;\n} qn_x;\n"})

    def test_public_field_between_documented_ones(self):
        fields = ["int a; /**< A. */", "int b; /**< B,\n         and more of it. */", "int n_c; /**< C. */",
                  "const char\n        *long_one; /**< D. */", "/** E. */\n    int e;"]
        for i, field in enumerate(fields):
            with self.subTest(field):
                bare = fields[:i] + [re.sub(r"/\*.*?\*/\n?", "", field, flags=re.S)] + fields[i + 1:]
                struct = PUBLIC + "/** X. */\ntypedef struct qn_x {\n    %s\n} qn_x;\n"
                self.refused("public field or value", {"include/quern/a.h": struct % "\n    ".join(bare)})
                self.accepted({"include/quern/a.h": struct % "\n    ".join(fields)})

    def test_count_that_another_field_names(self):
        self.accepted({"include/quern/a.h": PUBLIC + "/** X. */\ntypedef struct qn_x {\n"
                       "    int *a; /**< [n_a] all of them. */\n    int n_a;\n} qn_x;\n"})

    def test_value_of_an_enum_without_a_name(self):
        self.refused("public field or value", {
            "include/quern/a.h": PUBLIC + "\nenum {\n    QN_X = 1, /**< X. */\n    QN_Y,\n};\n"})

    def test_enum_value_undocumented(self):
        self.refused("public field or value", {
            "include/quern/a.h": PUBLIC + "/** X. */\ntypedef enum qn_x {\n    QN_X,\n} qn_x;\n"})

    def test_kernel_comment_form(self):
        for word in ("Shapes", "Error", "Source"):
            with self.subTest(word):
                header = CLEAN["src/kernels/kernels.h"].replace(word, "Thing")
                self.refused(f"add: comment lacks {word}", {"src/kernels/kernels.h": header})

    def test_kernel_without_check(self):
        self.refused("no check_add", {"tests/kernelcheck/check_add.c": SPDX})

    def test_unfinished_work(self):
        self.refused("is banned", {"src/base/c.c": SPDX + "/* TO" "DO later */\n"})

    def test_path_of_a_developer(self):
        for place in ("work", "home", "root"):
            with self.subTest(place):
                self.refused("absolute path", {"README.md": f"see /{place}/somewhere\n"})

    def test_document_that_does_not_exist(self):
        # In two parts, since this file is checked as well.
        gone, there = "docs/" "gone.md", "docs/" "a/there.md"
        for name, text in {"src/base/c.c": SPDX + f"/* See {gone}. */\n",
                           "tests/golden/c.h": SPDX + f"/** @file c.h  ({gone}) */\n",
                           "tools/c.py": f'load(ROOT + "/{gone}")\n',
                           "README.md": f"[that]({gone})\n"}.items():
            with self.subTest(name):
                self.refused(f"{name}:{1 + text[:text.index(gone)].count(chr(10))}: {gone} does not exist",
                             {name: text})
        self.accepted({there: "It is.\n", "src/base/c.c": SPDX + f"/* See {there}. */\n"})
        self.accepted({"README.md": f"other/{gone} https://example.com/{gone} x{gone}\n"})

    def test_golden_files_too_large(self):
        self.refused("tests/golden: 4000001 bytes", {"tests/golden/x.bin": "x" * 4_000_001})

    def test_tree_too_large(self):
        status, output = self.run_on({"models/x.bin": "x" * ((55 << 20) + 1)})
        self.assertEqual(status, 1)
        self.assertIn("tree: ", output)


if __name__ == "__main__":
    unittest.main()

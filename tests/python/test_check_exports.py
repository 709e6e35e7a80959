#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/check_exports.py finds what is exported and not declared, and the other way round."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "check_exports.py"
HEADER = """#define QN_API __attribute__((visibility("default")))
#define QN_MUST_CHECK
#define QN_ABI_VERSION 3
/** QN_API int qn_in_a_comment(void); */
QN_API int qn_a(void);
QN_MUST_CHECK QN_API const char *qn_b(int first,
                                      int (*second)(void));
"""
SOURCE = """#include "quern.h"
int qn_hidden(void);
int qn_hidden(void) { return 1; }
int qn_a(void) { return qn_hidden(); }
const char *qn_b(int first, int (*second)(void)) { return first + second() ? "b" : ""; }
"""


class CheckExports(unittest.TestCase):
    def run_on(self, header=HEADER, source=SOURCE, soname="libquern.so.3"):
        with tempfile.TemporaryDirectory() as folder:
            library = os.path.join(folder, "libquern.so")
            pathlib.Path(folder, "quern.h").write_text(header, encoding="utf-8")
            subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-fvisibility=hidden",
                            "-Wl,-soname," + soname, "-I", folder, "-o", library, "-x", "c", "-"],
                           input=source, text=True, check=True)
            done = subprocess.run([sys.executable, "-B", str(TOOL), library, folder],
                                  capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout

    def test_what_fits_is_accepted(self):
        self.assertEqual(self.run_on(), (0, "2 functions declared and exported\n"))

    def test_exported_without_a_declaration(self):
        source = SOURCE + '__attribute__((visibility("default"))) int qn_more;\n'
        self.assertEqual(self.run_on(source=source),
                         (1, "qn_more: exported, a declaration with QN_API expected\n"))

    def test_declared_and_not_exported(self):
        header = HEADER + "QN_API void qn_less(void);\n"
        self.assertEqual(self.run_on(header=header),
                         (1, "qn_less: declared with QN_API, a symbol expected\n"))

    def test_another_number_in_the_soname(self):
        for soname in ("libquern.so.0", "libquern.so.33", "libquern.so"):
            self.assertEqual(self.run_on(soname=soname),
                             (1, f"soname: {soname}, QN_ABI_VERSION 3 at its end expected\n"))


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No instruction leaks out of the files compiled for its level: a CPU without it would stop there.

Only objects *_amx.c.o may hold what AMX brought, only these and *_avx512*.c.o what AVX-512 brought,
only all of these and *_avx*.c.o what AVX brought.
QUERN_BUILD names the build folder; without it build/release is taken.
"""
import os
import pathlib
import platform
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("QUERN_BUILD", ROOT / "build" / "release"))
# Registers that AVX-512 added: zmm, masks, the upper 16 of the narrow ones.
AVX512 = re.compile(r"%(zmm|k[0-7]\b|[xy]mm(1[6-9]|2\d|3[01]))")
# What AVX encodes anew has a v before its name.
AVX = re.compile(r"\tv[a-z]|%ymm")
# Tile registers and what prepares them.
AMX = re.compile(r"%tmm|tilecfg|tilerelease")
# What an object must not hold: of the first part that is in its name.
FORBIDDEN = {"_amx": [], "_avx512": [AMX], "_avx": [AMX, AVX512], "": [AMX, AVX512, AVX]}


def leaks(path):
    """The first instruction of an object that its name does not allow, or None."""
    forbidden = next(FORBIDDEN[part] for part in FORBIDDEN if part in path.name)
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], check=True,
                          capture_output=True, text=True).stdout
    code = (line for line in text.splitlines() if line.startswith(" "))
    return next((line.strip() for line in code if any(p.search(line) for p in forbidden)), None)


@unittest.skipUnless(platform.machine() == "x86_64", "levels are those of x86-64")
class Levels(unittest.TestCase):
    def test_no_object_has_instructions_of_another_level(self):
        objects = sorted(BUILD.glob("CMakeFiles/qn_*.dir/src/**/*.o"))
        names = {path.name for path in objects}
        self.assertTrue({"matmul_ref.c.o", "matmul_avx2.c.o", "matmul_avx512.c.o",
                         "matmul_amx.c.o"} <= names, BUILD)
        for path in objects:
            with self.subTest(path.name):
                self.assertIsNone(leaks(path))

    def test_a_leak_is_found(self):
        vectors = ("typedef float v __attribute__((vector_size(64)));\n"
                   "void f(v *x) { *x += *x; }\n")
        tiles = "#include <immintrin.h>\nvoid f(void) { _tile_release(); }\n"
        cases = {"-mamx-tile": (tiles, [True, True, True, False]),
                 "-mavx512f": (vectors, [True, True, False, False]),
                 "-mavx": (vectors, [True, False, False, False]),
                 "-msse2": (vectors, [False, False, False, False])}
        for flag, (source, want) in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                paths = [pathlib.Path(folder, name + ".c.o")
                         for name in ("f_ref", "f_avx2", "f_avx512bf16", "f_amx")]
                for path in paths:
                    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-mprefer-vector-width=512",
                                    flag, "-c", "-o", path, "-x", "c", "-"],
                                   input=source, text=True, check=True)
                self.assertEqual([leaks(path) is not None for path in paths], want, flag)


if __name__ == "__main__":
    unittest.main()

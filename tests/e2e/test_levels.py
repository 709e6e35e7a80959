#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A CPU without AVX-512 gives the text that --cpu-mask avx2 gives here."""
import shutil
import subprocess
import unittest

import test_cli as cli

QEMU = shutil.which("qemu-x86_64")
RUN = ["run", cli.NANO, "--prompt", cli.QUESTION, "--temperature", "0", "--max-tokens", "8",
       "--threads", "1"]


@unittest.skipUnless(QEMU, "qemu-user is not installed")
class Levels(cli.Case):
    def test_an_older_cpu_gives_the_same_text(self):
        for compute in "f32", "bf16", "int8":
            here = cli.quern(*RUN, "--compute", compute, "--cpu-mask", "avx2")
            self.assertEqual(here.status, 0, here.err)
            there = subprocess.run([QEMU, "-cpu", "Haswell", cli.QUERN, *RUN, "--compute", compute],
                                   cwd=cli.ROOT, env=cli.environment(), capture_output=True,
                                   timeout=300, check=False)
            self.assertEqual((there.returncode, there.stdout.decode()), (0, here.out), there.stderr)


if __name__ == "__main__":
    unittest.main()

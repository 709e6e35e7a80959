#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole program above a driver of NVIDIA's that computes nothing (tests/support/fake_libcuda.c):
what devices there are and why one is not used, which kernels a model's shapes get and where the
choice came from, what --strict refuses, and what a device without memory says.
"""
import os
import re
import unittest

from test_cli import BUILD, NANO, Case, environment, quern

LIBRARY = os.path.join(BUILD, "tests", "fake_cuda")
HAS_KERNELS = "sm_90a" in quern("--version").out
HEAD = "op,kind,n_out,n_in,pair,groups,rows,variant,strips,splits,us\n"
KERNEL = re.compile(r"kernel: operation=(\S+) weights=(\S+) out=(\d+) in=(\d+) groups=(\d+) pair=(\d) rows=(\S+) "
                    r"variant=(\S+) source=(\S+)$", re.M)


def above_driver(**settings):
    """Ours, with that driver: FAKE_CUDA_`name`."""
    said = {"FAKE_CUDA_" + name.upper(): str(value) for name, value in settings.items()}
    return environment(LD_LIBRARY_PATH=LIBRARY, **said)


class Devices(Case):
    def test_what_there_is(self):
        out = self.succeed("devices", env=above_driver()).out
        self.assertIn("cuda:0   Fake GPU, 132 multiprocessors, driver 13.0, 8.0 GB\n", out)
        self.assertNotIn("cuda:1", out)
        two = self.succeed("devices", env=above_driver(devices=2)).out
        self.assertIn("cuda:1   Fake GPU", two)

    def test_why_it_is_not_used(self):
        for settings, reason in (
                ({"version": 12040}, "the driver is for CUDA 12.4, one for 12.8 or later expected"),
                ({"devices": 0}, "CUDA_ERROR_NO_DEVICE"),
                ({"arch": 80}, "no kernels for sm_80 in this build")):
            env = above_driver(**settings)
            self.assertRegex(self.succeed("devices", env=env).out, "not used: .*" + re.escape(reason))
            self.fail_with(4, ["run", NANO, "--ids", "1", "--device", "cuda"], reason, env=env)

    def test_a_library_that_cannot_be_loaded(self):
        """Not a machine without a driver; nor is an older library that is not there what is told."""
        for name, device in (("libcuda.so.1", "cuda"), ("libamdhip64.so.7", "hip")):
            folder = os.path.dirname(self.write(name, "this is no library\n"))
            env = environment(LD_LIBRARY_PATH=folder)
            why = f"the driver's library cannot be loaded .*{re.escape(name)}"
            self.assertRegex(self.succeed("devices", env=env).out, f"{device} .*\n? *not used: .*{why}")
            result = quern("run", NANO, "--ids", "1", "--device", device, env=env)
            self.assertEqual((result.status, result.out), (4, ""))
            self.assertRegex(result.err, why)


@unittest.skipUnless(HAS_KERNELS, "no kernels of GPUs in this build")
class Choices(Case):
    def kernels(self, *options, **settings):
        """What the log says of each shape: (operation, weights, out, in, groups, pair, rows): (variant, source)."""
        said = self.succeed("run", NANO, "--ids", "1", "--max-tokens", "1", "--device", "cuda", *options,
                            "--log-level", "info", env=above_driver(**settings)).err
        found = {shape[:7]: shape[7:] for shape in KERNEL.findall(said)}
        self.assertGreater(len(found), 36, said)
        return found, said

    def test_rules_where_there_is_no_table(self):
        found, said = self.kernels()
        self.assertIn("tuning: no table of Fake GPU", said)
        self.assertEqual({source for _, source in found.values()}, {"default"})
        shape = ("matmul", "bf16", "128", "256", "0", "0")
        self.assertEqual([found[(*shape, rows)][0] for rows in ("64", "more")], ["sm90_few", "sm90_wgmma"])
        self.kernels("--strict")

    def test_a_table_of_the_device(self):
        line = "matmul,bf16,128,256,0,1,%d,%s,%d,%d,1\n"
        table = HEAD + line % (1, "sm90_mma/early", 2, 1) + line % (8, "sm90_few", 0, 0)
        path = self.write("table.csv", "# device: Fake GPU\n" + table)
        found, said = self.kernels("--tuning", path)
        self.assertIn("table.csv", said)
        shape = ("matmul", "bf16", "128", "256", "0", "0")
        self.assertEqual(found[(*shape, "1")], ("sm90_mma/early", "tuned"))
        self.assertEqual(found[(*shape, "8")], ("sm90_few", "tuned"))
        self.assertEqual({v for k, v in found.items() if k[:6] == shape and v[1] != "tuned"},
                         {("sm90_few", "default"), ("sm90_wgmma", "default")})
        other = self.write("other.csv", "# device: NVIDIA B300\n" + table)
        result = quern("run", NANO, "--ids", "1", "--device", "cuda", "--tuning", other, env=above_driver())
        self.assertNotEqual(result.status, 0, result.err)
        self.assertRegex(result.err, "other.csv.*NVIDIA B300.*Fake GPU")

    def test_a_row_of_another_version_is_named(self):
        path = self.write("table.csv", "# device: Fake GPU\n" + HEAD + "matmul,bf16,128,256,0,1,1,sm90_few,0,0,1\n"
                          "matmul,bf16,128,256,0,1,8,sm90_nonexist,0,0,1\n")
        found, said = self.kernels("--tuning", path)
        self.assertRegex(said, r"tuning: .*table\.csv: line 4: variant sm90_nonexist is none of this build, nor are "
                         "those of 0 rows behind it")
        self.assertEqual(found["matmul", "bf16", "128", "256", "0", "0", "8"], ("sm90_few", "fallback"))

    def test_tuning_where_kernels_compute_nothing_right_fails(self):
        """Or its table would have portable kernels alone, and --strict nothing to refuse."""
        path = self.path("made.csv")
        result = quern("tune", NANO, "--device", "cuda", "--rows", "1", "--quick", "--out", path, env=above_driver())
        self.assertEqual((result.status, result.out), (4, ""), result.err)
        self.assertRegex(result.err, "error: tuning: .* wrong results of all kernels but the portable one, .* Fake GPU")
        self.assertFalse(os.path.exists(path))

    def test_portable_kernels_of_a_table_stay_fallbacks(self):
        path = self.write("table.csv", "# device: Fake GPU\n" + HEAD + "matmul,bf16,128,256,0,1,1,plain,0,0,1\n")
        found, _ = self.kernels("--tuning", path)
        self.assertEqual(found["matmul", "bf16", "128", "256", "0", "0", "1"], ("plain", "fallback"))
        result = quern("run", NANO, "--ids", "1", "--device", "cuda", "--strict", "--tuning", path, env=above_driver())
        self.assertEqual((result.status, result.out), (4, ""), result.err)
        self.assertIn("matmul of bf16, 128 x 256, 1 row: plain", result.err)

    def test_a_table_that_cannot_be_is_told_before_a_server_listens(self):
        for path, needle in ((self.path("none.csv"), "none.csv"),
                             (self.write("bad.csv", HEAD + "gemm,bf16,1,1,0,1,1,plain,0,0,1\n"), "bad.csv: line 2: "),
                             (self.write("other.csv", "# device: NVIDIA B300\n" + HEAD), "NVIDIA B300"),
                             (os.path.dirname(self.write("Fake_GPU.csv", "none\n")), "Fake_GPU.csv: line 1")):
            self.fail_with(3, ["serve", NANO, "--port", "0", "--device", "cuda", "--tuning", path], needle,
                           env=above_driver())

    def test_a_fallback_is_told_and_refused(self):
        """What is left without tensor cores is the portable kernel, and a few rows' own."""
        found, said = self.kernels(without="mma")
        plain = {shape for shape, choice in found.items() if choice == ("plain", "fallback")}
        self.assertIn(("matmul", "bf16", "128", "256", "0", "0", "more"), plain)
        fallbacks = sum(source == "fallback" for _, source in found.values())
        told = f"kernels: {fallbacks} of {len(found)} are fallbacks"
        self.assertIn(f"warning: {told}", said)
        result = quern("run", NANO, "--ids", "1", "--device", "cuda", "--strict", env=above_driver(without="mma"))
        self.assertEqual((result.status, result.out), (4, ""))
        self.assertRegex(result.err, f"error: {told} " r"\(matmul of bf16, 128 x 256, more rows: plain; "
                         r"matmul of bf16, 1024 x 128, more rows: plain;.*--strict")


@unittest.skipUnless(HAS_KERNELS, "no kernels of GPUs in this build")
class Results(Case):
    def test_a_device_that_does_not_compute_ends_the_server_with_an_error(self):
        """Its step has no token where one was drawn: the test that a server makes of itself fails."""
        result = quern("serve", NANO, "--port", "0", "--device", "cuda", env=above_driver())
        self.assertEqual((result.status, result.out), (4, ""), result.err)
        self.assertIn("step 1: the device says 0 tokens, the first 0, and 0 of 0 drafts accepted", result.err)
        self.assertRegex(result.err, "error: self-test: .*failed on the device")


@unittest.skipUnless(HAS_KERNELS, "no kernels of GPUs in this build")
class Memory(Case):
    def test_the_cache_has_a_share_of_a_device_that_was_named_without_a_number(self):
        for device in ("cuda", "cuda:0"):
            result = quern("serve", NANO, "--port", "0", "--device", device, "--gpu-memory-utilization", "0.5",
                           "--log-level", "info", env=above_driver())
            self.assertIn("device=cuda:0", result.err)
            self.assertRegex(result.err, "self-test", result.err) # it was loaded
            self.assertNotIn("GB, expected more than", result.err)
        result = quern("serve", NANO, "--port", "0", "--device", "cuda", "--gpu-memory-utilization", "0.1",
                       env=above_driver(memory=200_000_000))
        self.assertEqual((result.status, result.out), (4, ""), result.err)
        self.assertIn("0.1 of 200.0 MB, expected more than the 42.6 of the weights", result.err)

    def test_too_little_is_said_before_anything_is_loaded(self):
        result = quern("run", NANO, "--ids", "1", "--device", "cuda", env=above_driver(memory=60_000_000))
        self.assertEqual((result.status, result.out), (4, ""))
        self.assertIn("42.8 MB and 134.2 MB to compute with are needed, expected at most the 60.0 MB that are "
                      "free on Fake GPU", result.err)


if __name__ == "__main__":
    unittest.main()

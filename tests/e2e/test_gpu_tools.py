#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The scripts of tools/gpu: what they count, with a sanitizer that says what a test tells it to."""
import os
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.path.join(ROOT, "tools/gpu")
BUILD = os.path.abspath(os.environ["QUERN_BUILD"])
HAS_GPUCHECK = os.path.exists(os.path.join(BUILD, "tests/gpucheck"))


def run(script, *arguments, **changes):
    return subprocess.run([os.path.join(TOOLS, script), *arguments], capture_output=True, text=True, check=False,
                          timeout=300, env={**os.environ, "QUERN_BUILD": BUILD, **changes})


class Scripts(unittest.TestCase):
    def test_help_and_wrong_options(self):
        for script in ("all.sh", "bundle.sh", "check.sh", "layer.sh", "sanitize.sh", "bench.sh", "profile.sh"):
            done = run(script, "--help")
            self.assertEqual(done.returncode, 0, script)
            self.assertIn("usage: tools/gpu/" + script, done.stdout)
            self.assertEqual(run(script, "--hepl").returncode, 2, script)
        for script in ("all.sh", "check.sh", "layer.sh", "sanitize.sh", "bench.sh", "profile.sh"):
            self.assertIn("a value expected", run(script, "--device").stderr)

    def test_say_which_build_has_no_checks(self):
        done = run("check.sh", QUERN_BUILD="/nowhere")
        self.assertEqual(done.returncode, 2)
        self.assertIn("/nowhere/tests/gpucheck: not there", done.stderr)


    def test_a_whole_server_is_started_from_any_folder(self):
        script = os.path.join(ROOT, "bench/gpu_whole.sh")
        for program, seen in (("/nowhere/quern", "/nowhere/quern: not there, expected"),
                              (os.path.join(BUILD, "quern"), "--device: hip:99: ")):
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run([script, "--device", "hip:99", os.path.join(folder, "out")], capture_output=True,
                                      text=True, check=False, timeout=60, cwd=folder,
                                      env={**os.environ, "QUERN": program})
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex(done.stderr, "^gpu_whole: error: (.|\n)*" + seen)

    def test_a_bundle_of_no_build_is_an_error(self):
        done = run("bundle.sh", QUERN_BUILD="/nowhere")
        self.assertEqual((done.returncode, done.stderr),
                         (2, "bundle.sh: error: /nowhere/build.ninja: not there, expected cmake to have made it\n"))


class States(unittest.TestCase):
    def test_a_build_says_which_kernels_it_has(self):
        with_kernels = "sm_90a (PTX), gfx950" if HAS_GPUCHECK else "none: built without "
        for option, state in (("QN_PTXAS=OFF", with_kernels), ("QN_GPU=OFF", "none: built with QN_GPU=OFF"),
                              ("QN_CLANG_GPU=OFF", "none: built without clang-22")):
            with tempfile.TemporaryDirectory() as folder:
                for command in (["-G", "Ninja", "-S", ROOT, "-B", folder, "-DQN_TESTS=OFF", "-D" + option],
                                ["--build", folder, "--target", "build_info"]):
                    done = subprocess.run(["cmake", *command], capture_output=True, text=True, check=False, timeout=300)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                with open(os.path.join(folder, "generated/quern_build.h"), encoding="utf-8") as file:
                    self.assertIn('GPU_KERNELS "' + state, file.read())


class Gaps(unittest.TestCase):
    TRACE = """2106500,2000,qn_gpu_embed
1000,500,copy
900000,9000,qn_gpu_pack
2002500,3000,qn_gpu_rmsnorm
2000000,1000,qn_gpu_embed
2004000,2000,qn_gpu_rope
2006000,500,fill
"""

    def profile(self, trace, *arguments, cc="true"):
        """Below a CUPTI, a compiler and a program that do nothing but write the trace."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("CUPTI/include/cupti_activity.h", ""), ("CUPTI/lib64/libcupti.so.13", ""),
                               ("quern", '#!/bin/sh\necho "$@"\n' + (
                                   f'cat >"$QUERN_TRACE" <<END\n{trace}END\n' if trace is not None else ""))):
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(text)
            return self.profile_in(folder, *arguments, CC=cc)

    def profile_in(self, folder, *arguments, **settings):
        """With the program and the CUPTI that are there; what is said, and the lines of the trace."""
        os.chmod(os.path.join(folder, "quern"), 0o755)
        output = os.path.join(folder, "out")
        done = run("profile.sh", "--whole", "--device", "cuda", "--output", output, *arguments, QUERN_BUILD=folder,
                   CUPTI=os.path.join(folder, "CUPTI"), **settings)
        lines = []
        if os.path.exists(output + ".csv"):
            with open(output + ".csv", encoding="utf-8") as file:
                lines = file.read().splitlines()
        return done, lines

    def test_what_loads_is_left_out_and_waits_are_no_gaps(self):
        done, lines = self.profile(self.TRACE, "model", "--batch", "4")
        self.assertEqual(done.returncode, 0, done.stderr)
        command, *sums = done.stdout.splitlines()
        self.assertEqual(command, "bench engine model --device cuda --batch 4")
        self.assertEqual(sums, ["5 kernels, copies and fills: 0.007 ms of work",
                                "1 gaps: 0.002 ms, 1.50 us in the mean, 17.6 % of work and gaps",
                                "1 waits: 0.100 ms"])
        self.assertEqual(lines, sorted(self.TRACE.splitlines(), key=lambda line: int(line.split(",")[0])))

    def test_a_trace_of_nothing_is_an_error(self):
        done, _ = self.profile("", "model")
        self.assertEqual(done.returncode, 2)
        self.assertIn("out.csv: no kernels", done.stderr)
        self.assertIn("--load-format dummy", done.stdout)

    def trace(self, **settings):
        """trace.c above a CUPTI of ours, in a program that the driver would load it into."""
        fake = os.path.join(ROOT, "tests/support/fake_cupti")
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "CUPTI", "lib64"))
            os.symlink(fake, os.path.join(folder, "CUPTI", "include"))
            subprocess.run(["cc", "-shared", "-fPIC", os.path.join(fake, "cupti.c"), "-o",
                            os.path.join(folder, "CUPTI", "lib64", "libcupti.so")], check=True, timeout=60)
            with open(os.path.join(folder, "quern"), "w", encoding="utf-8") as file:
                file.write("#!/usr/bin/python3\nimport ctypes, os, sys\n"
                           "sys.exit(ctypes.CDLL(os.environ['CUDA_INJECTION64_PATH']).InitializeInjection() != 1)\n")
            return self.profile_in(folder, "model", **settings)

    def test_times_of_a_trace_are_exact(self):
        done, lines = self.trace()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(lines, ["9000,1000,qn_gpu_pack", "20000,100,qn_gpu_embed", "20050,51,fill",
                                 "20300,1001,qn_gpu_rope", "21301,99,copy"])
        self.assertEqual(done.stdout.splitlines()[:2],
                         ["4 kernels, copies and fills: 0.001 ms of work",
                          "1 gaps: 0.000 ms, 0.20 us in the mean, 14.2 % of work and gaps"])

    def test_what_a_trace_lacks_is_said(self):
        done, lines = self.trace(FAKE_CUPTI_LOST="1")
        self.assertEqual((done.returncode, len(lines)), (0, 4), done.stderr)
        self.assertIn("trace: 3 kernels, copies and fills left out", done.stderr)
        done, lines = self.trace(FAKE_CUPTI_FAILS="1")
        self.assertEqual((done.returncode, lines), (1, []))
        self.assertIn("trace: CUPTI: CUPTI_ERROR_NOT_READY", done.stderr)

    def test_says_what_is_missing(self):
        self.assertIn("cuda: no trace of it, expected one of an NVIDIA GPU", self.profile(None, "model")[0].stderr)
        self.assertIn("trace.c: not compiled, expected a C compiler", self.profile("", "model", cc="false")[0].stderr)
        done = run("profile.sh", "--whole", "model", CUPTI="/nowhere")
        self.assertEqual(done.returncode, 2)
        self.assertIn("CUPTI: no include/cupti_activity.h and lib64/libcupti.so in /nowhere, expected", done.stderr)


@unittest.skipUnless(HAS_GPUCHECK, "no gpucheck in this build")
class Counts(unittest.TestCase):
    def test_check_adds_up(self):
        done = run("check.sh", "--device", "emulated", "--only", "rope")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout.splitlines()[-1], r"^[1-9]\d* passed, 0 failed$")

    def test_all_runs_what_is_named_and_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("all.sh", "--device", "cuda:77", "--output", folder, "engine", "quality", "tune")
            lines = done.stdout.splitlines()
            self.assertEqual((done.returncode, lines[-1]), (1, "0 passed, 3 failed"), done.stdout)
            self.assertEqual([line.split(":")[0] for line in lines[:-1]], ["engine", "quality", "tune"])
            with open(os.path.join(folder, "tune.log"), encoding="utf-8") as log:
                self.assertRegex(log.read(), "quern: error: .*cuda:77")
        self.assertIn("nonsense: no such step", run("all.sh", "nonsense").stderr)

    def test_check_names_what_is_no_operation(self):
        done = run("check.sh", "--only", "mtmul")
        self.assertEqual(done.returncode, 1)
        self.assertIn("gpucheck: error: --only: mtmul, ", done.stdout)

    def test_check_counts_a_device_that_is_not_there(self):
        done = run("check.sh", "--device", "cuda:77", "--only", "rope")
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1]), (1, "0 passed, 1 failed"))

    def sanitize(self, says, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            fake = os.path.join(folder, "compute-sanitizer")
            with open(fake, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\n" + says)
            os.chmod(fake, 0o755)
            done = run("sanitize.sh", "--device", "emulated", *arguments,
                       PATH=folder + ":" + os.environ["PATH"])
        self.warning = done.stderr
        return done.returncode, done.stdout.splitlines()[-1]

    def test_sanitize_warns_of_a_racecheck_that_is_wrong(self):
        for version, is_old in (("2025.3.1.0", True), ("2025.4.0.0", False), ("2026.4.0.0", False)):
            says = f"[ $1 = --version ] && echo 'Version {version} (build 1)' && exit 0\necho '= ERROR SUMMARY: 0 errors'"
            self.assertEqual(self.sanitize(says, "--tool", "racecheck", "rope"), (0, "1 clean, 0 findings"))
            self.assertEqual(f"compute-sanitizer {version} takes reads" in self.warning, is_old, self.warning)
            self.sanitize(says, "rope")
            self.assertEqual("takes reads" in self.warning, is_old, self.warning)
            self.sanitize(says, "--tool", "memcheck", "rope")
            self.assertEqual(self.warning, "")

    def test_sanitize_counts_findings(self):
        clean = "echo '========= ERROR SUMMARY: 0 errors'"
        self.assertEqual(self.sanitize(clean), (0, "3 clean, 0 findings"))
        self.assertEqual(self.sanitize(clean, "--tool", "memcheck", "rope", "embed"), (0, "2 clean, 0 findings"))
        hazards = ('[ "$2" = memcheck ] && echo "========= ERROR SUMMARY: 0 errors" && exit 0\n'
                   'echo "========= RACECHECK SUMMARY: 4 hazards displayed (3 errors, 1 warning)"\n')
        self.assertEqual(self.sanitize(hazards, "rope"), (1, "1 clean, 8 findings"))

    def test_sanitize_takes_silence_and_failure_for_findings(self):
        one = "--tool", "memcheck", "rope"
        self.assertEqual(self.sanitize("exit 0", *one), (1, "0 clean, 1 findings"))
        self.assertEqual(self.sanitize("echo '= ERROR SUMMARY: 0 errors'; exit 3", *one), (1, "0 clean, 1 findings"))
        self.assertEqual(self.sanitize("sleep 60", "--timeout", "1", *one), (1, "0 clean, 1 findings"))

    def test_sanitize_runs_the_check(self):
        says = 'shift 4\n"$@" && echo "= ERROR SUMMARY: 0 errors"'
        self.assertEqual(self.sanitize(says, "--tool", "memcheck", "rope"), (0, "1 clean, 0 findings"))
        self.assertEqual(self.sanitize(says, "--tool", "memcheck", "ropes"), (1, "0 clean, 1 findings"))


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern quantize: interrupted, refused, short of room, over and over to the same bytes.

That the bytes are AMD Quark's is tests/e2e/test_quark.py.  QUERN names the program; without it
build/release/quern is taken.  QUERN_KILLS: how often it is killed and goes on (default 10).
QUERN_LAYER: a folder with room for 25 GB: one layer of GLM-5.2's size is quantized there as well.
"""
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
NANO = ROOT / "models/glm-nano"
QUERN = os.environ.get("QUERN", str(ROOT / "build/release/quern"))
N_KILLS = int(os.environ.get("QUERN_KILLS", "10"))
sys.path.insert(0, str(ROOT / "bench"))
import models  # noqa: E402

INDEX, CONFIG, MANIFEST = "model.safetensors.index.json", "config.json", "quern-manifest.json"
N_SHARDS, N_ROWS, N_COLUMNS = 6, 512, 4096
EXPERT = "model.layers.1.mlp.experts.{}.down_proj.weight"
MIB = 1 << 20


def write_shard(path, tensors):
    """[(name, dtype, shape, bytes)] to one file."""
    header, at = {}, 0
    for name, dtype, shape, raw in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for *_, raw in tensors:
            file.write(raw)


def bf16(values):
    return models.to_bf16(values.astype(np.float32)).tobytes()


def write_source(folder, n_shards=N_SHARDS, n_tensors=5):
    """Shards of experts, and a little that stays."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    block = rng.standard_normal((N_ROWS, N_COLUMNS))
    weight_map = {}
    for i in range(n_shards):
        tensors = [(EXPERT.format(i * n_tensors + k), "BF16", block.shape,
                    bf16(np.roll(block, i * n_tensors + k) * (1 + k))) for k in range(n_tensors)]
        tensors += [(f"model.layers.{i}.input_layernorm.weight", "BF16", (64,), bf16(np.ones(64)))]
        file = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        write_shard(folder / file, tensors)
        weight_map |= {name: file for name, *_ in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / CONFIG).write_text('{"num_hidden_layers": 9, "rms_norm_eps": 1e-05, "x": [1.50, {}]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not copied")
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("copied")


def contents(folder):
    """Every file and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file()}


def tensor_bytes(folder, name):
    have = models.Checkpoint(folder)
    dtype, shape, _ = have.tensors[name]
    return dtype, list(shape), np.asarray(have.raw(name)).tobytes()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="quern-quantize-"))
        cls.source = cls.folder / "source"
        write_source(cls.source)
        done = subprocess.run([QUERN, "quantize", cls.source, cls.folder / "expected", "-q"],
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        cls.expected = contents(cls.folder / "expected")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        self.target = self.folder / "target"
        self.addCleanup(shutil.rmtree, self.target, ignore_errors=True)

    def quantize(self, *options, source=None, target=None, status=0, **keywords):
        """Run it; the status has to be that.  Returns stdout, or the one line of an error."""
        done = subprocess.run([QUERN, "quantize", source or self.source, target or self.target, "-q",
                               *options], capture_output=True, text=True, timeout=300, check=False,
                              **keywords)
        self.assertEqual(done.returncode, status, done.stderr)
        if status == 0:
            return done.stdout
        self.assertRegex(done.stderr, r"\Aquern: error: [^\n]+\n\Z")
        return done.stderr

    def report(self, *options, **keywords):
        return json.loads(self.quantize("--json", *options, **keywords))

    def start(self, *options, source=None):
        return subprocess.Popen([QUERN, "quantize", source or self.source, self.target, "-q", *options],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def start_and_stop(self, *options, source=None, again=None):
        """Begin and hold the process while it writes its first shard; where we come late, once more:
        `again` brings back a source that may be gone."""
        for _ in range(20):
            process = self.start("--threads", "1", *options, source=source)
            while process.poll() is None and not list(self.target.glob(".*.safetensors.quern-part")):
                pass
            process.send_signal(signal.SIGSTOP)
            if process.returncode is None:
                seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if seen.si_code == os.CLD_STOPPED and not list(self.target.glob("*.safetensors")):
                    return process
            process.kill()
            process.communicate()
            if again is not None:
                again()
            else:
                self.assertNotIn("--delete-source", options, "it was late, and the source is gone")
            shutil.rmtree(self.target, ignore_errors=True)
        return self.fail("20 times a shard was done before the process was stopped")

    def copy_source(self, name="copy"):
        copy = self.folder / name
        shutil.copytree(self.source, copy)
        self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
        return copy

    def assert_nothing_half_written(self):
        """What has a final name is whole, and config.json stands only beside all the rest."""
        found = contents(self.target) if self.target.exists() else {}
        for name, raw in found.items():
            if name.endswith(".safetensors"):
                self.assertEqual(raw, self.expected[name], name)
        if CONFIG in found:
            self.assertTrue(set(self.expected) <= set(found))


class SameBytes(Case):
    def test_for_any_number_of_threads(self):
        for threads in ("1", "2", "5"):
            with self.subTest(threads=threads):
                self.quantize("--threads", threads)
                self.assertEqual(contents(self.target), self.expected)
                shutil.rmtree(self.target)

    def test_when_killed_and_resumed(self):
        rng = random.Random(8)
        began = time.monotonic()
        self.quantize()
        seconds = time.monotonic() - began
        resumed = 0
        for i in range(N_KILLS):
            shutil.rmtree(self.target)
            for _ in range(rng.choice((1, 1, 2, 3))):  # the resumed one may be killed as well
                process = self.start("--resume")
                time.sleep(seconds * rng.random())
                process.kill()
                process.wait()
                process.stderr.close()
                self.assert_nothing_half_written()
            resumed += self.report("--resume")["resumed_shards"]
            self.assertEqual(contents(self.target), self.expected, f"kill {i}")
        self.assertGreater(resumed, 0)

    def test_when_interrupted_and_resumed(self):
        process = self.start_and_stop()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        self.assertRegex(process.communicate()[1], r"\Aquern: error: .*--resume")
        self.assertEqual(process.returncode, 130)
        self.assertEqual(list(self.target.glob(".*.quern-part")) if self.target.exists() else [], [])
        self.quantize("--resume")
        self.assertEqual(contents(self.target), self.expected)

    def test_resumed_when_all_was_done(self):
        self.quantize()
        self.assertEqual(self.report("--resume")["resumed_shards"], N_SHARDS)
        self.assertEqual(contents(self.target), self.expected)

    def test_a_damaged_shard_is_made_again(self):
        self.quantize()
        path = sorted(self.target.glob("*.safetensors"))[2]
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        self.assertEqual(self.report("--resume")["resumed_shards"], N_SHARDS - 1)
        self.assertEqual(contents(self.target), self.expected)

    def test_hashes_are_those_of_xxhsum(self):
        if not shutil.which("xxhsum"):
            self.skipTest("xxhsum is missing")
        self.quantize()
        manifest = json.loads((self.target / MANIFEST).read_text())
        sums = "".join(f"{s['done']['xxh128']}  {s['file']}\n" for s in manifest["shards"])
        done = subprocess.run(["xxhsum", "-c", "-"], input=sums, text=True, cwd=self.target,
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_numbers_of_config_keep_their_text(self):
        text = self.expected[CONFIG].decode()
        self.assertIn('"rms_norm_eps": 1e-05,\n    "x": [\n        1.50,\n        {}\n    ],\n', text)
        self.assertEqual(list(json.loads(text))[-1], "quantization_config")

    def test_other_files_are_copied(self):
        self.assertEqual(self.expected["more/notes.txt"], b"copied")
        self.assertNotIn("README.md", self.expected)

    def test_no_copy_has_the_name_of_a_file_begun(self):
        copy = self.copy_source()
        for name in ("x", "x.part", "config.json.part", "model.safetensors.part"):
            (copy / name).write_text(name)
        self.quantize(source=copy)
        for name in ("x", "x.part", "config.json.part", "model.safetensors.part"):
            self.assertEqual((self.target / name).read_text(), name)


class DeletedSource(Case):
    def test_shards_go_and_bytes_stay(self):
        copy = self.copy_source()
        self.quantize("--delete-source", source=copy)
        self.assertEqual(list(copy.glob("*.safetensors")), [])
        self.assertTrue((copy / CONFIG).exists())
        found = contents(self.target)
        self.assertEqual({k: v for k, v in found.items() if k != MANIFEST},
                         {k: v for k, v in self.expected.items() if k != MANIFEST})
        self.quantize("--delete-source", "--resume", source=copy)
        self.assertEqual(contents(self.target), found)

    def test_killed_and_resumed(self):
        n_deleted = []
        for i in range(max(2, N_KILLS // 5)):
            copy = self.copy_source(f"copy-{i}")
            process = self.start("--delete-source", source=copy)
            while len(list(copy.glob("*.safetensors"))) > N_SHARDS - 1 - i % (N_SHARDS - 2):
                self.assertIsNone(process.poll(), "ended before it was killed")
            process.kill()
            n_deleted.append(N_SHARDS - len(list(copy.glob("*.safetensors"))))
            process.wait()
            process.stderr.close()
            self.quantize("--delete-source", "--resume", source=copy)
            self.assertEqual(list(copy.glob("*.safetensors")), [])
            found = contents(self.target)
            found.pop(MANIFEST)
            self.assertEqual(found, {k: v for k, v in self.expected.items() if k != MANIFEST})
            shutil.rmtree(self.target)
        self.assertTrue(any(0 < n < N_SHARDS for n in n_deleted), n_deleted)

    def test_links_are_refused(self):
        copy = self.copy_source()
        name = sorted(copy.glob("*.safetensors"))[0].name
        os.unlink(copy / name)
        os.symlink(self.source / name, copy / name)
        self.assertIn("link", self.quantize("--delete-source", source=copy, status=2))
        self.assertFalse(self.target.exists())

    def test_a_damaged_output_of_a_deleted_shard_is_refused(self):
        copy = self.copy_source()
        self.quantize("--delete-source", source=copy)
        path = sorted(self.target.glob("*.safetensors"))[1]
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        self.assertIn(path.name, self.quantize("--resume", source=copy, status=3))


    def test_a_lost_output_of_a_deleted_shard_is_named(self):
        copy = self.copy_source()
        self.quantize("--delete-source", source=copy)
        path = sorted(self.target.glob("*.safetensors"))[1]
        os.truncate(path, 1000)
        for _ in range(2):
            line = self.quantize("--resume", source=copy, status=3)
            self.assertIn(path.name, line)
            self.assertIn("its source was deleted", line)
            path.unlink(missing_ok=True)


class Refused(Case):
    def test_a_target_that_holds_something(self):
        self.target.mkdir()
        (self.target / "mine.txt").write_text("mine")
        self.assertIn("mine.txt", self.quantize(status=2))
        self.assertIn("mine.txt", self.quantize("--resume", status=2))
        self.assertEqual(contents(self.target), {"mine.txt": b"mine"})

    def test_a_run_that_was_begun_unless_it_resumes(self):
        self.quantize()
        self.assertIn("--resume", self.quantize(status=2))

    def test_the_source_as_target_or_around_it(self):
        before = contents(self.source)
        for target in (self.source, self.source / "out", str(self.source) + "/./more/../out/"):
            with self.subTest(target=target):
                self.quantize(target=target, status=2)
                self.assertEqual(contents(self.source), before)

    def test_a_target_without_a_parent(self):
        self.quantize(target=self.folder / "no" / "where", status=1)

    def test_other_options_when_it_resumes(self):
        self.quantize()
        for option in (["--recipe", "routed"], ["--scale", "mse"], ["--mtp", "mxfp4"],
                       ["--activations", "none"], ["--fp8", "keep"]):
            with self.subTest(option=option):
                self.assertIn("expected", self.quantize("--resume", *option, status=2))
        self.assertEqual(contents(self.target), self.expected)

    def test_another_source_when_it_resumes(self):
        copy = self.copy_source()
        self.quantize(source=copy)
        name = sorted(copy.glob("*.safetensors"))[3].name
        os.utime(copy / name, (1, 1))
        self.assertIn(name, self.quantize("--resume", source=copy, status=3))

    def test_a_shard_that_came_later(self):
        copy = self.copy_source()
        (copy / INDEX).unlink()
        self.quantize(source=copy)
        write_shard(copy / "zz.safetensors", [(EXPERT.format(200), "BF16", (1, 32), bytes(64))])
        self.assertIn("zz.safetensors", self.quantize("--resume", source=copy, status=3))

    def test_a_second_process(self):
        process = self.start_and_stop()
        line = self.quantize("--resume", status=1)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.wait(), 0)
        process.stderr.close()
        self.assertIn("another process", line)
        self.assertEqual(contents(self.target), self.expected)

    def test_wrong_usage(self):
        for options, word in ((["--recipe", "xperts"], "xperts"), (["--scale", "best"], "best"),
                              (["--mtp", "fp8"], "fp8"), (["--threads", "0"], "threads"),
                              (["--cpu-mask", "x"], "x"), (["--fp8", "fp4"], "fp4")):
            with self.subTest(options=options):
                self.assertIn(word, self.quantize(*options, status=2))
                self.assertFalse(self.target.exists())

    def test_missing_sources(self):
        self.quantize(source=self.folder / "nowhere", status=3)
        copy = self.copy_source()
        os.unlink(copy / CONFIG)
        self.assertIn(CONFIG, self.quantize(source=copy, status=3))
        shutil.copy(self.source / CONFIG, copy)
        name = sorted(copy.glob("*.safetensors"))[0].name
        os.unlink(copy / name)
        self.assertIn(name, self.quantize(source=copy, status=3))
        self.assertFalse(self.target.exists())

    def test_names_that_cannot_be_written(self):
        copy = self.copy_source()
        long_name = copy / ("n" * 250)
        long_name.write_text("")
        self.assertIn("a name of 250 bytes", self.quantize(source=copy, status=3))
        long_name.unlink()
        (copy / INDEX).unlink()
        shutil.copy(sorted(copy.glob("*.safetensors"))[0], os.fsencode(copy) + b"/\xff.safetensors")
        self.assertIn("UTF-8", self.quantize(source=copy, status=3))
        self.assertFalse(self.target.exists())

    def test_shards_left_out_are_said(self):
        copy = self.copy_source()
        write_shard(copy / "zz.safetensors", [(EXPERT.format(200), "BF16", (1, 32), bytes(64))])
        done = subprocess.run([QUERN, "quantize", copy, self.target], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"warn[^\n]*zz\.safetensors is left out[^\n]*\n")
        self.assertEqual(contents(self.target).keys(), self.expected.keys())

    def test_what_is_quantized_already(self):
        self.assertIn('"quark"', self.quantize(source=self.folder / "expected", status=3))
        copy = self.folder / "again"
        shutil.copytree(self.folder / "expected", copy)
        self.addCleanup(shutil.rmtree, copy)
        shutil.copy(self.source / CONFIG, copy)  # a config that hides it
        os.unlink(copy / MANIFEST)
        self.assertIn("quantized already", self.quantize(source=copy, status=3))


class BadWeights(Case):
    def setUp(self):
        super().setUp()
        self.bad = self.folder / "bad"
        self.bad.mkdir()
        self.addCleanup(shutil.rmtree, self.bad)
        (self.bad / CONFIG).write_text('{"num_hidden_layers": 2}')

    def write(self, *tensors):
        write_shard(self.bad / "model.safetensors", tensors)

    def test_nan_and_inf_by_index(self):
        for text, bits in (("NaN", 0x7FC1), ("Inf", 0x7F80), ("-Inf", 0xFF80)):
            for threads in ("1", "2"):
                with self.subTest(text, threads=threads):
                    raw = np.zeros((N_ROWS, N_COLUMNS), "<u2")
                    raw[300, 77] = raw[301, 3] = raw[511, 0] = bits
                    self.write((EXPERT.format(0), "BF16", raw.shape, raw.tobytes()))
                    line = self.quantize("--threads", threads, source=self.bad, status=3)
                    self.assertIn(f"{EXPERT.format(0)}[300, 77]: {text},", line)
                    self.assertFalse(self.target.exists())

    def test_fp8_nan_by_index(self):
        raw = np.zeros((200, 256), np.uint8)
        raw[130, 200] = 0x7F
        scale = np.ones((2, 2), "<f4")
        for recipe in ("routed", "experts"):
            with self.subTest(recipe):
                module = "mlp.experts.0.up_proj" if recipe == "routed" else "self_attn.o_proj"
                name = f"model.layers.1.{module}.weight"
                self.write((EXPERT.format(9), "BF16", (1, 32), bytes(64)),
                           (name, "F8_E4M3", raw.shape, raw.tobytes()),
                           (name + "_scale_inv", "F32", scale.shape, scale.tobytes()))
                line = self.quantize("--recipe", recipe, source=self.bad, status=3)
                self.assertIn(f"{name}[130, 200]: NaN,", line)

    def test_rows_of_no_whole_blocks(self):
        self.write((EXPERT.format(0), "BF16", (4, 48), bytes(2 * 4 * 48)))
        self.assertIn(f"{EXPERT.format(0)}: [4, 48]", self.quantize(source=self.bad, status=3))

    def test_fp8_without_its_scale(self):
        name = EXPERT.format(0)
        self.write((name, "F8_E4M3", (4, 64), bytes(256)))
        self.assertIn(name, self.quantize(source=self.bad, status=3))
        self.write((name, "F8_E4M3", (4, 64), bytes(256)),
                   (name + "_scale_inv", "F32", (1, 2), bytes(8)))
        self.assertIn("[1, 1] expected", self.quantize(source=self.bad, status=3))

    def test_a_taken_name_for_the_scales(self):
        name = EXPERT.format(0)
        weight = (name, "BF16", (1, 32), bytes(64))
        for stray in ((name + "_scale", "F32", (1, 1), bytes(4)),
                      (name + "_scale", "U8", (1,), bytes(1)),
                      (name + "_scale_inv", "F32", (1, 1), bytes(4))):
            for files in ([[weight, stray]], [[weight], [stray]], [[stray], [weight]]):
                with self.subTest(stray[:2], n_files=len(files)):
                    for i, tensors in enumerate(files):
                        write_shard(self.bad / f"{i}.safetensors", tensors)
                    line = self.quantize("--delete-source", source=self.bad, status=3)
                    self.assertIn(f"tensor {stray[0]}: ", line)
                    for path in self.bad.glob("*.safetensors"):
                        path.unlink()

    def test_more_tensors_than_a_header_of_ours_may_have(self):
        write_shard(self.bad / "model.safetensors",
                    [(f"model.layers.1.mlp.experts.{i}.up_proj.weight", "BF16", (1, 32), bytes(64))
                     for i in range(95000)])
        self.assertIn("more and smaller shards", self.quantize(source=self.bad, status=3))
        self.assertFalse(self.target.exists())

    def test_a_tensor_in_two_shards(self):
        tensor = (EXPERT.format(0), "BF16", (1, 32), bytes(64))
        for name in ("a.safetensors", "b.safetensors"):
            write_shard(self.bad / name, [tensor])
        self.assertIn("a.safetensors", self.quantize(source=self.bad, status=3))

    def test_an_index_that_says_otherwise(self):
        self.write((EXPERT.format(0), "BF16", (1, 32), bytes(64)))
        for weight_map in ({EXPERT.format(0): "model.safetensors", "x": "model.safetensors"},
                           {"x": "model.safetensors"}, {"x": "../model.safetensors"}, {"x": 3}, {}):
            with self.subTest(weight_map):
                (self.bad / INDEX).write_text(json.dumps({"weight_map": weight_map}))
                self.quantize(source=self.bad, status=3)

    def test_a_truncated_shard(self):
        copy = self.copy_source()
        path = sorted(copy.glob("*.safetensors"))[1]
        os.truncate(path, path.stat().st_size - 1)
        self.assertIn(path.name, self.quantize(source=copy, status=3))
        self.assertFalse(self.target.exists())


class Meanwhile(Case):
    def end(self, process, word):
        process.send_signal(signal.SIGCONT)
        line = process.communicate()[1]
        self.assertIn(process.returncode, (1, 3), line)
        self.assertRegex(line, r"\Aquern: error: [^\n]+\n\Z")
        self.assertIn(word, line)
        self.assert_nothing_half_written()
        self.assertEqual(list(self.target.glob(".*.quern-part")) if self.target.exists() else [], [])

    def test_the_source_is_written(self):
        copy = self.copy_source()
        first, *_, last = sorted(copy.glob("*.safetensors"))
        for path in (first, last):
            with self.subTest(path.name):
                process = self.start_and_stop(source=copy)
                os.utime(path)
                self.end(process, path.name)
                shutil.rmtree(self.target, ignore_errors=True)

    def test_the_source_is_cut_short(self):
        copy = self.copy_source()
        process = self.start_and_stop(source=copy)
        first = sorted(copy.glob("*.safetensors"))[0]
        os.truncate(first, 100000)
        self.end(process, first.name)

    def test_the_source_is_removed(self):
        copy = self.copy_source()
        process = self.start_and_stop(source=copy)
        last = sorted(copy.glob("*.safetensors"))[-1]
        os.unlink(last)
        self.end(process, last.name)


class NoRoom(Case):
    def mount(self, size):
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk],
                                 capture_output=True, check=False)
        if mounted.returncode != 0:
            self.skipTest("may not mount a tmpfs")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        return disk

    def test_a_file_that_may_not_be_so_long(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        line = self.quantize(status=1, preexec_fn=limit)
        self.assertIn("File too large", line)
        self.assertFalse(self.target.exists())

    def test_a_small_disk(self):
        disk = self.mount("8m")
        line = self.quantize(target=disk / "out", status=1)
        self.assertRegex(line, r"\d+ bytes free, \d+ expected")
        self.assertEqual(os.listdir(disk), [])
        self.assertIn("too little room", self.quantize("--dry-run", target=disk / "out"))
        self.assertFalse(self.report("--dry-run", target=disk / "out")["fits"])

    def test_what_a_killed_run_has_left_counts_as_free(self):
        disk = self.mount("100m")
        self.target = disk / "out"
        process = self.start_and_stop()
        process.kill()
        process.wait()
        process.stderr.close()
        named = sorted(self.source.glob("*.safetensors"))[-1].name
        (self.target / named).write_bytes(bytes(3 * MIB))  # as if killed before it was entered
        needed = self.report("--dry-run", "--resume")["needed_bytes"]
        info = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes(info.f_bavail * info.f_frsize - needed + 2 * MIB))
        self.assertTrue(self.report("--dry-run", "--resume")["fits"])
        self.quantize("--resume")
        self.assertEqual(contents(self.target), self.expected)


class Recipes(Case):
    def recipe(self, text):
        path = self.folder / "recipe.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return str(path)

    def quantized(self):
        have = models.Checkpoint(self.target)
        return {name.removesuffix(".weight") for name, (dtype, *_) in have.tensors.items()
                if dtype == "U8" and not name.endswith("_scale")}

    def test_the_first_match_decides(self):
        path = self.recipe({"*layers.2*experts.1?.*": "keep", "*layers.2.mlp.experts.*": "mxfp4",
                            "*o_proj": "mxfp4"})
        self.quantize("--recipe", path, source=NANO)
        found = self.quantized()
        experts = {name for name in found if ".mlp.experts." in name}
        self.assertEqual(found - experts, {f"model.layers.{i}.self_attn.o_proj" for i in range(4)})
        self.assertEqual(len(experts), 3 * 14)
        config = json.loads((self.target / CONFIG).read_text())["quantization_config"]
        self.assertIsNone(config["global_quant_config"]["input_tensors"])
        self.assertIn("model.layers.1.mlp.experts", config["exclude"])
        self.assertNotIn("model.layers.2.mlp.experts", config["exclude"])

    def test_parts_of_what_engines_load_as_one(self):
        for rules, word in (({"*layers.2*experts.1?.*": "keep", "*experts.*": "mxfp4"}, "layer 2: routed"),
                            ({"*experts.*": "mxfp4", "*.mlp.gate_proj": "mxfp4"}, "layer 0: gate_proj"),
                            ({"*.shared_experts.up_proj": "mxfp4"}, "layer 1 and others: gate_proj"),
                            ({"*.q_a_proj": "mxfp4"}, "layer 0 and others: q_a_proj"),
                            ({"*": "mxfp4"}, None), ({"*experts.*": "mxfp4"}, None)):
            with self.subTest(rules):
                done = subprocess.run([QUERN, "quantize", NANO, self.target, "--dry-run", "--recipe",
                                       self.recipe(rules)], capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual("more than one format" in done.stderr, word is not None, done.stderr)
                self.assertIn(word or "", done.stderr)

    def test_a_pattern_that_decides_nothing(self):
        for rules, word in (({"*mlp.expert.*": "mxfp4"}, "*mlp.expert.*"),
                            ({"*": "mxfp4", "*o_proj": "keep"}, "*o_proj"),
                            ({"*layers.4.*": "mxfp4"}, "MTP")):
            with self.subTest(rules):
                self.assertIn(word, self.quantize("--recipe", self.recipe(rules), source=NANO, status=3))

    def test_the_mtp_layer(self):
        path = self.recipe({"*mlp.experts.*": "mxfp4"})
        for option, n in (("bf16", 216), ("mxfp4", 288)):
            with self.subTest(option):
                self.quantize("--recipe", path, "--mtp", option, source=NANO)
                self.assertEqual(len(self.quantized()), n)
                shutil.rmtree(self.target)

    def test_bad_files(self):
        for text in ("", "[]", "{}", "{", '{"*": "fp8"}', '{"*": 4}', '{"": "keep"}',
                     '{"*": "mxfp4", "*": "keep"}', json.dumps({"x" * 300: "keep"})):
            with self.subTest(text[:40]):
                self.assertIn("recipe.json", self.quantize("--recipe", self.recipe(text), status=3))


class Fp8(Case):
    def setUp(self):
        super().setUp()
        self.fp8 = self.folder / "fp8"
        models.make_fp8(NANO, self.fp8)
        self.addCleanup(shutil.rmtree, self.fp8)
        self.have = models.Checkpoint(self.fp8)
        self.modules = [name for name, (dtype, *_) in self.have.tensors.items() if dtype == "F8_E4M3"]

    def wide(self, name):
        """The f32 product, rounded once."""
        dtype, shape, _ = self.have.tensors[name]
        codes = np.asarray(self.have.raw(name)).view(np.uint8).reshape(shape)
        exponent, mantissa = codes.astype(np.int32) >> 3 & 15, codes.astype(np.float64) % 8
        values = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0**(exponent - 10.0))
        values = np.where(codes >= 128, -values, values).astype(np.float32)
        scales = np.asarray(self.have.raw(name + "_scale_inv")).view("<f4").reshape(
            self.have.tensors[name + "_scale_inv"][1])
        scales = scales.repeat(128, 0).repeat(128, 1)[:shape[0], :shape[1]]
        return values * scales

    def test_the_product_is_encoded_or_rounded(self):
        report = self.report(source=self.fp8)
        self.assertGreater(report["fp8_to_bf16_tensors"], 0)
        for name in self.modules:
            dtype, _, raw = tensor_bytes(self.target, name)
            if dtype == "U8":
                codes, scales = models.to_mxfp4(self.wide(name))
                self.assertEqual(raw, codes.tobytes(), name)
                self.assertEqual(tensor_bytes(self.target, name + "_scale")[2], scales.tobytes())
            else:
                self.assertEqual((dtype, raw), ("BF16", bf16(self.wide(name))), name)
        self.assertEqual([n for n in models.Checkpoint(self.target).tensors if "scale_inv" in n], [])

    def test_it_is_said_what_became_of_the_rest(self):
        self.assertIn("became bf16", self.quantize(source=self.fp8))
        shutil.rmtree(self.target)
        self.assertIn("stay FP8", self.quantize("--fp8", "keep", source=self.fp8))
        for name in self.modules:
            if tensor_bytes(self.target, name)[0] == "F8_E4M3":
                for part in (name, name + "_scale_inv"):
                    self.assertEqual(tensor_bytes(self.target, part), tensor_bytes(self.fp8, part))

    def split(self):
        """Scales in shards of their own, before and behind that of the weights."""
        for path in self.fp8.glob("*.safetensors"):
            os.unlink(path)
        (self.fp8 / INDEX).unlink(missing_ok=True)
        names = list(self.have.tensors)
        parts = {"a": [n for n in names if n.endswith("scale_inv")][::2],
                 "b": [n for n in names if not n.endswith("scale_inv")],
                 "c": [n for n in names if n.endswith("scale_inv")][1::2]}
        for file, members in parts.items():
            write_shard(self.fp8 / f"{file}.safetensors",
                        [(n, self.have.tensors[n][0], self.have.tensors[n][1],
                          np.asarray(self.have.raw(n)).tobytes()) for n in members])

    def test_scales_in_other_shards(self):
        self.quantize(source=self.fp8)
        whole = {name: tensor_bytes(self.target, name) for name in models.Checkpoint(self.target).tensors}
        shutil.rmtree(self.target)
        self.split()
        copy = self.folder / "split"
        shutil.copytree(self.fp8, copy)
        self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
        process = self.start_and_stop("--delete-source", source=self.fp8,
                                      again=lambda: shutil.copytree(copy, self.fp8, dirs_exist_ok=True))
        process.kill()
        process.wait()
        process.stderr.close()
        self.quantize("--delete-source", "--resume", source=self.fp8)
        self.assertEqual({name: tensor_bytes(self.target, name)
                          for name in models.Checkpoint(self.target).tensors}, whole)
        self.assertEqual(list(self.fp8.glob("*.safetensors")), [])

    def test_killed_between_two_deletions(self):
        """The scales are gone, the weights that they belong to are not yet."""
        self.split()
        for option in ("bf16", "keep"):
            for gone in ("a", "b", "c", "ac", "ab"):
                with self.subTest(option, gone=gone):
                    copy = self.folder / "split"
                    shutil.copytree(self.fp8, copy)
                    self.addCleanup(shutil.rmtree, copy, ignore_errors=True)
                    before = self.report("--fp8", option, source=copy)
                    found = contents(self.target)
                    for name in gone:
                        (copy / f"{name}.safetensors").unlink()
                    after = self.report("--fp8", option, "--delete-source", "--resume", source=copy)
                    self.assertEqual(contents(self.target), found)
                    self.assertEqual(list(copy.glob("*.safetensors")), [])
                    for key in ("fp8_to_bf16_tensors", "fp8_kept_tensors", "kinds", "exclude"):
                        self.assertEqual(after[key], before[key])
                    shutil.rmtree(self.target)
                    shutil.rmtree(copy)

    def test_a_damaged_output_whose_scales_are_gone(self):
        self.split()
        self.quantize(source=self.fp8)
        (self.fp8 / "a.safetensors").unlink()
        path = self.target / "b.safetensors"
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        line = self.quantize("--resume", source=self.fp8, status=3)
        self.assertIn("b.safetensors", line)
        self.assertIn("was deleted", line)


class Reports(Case):
    def test_errors_are_those_of_the_files(self):
        path = self.folder / "report.json"
        printed = self.report("--report", str(path), source=NANO)
        report = json.loads(path.read_text())
        self.assertEqual(list(report), list(printed))
        self.assertEqual(report["exclude"], printed["exclude"])
        self.assertEqual(sum(p.stat().st_size for p in self.target.glob("*.safetensors")),
                         report["bytes_after"])
        have, made = models.Checkpoint(NANO), models.Checkpoint(self.target)
        lut = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], np.float32)
        lut = np.concatenate((lut, -lut))
        for row in report["kinds"]:
            if row["kind"] not in ("routed_expert", "shared_expert") or row["mtp"]:
                self.assertNotIn("error", row)
                continue
            part = ".mlp.experts." if row["kind"] == "routed_expert" else ".mlp.shared_experts."
            x_sq = lost_sq = largest = blocks = 0
            for name in [n for n in have.tensors if part in n and "layers.4." not in n]:
                x = have.f32(name).astype(np.float64)
                raw = np.asarray(made.raw(name)).view(np.uint8).reshape(x.shape[0], -1)
                scale = np.asarray(made.raw(name + "_scale")).view(np.uint8).reshape(x.shape[0], -1)
                codes = np.stack((raw & 15, raw >> 4), -1).reshape(x.shape)
                y = lut[codes] * np.exp2(scale.astype(np.float64) - 127).repeat(32, 1)
                x_sq, lost_sq = x_sq + (x**2).sum(), lost_sq + ((x - y)**2).sum()
                largest, blocks = max(largest, np.abs(x - y).max()), blocks + scale.size
            error = row["error"]
            self.assertAlmostEqual(error["relative_mse"] / (lost_sq / x_sq), 1, 5)
            self.assertAlmostEqual(error["snr_db"], 10 * np.log10(x_sq / lost_sq), 4)
            self.assertAlmostEqual(error["error_max"] / largest, 1, 6)
            self.assertEqual((error["blocks"], sum(error["scales"].values())), (blocks, blocks))
            self.assertTrue(0 < error["saturated_blocks"] < blocks)

    def test_a_place_for_the_report_is_looked_for_first(self):
        copy = self.copy_source()
        before = contents(copy)
        blocked = self.folder / "blocked"
        blocked.mkdir(exist_ok=True)
        for path, status in ((self.folder / "no" / "report.json", 1), (blocked, 1),
                             (copy / "report.json", 2), (self.target / "config.json", 2),
                             (copy / sorted(copy.glob("*.safetensors"))[0].name, 2)):
            with self.subTest(path.name):
                self.assertIn(str(path), self.quantize("--report", str(path), source=copy, status=status))
                self.assertFalse(self.target.exists())
                self.assertEqual(contents(copy), before)
        self.assertEqual(list(blocked.iterdir()), [])
        self.quantize("--report", str(self.target / "report.json"))
        self.assertEqual(json.loads((self.target / "report.json").read_text())["shards"], N_SHARDS)
        self.assertFalse([p for p in self.folder.iterdir() if "report.json." in p.name])

    def test_the_table_fits_a_terminal_and_has_the_scales(self):
        lines = self.quantize(source=NANO).splitlines()
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertIn("rel MSE", lines[0])
        shares = [float(x) for line in lines if line.startswith("routed_expert  ")
                  for x in re.findall(r"2\^-?\d+ <?([\d.]+)", line)]
        self.assertAlmostEqual(sum(shares), 100, delta=1)

    def test_a_dry_run_knows_the_sizes_and_writes_nothing(self):
        report = self.report("--dry-run")
        self.assertFalse(self.target.exists())
        self.assertEqual(report["bytes_after"], sum(
            len(raw) for name, raw in self.expected.items() if name.endswith(".safetensors")))
        self.assertGreater(report["estimate_s"], 0)
        self.assertEqual(report["exclude"],
                         json.loads(self.expected[CONFIG])["quantization_config"]["exclude"])
        self.assertIn("free there", self.quantize("--dry-run"))

    def test_two_candidates_are_better_and_said_not_to_be_quarks(self):
        even = self.report(source=NANO)
        shutil.rmtree(self.target)
        mse = self.report("--scale", "mse", source=NANO)
        config = json.loads((self.target / CONFIG).read_text())
        self.assertIn("not the bytes of AMD Quark", config["quern_scale"])
        for before, after in zip(even["kinds"], mse["kinds"]):
            if "error" in before:
                self.assertLess(after["error"]["relative_mse"], before["error"]["relative_mse"])

    def test_the_result_answers(self):
        self.quantize(source=NANO)
        done = subprocess.run([QUERN, "run", self.target, "-p", "What is 2 + 2?", "--json",
                               "--max-tokens", "20", "--temperature", "0"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["quantization"], "mxfp4")
        self.assertNotIn("quern_scale", done.stderr)


class Memory(Case):
    def peak_mib(self, source, *options):
        """Peak RSS: as a small process in between sees it, since a child's begins as its parent's."""
        watch = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
                 "stdout=subprocess.DEVNULL); "
                 "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)")
        done = subprocess.run([sys.executable, "-c", watch, QUERN, "quantize", source, self.target,
                               "-q", *options], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return float(done.stdout)

    def test_does_not_grow_with_the_model(self):
        for threads in (1, 4):
            with self.subTest(threads=threads):
                peak = self.peak_mib(self.source, "--threads", str(threads))
                self.assertLess(peak, 40 + 20 * threads)
                shutil.rmtree(self.target)

    @unittest.skipUnless("QUERN_LAYER" in os.environ, "QUERN_LAYER is not set")
    def test_a_layer_of_full_size(self):
        """256 experts of GLM-5.2 and the shared one, 19.4 GB of bf16: RSS and time are printed."""
        folder = pathlib.Path(os.environ["QUERN_LAYER"])
        source, self.target = folder / "layer", folder / "layer-mxfp4"
        source.mkdir()
        self.addCleanup(shutil.rmtree, source)
        block = np.random.default_rng(2).standard_normal((2048, 6144))
        raw = bf16(block)
        experts = [f"experts.{i}" for i in range(256)] + ["shared_experts"]
        for first in range(0, len(experts), 64):
            write_shard(source / f"model-{first:03}.safetensors", [
                (f"model.layers.3.mlp.{expert}.{part}_proj.weight", "BF16",
                 (6144, 2048) if part == "down" else (2048, 6144), raw)
                for expert in experts[first:first + 64] for part in ("gate", "up", "down")])
        (source / CONFIG).write_text('{"num_hidden_layers": 78}')
        began = time.monotonic()
        peak = self.peak_mib(source)
        print(f"19.4 GB layer: peak {peak:.0f} MiB, {time.monotonic() - began:.1f} s", file=sys.stderr)
        tensor_mib = len(raw) / MIB
        self.assertLess(peak, 2 * tensor_mib * os.cpu_count() + 256)


if __name__ == "__main__":
    unittest.main()

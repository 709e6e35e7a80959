#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Options of `quern bench serve`: those that contradict each other are refused by name before
anything is sent, names of other clients mean what they mean there, keys are written nowhere.
"""
import http.server
import json
import os
import shlex
import subprocess
import tempfile
import threading
import unittest

from mocking import Bench, MockTest
from serving import QUERN, ROOT

REFUSED = (
    ("--knee", "--knee ttft:5000 --ramp 1,2"),
    ("--knee", "--knee ttft:5000 --max-concurrency 4"),
    ("--knee", "--knee tpot:50"),
    ("--knee", "--knee ttft:p101:50"),
    ("--knee", "--knee ttft:0"),
    ("--ramp-concurrency", "--ramp 1 --ramp-concurrency 2"),
    ("--ramp", "--ramp 1,,2"),
    ("--ramp", "--ramp 1,0"),
    ("--ramp-concurrency", "--ramp-concurrency 1.5"),
    ("--request-rate", "--request-rate 0"),
    ("--request-rate", "--request-rate 3 --ramp 1"),
    ("--duration", "--duration 5"),
    ("--num-prompts", "--num-prompts 5 --duration 5 --request-rate 1"),
    ("--num-prompts", "--num-prompts 0"),
    ("--burstiness", "--burstiness 2"),
    ("--burstiness", "--burstiness 2 --arrivals constant --request-rate 1"),
    ("--knee", "--sensitivity --knee ttft:100"),
    ("--sensitivity", "--sensitivity --workload multi-turn"),
    ("--mtp-off-body", "--mtp-off-body {} --max-concurrency 1"),
    ("--mtp-off-body", "--mtp-off-body [] --max-concurrency 1 --sensitivity"),
    ("--workload", "--workload waver"),
    ("--dataset-name", "--dataset-name sonnet"),
    ("--dataset-name", "--dataset-name random --workload wafer"),
    ("--dataset-path", "--dataset-name sharegpt"),
    ("--dataset-path", "--dataset-path x.json"),
    ("--turns", "--turns 3"),
    ("--prefix-groups", "--prefix-groups 3"),
    ("--scale", "--scale 0"),
    ("--random-range-ratio", "--random-range-ratio 1"),
    ("--extra-body", "--extra-body [1]"),
    ("--goodput", "--goodput ttft"),
    ("--goodput", "--goodput itl:5"),
    ("--metric-percentiles", "--metric-percentiles 101"),
    ("--percentile-metrics", "--percentile-metrics ttft,latency"),
    ("--base-url", "--base-url localhost:8000"),
    ("--base-url", "--base-url http://me:sk-secret@127.0.0.1:1"),
    ("--base-url", "--base-url http://127.0.0.1:1 --port 2"),
    ("--api-key", "--api-key a --api-key-file b"),
    ("--header", "--header nothing"),
    ("--endpoint", "--endpoint v1/completions"),
    ("--power", "--power /nowhere/watts.csv"),
    ("--accelerators", "--accelerators 4"),
    ("--accelerators", "--accelerator H100"),
    ("--mtp-off-url", "--sensitivity --max-concurrency 1 --mtp-off-url 127.0.0.1:1"),
    ("--mtp-off-url",
     "--sensitivity --max-concurrency 1 --mtp-off-url http://me:sk-secret@127.0.0.1:1"),
    ("--note", "--note quantization"),
    ("--backend", "--backend tgi"),
)
SHORT = ("--num-prompts", 4, "--random-input-len", 10, "--random-output-len", 3)


def run(*arguments):
    return subprocess.run([QUERN, "bench", "serve", *arguments], cwd=ROOT, timeout=100,
                          capture_output=True, text=True, check=False)


class Refused(unittest.TestCase):
    def test_what_contradicts_itself_is_refused_by_name(self):
        for name, arguments in REFUSED:
            done = run(*arguments.split())
            self.assertIn(done.returncode, (2, 3), (arguments, done.stderr))
            self.assertRegex(done.stderr, "^quern: error: %s: .*expected" % name, arguments)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertEqual(done.stdout, "")
            self.assertNotIn("sk-secret", done.stderr)

    def test_nobody_there(self):
        done = run("--base-url", "http://127.0.0.1:9", "--tokenizer", "models/glm-nano")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^quern: error: http://127.0.0.1:9")


    def test_a_server_that_is_loading(self):
        class Loading(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                self.send_error(503)

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Loading) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            done = run("--base-url", "http://127.0.0.1:%d" % server.server_port)
            server.shutdown()
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "/v1/models: status 503 .*not ready.*, expected 200")


class Meant(MockTest):
    def test_keys_are_written_nowhere(self):
        self.mock.set(api_key="sk-secret")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("# a comment\nsk-secret\n")
            file.flush()
            for key in (("--api-key", "sk-secret"), ("--api-key=sk-secret",),
                        ("--api-key-file", file.name),
                        ("--header", "Authorization: Bearer sk-secret")):
                bench = Bench(self.mock.url, *SHORT, *key)
                self.assertEqual(bench.run["completed"], 4)
                for name, content in bench.files.items():
                    self.assertNotIn(b"sk-secret", content, name)
                self.assertIn("--num-prompts 4", bench.result["command"])
        self.mock.set()

    def test_command_is_what_a_shell_reads(self):
        notes = ("a=it's `x` *?#~!", "b=two\nlines", "c=plain")
        flags = [flag for note in notes for flag in ("--note", note)]
        bench = Bench(self.mock.url, *SHORT, *flags, "--header=X-Key: sk-secret")
        words = shlex.split(bench.result["command"])
        self.assertEqual(words[:3], ["quern", "bench", "serve"])
        for note in notes:
            self.assertIn(note, words)
        self.assertEqual(words[-1], "--header=***")

    def test_files_are_for_whom_the_umask_allows(self):
        for mask in (0o022, 0o027):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([QUERN, "bench", "serve", "--base-url", self.mock.url, "-q", *map(
                    str, SHORT), "--output", os.path.join(folder, "out"), "--save-result",
                                "--result-dir", os.path.join(folder, "out")], cwd=ROOT, check=True,
                               umask=mask, stdout=subprocess.DEVNULL, timeout=100)
                for entry in os.scandir(os.path.join(folder, "out")):
                    self.assertEqual(entry.stat().st_mode & 0o777, 0o666 & ~mask, entry.name)

    def test_names_of_other_clients(self):
        for backend, path in (("vllm", "/v1/completions"), ("sglang-oai-chat",
                                                            "/v1/chat/completions")):
            bench = Bench(self.mock.url, *SHORT, "--backend", backend)
            self.assertEqual(bench.result["workload"]["api"], path)
        bench = Bench(self.mock.url, "--dataset-name", "generated-shared-prefix",
                      "--gsp-num-groups", 2, "--gsp-prompts-per-group", 3, "--gsp-system-prompt-len",
                      30, "--gsp-question-len", 10, "--gsp-output-len", 4)
        self.assertEqual((bench.run["num_prompts"], bench.run["total_input_tokens"],
                          bench.run["total_output_tokens"]), (6, 240, 24))

    def test_result_has_the_name_that_vllm_gives_it(self):
        with tempfile.TemporaryDirectory() as folder:
            new = os.path.join(folder, "new")
            Bench(self.mock.url, *SHORT, "--request-rate", 50, "--max-concurrency", 3,
                  "--save-result", "--result-dir", new)
            (name,) = os.listdir(new)
            self.assertRegex(name, r"^openai-50qps-concurrency3-mock-\d{8}-\d{6}\.json$")
            with open(os.path.join(new, name), encoding="utf-8") as file:
                result = json.load(file)
            self.assertEqual((result["completed"], result["num_prompts"], result["request_rate"],
                              result["max_concurrency"], result["model_id"]), (4, 4, 50, 3, "mock"))

    def test_percentiles_that_are_asked_for_are_there_too(self):
        bench = Bench(self.mock.url, *SHORT, "--metric-percentiles", "25,99.9")
        for name in ("p25_ttft_ms", "p50_ttft_ms", "p95_itl_ms", "p99_e2el_ms", "p99.9_tpot_ms"):
            self.assertIsNotNone(bench.result[name], name)
        self.assertIn("p99.9", bench.out)

    def test_json_is_all_that_is_printed(self):
        bench = Bench(self.mock.url, *SHORT, "--json", "--goodput", "ttft:10000", "tpot:10000")
        result = json.loads(bench.out)
        self.assertEqual(result["request_goodput"], result["request_throughput"])
        self.assertEqual(result["request_rate"], "inf")
        self.assertEqual(result["load"]["goodput"], {"ttft": 10000, "tpot": 10000})


if __name__ == "__main__":
    unittest.main()

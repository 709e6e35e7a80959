#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern serve from the shell: options by everybody's names, the configuration file, what is refused
and how, the line at its start, how it ends, and what the log does not have.
"""
import json
import os
import re
import resource
import signal
import socket
import subprocess
import unittest

from serving import Server, wait_until
from test_cli import NANO, QUERN, QUESTION, ROOT, Case, read_until, start

SMALL = ["--max-num-seqs", "4", "--page-cache", "64M"]
ASK = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


def certificate(case):
    """A certificate for 127.0.0.1 and its key, signed by itself."""
    cert, key = case.path("cert.pem"), case.path("key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
                    "-out", cert], check=True, capture_output=True)
    return cert, key


class Serve(Case):
    """What the tests share; it has none."""

    def refuse(self, flags, *needles, status=2):
        """Refused before it listens, in one line."""
        return self.fail_with(status, ["serve", NANO, "--port", "0", *flags], *needles)

    def config(self, **keys):
        return self.write("quern.json", json.dumps(keys))

    def caches(self, *flags):
        """Is a prompt found that was asked before?"""
        prompt = {"prompt": "one two three " * 60, "max_tokens": 1, "temperature": 0}
        with Server(*SMALL, *flags) as server:
            server.post("/v1/completions", prompt)
            usage = server.post("/v1/completions", prompt)[2]["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"] > 0


class Options(Serve):
    def test_sizes_go_by_every_name(self):
        for names in (["--max-num-seqs", "--max-model-len", "--max-num-batched-tokens"],
                      ["--max-running-requests", "--context-length", "--chunked-prefill-size"]):
            flags = [word for name, n in zip(names, ("3", "640", "96")) for word in (name, n)]
            with Server("--page-cache", "64M", "--max-queued-requests", "7", *flags) as server:
                limits = server.get("/server_info")[2]["limits"]
            self.assertEqual((limits["sequences"], limits["context_tokens"], limits["queue"]),
                             (3, 640, 7))

    def test_whole_command_lines_of_others_are_taken(self):
        vllm = ["--tensor-parallel-size", "1", "-dp", "1", "--trust-remote-code",
                "--enable-auto-tool-choice", "--tool-call-parser", "glm47", "--reasoning-parser",
                "glm45", "--kv-cache-dtype", "fp8", "--speculative-config",
                '{"method": "mtp", "num_speculative_tokens": 3}', "--enable-prefix-caching",
                "--dtype", "auto", "--gpu-memory-utilization", "0.05", "--max-num-seqs", "4",
                "--served-model-name", "glm-5.2", "zai-org/GLM-5.2"]
        sglang = ["--tp-size", "1", "-tp=1", "--kv-cache-dtype", "fp8_e4m3", "--tool-call-parser",
                  "glm47", "--reasoning-parser", "glm45", "--speculative-algorithm", "EAGLE",
                  "--speculative-num-steps", "3", "--speculative-eagle-topk", "1",
                  "--speculative-num-draft-tokens", "4", "--mem-fraction-static", "0.05",
                  "--max-running-requests", "4", "--enable-metrics", "--served-model-name",
                  "glm-5.2", "--trust-remote-code"]
        for flags in (vllm, sglang):
            with Server(*flags) as server:
                info = server.get("/server_info")[2]
                ids = [model["id"] for model in server.get("/v1/models")[2]["data"]]
                ignored = [line for line in server.lines if "without effect" in line]
            self.assertEqual(info["model"]["kv_dtype"], "fp8")
            self.assertIs(info["model"]["deterministic"], True)
            self.assertEqual(ids[0], "glm-5.2")
            self.assertEqual(len(ignored), 1)
            for name in ("--trust-remote-code", "--tool-call-parser", "--reasoning-parser"):
                self.assertIn(name, ignored[0])
        self.assertNotIn("--tp-size", ignored[0])

    def test_last_word_on_the_prefix_cache_counts(self):
        self.assertFalse(self.caches("--disable-radix-cache"))
        self.assertTrue(self.caches("--no-enable-prefix-caching", "--enable-prefix-caching"))

    def test_the_model_is_an_option_too(self):
        for name in ("--model", "--model-path"):
            server = start("serve", name, NANO, "--port", "0", *SMALL)
            read_until(server.stdout, b"\n")
            server.terminate()
            server.communicate()
            self.assertEqual(server.returncode, 0)
        server = start("serve", NANO + "//", "--port", "0", *SMALL)
        self.assertIn(" serves glm-nano: ", read_until(server.stdout, b"\n"))
        server.terminate()
        server.communicate()
        self.refuse(["--model", "another"], "--model: another", NANO)
        self.fail_with(2, ["serve"], "no model")

    def test_what_would_change_an_answer_and_is_not_built_is_refused(self):
        for flags, needles in {
                ("--quantization", "fp8"): ["--quantization: not built", "quern quantize"],
                ("--tensor-parallel-size", "8"): ['--tensor-parallel-size: "8", expected 1'],
                ("-tp", "2"): ['--tp: "2", expected 1', "nothing else is built"],
                ("--pp-size", "2"): ['--pp-size: "2"'], ("--ep-size", "0"): ['--ep-size: "0"'],
                ("--dp", "2"): ['--dp: "2"'],
                ("--dtype", "float16"): ["--dtype", "auto|bfloat16"],
                ("--kv-cache-dtype", "fp8_e5m2"): ["--kv-cache-dtype", "auto|bf16|f32|fp8"],
                ("--tool-call-parser", "hermes"): ["--tool-call-parser", "glm47"],
                ("--chat-template", "x.jinja"): ["--chat-template: not built", "--chat-format"],
                ("--enable-lora",): ["--enable-lora: not built"],
                ("--enable-hierarchical-cache",): ["not built", "--page-cache"],
                ("--max-model-length", "5"): ["did you mean --max-model-len?"],
                ("--max-seqs", "5"): ["--max-seqs: no such option"]}.items():
            self.refuse(flags, *needles)

    def test_values_are_checked_and_named_as_they_were_typed(self):
        for flags, needle in {
                ("--port", "65536"): "--port", ("--max-running-requests", "0"): "--max-running-requests",
                ("--max-num-seqs", "1025"): "--max-num-seqs", ("--shutdown-timeout", "-1"): "--shutdown",
                ("--page-cache", "8X"): "--page-cache", ("--max-body-size", "0"): "--max-body-size",
                ("--mem-fraction-static", "1.5"): "--mem-fraction-static",
                ("--mem-fraction-static", ".5", "--page-cache", "1G"): "expected one of them",
                ("--gpu-memory-utilization", ".5", "--page-cache", "1G"): "--gpu-memory-utilization",
                ("--allowed-origins", '["a", "b"]'): "--allowed-origins",
                ("--allowed-origins", ""): "--allowed-origins: an origin",
                ("--allowed-origins", "http://a,http://b"): "expected * or one origin",
                ("--allowed-origins", '["http://a\\nb"]'): "--allowed-origins: an origin",
                ("--served-model-name", "a", ""): "--served-model-name: a name",
                ("--served-model-name", "a\r\nb"): "--served-model-name: a name",
                ("--api-key", "two words"): "--api-key", ("--api-key", ""): "--api-key",
                ("--max-num-seqs", "64", "--chunked-prefill-size", "100"): "--chunked-prefill-size"}.items():
            result = self.refuse(flags, needle)
            self.assertNotIn("two words", result.err)

    def test_a_device_is_looked_for_before_it_listens(self):
        self.refuse(("--device", "nonsense"), "--device: 'nonsense'")
        self.refuse(("--device", "cuda", "--compute", "f32"), "--compute")
        self.refuse(("--device", "hip:99"), "--device: hip:99", status=4)

    def test_speculation_contradicts_nothing(self):
        eagle = ["--speculative-algorithm", "EAGLE"]
        for flags, needle in (
                (["--speculative-num-steps", "3"], "--speculative-algorithm: missing"),
                (eagle + ["--speculative-num-steps", "3", "--speculative-num-draft-tokens", "3"],
                 "--speculative-num-draft-tokens: 3, expected 4"),
                (eagle + ["--speculative-eagle-topk", "4"], "--speculative-eagle-topk"),
                (eagle + ["--speculative-num-steps", "9"], "--speculative-num-steps"),
                (eagle + ["--speculative-num-steps", "3", "--draft-tokens", "2"], "--draft-tokens"),
                (["--speculative-config", '{"num_speculative_tokens": 3}', "--draft-tokens", "2"],
                 "--speculative-config"),
                (["--speculative-config", '{"method": "ngram"}'],
                 '--speculative-config: method: "ngram", expected "mtp"'),
                (["--speculative-config", '{"num_speculative_tokens": 2.5}'], "2.5, expected"),
                (["--speculative-config", '{"model": "x"}'], "model"),
                (["--speculative-config", '{"num_speculative_tokens": 9}'], "0 .. 8"),
                (["--speculative-config", "5"], "--speculative-config"),
                (["--speculative-config", "{"], "--speculative-config")):
            self.refuse(flags, needle)

    def test_depth_of_speculation_is_that_of_the_flags(self):
        for flags, depth in (
                (["--speculative-config", '{"method": "mtp", "num_speculative_tokens": 3}'], 3),
                (["--speculative-algorithm", "NEXTN", "--speculative-num-steps", "3"], 3),
                (["--speculative-config", '{"num_speculative_tokens": 0}'], 0),
                (["--draft-tokens", "0"], 0)):
            with Server(*SMALL, *flags) as server:
                server.post("/v1/chat/completions", ASK)
                info = server.get("/server_info")[2]
            self.assertEqual(info["draft_tokens"], depth)
            self.assertEqual(info["engine"]["drafted_tokens"] > 0, depth > 0, flags)

    def test_pinned_acceptance_is_told(self):
        ask = {**ASK, "temperature": 0, "max_tokens": 40, "ignore_eos": True}
        with Server(*SMALL, "--draft-tokens", "5", "--acceptance-length", "3.61") as server:
            status, _, body = server.post("/v1/chat/completions", ask)
            self.assertEqual((status, body["usage"]["completion_tokens"]), (200, 40))
            info = server.get("/server_info")[2]
            accepted = info["engine"]["accepted_tokens"]
            server.post("/v1/chat/completions", {**ask, "draft_tokens": 0})
            self.assertEqual(server.get("/server_info")[2]["engine"]["accepted_tokens"], accepted)
        self.assertEqual((info["draft_tokens"], info["pinned_acceptance_length"]), (5, 3.61))
        self.assertGreater(accepted, 20)
        self.refuse(["--acceptance-length", "3.61"], "--draft-tokens")
        self.refuse(["--acceptance-length", "3.61", "--draft-tokens", "2"], "--draft-tokens")

    def test_a_request_may_choose_its_own_depth(self):
        ask = {**ASK, "temperature": 0, "max_tokens": 20}
        with Server(*SMALL) as server:
            told = []
            self.assertEqual(server.get("/server_info")[2]["draft_tokens"], "auto")
            for depth in (0, 3, "auto"):
                status, _, body = server.post("/v1/chat/completions", {**ask, "draft_tokens": depth})
                self.assertEqual(status, 200)
                told.append((server.get("/server_info")[2]["engine"]["drafted_tokens"],
                             body["choices"][0]["message"]))
            self.assertEqual(told[0][0], 0)
            self.assertGreater(told[1][0], 0)
            self.assertEqual(told[0][1], told[1][1])
            self.assertEqual(told[0][1], told[2][1])
            status, _, body = server.post("/v1/chat/completions", {**ask, "draft_tokens": 9})
            self.assertEqual((status, body["error"]["param"]), (400, "draft_tokens"))


class ConfigFile(Serve):
    def test_its_keys_are_options_and_the_command_line_wins(self):
        path = self.config(model=NANO, max_num_seqs=3, max_model_len=512, page_cache="64M", port=1,
                           served_model_name=["a", "b"], enable_prefix_caching=False, seed=None,
                           speculative_config={"method": "mtp", "num_speculative_tokens": 2})
        with Server("--config", path, "--context-length", "640", "--served-model-name", "c") as server:
            limits = server.get("/server_info")[2]["limits"]
            ids = [model["id"] for model in server.get("/v1/models")[2]["data"]]
        self.assertEqual((limits["sequences"], limits["context_tokens"], ids), (3, 640, ["c"]))

    def test_lists_and_flags(self):
        path = self.config(**{"served-model-name": ["a", "b"], "api-key": "secret", "quiet": False,
                              "enable_prefix_caching": False, "trust_remote_code": True,
                              "enable_metrics": False})
        os.chmod(path, 0o600)
        with Server(*SMALL, "--config", path) as server:
            self.assertEqual(server.get("/v1/models")[0], 401)
            key = {"Authorization": "Bearer secret"}
            models = server.request("GET", "/v1/models", headers=key)[2]
            self.assertEqual([model["id"] for model in models["data"]], ["a", "b"])
            prompt = {"prompt": "one two three " * 60, "max_tokens": 1, "model": "b"}
            for _ in range(2):
                answer = server.request("POST", "/v1/completions", prompt, key)[2]
            self.assertEqual(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
            self.assertNotIn("warning: " + path, server.log)
            self.assertIn("--trust-remote-code: without effect", server.log)

    def test_false_is_the_opposite_of_a_flag_by_any_name(self):
        for keys, is_on in (({"no_prefix_cache": True, "disable_radix_cache": False}, True),
                            ({"enable_prefix_caching": False}, False)):
            self.assertEqual(self.caches("--config", self.config(**keys)), is_on, keys)

    def test_what_is_wrong_with_it_names_file_and_key(self):
        for text, needle in (('{"max_num_sequences": 4}', "max_num_sequences: no such option, did"),
                             ('{"max_num_seqs": "many"}', 'max_num_seqs: "many"'),
                             ('{"max_num_seqs": [1, 2]}', "max_num_seqs: a list"),
                             ('{"max_num_seqs": true}', "max_num_seqs: true or false"),
                             ('{"trust_remote_code": 1}', "trust_remote_code: no boolean"),
                             ('{"served_model_name": [true]}', "served_model_name"),
                             ('{"host": "a\\u0000b"}', "allowed without"),
                             ('{"quantization": "fp8"}', "quantization: not built"),
                             ('{"config": "x"}', "config: in a file"), ('{"help": true}', "help"),
                             ('{"port": 1, "port": 2}', "duplicate"), ('{"port": ', ":1: "),
                             ("[]", "a list"), ("", ":1: ")):
            path = self.write("bad.json", text)
            self.refuse(["--config", path], path, needle, status=3)
        self.refuse(["--config", self.path("none.json")], "none.json", status=3)


class Keys(Serve):
    def test_of_a_file_are_taken_and_its_readers_warned_of(self):
        path = self.write("keys.txt", "# of the team\r\n\n  first-key \nsecond-key\r\n")
        for mode, is_warned in ((0o644, True), (0o600, False)):
            os.chmod(path, mode)
            with Server(*SMALL, "--api-key-file", path, "--api-key", "third") as server:
                for key, status in (("first-key", 200), ("second-key", 200), ("third", 200),
                                    ("# of the team", 401), ("", 401)):
                    fields = {"Authorization": "Bearer " + key}
                    self.assertEqual(server.request("GET", "/v1/models", headers=fields)[0], status)
                self.assertEqual("chmod 600" in server.log, is_warned)
                self.assertNotIn("first-key", server.log)

    def test_without_one_the_file_lets_nobody_in(self):
        path = self.write("keys.txt", "# none\n\n")
        os.chmod(path, 0o600)
        self.refuse(["--api-key-file", path], path, "no key", status=3)
        self.refuse(["--api-key-file", self.path("none")], "none", status=3)
        with open(self.write("keys.txt", "a\0b\n"), encoding="utf-8"):
            self.refuse(["--api-key-file", path], "NUL", status=3)

    def test_of_the_administrator_flush_the_cache(self):
        for others in ([], ["--api-key", "user"]):
            with Server(*SMALL, "--admin-api-key", "admin", *others) as server:
                def ask(method, path, key):
                    return server.request(method, path,
                                          headers={"Authorization": "Bearer " + key})[0]
                for path in ("/flush_cache", "/reset_prefix_cache"):
                    self.assertEqual(ask("POST", path, "user"), 401)
                    self.assertEqual(ask("POST", path, "admin"), 200)
                self.assertEqual(ask("GET", "/v1/models", "admin"), 200)
                self.assertEqual(ask("GET", "/v1/models", "user"), 200)
                self.assertEqual(ask("GET", "/v1/models", "nobody"), 401 if others else 200)
        self.refuse(["--admin-api-key", ""], "--admin-api-key")

    def test_tls_needs_both_halves_that_fit(self):
        cert, key = certificate(self)
        self.refuse(["--ssl-certfile", cert], "--ssl-keyfile: missing")
        self.refuse(["--ssl-keyfile", key], "--ssl-certfile: missing")
        os.chmod(cert, 0o600)
        self.refuse(["--ssl-certfile", key, "--ssl-keyfile", cert], "--ssl-certfile", status=3)
        self.refuse(["--ssl-certfile", self.path("none"), "--ssl-keyfile", key], "none", status=3)
        server = start("serve", NANO, "--port", "0", "--ssl-certfile", cert, "--ssl-keyfile", key, *SMALL)
        url = re.search(r"https://\S+", read_until(server.stdout, b"\n"))[0]
        done = subprocess.run(["curl", "-sS", "--cacert", cert, url + "/health"], capture_output=True,
                              check=True, timeout=60)
        self.assertEqual(json.loads(done.stdout)["status"], "ok")
        server.terminate()
        server.communicate()
        self.assertEqual(server.returncode, 0)


class Start(Serve):
    def test_a_port_in_use_is_told_before_a_model_is_looked_for(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = self.fail_with(4, ["serve", "no-such-model", "--port", str(port)], str(port))
        self.assertNotIn("no-such-model", result.err)

    def test_a_host_that_is_not_ours_is_told(self):
        self.fail_with(4, ["serve", NANO, "--host", "192.0.2.1", "--port", "0"], "192.0.2.1")

    def test_a_model_that_is_not_there_ends_it(self):
        server = start("serve", "no-such-model", "--port", "0")
        out, err = server.communicate()
        self.assertEqual((server.returncode, out), (3, b""))
        self.assertIn("quern: error: no-such-model", err.decode().splitlines()[-1])

    def test_one_line_on_standard_output_says_what_serves(self):
        server = start("serve", NANO, "--port", "0", "--served-model-name", "nano", *SMALL)
        line = read_until(server.stdout, b"\n")
        found = re.fullmatch(r"quern: (http://127\.0\.0\.1:\d+) serves nano: .* weights .*, kernels "
                             r"\w+, .* (\d+) pages .*, 4 sequences\n", line)
        self.assertTrue(found, line)
        curl = re.search(r"^Try: (curl .*)$", read_until(server.stderr, b"}]}'\n"), re.M)[1]
        done = subprocess.run(["sh", "-c", curl], capture_output=True, check=True, timeout=60)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["model"], "nano")
        self.assertTrue(answer["choices"][0]["message"]["content"])
        server.terminate()
        out, _ = server.communicate()
        self.assertEqual((server.returncode, out), (0, b""))

    def test_a_log_of_json_has_nothing_else(self):
        server = start("serve", NANO, "--port", "0", "--log-format", "json", *SMALL,
                       "--trust-remote-code", "--cpu-mask", "ref")
        read_until(server.stdout, b"\n")
        server.terminate()
        _, err = server.communicate()
        lines = [json.loads(line)["msg"] for line in err.decode().splitlines()]
        for warning in ("--trust-remote-code", "kernels: "):
            self.assertTrue(any(line.startswith(warning) for line in lines), lines)

    def test_a_fallback_is_told_and_with_strict_an_error(self):
        server = start("serve", NANO, "--port", "0", "--cpu-mask", "ref", "--strict", *SMALL)
        out, err = server.communicate()
        self.assertEqual((server.returncode, out), (4, b""))
        self.assertRegex(err.decode().splitlines()[-1], "quern: error: kernels: .* fallbacks .*: ref")

    def test_files_for_connections_are_asked_for_and_said_to_lack(self):
        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, 700))
        process = subprocess.Popen([QUERN, "serve", NANO, "--port", "0", *SMALL], cwd=ROOT,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=few)
        read_until(process.stdout, b"\n")
        with open("/proc/%d/limits" % process.pid, encoding="ascii") as limits:
            files = re.search(r"^Max open files\s+(\d+)", limits.read(), re.M)[1]
        process.terminate()
        _, err = process.communicate()
        self.assertEqual(files, "700")
        self.assertIn("max-connections: 4096, expected at most 572", err.decode())


class Stop(Serve):
    def test_each_signal_drains(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            server = start("serve", NANO, "--port", "0", *SMALL)
            read_until(server.stdout, b"\n")
            server.send_signal(number)
            _, err = server.communicate()
            self.assertEqual(server.returncode, 0, err)

    def test_a_second_one_cuts_off_what_runs(self):
        server = Server(*SMALL)
        client = server.connect()
        client.request("POST", "/v1/completions", json.dumps(
            {"prompt": "a", "max_tokens": 30000, "ignore_eos": True, "stream": True}),
            {"Content-Type": "application/json"})
        response = client.getresponse()
        self.assertTrue(response.read(1))  # it runs
        server.process.send_signal(signal.SIGTERM)
        wait_until("it drains", lambda: "draining" in server.log)
        self.assertEqual(server.stop(), 130)
        self.assertIn("quern: error: ", server.lines[-1])
        client.close()

    def test_while_it_loads_it_ends_at_once(self):
        with open(os.path.join(ROOT, "configs/glm-5.2/config.json"), encoding="utf-8") as file:
            config = json.load(file)
        n_layers = 4  # of its width: gigabytes of dummy weights, which take a while
        config.update(num_hidden_layers=n_layers, n_routed_experts=16, vocab_size=20000,
                      eos_token_id=[1], pad_token_id=1,
                      indexer_types=config["indexer_types"][:n_layers],
                      mlp_layer_types=config["mlp_layer_types"][:n_layers])
        self.write("config.json", json.dumps(config))
        server = start("serve", self.folder, "--load-format", "dummy", "--port", "0")
        read_until(server.stderr, b"loading")
        server.terminate()
        out, err = server.communicate()
        self.assertEqual((server.returncode, out), (0, b""), err)
        self.assertNotIn(b"load_s=", err)  # what a load that has ended says


class Log(Serve):
    SECRET = "Zanzibar"

    def ask(self, *flags):
        with Server(*SMALL, "--log-level", "debug", *flags) as server:
            server.post("/v1/completions", {"prompt": self.SECRET, "max_tokens": 1})
            server.post("/v1/completions", {"prompt": self.SECRET, "max_tokens": self.SECRET})
            server.post("/v1/completions", '{"prompt": "%s' % self.SECRET)
            server.post("/v1/chat/completions",
                        {"messages": [{"role": "user", "content": self.SECRET}], "max_tokens": 1})
        return server.log

    def test_has_no_prompt(self):
        log = self.ask()
        self.assertIn("/v1/completions", log)
        self.assertNotIn(self.SECRET, log)

    def test_last_word_on_prompts_counts(self):
        on = self.config(enable_log_requests=True)
        off = self.write("off.json", '{"enable_log_requests": false, "log_requests": false}')
        for flags, is_in in ((["--enable-log-requests", "--no-enable-log-requests"], False),
                             (["--disable-log-requests", "--log-requests"], True),
                             (["--enable-log-requests"], True),
                             (["--config", on, "--disable-log-requests"], False),
                             (["--config", on], True), (["--config", off], False)):
            log = self.ask(*flags)
            self.assertEqual(self.SECRET in log, is_in, flags)
            self.assertNotIn("without effect", log)


if __name__ == "__main__":
    unittest.main()

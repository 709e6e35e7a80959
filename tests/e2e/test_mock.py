#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The scripted server itself (tests/mock): others are judged by what it does."""
import http.client
import json
import signal
import subprocess
import threading
import unittest

import numpy as np

from mocking import MOCK, MockTest
from serving import wait_until

WORDS = "one two three four five "


def body(n_words=20, **members):
    return {"prompt": " ".join((WORDS * n_words).split()[:n_words]),
            "max_tokens": 6, "stream": True, "stream_options": {"include_usage": True}, **members}


class MockServer(MockTest):
    def ask(self, path="/v1/completions", **members):
        """Status and body, or the exception by name and what came before it."""
        connection = self.mock.connect()
        try:
            connection.request("POST", path, json.dumps(body(**members)))
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.IncompleteRead as error:
            return "IncompleteRead", error.partial
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, b""
        finally:
            connection.close()

    def events(self, data):
        """What a stream had."""
        lines = [line for line in data.decode().splitlines() if line.startswith("data: ")]
        self.assertEqual(lines[-1], "data: [DONE]")
        return [json.loads(line[6:]) for line in lines[:-1]]

    def test_times_are_those_of_the_script(self):
        self.mock.set(ttft_ms=60, tpot_ms=20)
        status, data = self.ask()
        events = self.events(data)
        self.assertEqual(status, 200)
        self.assertEqual([len(e["choices"]) for e in events], 6 * [1] + [0])
        self.assertEqual(events[5]["choices"][0]["finish_reason"], "length")
        self.assertEqual(events[6]["usage"], {"prompt_tokens": 20, "completion_tokens": 6,
                                              "total_tokens": 26})
        entry = self.mock.requests()[0]
        seen = np.array(entry["chunk_s"]) - entry["arrived_s"]
        late = seen - (0.06 + 0.02 * np.arange(6))
        self.assertGreater(np.min(late), -0.001)
        self.assertLess(np.median(late), 0.01)
        self.assertEqual((entry["end"], entry["output_tokens"]), ("done", 6))

    def test_slots_and_queue(self):
        self.mock.set(ttft_ms=150, n_slots=2, max_queue=1)
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(self.ask()[0])) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(seen), [200, 200, 200, 503, 503])
        log = self.mock.log()
        self.assertEqual(log["max_running"], 2)
        began = sorted(e["began_s"] - e["arrived_s"] for e in log["requests"] if e["began_s"])
        self.assertGreater(began[2], 0.1)

    def test_prefixes_are_remembered_in_blocks(self):
        self.mock.set(cached_tokens="prefix")
        for n_words, cached in ((40, 0), (40, 32), (48, 32), (60, 48), (64, 48), (64, 48), (65, 64)):
            self.ask(n_words=n_words)
            self.assertEqual(self.mock.requests()[-1]["cached_tokens"], cached, n_words)
        self.mock.post("/flush_cache", {})
        self.ask(n_words=40)
        self.assertEqual(self.mock.requests()[-1]["cached_tokens"], 0)

    def test_faults(self):
        for fault, status, end in (
                ({"kind": "status", "status": 418}, 418, "status"),
                ({"kind": "close"}, "RemoteDisconnected", "close"),
                ({"kind": "close", "after_chunks": 2}, "IncompleteRead", "close"),
                ({"kind": "reset", "after_chunks": 2}, "ConnectionResetError", "reset"),
                ({"kind": "error_event", "after_chunks": 2}, 200, "error_event"),
                ({"kind": "malformed"}, 200, "done"), ({"kind": "slow"}, 200, "done"),
                ({"kind": "close_framed"}, 200, "done"), ({"kind": "whole"}, 200, "done")):
            self.mock.set(faults=[{**fault, "requests": [1]}])
            self.assertEqual(self.events(self.ask()[1])[-1]["usage"]["total_tokens"], 26)
            seen, data = self.ask()
            self.assertEqual(seen, status, fault)
            wait_until("it ended", lambda: self.mock.requests()[1]["end"])
            entry = self.mock.requests()[1]
            self.assertEqual(entry["end"], end, fault)
            n_sent = {"status": 0, "close": fault.get("after_chunks", 0), "reset": 2,
                      "error_event": 2}.get(fault["kind"], 6)
            self.assertEqual(entry["output_tokens"], n_sent, fault)
            if fault["kind"] == "error_event":
                self.assertIn(b'"error"', data)
        self.mock.set(faults=[{"kind": "hang", "after_chunks": 2}], n_slots=1)
        connection = self.mock.connect()
        connection.request("POST", "/v1/completions", json.dumps(body()))
        wait_until("it hangs", lambda: self.mock.requests()[0]["output_tokens"] == 2)
        connection.close()
        wait_until("it notices", lambda: self.mock.requests()[0]["end"] == "left")
        self.assertEqual(self.mock.log()["running"], 0)

    def test_counts_are_told_by_each_engine(self):
        for engine, running, made in (("quern", "quern_requests_running", "quern_generation_tokens"),
                                      ("vllm", "vllm:num_requests_running", "vllm:generation_tokens"),
                                      ("sglang", "sglang:num_running_reqs", "sglang:generation_tokens"),
                                      ("llamacpp", "llamacpp:requests_processing",
                                       "llamacpp:tokens_predicted")):
            self.mock.set(engine=engine)
            self.ask()
            values = {name.split("{")[0]: value for name, value in self.mock.metrics().items()}
            self.assertEqual((values[running], values[made + "_total"]), (0, 6))

    def test_a_script_with_a_slip_is_refused(self):
        for script in ({"ttft": 5}, {"ttft_ms": "fast"}, {"faults": [{"kind": "fire"}]},
                       {"faults": [{"knd": "close"}]}, {"engine": "steam"}, {"n_slots": -1}):
            status, _, answer = self.mock.post("/mock/script", script)
            self.assertEqual(status, 400, script)
            self.assertRegex(answer["error"], "^script: .*, expected ")
        ended = subprocess.run([MOCK, "--speed", "5"], capture_output=True, check=False)
        self.assertEqual(ended.returncode, 1)

    def test_says_which_signal_ended_it(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with subprocess.Popen([MOCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as mock:
                mock.stdout.readline()
                mock.send_signal(number)
                self.assertIn(number.name, mock.communicate()[1].decode())
            self.assertEqual(mock.returncode, 128 + number)


if __name__ == "__main__":
    unittest.main()

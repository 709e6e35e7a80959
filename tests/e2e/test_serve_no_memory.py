#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every allocation that a request needs fails once, in a running server: that request gets 500 or
503, an error at the end of its stream, a closed connection, or does without; the next one is
answered right.  QUERN_ALL_ALLOCATIONS: each one, otherwise some, spread over all.
"""
import http.client
import json
import mmap
import os
import re
import struct
import tempfile
import unittest

from serving import BUILD, Server, wait_until

SHIM = os.path.join(BUILD, "tests", "libfail_malloc.so")
N_SOME = 40  # of each request, unless all are wanted
TOOLS = [{"type": "function", "function": {"name": "get_time", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}]
TIME = [{"role": "user", "content": "What time is it in Sydney?"}]
REQUESTS = {
    "completion": ("/v1/completions", {"prompt": ["Once upon", "The river"], "max_tokens": 6, "n": 2,
                                       "logprobs": 2, "echo": True, "temperature": 0}),
    "completion, streamed": ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 6,
                                                 "stream": True, "temperature": 0}),
    "chat": ("/v1/chat/completions", {"messages": TIME, "tools": TOOLS, "temperature": 0}),
    "chat, streamed": ("/v1/chat/completions", {
        "messages": TIME, "tools": TOOLS, "stream": True, "temperature": 0, "logprobs": True,
        "stop": ["never"], "logit_bias": {"5": 1}, "cache_salt": "a"}),
    "messages": ("/v1/messages", {"messages": TIME, "max_tokens": 40, "temperature": 0}),
    "messages, streamed": ("/v1/messages", {"messages": TIME, "max_tokens": 40, "stream": True,
                                            "temperature": 0}),
    "count_tokens": ("/v1/messages/count_tokens", {"messages": TIME}),
    "tokenize": ("/tokenize", {"prompt": "Once upon a time"}),
    "detokenize": ("/detokenize", {"tokens": [1, 2, 3]}),
    "wrong": ("/v1/completions", {"prompt": 1}),
    "metrics": ("/metrics", None), "info": ("/server_info", None), "models": ("/v1/models", None),
}


def plain(data):
    """Without what differs from answer to answer."""
    text = data if isinstance(data, str) else data.decode(errors="replace") \
        if isinstance(data, bytes) else json.dumps(data)
    return re.sub(r'"(id|created|request_id)": ?("[^"]*"|\d+)|"cached_tokens": ?\d+|'
                  r'"cache_read_input_tokens": ?\d+|"input_tokens": ?\d+', "", text)


def pieces(text):
    """What a stream says in all, by kind, however it is cut."""
    return ["".join(re.findall(r'"%s": ?"((?:\\.|[^"\\])*)"' % kind, text)) for kind in (
        "text", "content", "reasoning_content", "thinking", "arguments", "partial_json", "name",
        "token", "finish_reason", "stop_reason")]


@unittest.skipIf(not os.path.exists(SHIM), "a sanitizer has the allocator")
class NoMemory(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "left")
        with open(path, "wb") as file:
            file.write(bytes(8))
        with open(path, "r+b") as file:
            self.left = mmap.mmap(file.fileno(), 8)
        self.server = Server(env={"LD_PRELOAD": SHIM, "QN_FAIL_FILE": path})
        self.addCleanup(self.server.kill)

    def ask(self, name, n_left=0):
        """Status and body of a request whose n-th allocation fails; None: the connection closed."""
        path, body = REQUESTS[name]
        self.left[:] = struct.pack("<Q", n_left)
        try:
            status, _, data = self.server.request("GET" if body is None else "POST", path, body)
        except (http.client.HTTPException, OSError):
            return None, ""
        return status, plain(data)

    def is_right(self, name, status, text, right):
        if REQUESTS[name][1] is None:
            return status == right[0]
        return status == right[0] and (text == right[1] or (
            "streamed" in name and pieces(text) == pieces(right[1])))

    def check(self, name):
        right = self.ask(name)
        self.ask(name)
        n_most = 1 << 20
        self.ask(name, n_most)
        n_all = n_most - struct.unpack("<Q", self.left[:])[0]
        self.assertGreater(n_all, 0, name)
        step = 1 if "QUERN_ALL_ALLOCATIONS" in os.environ else max(1, n_all // N_SOME)
        n_refused = 0
        for n in range(1, n_all + 1, step):
            with self.subTest(name, n=n):
                status, text = self.ask(name, n)
                self.left[:] = bytes(8)
                if status in (500, 503):
                    n_refused += 1
                    self.assertIn("error", text)
                elif status is not None and not self.is_right(name, status, text, right):
                    self.assertTrue("streamed" in name and '"error"' in text, text[-500:])
                self.assertIsNone(self.server.process.poll(), self.server.log[-2000:])
                status, text = self.ask(name)
                self.assertTrue(self.is_right(name, status, text, right), (status, text, right))
        wait_until("nothing runs", lambda: self.server.metrics()["quern_requests_running"] == 0)
        return n_all, n_refused

    def test_each_allocation(self):
        n_refused = 0
        for name in REQUESTS:
            n_refused += self.check(name)[1]
        self.assertGreater(n_refused, 20)
        metrics = self.server.metrics()
        self.assertEqual((metrics["quern_requests_waiting"], metrics['quern_pages{state="used"}']),
                         (0, 0))
        self.assertEqual(self.server.stop(), 0)


if __name__ == "__main__":
    unittest.main()

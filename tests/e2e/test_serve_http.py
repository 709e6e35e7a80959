#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The HTTP of `quern serve`, byte by byte: routes, limits, keys, timeouts, clients that leave, read
slowly or say nonsense, TLS, and how it ends.
"""
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

from serving import LONG_S, NANO, QUERN, ROOT, OneServer, Server, wait_until

CHAT = "/v1/chat/completions"
MANY = 30000  # tokens: more than a test waits for
JSON_ERRORS = {"/v1/messages": "anthropic", "/v1/messages/count_tokens": "anthropic",
               "/v1/messages/batches": "anthropic"}


def chat(text="What is 12 + 5?", **body):
    return {"messages": [{"role": "user", "content": text}], **body}


def endless(**body):
    """A completion that goes on for as long as nobody ends it."""
    return {"prompt": "Once", "max_tokens": MANY, "ignore_eos": True, "temperature": 1, **body}


class Raw:
    """A connection of bytes."""

    def __init__(self, server, tls=None, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(LONG_S)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.bytes = b""

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def ask(self, method, path, body=None, **headers):
        """Send a request; `_` of a header's name is a dash."""
        lines = ["%s %s HTTP/1.1" % (method, path), "Host: here"]
        lines += ["%s: %s" % (name.replace("_", "-"), value) for name, value in headers.items()]
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            lines.append("Content-Length: %d" % len(data))
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    def more(self):
        """Bytes came; false: the other side has closed."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self.bytes += data
        return data != b""

    def until(self, mark):
        """Bytes through `mark`."""
        while mark not in self.bytes:
            if not self.more():
                raise AssertionError("closed behind %r, expected %r" % (self.bytes[-300:], mark))
        found, _, self.bytes = self.bytes.partition(mark)
        return found + mark

    def take(self, n):
        while len(self.bytes) < n:
            if not self.more():
                raise AssertionError("closed with %d bytes of %d" % (len(self.bytes), n))
        found, self.bytes = self.bytes[:n], self.bytes[n:]
        return found

    def head(self):
        """Status and headers by lower-case name."""
        lines = self.until(b"\r\n\r\n").decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), {name.lower(): v for name, v in fields.items()}

    def chunks(self):
        """Pieces of a chunked body."""
        while (n := int(self.until(b"\r\n"), 16)) > 0:
            yield self.take(n)
            self.until(b"\r\n")
        self.until(b"\r\n")

    def answer(self, has_body=True):
        """Status, headers, body."""
        status, fields = self.head()
        if not has_body:
            return status, fields, None
        if "transfer-encoding" in fields:
            body = b"".join(self.chunks())
        else:
            body = self.take(int(fields.get("content-length", 0)))
        if fields.get("content-type") == "application/json":
            body = json.loads(body)
        return status, fields, body

    def is_closed(self):
        """Wait for the end; true when nothing came before it."""
        while self.more():
            pass
        return self.bytes == b""


class Case(OneServer):
    """What the tests share; it has none."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", "2", "--max-queued-requests", "2",
                            "--log-level", "info", *cls.flags)

    def connect(self, **how):
        raw = Raw(self.server, **how)
        self.addCleanup(raw.socket.close)
        return raw

    def engine(self):
        return self.server.get("/server_info")[2]["engine"]

    def await_engine(self, what, **counts):
        """Until these are its counts."""
        def is_so():
            engine = self.engine()
            return all(engine[name] == value for name, value in counts.items())
        wait_until(what, is_so)

    def assert_error(self, answer, status, word, form="openai"):
        self.assertEqual(answer[0], status, answer)
        body = answer[2]
        if form == "anthropic":
            self.assertEqual((set(body), body["type"]), ({"type", "error"}, "error"), body)
        else:
            self.assertEqual(set(body["error"]), {"message", "type", "param", "code"}, body)
        self.assertIn(word, body["error"]["message"])


class Routes(Case):
    def test_each_knows_its_methods(self):
        get, post = "GET, HEAD", "POST"
        for path, allowed in {
                "/v1/models": get, "/v1/models/glm-nano": get, CHAT: post, "/v1/completions": post,
                "/v1/messages": post, "/v1/messages/count_tokens": post, "/tokenize": post,
                "/detokenize": post, "/health": get, "/ready": get, "/metrics": get, "/version": get,
                "/server_info": get, "/flush_cache": post, "/reset_prefix_cache": post}.items():
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
                with self.subTest(path=path, method=method):
                    with self.connect() as raw:
                        raw.ask(method, path, Connection="close")
                        answer = raw.answer(has_body=method != "HEAD")
                    if method in allowed.split(", "):
                        # Posts without a body have an error in it.
                        self.assertIn(answer[0], (200, 400) if method == "POST" else (200,))
                    else:
                        self.assertEqual((answer[0], answer[1]["allow"]), (405, allowed))
                        if method != "HEAD":
                            self.assert_error(answer, 405, method,
                                              JSON_ERRORS.get(path, "openai"))

    def test_unknown_and_unbuilt_are_404(self):
        for path in ("/", "/v1", "/v1/chat", CHAT + "/", "/v1/models/other", "/healthy", "//health",
                     "/v1/messages/batches", "/%00", "/health%00", "/health%00x", "/" + "a" * 5000):
            for method in ("GET", "POST"):
                if (path, method) != ("/v1/models/other", "POST"):
                    answer = self.server.request(method, path)
                    self.assert_error(answer, 404, "", JSON_ERRORS.get(path, "openai"))
        for path in ("/v1/responses", "/v1/responses/x", "/v1/embeddings", "/v1/images/generations"):
            self.assert_error(self.server.post(path, {}), 404, "not built")

    def test_head_is_get_without_body(self):
        with self.connect() as raw:
            for path in ("/health", "/v1/models", "/version", "/nothing"):
                status, fields, _ = self.server.get(path)
                raw.ask("HEAD", path)
                seen = raw.head()
                self.assertEqual((seen[0], seen[1]["content-length"]),
                                 (status, fields["content-length"]))
            raw.ask("GET", "/health")
            self.assertEqual(raw.answer()[2], {"status": "ok"})

    def test_models_are_of_both_forms(self):
        status, _, models = self.server.get("/v1/models")
        self.assertEqual((status, models["object"], models["has_more"]), (200, "list", False))
        model = models["data"][0]
        self.assertEqual((model["id"], model["object"], model["type"]),
                         ("glm-nano", "model", "model"))
        self.assertGreater(model["max_model_len"], 0)
        self.assertEqual(self.server.get("/v1/models/glm-nano")[2], model)

    def test_information(self):
        self.assertRegex(self.server.get("/version")[2]["version"], r"^\d+\.\d+\.\d+$")
        info = self.server.get("/server_info")[2]
        self.assertEqual((info["limits"]["sequences"], info["limits"]["queue"]), (2, 2))
        self.assertEqual((info["model"]["quantization"], info["ready"]), ("none", True))
        self.assertIn("kernels", info)
        status, fields, page = self.server.get("/metrics")
        self.assertEqual((status, fields["content-type"].split(";")[0]), (200, "text/plain"))
        self.assertTrue(page)

    def test_tokens_and_back(self):
        text = "Grüße, 世界 <|user|>"
        status, _, tokens = self.server.post("/tokenize", {
            "prompt": text, "add_special_tokens": False, "return_token_strs": True})
        self.assertEqual(status, 200, tokens)
        self.assertEqual(tokens["count"], len(tokens["tokens"]))
        self.assertEqual(len(tokens["token_strs"]), tokens["count"])
        self.assertEqual(tokens["token_strs"][-1], "<|user|>")
        self.assertEqual(self.server.post("/detokenize", {"tokens": tokens["tokens"]})[2],
                         {"prompt": text})
        self.assertEqual(self.server.post("/tokenize", {"prompt": ""})[2]["count"], 0)
        self.assertEqual(self.server.post("/detokenize", {"tokens": []})[2], {"prompt": ""})
        body = {**chat(), "max_tokens": 1}
        usage = self.server.post(CHAT, body)[2]["usage"]
        for extra in ({}, {"add_generation_prompt": True, "max_tokens": 7}):
            counted = self.server.post("/tokenize", {**chat(), **extra})[2]
            self.assertEqual(counted["count"], usage["prompt_tokens"])
        quiet = self.server.post("/tokenize", {
            **chat(), "chat_template_kwargs": {"enable_thinking": False}})[2]
        self.assertNotEqual(quiet["tokens"], counted["tokens"])
        quick = self.server.post("/tokenize", {**chat(), "thinking": {"type": "disabled"}})[2]
        self.assertEqual(quick["tokens"], quiet["tokens"])
        answer = self.server.post("/tokenize", {"prompt": "hi", "user": "somebody"})
        self.assertEqual((answer[0], answer[1]["x-quern-ignored"]), (200, "user"))
        for path, body, word in (
                ("/tokenize", {**chat(), "add_generation_prompt": False}, "add_generation_prompt"),
                ("/tokenize", {"prompt": "hi", "nonsense": 1}, "nonsense"),
                ("/tokenize", {"prompt": "hi", "return_token_strs": 1}, "return_token_strs"),
                ("/tokenize", {"prompt": "hi", "messages": []}, "messages"),
                ("/tokenize", {"prompt": ["a", "b"]}, "prompt"),
                (CHAT, chat(return_token_strs=True), "return_token_strs"),
                ("/detokenize", {"tokens": [1], "nonsense": 1}, "nonsense"),
                ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 1}, "prompt"),
                ("/tokenize", [], "object"), ("/tokenize", {"messages": 1}, "messages"),
                ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": [-1]}, "tokens"),
                ("/detokenize", {"tokens": [1 << 40]}, "tokens"),
                ("/detokenize", {"tokens": [1.5]}, "tokens"),
                ("/detokenize", {"tokens": ["1"]}, "tokens")):
            self.assert_error(self.server.post(path, body), 400, word)

    def test_the_cache_is_flushed(self):
        body = {"prompt": list(range(300, 500)), "max_tokens": 1}
        for path in ("/flush_cache", "/reset_prefix_cache"):
            self.server.post("/v1/completions", body)
            self.assertGreater(self.engine()["pages_cached"], 0)
            self.assertEqual(self.server.request("POST", path)[0], 200)
            self.assertEqual(self.engine()["pages_cached"], 0)

    def test_ids_of_requests(self):
        for given, is_taken in (("abc-1.2_Z", True), ("a" * 64, True), ("a" * 65, False),
                                ("with space", False), ("ä", False), ("", False)):
            raw = self.connect()
            raw.send(b"GET /health HTTP/1.1\r\nHost: h\r\nX-Request-Id: %s\r\n\r\n" % given.encode())
            seen = raw.answer()[1]["x-request-id"]
            self.assertEqual(seen == given, is_taken, seen)
            self.assertRegex(seen, r"^[A-Za-z0-9._-]{1,64}$")
        made = {self.server.get("/health")[1]["x-request-id"] for _ in range(20)}
        self.assertEqual(len(made), 20)
        answer = self.server.post("/v1/messages", {}, **{"x-request-id": "mine"})
        self.assertEqual((answer[1]["request-id"], answer[1]["x-request-id"]), ("mine", "mine"))

    def test_hints_without_effect_are_named(self):
        fields = self.server.post(CHAT, chat(max_tokens=1, metadata={"a": "b"}, store=True))[1]
        self.assertEqual(set(fields["x-quern-ignored"].split(", ")), {"metadata", "store"})
        self.assertNotIn("x-quern-ignored", self.server.post(CHAT, chat(max_tokens=1))[1])

    def test_without_an_origin_browsers_hear_nothing(self):
        answer = self.server.request("OPTIONS", CHAT, headers={"Origin": "https://a.example"})
        self.assertEqual(answer[0], 405)
        self.assertFalse([name for name in answer[1] if name.startswith("access-control")])


class Connections(Case):
    flags = ("--max-body-size", "100K")

    def test_one_serves_many_requests(self):
        with self.connect() as raw:
            for _ in range(3):
                raw.ask("POST", CHAT, chat(max_tokens=2))
                self.assertEqual(raw.answer()[0], 200)
                raw.ask("POST", CHAT, chat(max_tokens=2, stream=True))
                self.assertTrue(raw.answer()[2].endswith(b"data: [DONE]\n\n"))
                raw.ask("POST", CHAT, b"{")
                self.assertEqual(raw.answer()[0], 400)
                raw.ask("GET", "/nothing")
                self.assertEqual(raw.answer()[0], 404)

    def test_pipelined_requests_are_answered_in_order(self):
        with self.connect() as raw:
            for i in range(3):
                raw.ask("POST", CHAT, chat(max_tokens=3, stream=i == 1), x_request_id="a%d" % i)
                raw.ask("GET", "/health", x_request_id="b%d" % i)
            for i in range(3):
                status, fields, _ = raw.answer()
                self.assertEqual((status, fields["x-request-id"]), (200, "a%d" % i))
                status, fields, _ = raw.answer()
                self.assertEqual((status, fields["x-request-id"]), (200, "b%d" % i))

    def test_http_1_0_and_close_are_closed_behind_the_answer(self):
        with self.connect() as raw:
            body = json.dumps(chat(max_tokens=3, stream=True)).encode()
            raw.send(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)))
            raw.send(body)
            self.assertEqual(raw.head()[0], 200)
            self.assertFalse(raw.is_closed())
            self.assertTrue(raw.bytes.endswith(b"data: [DONE]\n\n"))
        with self.connect() as raw:
            raw.ask("POST", CHAT, chat(max_tokens=3), Connection="close")
            self.assertEqual(raw.answer()[0], 200)
            self.assertTrue(raw.is_closed())

    def test_bodies_come_in_any_pieces(self):
        body = json.dumps(chat(max_tokens=2)).encode()
        with self.connect() as raw:
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT)
            for i in range(0, len(body), 7):
                raw.send(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]))
            raw.send(b"0\r\n\r\n")
            self.assertEqual(raw.answer()[0], 200)
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (CHAT, len(body)))
            for i in range(len(body)):
                raw.send(body[i:i + 1])
            self.assertEqual(raw.answer()[0], 200)
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
                     % (CHAT, len(body)))
            self.assertEqual(raw.head()[0], 100)
            raw.send(body)
            self.assertEqual(raw.answer()[0], 200)

    def test_large_bodies_are_413_before_they_come(self):
        with self.connect() as raw:
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 102401\r\n\r\n" % CHAT)
            answer = raw.answer()
            self.assert_error(answer, 413, "102400")
            self.assertEqual(answer[1]["connection"].lower(), "close")
            self.assertTrue(raw.is_closed())
        with self.connect() as raw:
            raw.send("POST /v1/messages HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                     "Content-Length: 99999999999999999999\r\n\r\n")
            self.assertEqual(raw.head()[0], 413)

    def test_a_client_that_sends_a_large_body_first_hears_why(self):
        with self.connect() as raw:
            raw.ask("POST", CHAT, b"x" * 40_000_000)
            self.assert_error(raw.answer(), 413, "102400")
        with self.connect() as raw:
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT)
            for _ in range(20):
                raw.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
            raw.send(b"0\r\n\r\n")
            self.assert_error(raw.answer(), 413, "102400")
        with self.connect() as raw:  # endless
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT)
            try:
                for _ in range(10000):
                    raw.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
            except ConnectionError:
                pass
            else:
                self.assert_error(raw.answer(), 413, "102400")
        with self.connect() as raw:  # the largest that may be
            body = json.dumps(chat(max_tokens=1)).encode()
            raw.ask("POST", CHAT, body + b" " * (102400 - len(body)))
            self.assertEqual(raw.answer()[0], 200)

    def test_nonsense_is_400_and_harms_nobody(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n",
                     b"GET / HTTP/9.9\r\n\r\n", b"POST " + CHAT.encode() + b" HTTP/1.1\r\n"
                     b"Host: h\r\nContent-Length: -1\r\n\r\n",
                     b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: h\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                     b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     b"GET /health HTTP/1.1\r\nX: " + b"y" * 100000 + b"\r\n\r\n"):
            with self.connect() as raw:
                try:
                    raw.send(data)
                    raw.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                raw.is_closed()
                if raw.bytes:
                    self.assertRegex(raw.bytes, rb"^HTTP/1\.[01] (4\d\d|505) ")
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_it_is_for_one_host(self):
        for version, hosts, status in (("1.1", (), 400), ("1.1", ("a", "b"), 400),
                                       ("1.1", ("",), 200), ("1.0", (), 200),
                                       ("1.0", ("a", "b"), 400)):
            with self.connect() as raw:
                raw.send("GET /health HTTP/%s\r\n%s\r\n"
                         % (version, "".join("Host: %s\r\n" % host for host in hosts)))
                answer = raw.answer()
                self.assertEqual(answer[0], status, (version, hosts))
                if status == 400:
                    self.assert_error(answer, 400, "Host")

    def test_a_body_has_one_end(self):
        for lengths in (("Content-Length: 5", "Content-Length: 6"),
                        ("Content-Length: 5", "Content-Length: 5"),
                        ("Content-Length: 0", "Content-Length: 5"),
                        ("Transfer-Encoding: chunked", "Content-Length: 5"),
                        ("Content-Length: 0", "Transfer-Encoding: chunked"),
                        ("Transfer-Encoding: gzip",), ("Transfer-Encoding: gzip, chunked",)):
            with self.connect() as raw:
                raw.send("POST %s HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n0\r\n\r\n"
                         "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" % (CHAT, "\r\n".join(lengths)))
                self.assertEqual(raw.answer()[0], 400)
                self.assertTrue(raw.is_closed())


class Limits(Case):
    flags = ("--max-connections", "6", "--max-connections-per-address", "4", "--header-timeout",
             "0.4")

    def test_an_address_has_so_many_connections(self):
        held = []
        for _ in range(4):
            raw = self.connect()
            raw.ask("GET", "/health")
            self.assertEqual(raw.answer()[0], 200)
            held.append(raw)
        with self.connect() as raw:
            self.assertTrue(raw.is_closed())
        held.pop().socket.close()

        def is_served():
            with self.connect() as raw:
                try:
                    raw.ask("GET", "/health")
                    return raw.answer()[0] == 200
                except (AssertionError, ConnectionError):
                    return False
        wait_until("there is room again", is_served)
        for raw in held:
            raw.socket.close()


class Crowded(Case):
    flags = ("--max-connections", "4", "--header-timeout", "0.4")

    def test_idle_connections_make_room(self):
        for _ in range(4):
            raw = self.connect()
            raw.ask("GET", "/health")
            self.assertEqual(raw.answer()[0], 200)
        self.assertEqual(self.server.get("/health")[0], 200)


class Access(Case):
    keys = ("first-key-1", "second-key-22")

    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
            file.write("# a comment\n%s\n" % cls.keys[1])
            file.flush()
            cls.flags = ("--api-key", cls.keys[0], "--api-key-file", file.name,
                         "--cors-origin", "https://a.example")
            super().setUpClass()

    def test_keys_are_asked_for(self):
        paths = ("/v1/models", "/metrics", "/version", "/server_info", "/nothing")
        for key in self.keys:
            for header in ({"Authorization": "Bearer " + key}, {"x-api-key": key},
                           {"Authorization": "bearer " + key}, {"x-api-key": key + " \t "}):
                for path in paths[:-1]:
                    self.assertEqual(self.server.get(path, **header)[0], 200)
                self.assertEqual(self.server.get("/nothing", **header)[0], 404)
        for header in ({}, {"Authorization": self.keys[0]}, {"Authorization": "Bearer "},
                       {"Authorization": "Basic " + self.keys[0]}, {"x-api-key": ""},
                       {"Authorization": "Bearer " + self.keys[0][:-1]},
                       {"Authorization": "Bearer " + self.keys[0] + "x"},
                       {"x-api-key": self.keys[0].upper()}, {"x-api-key": " ".join(self.keys)}):
            for path in paths:
                answer = self.server.get(path, **header)
                self.assert_error(answer, 401, "Authorization")
                self.assertEqual(answer[1]["www-authenticate"], "Bearer")
            answer = self.server.post("/v1/messages", {}, **header)
            self.assert_error(answer, 401, "", "anthropic")
            self.assertEqual(answer[2]["error"]["type"], "authentication_error")
        for path in ("/health", "/ready"):
            self.assertEqual(self.server.get(path)[0], 200)

    def test_a_key_is_asked_for_before_the_body(self):
        with self.connect() as raw:
            raw.send("POST %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
                     % CHAT)
            self.assert_error(raw.answer(), 401, "Authorization")

    def test_pages_of_the_origin_may_ask(self):
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization, x-stainless-os"}
        status, fields, _ = self.server.request("OPTIONS", CHAT, headers=asked)
        self.assertEqual(status, 204)
        self.assertEqual(fields["access-control-allow-origin"], "https://a.example")
        self.assertEqual(fields["access-control-allow-headers"], "authorization, x-stainless-os")
        self.assertIn("POST", fields["access-control-allow-methods"])
        asked["Access-Control-Request-Headers"] = ""
        self.assertEqual(self.server.request("OPTIONS", CHAT, headers=asked)[0], 204)
        for answer in (self.server.post(CHAT, chat(max_tokens=1), **{"x-api-key": self.keys[0]}),
                       self.server.post(CHAT, {})):
            self.assertEqual(answer[1]["access-control-allow-origin"], "https://a.example")
            self.assertIn("x-request-id", answer[1]["access-control-expose-headers"])


class Timeouts(Case):
    flags = ("--header-timeout", "0.4", "--body-timeout", "0.4", "--timeout-keep-alive", "0.8",
             "--stream-keep-alive", "0.2")

    def assert_closed(self, raw, status=None):
        raw.is_closed()
        if status is None:
            self.assertEqual(raw.bytes, b"")
        else:
            self.assertRegex(raw.bytes, b"^HTTP/1.1 %d " % status)

    def test_heads_have_to_come(self):
        self.assert_closed(self.connect())
        raw = self.connect()
        raw.send(b"GET /heal")
        self.assert_closed(raw, 408)
        self.assertRegex(raw.bytes, rb"\r\nx-request-id: [0-9a-f]{24}\r\n")

    def drip(self, raw, data):
        """One byte after the other, until it is closed or all was sent."""
        raw.socket.settimeout(0.05)
        for i in range(len(data)):
            try:
                raw.send(data[i:i + 1])
                if not raw.more():
                    return
            except socket.timeout:
                continue
            except ConnectionError:
                return

    def test_slow_loris(self):
        for first in (b"", b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"):
            raw = self.connect()
            raw.send(first)
            if first:
                self.assertEqual(raw.answer()[0], 200)
            self.drip(raw, b"GET /health HTTP/1.1\r\nX: " + b"y" * 2000)
            raw.socket.settimeout(LONG_S)
            self.assert_closed(raw, 408)
        raw = self.connect()
        raw.send("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n" % CHAT)
        self.drip(raw, b" " * 2000)
        raw.socket.settimeout(LONG_S)
        self.assert_closed(raw, 408)

    def test_bodies_have_to_come(self):
        raw = self.connect()
        raw.send("POST /v1/messages HTTP/1.1\r\nHost: h\r\nX-Request-Id: slow-body\r\n"
                 "Content-Length: 5000\r\n\r\n{")
        raw.is_closed()
        answer = raw.answer()
        self.assert_error(answer, 408, "body", "anthropic")
        self.assertEqual((answer[1]["x-request-id"], answer[1]["request-id"]),
                         ("slow-body", "slow-body"))
        wait_until("it is in the log as sent", lambda: re.search(
            "request=slow-body status=408 .* end=sent method=POST path=/v1/messages\n",
            self.server.log))

    def test_idle_connections_are_closed(self):
        raw = self.connect()
        raw.ask("GET", "/health")
        self.assertEqual(raw.answer()[0], 200)
        self.assert_closed(raw)

    def test_a_long_answer_is_no_idle_connection(self):
        raw = self.connect()
        raw.ask("POST", "/v1/completions", endless(max_tokens=4000))
        begin = time.monotonic()
        status, _, body = raw.answer()
        self.assertEqual((status, body["usage"]["completion_tokens"]), (200, 4000))
        self.assertGreater(time.monotonic() - begin, 0.8)

    def test_silence_is_filled(self):
        running = self.connect()
        running.ask("POST", "/v1/completions", endless(n=2))
        self.await_engine("two run", running=2)
        for path, body, silence in ((CHAT, chat(stream=True, max_tokens=2), b"\n: "),
                                    ("/v1/messages", chat(stream=True, max_tokens=2, model="x"),
                                     b"event: ping")):
            raw = self.connect()
            raw.ask("POST", path, body)
            self.assertEqual(raw.head()[0], 200)  # though it waits
            raw.until(silence)
            raw.until(silence)
            self.assertEqual(self.engine()["waiting"], 1)
            raw.socket.close()
            self.await_engine("it left the queue", waiting=0)
        running.socket.close()
        self.await_engine("all have left", running=0, pages_used=0)


class Leaving(Case):
    def leave(self, raw):
        raw.socket.close()
        self.await_engine("pages are free", running=0, waiting=0, pages_used=0)
        wait_until("the request is gone",
                   lambda: self.server.get("/server_info")[2]["requests"] == [])

    def test_while_it_streams(self):
        raw = self.connect()
        raw.ask("POST", "/v1/completions", endless(stream=True))
        raw.until(b"data: ")
        before = self.engine()["generated_tokens"]
        self.leave(raw)
        self.assertLess(self.engine()["generated_tokens"] - before, MANY / 2)

    def test_while_it_is_answered_whole(self):
        raw = self.connect()
        raw.ask("POST", "/v1/completions", endless(n=2))
        self.await_engine("it runs", running=2)
        self.leave(raw)

    def test_while_its_prompt_is_computed(self):
        for stream in (False, True):
            raw = self.connect()
            raw.ask("POST", "/v1/completions", endless(prompt=[700 + i % 999 for i in range(20000)],
                                                       stream=stream, max_tokens=9000))
            self.await_engine("it runs", running=1)
            self.leave(raw)

    def test_while_it_waits(self):
        running = self.connect()
        running.ask("POST", "/v1/completions", endless(n=2))
        self.await_engine("two run", running=2)
        for stream in (False, True):
            raw = self.connect()
            raw.ask("POST", "/v1/completions", endless(stream=stream, n=2))
            self.await_engine("two wait", waiting=2)
            raw.socket.close()
            self.await_engine("they left the queue", running=2, waiting=0)
        self.leave(running)

    def test_behind_what_nobody_reads_yet(self):
        raw = self.connect()
        raw.ask("POST", "/v1/completions", endless())
        self.await_engine("it runs", running=1)
        raw.socket.setblocking(False)
        with self.assertRaises(BlockingIOError):
            while True:
                raw.socket.send(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 1000)
        self.leave(raw)
        self.assertLess(self.engine()["generated_tokens"], MANY)

    def test_what_waits_is_said_to_wait(self):
        running = self.connect()
        running.ask("POST", "/v1/completions", endless(n=2))
        self.await_engine("two run", running=2)
        waiting = self.connect()
        waiting.ask("POST", "/v1/completions", endless())
        self.await_engine("one waits", waiting=1)
        stages = [request["stage"] for request in self.server.get("/server_info")[2]["requests"]]
        self.assertEqual(sorted(stages), ["decode", "queued"])
        waiting.socket.close()
        self.leave(running)

    def test_at_any_byte(self):
        body = json.dumps(endless(stream=True)).encode()
        whole = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        for n in (1, 20, len(whole) - len(body), len(whole) - 1, len(whole)):
            for how in ("close", "reset", "half"):
                raw = self.connect()
                raw.send(whole[:n])
                if how == "reset":
                    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if how == "half":
                    raw.socket.shutdown(socket.SHUT_WR)
                    raw.is_closed()
                raw.socket.close()
        self.await_engine("pages are free", running=0, waiting=0, pages_used=0)
        wait_until("all are gone", lambda: self.server.get("/server_info")[2]["requests"] == [])

    def test_a_full_queue_is_429(self):
        running = self.connect()
        running.ask("POST", "/v1/completions", endless(n=2))
        self.await_engine("two run", running=2)
        answer = self.server.post("/v1/completions", endless(n=3))
        self.assert_error(answer, 429, "queue")
        self.assertIn(int(answer[1]["retry-after"]), range(1, 61))
        self.assertEqual(self.engine()["waiting"], 0)  # all or nothing
        waiting = self.connect()
        waiting.ask("POST", "/v1/completions", endless(n=2))
        self.await_engine("two wait", waiting=2)
        answer = self.server.post("/v1/messages", {**chat(), "model": "x", "max_tokens": 1})
        self.assert_error(answer, 429, "queue", "anthropic")
        self.assertEqual(answer[2]["error"]["type"], "rate_limit_error")
        waiting.socket.close()
        self.await_engine("the queue is empty", waiting=0)
        self.leave(running)
        self.assertEqual(self.server.post(CHAT, chat(max_tokens=1))[0], 200)


class Zombies(Case):
    flags = ("--tokenizer-workers", "1")

    def test_who_left_is_not_read_any_more(self):
        def ask(body):
            begin = time.monotonic()
            self.server.post("/v1/completions", body)
            return time.monotonic() - begin
        large = {"prompt": "a b " * (1 << 20), "max_tokens": 1}
        one_s = ask(large)
        raws = [self.connect() for _ in range(12)]
        for raw in raws:
            raw.ask("POST", "/v1/completions", large)
        wait_until("they wait for a reader", lambda: len(
            self.server.get("/server_info")[2]["requests"]) > 8, 5)
        for raw in raws:
            raw.socket.close()
        self.assertLess(ask({"prompt": "a", "max_tokens": 1}), 4 * one_s)


class SlowReaders(Case):
    flags = ("--max-stream-buffer", "64K", "--write-timeout", "600")

    def test_are_dropped_when_too_much_waits_for_them(self):
        verbose = endless(stream=True, logprobs=5)
        raw = self.connect(receive_bytes=4096)
        raw.ask("POST", "/v1/completions", verbose)
        self.assertEqual(raw.head()[0], 200)
        wait_until("it is gone", lambda: "slow_reader" in self.server.log)
        self.await_engine("its pages are free", running=0, pages_used=0)
        self.assertLess(self.engine()["generated_tokens"], MANY)
        with self.connect() as reader:  # one that reads gets all
            reader.ask("POST", "/v1/completions", {**verbose, "max_tokens": 3000})
            self.assertTrue(reader.answer()[2].endswith(b"data: [DONE]\n\n"))

    def test_a_step_may_make_more_than_that(self):
        body = {"prompt": [300 + i % 99 for i in range(3000)], "echo": True, "logprobs": 5,
                "max_tokens": 200, "ignore_eos": True, "stream": True}
        with self.connect() as reader:
            reader.ask("POST", "/v1/completions", body)
            self.assertTrue(reader.answer()[2].endswith(b"data: [DONE]\n\n"))

    def test_tokens_are_in_the_log_whoever_leaves(self):
        raw = self.connect()
        raw.ask("POST", "/v1/completions", endless(n=2), x_request_id="has-left")
        before = self.engine()["generated_tokens"]
        wait_until("some came", lambda: self.engine()["generated_tokens"] > before + 100)
        raw.socket.close()
        line = wait_until("it is in the log", lambda: re.search(
            r"request=has-left status=0 prompt_tokens=\d+ tokens=(\d+) .* finish=disconnected",
            self.server.log))
        self.assertGreater(int(line[1]), 10)


class StuckReaders(Case):
    flags = ("--write-timeout", "0.5")

    def test_of_streams_are_dropped(self):
        raw = self.connect(receive_bytes=4096)
        raw.ask("POST", "/v1/completions", endless(stream=True, max_tokens=8000))
        wait_until("it is gone", lambda: "slow_reader" in self.server.log)
        self.await_engine("its pages are free", running=0, pages_used=0)

    def test_of_whole_answers_are_dropped(self):
        raw = self.connect(receive_bytes=4096)
        raw.ask("POST", "/tokenize", {"prompt": "a b " * 1_000_000, "return_token_strs": True})
        wait_until("it is gone", lambda: re.search(
            "status=200 .* path=/tokenize\n", self.server.log))
        raw.socket.settimeout(LONG_S)
        with self.assertRaises((AssertionError, ConnectionError)):
            raw.answer()


class Ends(unittest.TestCase):
    def running(self, server, **body):
        raw = Raw(server)
        self.addCleanup(raw.socket.close)
        raw.ask("POST", "/v1/completions", endless(**{"stream": True, **body}))
        if body.get("stream", True):
            raw.until(b"data: ")
        else:
            wait_until("it runs", lambda: server.get("/server_info")[2]["engine"]["running"] > 0)
        return raw

    def test_a_drain_lets_requests_end(self):
        server = Server("--max-num-seqs", "1", "--shutdown-timeout", "600")
        idle = Raw(server)
        self.addCleanup(idle.socket.close)
        idle.ask("GET", "/health")
        self.assertEqual(idle.answer()[0], 200)
        running = self.running(server, max_tokens=3000)
        waiting = Raw(server)
        self.addCleanup(waiting.socket.close)
        waiting.ask("POST", "/v1/completions", endless(max_tokens=50))
        wait_until("it waits", lambda: server.get("/server_info")[2]["engine"]["waiting"] == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until("it drains", lambda: server.get("/ready")[0] == 503)
        self.assertEqual(server.get("/health")[0], 200)
        for path in (CHAT, "/v1/messages"):
            status, fields, body = server.post(path, chat(model="x", max_tokens=1))
            self.assertEqual((status, fields["connection"].lower()), (503, "close"), body)
            self.assertGreater(int(fields["retry-after"]), 0)
        self.assertTrue(idle.is_closed())
        running.until(b"data: [DONE]\n\n")
        status, _, body = waiting.answer()
        self.assertEqual((status, body["usage"]["completion_tokens"]), (200, 50))
        self.assertEqual(server.process.wait(LONG_S), 0)
        server.reader.join()

    def test_what_has_not_ended_in_time_is_cut_off(self):
        for flags, n_signals in ((("--shutdown-timeout", "0.2"), 1),
                                 (("--shutdown-timeout", "600"), 2)):
            server = Server("--max-num-seqs", "1", *flags)
            running = self.running(server)
            whole = Raw(server)
            self.addCleanup(whole.socket.close)
            whole.ask("POST", "/v1/completions", endless())
            wait_until("it waits", lambda: server.get("/server_info")[2]["engine"]["waiting"] == 1)
            for i in range(n_signals):
                server.process.send_signal(signal.SIGTERM)
                wait_until("it heard", lambda: server.log.count("drain") >= 1)
            running.is_closed()
            self.assertIn(b'data: {"error": ', running.bytes)
            self.assertTrue(running.bytes.endswith(b"0\r\n\r\n"), running.bytes[-200:])
            status, fields, body = whole.answer()
            self.assertEqual((status, body["error"]["code"]), (503, "draining"))
            self.assertGreater(int(fields["retry-after"]), 0)
            self.assertEqual(server.process.wait(LONG_S), 130)
            server.reader.join()

    def test_an_idle_server_ends_at_once(self):
        server = Server()
        raw = Raw(server)
        raw.ask("GET", "/health")
        raw.answer()
        self.assertEqual(server.stop(), 0)
        self.assertTrue(raw.is_closed())
        raw.socket.close()


class UnreadLog(unittest.TestCase):
    def test_holds_nobody_up(self):
        with subprocess.Popen([QUERN, "serve", NANO, "--port", "0", "--log-level", "debug"], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.addCleanup(process.kill)
            self.port = int(re.search(rb"http://[\d.]+:(\d+)", process.stdout.readline())[1])
            with Raw(self) as raw:
                for _ in range(3000):  # a pipe holds 64 KiB
                    raw.ask("GET", "/health")
                    self.assertEqual(raw.answer()[0], 200)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(LONG_S), 0)


class Tls(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.files = [os.path.join(self.folder.name, name) for name in ("cert.pem", "key.pem")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out",
                        self.files[0], "-keyout", self.files[1]], check=True, capture_output=True)

    def test_answers_streams_and_clients_that_leave(self):
        tls = ssl.create_default_context(cafile=self.files[0])
        server = Server("--ssl-certfile", self.files[0], "--ssl-keyfile", self.files[1],
                        "--header-timeout", "5")
        self.addCleanup(server.stop)

        def get(path):
            with Raw(server, tls) as raw:
                raw.ask("GET", path)
                return raw.answer()
        wait_until("it is ready", lambda: get("/ready")[0] == 200)
        with Raw(server, tls) as raw:
            for stream in (False, True):
                raw.ask("POST", CHAT, chat(max_tokens=5, stream=stream))
                self.assertEqual(raw.answer()[0], 200)
        with Raw(server, tls) as raw:
            raw.ask("POST", "/v1/completions", endless(stream=True))
            raw.until(b"data: ")
        wait_until("pages are free", lambda: get("/server_info")[2]["engine"]["running"] == 0)
        with Raw(server) as raw:  # plain words
            raw.ask("GET", "/health")
            raw.is_closed()
            self.assertNotIn(b"200", raw.bytes)
        self.assertEqual(get("/health")[0], 200)


class Privacy(unittest.TestCase):
    def test_prompts_are_logged_only_where_asked_for(self):
        for flags, is_logged in (((), False), (("--log-requests",), True)):
            server = Server("--log-level", "info", *flags)
            server.post(CHAT, chat("secretword", max_tokens=1), **{"x-request-id": "find-me"})
            server.stop()
            line = re.search(r"request=find-me status=200 prompt_tokens=\d+ tokens=1 seconds=[\d.]+ "
                             r"finish=length end=sent method=POST path=%s\n" % CHAT, server.log)
            self.assertTrue(line, server.log)
            self.assertEqual("secretword" in server.log, is_logged)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What no client sends: random bytes, broken chunks, floods of headers, heads that never end,
requests framed twice.  Whatever comes, the server goes on and answers others as before.
"""
import json
import random
import re
import socket
import unittest

from serving import LONG_S, OneServer, Server, wait_until

PROMPT = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
N_RANDOM = 60


def request(body, more=b""):
    data = json.dumps(body).encode()
    return HEAD + more + b"Content-Length: %d\r\n\r\n" % len(data) + data


class Hostile(OneServer):
    flags = ("--header-timeout", "2", "--body-timeout", "2", "--max-body-size", "64K")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.server.post("/v1/completions", PROMPT)[2]["choices"][0]["text"]

    def tearDown(self):
        """It goes on as if nothing had been."""
        status, _, body = self.server.post("/v1/completions", PROMPT)
        self.assertEqual((status, body["choices"][0]["text"]), (200, self.text))
        wait_until("all connections are gone",
                   lambda: self.server.metrics()["quern_connections"] <= 1)
        metrics = self.server.metrics()
        self.assertEqual((metrics["quern_requests_running"], metrics["quern_requests_waiting"],
                          metrics['quern_pages{state="used"}']), (0, 0, 0))

    def send(self, data, closes=True):
        """What comes back until the server closes, or until we do."""
        with socket.create_connection(("127.0.0.1", self.server.port), LONG_S) as client:
            answer = b""
            try:
                client.sendall(data)
                if closes:
                    client.shutdown(socket.SHUT_WR)
                while part := client.recv(65536):
                    answer += part
            except ConnectionError:
                pass  # it may go as it likes
            return answer

    def expect(self, answer, *statuses):
        found = re.match(rb"HTTP/1\.[01] (\d+) ", answer)
        self.assertTrue(found, answer[:200])
        self.assertIn(int(found[1]), statuses, answer[:200])

    def test_random_bytes(self):
        random_ = random.Random(1)
        for _ in range(N_RANDOM):
            answer = self.send(random_.randbytes(random_.choice((1, 10, 100, 5000))))
            self.assertTrue(answer == b"" or re.match(rb"HTTP/1\.[01] [45]\d\d ", answer), answer)

    def test_requests_with_some_bytes_wrong(self):
        random_ = random.Random(2)
        for i in range(N_RANDOM):
            data = bytearray(request({**PROMPT, "stream": i % 2 == 0}))
            for _ in range(random_.randint(1, 5)):
                data[random_.randrange(len(data))] = random_.choice(b"\r\n\0 :{}\"\xff0A")
            answer = self.send(data)
            self.assertTrue(answer == b"" or re.match(rb"HTTP/1\.[01] [245]\d\d ", answer), answer)

    def test_requests_cut_anywhere(self):
        data = request(PROMPT)
        for n in range(0, len(data), 7):
            answer = self.send(data[:n])
            self.assertTrue(answer == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer)

    def test_chunks_that_are_none(self):
        for chunks in (b"zz\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"5\r\nabc", b"3\r\nabcdef\r\n",
                       b"3;" + b"x" * 70000, b"\r\n", b"0x3\r\nabc\r\n"):
            with self.subTest(chunks=chunks[:20]):
                answer = self.send(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked"
                                   b"\r\n\r\n" + chunks, False)
                if answer:
                    self.expect(answer, 400, 408, 413, 431)

    def test_a_body_by_the_byte_is_read(self):
        data = json.dumps(PROMPT).encode()
        chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in data) + b"0\r\nTrailer: x\r\n\r\n"
        answer = self.send(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
                           False)
        self.expect(answer, 200)
        self.assertIn(json.dumps(self.text).encode(), answer)

    def test_a_request_framed_twice_is_refused(self):
        """Whoever stands before the server may see another end than the server does."""
        for framing in (b"Content-Length: 2\r\nContent-Length: 40\r\n",
                        b"Content-Length: 40\r\nTransfer-Encoding: chunked\r\n",
                        b"Transfer-Encoding: chunked\r\nContent-Length: 40\r\n"):
            with self.subTest(framing=framing):
                smuggled = b"2\r\n{}\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
                answer = self.send(HEAD + framing + b"\r\n" + smuggled, False)
                self.expect(answer, 400)
                self.assertEqual(answer.count(b"HTTP/1."), 1, answer)

    def test_floods_of_headers(self):
        for flood in (b"A: b\r\n" * 20000, b"A: " + b"b" * 200000 + b"\r\n", b"A" * 200000,
                      b" " * 200000):
            answer = self.send(b"GET /health HTTP/1.1\r\nConnection: close\r\n" + flood, False)
            if answer:
                self.expect(answer, 400, 408, 413, 414, 431)

    def test_heads_that_do_not_end_are_not_awaited(self):
        clients = [socket.create_connection(("127.0.0.1", self.server.port), LONG_S)
                   for _ in range(200)]
        try:
            for i, client in enumerate(clients):
                client.sendall((HEAD + b"Content-Length: 9\r\n\r\n{")[:1 + i % 70])
            self.assertEqual(self.server.post("/v1/completions", PROMPT)[0], 200)
            for client in clients:
                answer = b""
                try:
                    while part := client.recv(65536):
                        answer += part
                except ConnectionError:
                    pass
                if answer:
                    self.expect(answer, 408)
        finally:
            for client in clients:
                client.close()

    def test_pipelined_requests_are_answered_in_order(self):
        bodies = [{**PROMPT, "max_tokens": n, "ignore_eos": True} for n in (9, 1, 5, 2)]
        data = b"".join(request(body) for body in bodies[:-1]) + \
            request(bodies[-1], b"Connection: close\r\n")
        answer = self.send(data, False)
        self.assertEqual([int(n) for n in re.findall(rb'"completion_tokens": ?(\d+)', answer)],
                         [9, 1, 5, 2])

    def test_methods_and_paths(self):
        for line, statuses in ((b"BREW /v1/models HTTP/1.1", (404, 405, 501)),
                               (b"DELETE /v1/completions HTTP/1.1", (405,)),
                               (b"GET /../../etc/passwd HTTP/1.1", (400, 404)),
                               (b"GET /%00%ff HTTP/1.1", (400, 404)),
                               (b"GET http://else.where/health HTTP/1.1", (200, 400, 404)),
                               (b"OPTIONS * HTTP/1.1", (200, 204, 400, 404, 405)),
                               (b"GET /health?" + b"a=b&" * 3000 + b" HTTP/1.1", (200, 414))):
            with self.subTest(line=line[:40]):
                answer = self.send(line + b"\r\nHost: a\r\nConnection: close\r\n\r\n", False)
                if answer:
                    self.expect(answer, *statuses)


class Limits(unittest.TestCase):
    def test_connections_of_an_address(self):
        with Server("--max-connections-per-address", "8") as server:
            clients = [socket.create_connection(("127.0.0.1", server.port), LONG_S)
                       for _ in range(40)]
            try:
                n_open = 0
                for client in clients:
                    try:
                        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                        n_open += client.recv(100).startswith(b"HTTP/1.1 200")
                    except ConnectionError:
                        pass
                self.assertLessEqual(n_open, 8)
                self.assertGreater(n_open, 0)
            finally:
                for client in clients:
                    client.close()
            server.wait_for("/health")


if __name__ == "__main__":
    unittest.main()

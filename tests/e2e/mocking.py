# SPDX-License-Identifier: Apache-2.0
"""The scripted server (tests/mock/README.md) in a process of its own, for tests of clients.

    with Mock(ttft_ms=50, tpot_ms=10) as mock:
        status, headers, body = mock.post("/v1/completions", {"prompt": "a b", "max_tokens": 4})
        mock.requests()[0]["output_tokens"]
        bench = Bench(mock.url, "--num-prompts", 10)
        bench.run["median_ttft_ms"]
"""
import json
import os
import subprocess
import tempfile
import unittest

from serving import BUILD, LONG_S, QUERN, ROOT, Server, die_with_us

MOCK = os.path.join(BUILD, "tests", "mock_server")


class Mock(Server):
    """A running mock; asked like a Server.  `script` are the members of its script."""

    def __init__(self, **script):  # pylint: disable=super-init-not-called
        self.lines, self.scheme = [], "http"
        self.process = subprocess.Popen([MOCK], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        preexec_fn=die_with_us)
        self.url = self.process.stdout.readline().decode().strip()
        self.port = int(self.url.rsplit(":", 1)[1])
        self.set(**script)

    def set(self, **script):
        """Another script; log, counts and cache begin anew."""
        status, _, body = self.post("/mock/script", script)
        assert status == 200, body

    def log(self, chunks=True):
        """What came and went."""
        status, _, body = self.get("/mock/log" + ("" if chunks else "?chunks=0"))
        assert status == 200, body
        return body

    def requests(self, chunks=True):
        """The same: its requests."""
        return self.log(chunks)["requests"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __exit__(self, kind, error, trace):
        assert self.process.poll() is None, "mock_server ended with %d" % self.process.returncode
        self.kill()


class MockTest(unittest.TestCase):
    """Tests with one mock, set anew by each."""

    @classmethod
    def setUpClass(cls):
        cls.mock = Mock()

    @classmethod
    def tearDownClass(cls):
        with cls.mock:
            pass


class Bench:
    """What `quern bench serve` made of a server: exit status, output, result.json, requests.jsonl."""

    def __init__(self, url, *flags, status=0, model="mock", send=None):
        with tempfile.TemporaryDirectory() as folder:
            command = [QUERN, "bench", "serve", "--base-url", url, "--power", "none",
                       "--output", folder, *(("--model", model) if model else ()),
                       *map(str, flags)]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       preexec_fn=die_with_us)
            try:
                if send is not None:
                    send(process)
                self.out, self.err = process.communicate(timeout=LONG_S)
            finally:
                process.kill()
            self.status = process.returncode
            if status is not None and self.status != status:
                raise AssertionError("ended with %d, expected %d: %s\n%s%s" % (
                    self.status, status, " ".join(command), self.out[-2000:], self.err[-4000:]))
            self.files = {}
            for name in os.listdir(folder):
                with open(os.path.join(folder, name), "rb") as file:
                    self.files[name] = file.read()
        self.result = json.loads(self.files["result.json"]) if "result.json" in self.files else None
        self.records = [json.loads(line) for line in
                        self.files.get("requests.jsonl", b"").decode().splitlines()]

    @property
    def run(self):
        """Its only run."""
        assert len(self.result["runs"]) == 1, [run["label"] for run in self.result["runs"]]
        return self.result["runs"][0]

    def done(self):
        """Records of requests that were whole."""
        return [record for record in self.records if record["end"] == "done"]

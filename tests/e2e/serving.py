# SPDX-License-Identifier: Apache-2.0
"""`quern serve` in a process of its own, for tests: started on a free port, awaited, asked, stopped.

    with Server() as server:
        status, headers, body = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})

Leaving the block ends it by SIGTERM and expects exit status 0.  OneServer has one for all its tests.
"""
import ctypes
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("QUERN_BUILD", os.path.join(ROOT, "build", "release"))
QUERN = os.environ.get("QUERN", os.path.join(BUILD, "quern"))
NANO = "models/glm-nano"
CLIENTS = os.path.join(ROOT, "build", "clients")
LONG_S = 120  # what ends a test that waits in vain; sanitizers are slow
METRIC = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")


def use_clients():
    """Go on with the python that has the packages of requirements.txt; call before importing them."""
    with open(os.path.join(ROOT, "tests/e2e/requirements.txt"), "rb") as file:
        wanted = file.read()
    try:
        with open(os.path.join(CLIENTS, "requirements.txt"), "rb") as file:
            installed = file.read()
    except FileNotFoundError:
        installed = None
    if installed != wanted:
        sys.exit("error: build/clients: not as tests/e2e/requirements.txt, expected `./check release` "
                 "to have made it")
    if os.path.realpath(sys.prefix) != os.path.realpath(CLIENTS):
        python = os.path.join(CLIENTS, "bin", "python")
        os.execv(python, [python, "-B", *sys.argv])


def wait_until(what, is_so, seconds=LONG_S):
    """Until is_so() is true; returns what it said."""
    deadline = time.monotonic() + seconds
    while not (said := is_so()):
        if time.monotonic() >= deadline:
            raise AssertionError("waited %g s: %s" % (seconds, what))
        time.sleep(0.01)
    return said


def parse_metrics(page):
    """{"name" or "name{labels}": value} of Prometheus's text."""
    values = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = METRIC.match(line).groups()
            values[name if labels is None else "%s{%s}" % (name, labels)] = float(value)
    return values


def die_with_us():
    """In the child: no server is left where a test is killed (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Server:
    """A running server.  `flags` follow the model; `until` "ready" or "listening"."""

    def __init__(self, *flags, model=NANO, until="ready", env=None, program=QUERN):
        self.lines = []
        command = [program, "serve", model, "--host", "127.0.0.1", "--port", "0", *flags]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, preexec_fn=die_with_us)
        self.scheme = "https" if any(flag.startswith("--ssl") for flag in flags) else "http"
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self.port = int(wait_until("it tells its port", self._find_port))
            self.url = "%s://127.0.0.1:%d" % (self.scheme, self.port)
            if until == "ready":
                self.wait_for("/ready")
        except BaseException:
            self.kill()
            raise

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append(line.decode(errors="replace"))

    @property
    def log(self):
        """What it has said so far."""
        return "".join(self.lines)

    def _find_port(self):
        if self.process.poll() is not None:
            self.reader.join()
            raise AssertionError("ended with %d: %s" % (self.process.returncode, self.log))
        found = re.search(r"https?://[\w.\[\]:-]+:(\d+)", self.log)
        return found and found[1]

    def wait_for(self, path, status=200):
        """Until GET `path` has that status."""

        def answers():
            if self.process.poll() is not None:
                raise AssertionError("ended with %d: %s" % (self.process.returncode, self.log))
            try:
                return self.get(path)[0] == status
            except (OSError, http.client.HTTPException):
                return False  # it may have no place for us yet
        wait_until("%s answers %d" % (path, status), answers)

    def connect(self, timeout=LONG_S):
        """A connection of http.client."""
        if self.scheme == "https":
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout,
                                               context=ssl._create_unverified_context())
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=()):
        """Status, headers by lower-case name, and the body, parsed where it is JSON."""
        connection = self.connect()
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body,
                               {"Content-Type": "application/json", **dict(headers)})
            response = connection.getresponse()
            data = response.read()
            fields = {name.lower(): value for name, value in response.getheaders()}
            if fields.get("content-type", "").startswith("application/json"):
                data = json.loads(data)
            return response.status, fields, data
        finally:
            connection.close()

    def get(self, path, **headers):
        """request()"""
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        """request()"""
        return self.request("POST", path, body, headers)

    def metrics(self):
        """parse_metrics() of its page."""
        status, _, page = self.get("/metrics")
        assert status == 200, page
        return parse_metrics(page.decode())

    def rss_bytes(self):
        """Memory that it has."""
        with open("/proc/%d/statm" % self.process.pid, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number=signal.SIGTERM):
        """Its exit status after that signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(LONG_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("runs on %g s after signal %d: %s"
                                 % (LONG_S, number, self.log)) from None
        self.reader.join()
        return status

    def kill(self):
        """Without any manners."""
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.kill()
            sys.stderr.write(self.log[-4000:])
            return
        status = self.stop()
        if status != 0:
            raise AssertionError("ended with %d, expected 0: %s" % (status, self.log[-4000:]))


class OneServer(unittest.TestCase):
    """Tests that ask one server, which ends with 0 behind them."""

    flags = ()  # of `quern serve`

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.flags)

    @classmethod
    def tearDownClass(cls):
        with cls.server:
            pass

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`quern serve` under ten times as many clients as it has places, most of whom behave badly.

    bench/soak.py [--seconds N] [--clients N] [--seed N]

Clients leave at every stage, by FIN, RST and half a close; send bodies that are cut, broken, too
large or chunked by the byte; heads that are no HTTP; read slowly or not at all; reuse connections
and pipeline.  In the end all is counted: every request that was accepted ended once, refusals are
4xx or 503 with a reason, nothing runs or waits, no page or descriptor is held, memory grew by less
than 2 % after the warm-up, the server's counts fit the clients', and SIGTERM under load lets every
answer end and exits with 0.  QUERN names the program.
"""
import argparse
import asyncio
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/e2e"))
from serving import QUERN, Server, wait_until  # noqa: E402

N_SEQUENCES, N_QUEUE, CONTEXT, BODY_BYTES = 8, 8, 1024, 65536
FLAGS = ["--max-num-seqs", str(N_SEQUENCES), "--max-queued-requests", str(N_QUEUE),
         "--max-model-len", str(CONTEXT), "--page-cache", "64M", "--max-body-size", "64K",
         "--max-stream-buffer", "16K", "--write-timeout", "2", "--header-timeout", "2",
         "--body-timeout", "2", "--shutdown-timeout", "100"]
RSS_GROWTH = 0.02
LONG_S = 60  # that a client is never left without a word
WORDS = "the river stone light small and walks over green house with seven".split()
GOOD = {"stop", "length", "tool_calls", "end_turn", "max_tokens", "tool_use", "stop_sequence"}


class Wrong(Exception):
    """The server did what it must not."""


class Counts:
    """What the clients saw."""

    def __init__(self):
        self.status = collections.Counter()
        self.did = collections.Counter()
        self.answers = self.choices = self.tokens = self.asked = 0
        self.ids = []  # of whole answers


# ---------------------------------------------------------------------------------------- messages

def words(random_, n):
    """A text."""
    return " ".join(random_.choice(WORDS) for _ in range(n))


def ask(random_, **more):
    """Path and body of a good request."""
    text = words(random_, random_.choice((1, 8, 60, 300)))
    path = random_.choice(("/v1/completions", "/v1/chat/completions", "/v1/messages"))
    body = {"model": "nano", "max_tokens": random_.randint(1, 40), "stream": random_.random() < 0.6,
            **more}
    if path == "/v1/completions":
        body["prompt"] = text
        body["n"] = random_.choice((1, 1, 1, 3))
    else:
        body["messages"] = [{"role": "user", "content": text}]
    if path != "/v1/messages":
        body["ignore_eos"] = random_.random() < 0.5
        if body["stream"]:
            body["stream_options"] = {"include_usage": True}
    return path, body


def head(path, n_bytes, *more):
    """A request's head."""
    lines = ["POST %s HTTP/1.1" % path, "Host: soak", "Content-Type: application/json",
             "Content-Length: %d" % n_bytes, *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(path, body, *more):
    """A request."""
    data = json.dumps(body).encode()
    return head(path, len(data), *more) + data


async def read_head(reader):
    """Status and headers."""
    data = await reader.readuntil(b"\r\n\r\n")
    first, *lines = data.decode("latin-1").split("\r\n")
    if not re.match(r"HTTP/1\.[01] \d{3} ", first):
        raise Wrong("first line of an answer: %r" % first)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in
                                   (line.partition(":") for line in lines if line)}


async def read_body(reader, headers):
    """All of it."""
    if headers.get("transfer-encoding") == "chunked":
        parts = []
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            part = await reader.readexactly(size + 2)
            if size == 0:
                return b"".join(parts)
            parts.append(part[:-2])
    return await reader.readexactly(int(headers.get("content-length", 0)))


def check_refusal(status, headers, body):
    """4xx or 503 with a reason; one may come again only where it is told when."""
    if status != 503 and not 400 <= status < 500:
        raise Wrong("refused with %d: %r" % (status, body[:300]))
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        # What never became a request of ours has a page of the HTTP library.
        message = body if status in (400, 408, 413, 414, 431, 494) else ""
    if not message:
        raise Wrong("%d without a reason: %r" % (status, body[:300]))
    if status in (429, 503) and int(headers.get("retry-after", 0)) < 1:
        raise Wrong("%d without Retry-After" % status)


def check_stream(path, body, data, counts):
    """One finish for each choice, then the end, and nothing behind it."""
    events = [block for block in data.decode().split("\n\n") if block and not block.startswith(":")]
    parsed = [json.loads(line[6:]) for block in events for line in block.split("\n")
              if line.startswith("data: {")]
    if any("error" in event for event in parsed):
        raise Wrong("a stream ended with %s" % parsed[-1])
    if path == "/v1/messages":
        finishes = [e["delta"]["stop_reason"] for e in parsed if e["type"] == "message_delta"]
        n_tokens = sum(e["usage"]["output_tokens"] for e in parsed if e["type"] == "message_delta")
        is_ended = parsed[-1]["type"] == "message_stop"
    else:
        finishes = [c["finish_reason"] for e in parsed for c in e["choices"] if c["finish_reason"]]
        n_tokens = sum(e["usage"]["completion_tokens"] for e in parsed if e.get("usage"))
        is_ended = events[-1] == "data: [DONE]"
    if len(finishes) != body.get("n", 1) or not set(finishes) <= GOOD or not is_ended:
        raise Wrong("a stream of %s: finishes %s, last %r" % (path, finishes, events[-1]))
    counts.choices += len(finishes)
    counts.tokens += n_tokens


def check_whole(path, body, data, counts):
    """The same of an answer in one piece."""
    answer = json.loads(data)
    finishes = [answer["stop_reason"]] if path == "/v1/messages" else \
        [choice["finish_reason"] for choice in answer["choices"]]
    if len(finishes) != body.get("n", 1) or not set(finishes) <= GOOD:
        raise Wrong("%s: finishes %s" % (path, finishes))
    counts.choices += len(finishes)
    usage = answer["usage"]
    counts.tokens += usage.get("completion_tokens", usage.get("output_tokens"))


async def read_answer(reader, path, body, counts):
    """To its end; says whether it was answered and whether the connection goes on."""
    status, headers = await read_head(reader)
    data = await read_body(reader, headers)
    counts.status[status] += 1
    if status != 200:
        check_refusal(status, headers, data)
        return False, headers.get("connection") != "close"
    (check_stream if body.get("stream") else check_whole)(path, body, data, counts)
    counts.answers += 1
    counts.ids.append(headers["x-request-id"])
    return True, headers.get("connection") != "close"


# --------------------------------------------------------------------------------------- behaviours

async def good(reader, writer, random_, counts):
    """Some requests on one connection."""
    for i in range(random_.choice((1, 1, 4))):
        path, body = ask(random_)
        counts.asked += body.get("n", 1)
        writer.write(whole(path, body))
        begun = time.monotonic()
        try:
            _, goes_on = await read_answer(reader, path, body, counts)
        except (OSError, asyncio.IncompleteReadError) as error:  # whoever behaves is answered
            raise Wrong("request %d from port %d, %s, after %.3f s: %r" % (
                i, writer.get_extra_info("sockname")[1], path, time.monotonic() - begun,
                error)) from error
        if not goes_on:
            return


async def pipeline(reader, writer, random_, counts):
    """Requests without waiting for answers, which come in order."""
    asked = [ask(random_) for _ in range(3)]
    counts.asked += sum(body.get("n", 1) for _, body in asked)
    writer.write(b"".join(whole(*one) for one in asked))
    for path, body in asked:
        _, goes_on = await read_answer(reader, path, body, counts)
        if not goes_on:
            return


async def leave(reader, writer, random_, counts):
    """Go at any stage."""
    path, body = ask(random_, max_tokens=300)
    counts.asked += body.get("n", 1)
    data = whole(path, body)
    stage = random_.choice(("head", "body", "sent", "later", "answer"))
    cut = {"head": random_.randrange(60), "body": random_.randrange(100, len(data))}.get(stage)
    writer.write(data[:cut])
    await writer.drain()
    if stage == "later":
        await asyncio.sleep(random_.random() * 0.5)
    elif stage == "answer":
        with contextlib.suppress(asyncio.TimeoutError):  # a short one may have ended
            for _ in range(random_.randint(1, 20)):
                if not await asyncio.wait_for(reader.readline(), 1):
                    return
    how = random_.choice(("fin", "reset", "half"))
    if how == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                   struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif how == "half":
        writer.write_eof()
        await reader.read()


async def broken(reader, writer, random_, counts):
    """JSON that is none, or not ours."""
    path, body = ask(random_)
    data = bytearray(json.dumps(body).encode())
    for _ in range(random_.randint(1, 4)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    kind = random_.choice(("bytes", "cut", "deep", "type", "unknown", "empty"))
    if kind == "cut":
        data = data[:random_.randrange(len(data))]
    elif kind == "deep":
        data = b"[" * 20000
    elif kind == "type":
        data = json.dumps({**body, random_.choice(list(body)): random_.choice(
            (None, -1, "x", [], {}, 1e400))}).encode()
    elif kind == "unknown":
        data = json.dumps({**body, "no_such_parameter": 1}).encode()
    elif kind == "empty":
        data = b""
    writer.write(head(path, len(data)) + bytes(data))
    status, headers = await read_head(reader)
    answer = await read_body(reader, headers)
    counts.status[status] += 1
    if status != 200:  # a changed byte may be one of the text
        check_refusal(status, headers, answer)
    elif kind in ("cut", "deep", "unknown", "empty"):
        raise Wrong("%s body was answered: %r" % (kind, bytes(data[:200])))
    counts.asked += 128  # whatever "n" became


async def large(reader, writer, random_, counts):
    """More than a body may have, told before or not."""
    if random_.random() < 0.5:
        writer.write(head("/v1/completions", 10 * BODY_BYTES) + b"x" * random_.randrange(BODY_BYTES))
    else:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: soak\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        if random_.random() < 0.5:  # else it never ends, and is late
            writer.write(b"0\r\n\r\n")
    status, headers = await read_head(reader)
    body = await read_body(reader, headers)
    counts.status[status] += 1
    if status not in (408, 413, 429, 503):
        raise Wrong("a body too large: %d" % status)
    check_refusal(status, headers, body)


async def noise(reader, writer, random_, counts):
    """Heads that are no HTTP: an answer of 4xx, or none."""
    writer.write(random_.choice((
        b"\x16\x03\x01" + random_.randbytes(200), b"GET\r\n\r\n", b"\r\n" * 500,
        b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        random_.randbytes(random_.randrange(2000)))))
    if random_.random() < 0.5:
        writer.write_eof()
    answer = await reader.read()
    found = re.match(rb"HTTP/1\.\d (\d+)", answer)
    if found:
        counts.status[int(found[1])] += 1
        if int(found[1]) not in (503, 505) and not 200 <= int(found[1]) < 500:
            raise Wrong("noise was answered with %r" % answer[:100])


async def slow(reader, writer, random_, counts):
    """Reads nothing, or little by little, of much."""
    body = {"prompt": words(random_, 8), "stream": True, "max_tokens": 900, "n": 2, "logprobs": 20,
            "ignore_eos": True}
    counts.asked += 2
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.write(whole("/v1/completions", body))
    await writer.drain()
    deadline = time.monotonic() + random_.choice((1, 4))
    while time.monotonic() < deadline:
        writer.transport.pause_reading()
        await asyncio.sleep(0.5)
        if random_.random() < 0.3:
            writer.transport.resume_reading()
            await asyncio.sleep(0)
    writer.transport.abort()


async def trickle(reader, writer, random_, counts):
    """A body in chunks of a byte or so; some never end."""
    path, body = ask(random_, max_tokens=4)
    data = json.dumps(body).encode()
    ends = random_.random() < 0.7
    counts.asked += body.get("n", 1)
    writer.write(b"POST %s HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"
                 % path.encode())
    for at in range(0, len(data) if ends else len(data) // 2, 7):
        part = data[at:at + 7]
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
    if ends:
        writer.write(b"0\r\n\r\n")
        await read_answer(reader, path, body, counts)
    else:
        await reader.read()  # until it is too late


async def pages(reader, writer, random_, counts):
    """All that is not asked of the model."""
    for _ in range(4):
        path = random_.choice(("/health", "/ready", "/metrics", "/v1/models", "/version", "/nowhere",
                               "/server_info", "/tokenize"))
        if path == "/tokenize":
            writer.write(whole(path, {"prompt": words(random_, 20)}))
        else:
            writer.write(("GET %s HTTP/1.1\r\nHost: soak\r\n\r\n" % path).encode())
        status, headers = await read_head(reader)
        body = await read_body(reader, headers)
        counts.status[status] += 1
        if status != (404 if path == "/nowhere" else 200):
            check_refusal(status, headers, body)
        if headers.get("connection") == "close":
            return


BEHAVIOURS = [good] * 8 + [leave] * 5 + [broken] * 2 + [slow] * 2 + [large, noise, trickle, pages,
                                                                      pipeline]


# --------------------------------------------------------------------------------------------- soak

async def client(port, random_, counts, until):
    """One after the other, until the time is over."""
    while time.monotonic() < until:
        behave = random_.choice(BEHAVIOURS)
        counts.did[behave.__name__] += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        except ConnectionError as error:
            raise Wrong("no connection: %r" % error) from error
        try:
            await asyncio.wait_for(behave(reader, writer, random_, counts), LONG_S)
        except asyncio.TimeoutError:
            raise Wrong("%s: nothing for %g s" % (behave.__name__, LONG_S)) from None
        except (OSError, asyncio.IncompleteReadError) as error:
            if behave is pages:
                raise Wrong("%s: %r" % (behave.__name__, error)) from error
        finally:
            writer.close()
        await asyncio.sleep(random_.random() * 0.05)


async def watch(server, warm, until):
    """Memory after the warm-up and in the end."""
    await asyncio.sleep(max(0, warm - time.monotonic()))
    before = server.rss_bytes()
    await asyncio.sleep(max(0, until - time.monotonic()))
    return before, server.rss_bytes()


async def soak(server, options, counts):
    """Everybody at once."""
    until = time.monotonic() + options.seconds
    warm = time.monotonic() + min(60, options.seconds / 4)
    clients = [client(server.port, random.Random(options.seed * 10000 + i), counts, until)
               for i in range(options.clients)]
    return (await asyncio.gather(watch(server, warm, until), *clients))[0]


def total(metrics, name, label=""):
    """Sum of all that begin so."""
    return sum(value for key, value in metrics.items()
               if (key == name or key.startswith(name + "{")) and label in key)


def expect(what, is_so, seen, failures):
    """Note what is not so."""
    print("%s  %s: %s" % ("ok    " if is_so else "FAILED", what, seen), flush=True)
    if not is_so:
        failures.append(what)


def check_counts(server, counts, failures):
    """The server's counts and the clients'."""
    metrics = server.metrics()
    ended = total(metrics, "quern_requests_ended_total")
    by_finish = {key.partition('finish="')[2].rstrip('"}'): int(value) for key, value in
                 metrics.items() if key.startswith("quern_requests_ended_total")}
    expect("answers that ended are at least those that clients have and at most those asked for",
           counts.choices <= ended <= counts.asked, (counts.choices, by_finish, counts.asked),
           failures)
    expect("nothing ended by an error", total(metrics, "quern_requests_ended_total", '"error"') == 0,
           by_finish, failures)
    n_observed = total(metrics, "quern_request_seconds_count")
    expect("each that ended by itself is in the histograms",
           n_observed == sum(by_finish[name] for name in ("stop", "length", "tool_calls")),
           n_observed, failures)
    expect("tokens drawn are at least those that clients have",
           metrics["quern_generation_tokens_total"] >= counts.tokens > 0,
           (metrics["quern_generation_tokens_total"], counts.tokens), failures)
    told = collections.Counter(re.findall(r"request=(\w+) status=", server.log))
    expect("each answer that a client has is in the log once",
           all(told[name] == 1 for name in counts.ids), len(counts.ids), failures)
    expect("nothing runs or waits", metrics["quern_requests_running"] == 0 and
           metrics["quern_requests_waiting"] == 0, "", failures)
    expect("no page is used", metrics['quern_pages{state="used"}'] == 0,
           {key: value for key, value in metrics.items() if key.startswith("quern_pages")}, failures)
    refused = total(metrics, "quern_requests_refused_total")
    seen = sum(n for status, n in counts.status.items() if status in (429,))
    expect("refusals are at least those that clients saw", refused >= seen,
           (refused, dict(counts.status)), failures)


def is_calm(server):
    """Nothing goes on but this question."""
    metrics = server.metrics()
    return metrics["quern_requests_running"] == metrics["quern_requests_waiting"] == 0 and \
        metrics["quern_connections"] <= 1


async def drain(server, counts):
    """Streams under way when SIGTERM comes end as they would have; the exit status is returned."""
    asked = []
    for i in range(N_SEQUENCES):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = {"prompt": "%d and" % i, "stream": True, "max_tokens": 400, "ignore_eos": True}
        writer.write(whole("/v1/completions", body))
        asked.append((reader, writer, body))
    for reader, _, _ in asked:  # each has begun
        status, headers = await read_head(reader)
        if status != 200:
            raise Wrong("before the drain: %d" % status)
        await reader.readline()
    server.process.send_signal(signal.SIGTERM)
    for reader, writer, body in asked:
        data = await asyncio.wait_for(reader.read(), LONG_S)
        if b"data: [DONE]" not in data:
            raise Wrong("the drain cut a stream off: %r" % data[-300:])
        writer.close()
    return await asyncio.get_running_loop().run_in_executor(None, server.process.wait, LONG_S)


def main():
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=10 * (N_SEQUENCES + N_QUEUE))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts, failures = Counts(), []
    is_sanitized = re.search(b"__[at]san_init", pathlib.Path(QUERN).read_bytes()) is not None
    server = Server("--served-model-name", "nano", *FLAGS)
    try:
        fds = "/proc/%d/fd" % server.process.pid
        n_before = len(os.listdir(fds))
        before, after = asyncio.run(soak(server, options, counts))
        print("%s; %d answers, %d tokens; statuses %s" % (
            ", ".join("%s %d" % one for one in counts.did.most_common()), counts.answers,
            counts.tokens, dict(sorted(counts.status.items()))), flush=True)
        wait_until("all is calm", lambda: is_calm(server))
        check_counts(server, counts, failures)
        expect("descriptors as before", len(os.listdir(fds)) <= n_before + 1,
               (n_before, len(os.listdir(fds))), failures)
        growth = after / before - 1
        expect("memory grew by less than 2 % after the warm-up", growth < RSS_GROWTH or is_sanitized,
               "%.2f %%, %d KiB" % (100 * growth, after >> 10), failures)
        status = asyncio.run(drain(server, counts))
        expect("exit status after a drain", status == 0, status, failures)
    except (Wrong, AssertionError, OSError, asyncio.TimeoutError) as error:
        failures.append(repr(error))
        print("FAILED  %r\n%s" % (error, server.log[-3000:]))
    finally:
        if server.process.poll() is None:
            server.kill()
    print("soak: %s" % ("%d failures" % len(failures) if failures else "clean"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

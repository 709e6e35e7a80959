#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line, end to end: every command, every exit status, every promise of its pages.

QUERN names the program and QUERN_BUILD its build folder; without them build/release is taken.
"""
import array
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("QUERN_BUILD", os.path.join(ROOT, "build", "release"))
QUERN = os.environ.get("QUERN", os.path.join(BUILD, "quern"))
NANO = "models/glm-nano"
COMMANDS = ["chat", "run", "serve", "batch", "bench", "eval", "tokenize", "detokenize", "quantize", "inspect", "tune",
            "devices", "help"]
KINDS = ["bench serve", "bench engine", "bench compare", "bench kernels", "bench report"]
QUESTION = "What is 12 + 30?"
# A question that glm-nano thinks about before it answers.
PUZZLE = ("Ravi reads 6 pages on Monday and 6 more pages on Tuesday than on Monday. How many pages "
          "does Ravi read on the two days?\n\n(A) 15\n(B) 13\n(C) 20\n(D) 18")
N_VOCAB, N_EMBD, N_LAYERS = 6144, 256, 4
STOP_IDS = [6112, 6119, 6121]
STATS = re.compile(r"(\d+) tokens?(?:, [\d.]+ tokens/s)?"
                   r"(?:, [\d.]+ a step(?: \(synthetic: pinned\))?)?(?:, first token after [\d.]+ s)? "
                   r"\(prompt (\d+) tokens?, [\d.]+ tokens/s\)(, dummy weights)?$")
# The options of the contract that this version has, by command.
OPTIONS = {
    "chat": ["system", "tools", "load", "thinking", "reasoning-effort", "max-tokens", "temperature",
             "seed", "context", "history", "no-history", "tokenizer", "device", "threads"],
    "run": ["prompt", "file", "ids", "raw", "system", "messages", "thinking", "reasoning-effort",
            "max-tokens", "ignore-eos", "temperature", "top-p", "top-k", "min-p", "seed", "logits",
            "trace", "tools", "stop", "repetition-penalty", "presence-penalty",
            "frequency-penalty", "draft-tokens", "acceptance-length", "logprobs", "context", "kv-dtype", "json", "tokenizer", "device", "threads", "cpu-mask",
            "compute", "chat-format", "strict", "deterministic", "load-format", "tuning"],
    "serve": ["host", "port", "served-model-name", "api-key", "api-key-file", "config", "model",
              "max-model-len", "context-length", "max-num-seqs", "max-running-requests",
              "max-queued-requests", "max-num-batched-tokens", "chunked-prefill-size",
              "max-prefill-tokens", "kv-cache-dtype", "enable-prefix-caching",
              "no-enable-prefix-caching", "disable-radix-cache", "speculative-config",
              "speculative-algorithm", "speculative-num-steps", "speculative-eagle-topk",
              "speculative-num-draft-tokens", "tool-call-parser", "reasoning-parser",
              "enable-auto-tool-choice", "trust-remote-code", "enable-metrics", "tp-size",
              "tensor-parallel-size", "gpu-memory-utilization", "mem-fraction-static",
              "page-cache", "shutdown-timeout", "watchdog-timeout", "timeout-keep-alive",
              "ssl-certfile", "ssl-keyfile", "allowed-origins", "log-requests", "seed", "device",
              "threads", "compute", "load-format", "strict", "deterministic", "tuning"],
    "batch": ["input", "output", "resume", "overwrite", "json", "max-num-seqs", "max-running-requests",
              "max-num-batched-tokens", "chunked-prefill-size", "page-cache", "context",
              "draft-tokens", "no-prefix-cache", "enable-prefix-caching",
              "no-enable-prefix-caching", "disable-radix-cache", "tokenizer", "device", "threads",
              "compute", "kv-dtype", "load-format"],
    "bench": [],
    "bench engine": ["batch", "context", "prompt-tokens", "output-tokens", "draft-tokens", "repeat",
              "shared-prefix", "acceptance-length", "json", "output", "page-cache", "load-format",
              "device", "threads", "cpu-mask", "compute", "kv-dtype"],
    "bench compare": ["allow", "force", "json", "output"],
    "bench kernels": ["rows", "context", "experts", "json", "output", "load-format", "device",
                      "threads", "cpu-mask", "compute", "kv-dtype"],
    "bench serve": ["base-url", "model", "json", "output"],
    "bench report": ["output"],
    "eval": ["tasks", "limit", "against", "json", "report", "resume", "text", "context-tokens",
             "against-compute", "against-kv-dtype", "against-draft-tokens", "against-thinking",
             "thinking", "reasoning-effort", "max-tokens", "temperature", "seed", "draft-tokens",
             "tokenizer", "device", "threads", "cpu-mask", "compute", "kv-dtype", "chat-format",
             "load-format"],
    "tokenize": ["prompt", "file", "chat", "json"],
    "detokenize": ["ids", "json"],
    "quantize": ["recipe", "mtp", "fp8", "activations", "scale", "threads", "cpu-mask", "resume",
                 "delete-source", "dry-run", "report", "json"],
    "inspect": ["tokenizer", "json", "verify", "fix", "tensors", "threads"],
    "tune": ["rows", "experts", "quick", "out", "device", "tuning", "load-format"],
    "devices": ["json"],
    "help": ["man"],
}
COMMON_OPTIONS = ["quiet", "log-level", "log-format", "color", "version", "help"]


def environment(**changes):
    """Ours without what colours output or moves the model cache."""
    moved = ("NO_COLOR", "HF_HOME", "QN_CPU_MASK")
    kept = {k: v for k, v in os.environ.items() if k not in moved}
    return {**kept, "TERM": "xterm", **changes}


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out.decode(), err.decode()


def quern(*arguments, stdin=b"", env=None, stdout=subprocess.PIPE):
    done = subprocess.run([QUERN, *arguments], cwd=ROOT, input=stdin, stdout=stdout,
                          stderr=subprocess.PIPE, timeout=120, check=False,
                          env=env if env is not None else environment())
    return Result(done.returncode, done.stdout or b"", done.stderr)


def start(*arguments, program=QUERN, **streams):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               "env": environment(), **streams}
    # Tests in the background are started with SIGINT ignored, which would be inherited.
    process = subprocess.Popen([program, *arguments], cwd=ROOT, **streams,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    watchdog = threading.Timer(120, process.kill)  # a test that waits for it ends, and fails
    watchdog.daemon = True
    watchdog.start()
    return process


@contextlib.contextmanager
def terminal(columns=80):
    """Both ends of a terminal: ours and the program's."""
    ours, theirs = (open(fd, "r+b", buffering=0) for fd in pty.openpty())
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with ours, theirs:
        yield ours, theirs


def read_until(stream, text=None):
    """What arrives up to and with `text`, or all of it."""
    seen = b""
    while text is None or text not in seen:
        try:
            part = os.read(stream.fileno(), 4096)
        except OSError as error:  # a terminal that nobody writes to any more
            if error.errno != errno.EIO:
                raise
            part = b""
        seen += part
        if not part and text is not None:
            raise AssertionError("%r ended without %r" % (seen, text))
        if not part:
            break
    return seen.decode().replace("\r\n", "\n")


def wait_until(what, is_so):
    """Until is_so() says that it is; an error that tells what was waited for, after a minute."""
    deadline = time.monotonic() + 60
    while not is_so():
        if time.monotonic() >= deadline:
            raise AssertionError("waited a minute: " + what)
        time.sleep(0.01)


def wait_for_bytes(process, where, n_bytes):
    """Until a file that the program writes in a folder, named or not, has so many bytes."""
    folder = "/proc/%d/fd" % process.pid

    def is_there():
        if process.poll() is not None:
            raise AssertionError("process %d ended without a file of %d bytes"
                                 % (process.pid, n_bytes))
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                path = os.path.join(folder, name)
                if os.readlink(path).startswith(where) and os.stat(path).st_size >= n_bytes:
                    return True
        return False

    wait_until("a file of %d bytes from process %d" % (n_bytes, process.pid), is_there)


def status_of(process, key):
    with open("/proc/%d/status" % process.pid, encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file)[key]


def wait_for_catch(process, catches):
    """Until the program has, or has no longer, a handler for SIGINT."""
    wait_until("process %d: handler %s" % (process.pid, catches),
               lambda: int(status_of(process, "SigCgt"), 16) >> (signal.SIGINT - 1) & 1 == catches)


def wait_for_block(process):
    """Until the program has slept for a while: it waits for somebody."""
    n_asleep = 0

    def is_asleep():
        nonlocal n_asleep
        n_asleep = n_asleep + 1 if status_of(process, "State").startswith("S") else 0
        return n_asleep >= 30

    wait_until("process %d asleep" % process.pid, is_asleep)


def on_terminal(*arguments, columns=80, env=None):
    """Status, and what the program prints where stdout is a terminal."""
    with terminal(columns) as (ours, theirs):
        with start(*arguments, stdout=theirs, stderr=subprocess.DEVNULL,
                   env=env if env is not None else environment()) as process:
            theirs.close()
            page = read_until(ours)
        return process.returncode, page


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as file:
        raw = file.read()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    return {name: (entry["dtype"], entry["shape"],
                   raw[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]])
            for name, entry in header.items() if name != "__metadata__"}


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quern-cli-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return self.path(name)

    def succeed(self, *arguments, **more):
        result = quern(*arguments, **more)
        self.assertEqual(result.status, 0, result.err)
        return result

    def fail_with(self, status, arguments, *needles, **more):
        """One line that names what was wrong, nothing on stdout, and the status."""
        result = quern(*arguments, **more)
        self.assertEqual(result.status, status, (arguments, result.err))
        self.assertEqual(result.out, "")
        self.assertTrue(result.err.startswith("quern: error: "), result.err)
        self.assertEqual(result.err.count("\n"), 1, result.err)
        for needle in needles:
            self.assertIn(needle, result.err)
        return result

    def answer(self, *arguments, model=NANO, **more):
        """The JSON object of a run, greedy unless the arguments say otherwise."""
        result = self.succeed("run", model, "--temperature", "0", "--json", *arguments, **more)
        self.assertEqual(result.out.count("\n"), 1)
        return json.loads(result.out)

    def tokenize(self, text, *arguments):
        return json.loads(self.succeed("tokenize", NANO, "--json", "-p", text, *arguments).out)

    def detokenize(self, ids):
        listed = ",".join(map(str, ids))
        return json.loads(self.succeed("detokenize", NANO, "--json", "--ids", listed).out)["text"]


# -------------------------------------------------------------------------------------- pages

def help_options(page):
    """[(letter, name, metavar)] of a page of --help."""
    return re.findall(r"^  (?:-(\w), |    )--([\w-]+)(?: (\S+))?", page, re.M)


def man_options(page):
    return [(letter, name.replace("\\-", "-"), metavar) for letter, name, metavar in
            re.findall(r"^\.TP\n(?:\\fB\\-(\w)\\fR, )?\\fB\\-\\-([\w\\-]+)\\fR"
                       r"(?: \\fI(\S+)\\fR)?$", page, re.M)]


def words(text):
    """Text without its layout and roff's escapes."""
    text = re.sub(r"^\.(?:[A-Z]+ ?|nf|fi)", "", text, flags=re.M)
    return re.sub(r"\s+", " ", text.replace("\\-", "-").replace("\\e", "\\"))


class Pages(Case):
    def test_alone_it_says_what_it_is_and_how_to_begin(self):
        page = self.succeed()
        self.assertEqual(page.err, "")
        self.assertIn("GLM-5.2", page.out)
        self.assertIn('quern run models/glm-nano -p "', page.out)
        for command in COMMANDS:
            self.assertRegex(page.out, r"(?m)^  %s +[A-Z]" % command)

    def test_every_way_to_ask_for_the_first_page_gives_it(self):
        page = self.succeed().out
        for arguments in (["help"], ["--help"], ["-h"]):
            self.assertEqual(self.succeed(*arguments).out, page)

    def test_help_and_help_command_are_one_page(self):
        for command in COMMANDS + KINDS:
            page = self.succeed("help", *command.split()).out
            self.assertTrue(page.startswith("Usage: quern %s " % command), page)
            self.assertEqual(self.succeed(*command.split(), "--help").out, page)
            self.assertEqual(self.succeed(*command.split(), "-h", "one", "two", "three").out, page)
        for more in (["bench", "xyzzy"], ["run", "engine"], ["bench", "engine", "run"]):
            self.fail_with(2, ["help", *more], more[-1], "quern help")

    def test_kinds_of_a_command_are_listed_and_found(self):
        page = self.succeed("help", "bench").out
        for kind in KINDS:
            self.assertRegex(page, r"(?m)^  %s +[A-Z]" % kind.split()[1])
            self.fail_with(2, ["bench"], "no kind", kind.split()[1])
        self.fail_with(2, ["bench", "engin"], "bench engin:", "did you mean 'bench engine'?")
        self.fail_with(2, ["help", "bench", "reprot"], "did you mean 'bench report'?")
        self.fail_with(2, ["bench", "xyzzy"], "bench xyzzy:", "'quern help bench' lists")
        for options in (["-q", "bench", "engine"], ["bench", "--color", "never", "engine"],
                        ["--log-level", "info", "bench", "-q", "engine"]):
            self.fail_with(2, options, "bench engine: no model")

    def test_every_option_stands_on_its_page(self):
        for command in COMMANDS + KINDS:
            names = [name for _, name, _ in help_options(self.succeed("help", *command.split()).out)]
            self.assertEqual(len(names), len(set(names)))
            for name in OPTIONS[command] + COMMON_OPTIONS:
                self.assertIn(name, names)

    def test_every_option_that_is_listed_exists(self):
        for command in COMMANDS + KINDS:
            words_of = command.split()
            for _, name, metavar in help_options(self.succeed("help", *words_of).out):
                if metavar:  # a known option misses its value, an unknown one is no option
                    self.fail_with(2, [*words_of, "--" + name], "--%s: no value" % name,
                                   "expected " + metavar)
                elif name not in ("help", "version"):
                    self.fail_with(2, [*words_of, "--%s=1" % name], "expected none")

    def test_man_page_has_the_options_and_words_of_help(self):
        for command in COMMANDS + KINDS:
            page = self.succeed("help", *command.split()).out
            man = self.succeed("help", "--man", *command.split()).out
            self.assertEqual(man_options(man), help_options(page))
            described = re.findall(r"^.{30}  (\S.*(?:\n {32}\S.*)*)", page, re.M)
            for text in described + page[:page.index(":\n  ")].split("\n\n")[1:-1]:
                self.assertIn(words(text).strip(), words(man))

    def test_man_page_has_the_usual_sections(self):
        usual = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", '"EXIT STATUS"',
                 '"SEE ALSO"']
        for command in COMMANDS + KINDS:
            man = self.succeed("help", "--man", *command.split()).out
            self.assertEqual(re.findall(r"^\.SH (.*)", man, re.M), usual)
            self.assertIn("\nquern\\-%s \\- " % command.replace(" ", "\\-"), man)
        program = self.succeed("help", "--man").out
        self.assertEqual(program, self.succeed("help", "--man", "").out)
        for command in COMMANDS:
            self.assertIn("\\fB%s\\fR" % command, program)

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_man_pages_format_without_a_warning(self):
        for command in COMMANDS + KINDS + [""]:
            man = self.succeed("help", "--man", *command.split()).out
            done = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-z"], input=man.encode(),
                                  capture_output=True, timeout=60, check=True)
            self.assertEqual(done.stderr, b"")

    def test_option_texts_wrap_to_the_terminal(self):
        for columns in (50, 80, 100):
            status, page = on_terminal("run", "--help", columns=columns)
            self.assertEqual(status, 0)
            listed = page[page.index("\nPrompt:"):page.index("\nExamples:")].split("\n")
            self.assertLessEqual(max(map(len, listed)), columns)
            self.assertGreater(max(map(len, listed)), columns - 12)
            self.assertEqual(help_options(page), help_options(self.succeed("help", "run").out))

    def test_version_names_commit_compiler_and_kernels(self):
        line = self.succeed("--version").out
        self.assertRegex(line, r"^quern \d+\.\d+\.\d+ \(commit \w+, \w+ [\d.]+, kernels: .*\bref\b"
                               r".*; GPU kernels: (sm_90a( \(PTX\))?, gfx950|none: built with.+)\)$")
        for command in COMMANDS + KINDS:
            self.assertEqual(self.succeed(*command.split(), "--version").out, line)


# ----------------------------------------------------------------------------- usage and errors

class Usage(Case):
    def test_mistyped_option_suggests_the_right_one(self):
        for seen, meant in {"--temprature": "--temperature", "--tempertaure": "--temperature",
                            "--max-token": "--max-tokens", "--max_tokens": "--max-tokens",
                            "--jsn": "--json", "--seeed": "--seed", "--Raw": "--raw",
                            "--top-q": "--top-p", "-temperature": "--temperature",
                            "--ignore-eso=1": "--ignore-eos", "--temp": "--temperature",
                            "--pro": "--prompt", "--cont=5": "--context"}.items():
            self.fail_with(2, ["run", NANO, "-p", "x", seen], seen, "did you mean %s?" % meant)

    def test_mistyped_command_suggests_the_right_one(self):
        for seen, meant in {"rnu": "run", "tokenise": "tokenize", "detokenzie": "detokenize",
                            "device": "devices", "hlep": "help"}.items():
            self.fail_with(2, [seen, NANO], seen + ":", "did you mean '%s'?" % meant)
            self.fail_with(2, ["help", seen], seen + ":", "did you mean '%s'?" % meant)

    def test_general_options_may_stand_before_the_command(self):
        expected = self.succeed("tokenize", NANO, "-p", "run").out
        for before in (["-q"], ["--log-level", "debug"], ["--color=never", "-q"]):
            self.assertEqual(self.succeed(*before, "tokenize", NANO, "-p", "run").out, expected)
        self.assertEqual(self.succeed("--help", "run").out, self.succeed("help", "run").out)

    def test_far_off_words_suggest_nothing(self):
        for arguments in (["run", NANO, "--quantum"], ["xyzzy"], ["run", "-Z"], ["x" * 5000],
                          ["run", "--" + "x" * 5000], [""]):
            result = self.fail_with(2, arguments, "quern help")
            self.assertNotIn("did you mean", result.err)

    def test_options_of_later_versions_are_told_from_typing_errors(self):
        for option in ("--tp", "--tensor-parallel-size", "--dp", "--page-cache"):
            self.fail_with(2, ["run", NANO, option, "2"], option, "not built, expected")

    def test_values_are_checked_and_named(self):
        for option, bad in {"--temperature": ["-0.1", "100.5", "nan", "inf", "warm", "1x", ""],
                            "--top-p": ["0", "1.01"], "--min-p": ["-1", "2"],
                            "--top-k": ["-1", "1.5"], "--max-tokens": ["-1", "", " 5", "5 ", "0x5"],
                            "--seed": ["9007199254740992", "99999999999999999999"],
                            "--threads": ["0", "two"], "--context": ["0"],
                            "--prompt-tokens": ["0"], "--thinking": ["maybe", "", "o", "on|off"],
                            "--reasoning-effort": ["low"], "--load-format": ["safetensors"],
                            "--compute": ["f16"], "--kv-dtype": ["int4"], "--color": ["sometimes"],
                            "--log-level": ["loud"], "--log-format": ["xml"],
                            "--chat-format": ["chatml"], "--cpu-mask": ["avx1024"],
                            "--device": ["toaster", "cuda:x", ""]}.items():
            for value in bad:
                self.fail_with(2, ["run", NANO, "--ids", "1", option, value],
                               option, value, "expected")

    def test_values_come_attached_or_apart_and_the_last_one_counts(self):
        expected = self.succeed("tokenize", NANO, "-p", "--chat").out
        for arguments in (["-p--chat"], ["--prompt=--chat"], ["--prompt", "--chat"],
                          ["-p", "first", "-p", "--chat"]):
            self.assertEqual(self.succeed("tokenize", *arguments, NANO).out, expected)
            self.assertEqual(self.succeed("tokenize", *arguments, "--", NANO).out, expected)
        self.fail_with(3, ["tokenize", "-p", "x", "--", "--chat"], "--chat: no such folder")

    def test_wrong_use_is_status_2(self):
        for arguments, needles in [
                (["run"], ["no model", "models/glm-nano"]),
                (["tokenize"], ["no model"]),
                (["detokenize"], ["no model"]),
                (["run", NANO, "more"], ["more: one argument too many", "quern run MODEL"]),
                (["devices", NANO], [NANO + ": one argument too many"]),
                (["help", "nothing"], ["nothing"]),
                (["run", NANO, "--json=yes"], ["--json=yes", "expected none"]),
                (["run", NANO, "--prompt"], ["--prompt: no value"]),
                (["run", NANO, "-p", "x", "-f", "y"], ["--prompt", "--file"]),
                (["run", NANO, "--ids", "1", "--messages", "y"], ["--ids", "--messages"]),
                (["run", NANO, "--ids", "1", "--raw"], ["--raw", "--ids"]),
                (["run", NANO, "--messages", "y", "--system", "z"], ["--system", "--messages"]),
                (["run", NANO, "--raw", "-p", "x", "--system", "z"], ["--system", "--raw"]),
                (["tokenize", NANO, "-p", "x", "-f", "y"], ["--file", "--prompt"]),
                (["run", NANO, "--ids", "1,x,2"], ["--ids", '"x,2"']),
                (["run", NANO, "--ids", "1,-2"], ["--ids", '"-2"']),
                (["run", NANO, "--ids", "99999999999"], ["--ids"]),
                (["run", NANO, "--ids", ""], ["at least one token"]),
                (["run", NANO, "--raw", "-p", ""], ["at least one token"]),
                (["run", NANO, "--ids", "1,6144"], ["6144", "6143"]),
                (["run", NANO, "--ids", "1,2,3,4,5", "--context", "4"], ["5 tokens", "--context"]),
                (["detokenize", NANO, "--ids", "6144"], ["6144", "6143"])]:
            self.fail_with(2, arguments, *needles)

    def test_bad_input_is_status_3(self):
        empty = self.path("empty")
        os.mkdir(empty)
        for arguments, needles in [
                (["run", "/nonexistent", "-p", "x"], ["/nonexistent", "models/glm-nano"]),
                (["tokenize", "/nonexistent", "-p", "x"], ["/nonexistent", "models/glm-nano"]),
                (["run", empty, "-p", "x"], ["config.json"]),
                (["run", "README.md", "-p", "x"], ["README.md"]),
                (["run", NANO, "-f", "/nonexistent"], ["/nonexistent"]),
                (["run", NANO, "-f", empty], [empty, "directory"]),
                (["run", "/" + "x" * 300, "-p", "x"], ["name too long", "expected"]),
                (["tokenize", NANO, "-f", "/nonexistent"], ["/nonexistent"]),
                (["run", NANO, "--messages", "/nonexistent"], ["/nonexistent"]),
                (["run", NANO, "--messages", self.write("a", "[")], [self.path("a"), "messages"]),
                (["run", NANO, "--messages", self.write("b", "{}")], [self.path("b"), "messages"]),
                (["run", NANO, "--messages", self.write("c", "[]")], ["at least one message"]),
                (["run", NANO, "--messages", self.write("d", '[{"content": "x"}]')], ["role"]),
                (["run", NANO, "--messages", self.write("e", '[{"role": "king"}]')], ["king"]),
                (["run", NANO, "--tokenizer", empty, "-p", "x"], ["tokenizer.json"])]:
            self.fail_with(3, arguments, *needles)
        for arguments in (["run", NANO], ["tokenize", NANO, "--chat"]):
            self.fail_with(3, arguments, "UTF-8", stdin=b"\xff\xfe")
            self.fail_with(3, arguments, "NUL byte at 2", stdin=b"ab\0c")
        self.fail_with(3, ["run", NANO, "-p", "x", "--system", b"\xff"], "--system", "UTF-8")

    def test_missing_model_of_the_hub_gives_the_download_command(self):
        self.fail_with(3, ["run", "zai-org/GLM-5.2", "-p", "x"], "hf download zai-org/GLM-5.2",
                       self.folder, env=environment(HF_HOME=self.folder))

    def test_missing_resource_is_status_4(self):
        for device in ("cuda", "cuda:0", "hip"):
            self.fail_with(4, ["run", NANO, "-p", "x", "--device", device], "--device", device)
        self.fail_with(4, ["run", "configs/glm-5.2", "--load-format", "dummy", "--ids", "1"], "GB")

    def test_failed_operation_is_status_1(self):
        for option in ("--logits", "--trace"):
            path = self.path("none/file")
            self.fail_with(1, ["run", NANO, "-p", "x", option, path], path)

    def test_json_changes_nothing_about_errors(self):
        self.fail_with(3, ["run", "/nonexistent", "--json", "-p", "x"], "/nonexistent")
        self.fail_with(2, ["devices", "--json", "--jsn"], "--json")


# ------------------------------------------------------------------------------- small commands

class Texts(Case):
    def test_tokens_spell_the_text(self):
        for text in ("Hello there", "a\n\n  b\t", "12 + 30 = 42", "straße", "x"):
            tokens = self.tokenize(text)
            self.assertEqual(sorted(tokens), ["ids", "n_tokens", "tokens"])
            self.assertEqual(tokens["n_tokens"], len(tokens["ids"]))
            self.assertEqual(len(tokens["tokens"]), len(tokens["ids"]))
            self.assertEqual(self.detokenize(tokens["ids"]), text)
            if text.isascii():
                self.assertEqual("".join(tokens["tokens"]), text)

    def test_plain_output_is_a_line_of_ids(self):
        ids = self.tokenize("Hello there")["ids"]
        line = " ".join(map(str, ids)) + "\n"
        self.assertEqual(self.succeed("tokenize", NANO, "-p", "Hello there").out, line)
        self.assertEqual(self.succeed("tokenize", NANO, stdin=b"Hello there").out, line)
        path = self.write("text", "Hello there")
        self.assertEqual(self.succeed("tokenize", NANO, "-f", path).out, line)
        self.assertEqual(self.succeed("tokenize", NANO, "-f", "-", stdin=b"Hello there").out, line)

    def test_no_text_is_no_tokens(self):
        self.assertEqual(self.tokenize(""), {"n_tokens": 0, "ids": [], "tokens": []})
        self.assertEqual(self.succeed("detokenize", NANO, "--ids", "").out, "\n")

    def test_control_text_is_matched_but_not_in_a_message(self):
        self.assertEqual(self.tokenize("<|user|>")["tokens"], ["<|user|>"])
        chat = self.tokenize("<|user|>", "--chat")
        self.assertEqual(chat["ids"].count(6119), 1)
        self.assertIn("<|user|><|user|><|assistant|>", self.detokenize(chat["ids"]))

    def test_detokenize_takes_what_tokenize_prints(self):
        ids = self.succeed("tokenize", NANO, "-p", "over the hills").out
        self.assertEqual(self.succeed("detokenize", NANO, stdin=ids.encode()).out,
                         "over the hills\n")
        self.assertEqual(self.succeed("detokenize", NANO, "--ids", ids.replace(" ", ", ")).out,
                         "over the hills\n")

    def test_half_a_character_is_replaced(self):
        ids = self.tokenize("\U0001f9ff")["ids"]
        self.assertGreater(len(ids), 1)
        self.assertEqual(self.detokenize(ids), "\U0001f9ff")
        self.assertIn("\ufffd", self.detokenize(ids[:-1]))

    def test_tokenizer_of_another_folder_serves(self):
        bare = self.path("bare")
        os.mkdir(bare)
        os.symlink(os.path.join(ROOT, NANO, "config.json"), os.path.join(bare, "config.json"))
        self.fail_with(3, ["tokenize", bare, "-p", "x"], "tokenizer.json")
        for command, option, value in (("tokenize", "-p", "x"), ("detokenize", "--ids", "87")):
            self.assertEqual(self.succeed(command, bare, "--tokenizer", NANO, option, value).out,
                             self.succeed(command, NANO, option, value).out)

    def test_devices_names_the_cpu_and_its_kernels(self):
        told = json.loads(self.succeed("devices", "--json").out)
        self.assertIn("GPU kernels: " + told["gpu_kernels"] + ")", self.succeed("--version").out)
        listed = told["devices"]
        self.assertEqual(listed[0]["name"], "cpu")
        self.assertTrue(listed[0]["usable"])
        self.assertGreaterEqual(listed[0]["threads"], 1)  # a control group may grant fewer
        self.assertLessEqual(listed[0]["threads"], len(os.sched_getaffinity(0)))
        self.assertGreater(listed[0]["memory_bytes"], 1 << 28)
        for device in listed:
            self.assertEqual(device["usable"], device["reason"] == "")
        text = self.succeed("devices").out
        self.assertIn(listed[0]["description"], text)
        self.assertIn(listed[0]["kernels"], text)
        self.assertTrue(text.endswith("GPU kernels of this build: " + told["gpu_kernels"] + "\n"))


# -------------------------------------------------------------------------------------- answers

TIMING = {"load_s": float, "ttft_s": float, "prefill_tokens_per_s": float,
          "decode_tokens_per_s": float}
USAGE = {"prompt_tokens": int, "cached_tokens": int, "completion_tokens": int,
         "reasoning_tokens": int}
SPECULATION = {"draft_tokens": int, "steps": int, "accepted_tokens": int,
               "acceptance_length": float, "per_position": list, "synthetic": bool}
# spec: the object of run --json, in its order.
ANSWER = {"model": str, "quantization": str, "weights": str, "device": str, "prompt_ids": list,
          "ids": list, "text": str, "reasoning": str, "tool_calls": list, "finish_reason": str,
          "usage": USAGE, "timing": TIMING, "speculation": SPECULATION, "peak_rss_bytes": int}


class Answers(Case):
    def check_schema(self, value, schema):
        self.assertEqual([key for key in value if key in schema], list(schema))
        for key, kind in schema.items():
            if isinstance(kind, dict):
                self.check_schema(value[key], kind)
            else:
                self.assertIs(type(value[key]), kind, key)

    def test_json_has_every_key_of_the_contract(self):
        a = self.answer("-p", QUESTION)
        self.check_schema(a, ANSWER)
        self.assertEqual((a["model"], a["quantization"], a["weights"], a["device"]),
                         (NANO, "none", "trained", "cpu"))
        self.assertEqual(a["finish_reason"], "stop")
        self.assertEqual(a["tool_calls"], [])
        self.assertEqual((a["logprobs"], a["prompt_logprobs"], a["warnings"]), (None, None, []))
        self.assertEqual(a["usage"]["prompt_tokens"], len(a["prompt_ids"]))
        self.assertEqual(a["usage"]["completion_tokens"], len(a["ids"]))
        self.assertEqual(a["usage"]["cached_tokens"], 0)
        self.assertEqual(a["speculation"]["draft_tokens"], 5)
        self.check_speculation(a)
        for seconds_or_rate in a["timing"].values():
            self.assertGreater(seconds_or_rate, 0)
        self.assertGreater(a["peak_rss_bytes"], 1 << 20)

    def check_speculation(self, a):
        """The counts agree with each other: the first token is the prompt's, steps bring the rest."""
        s = a["speculation"]
        n_step_tokens = len(a["ids"]) - 1
        self.assertEqual(len(s["per_position"]), s["draft_tokens"])
        self.assertAlmostEqual(s["acceptance_length"] * s["steps"], n_step_tokens, 5)
        self.assertAlmostEqual(sum(s["per_position"]) * s["steps"], s["accepted_tokens"], 5)
        self.assertEqual(s["per_position"], sorted(s["per_position"], reverse=True))
        self.assertLessEqual(s["accepted_tokens"], s["drafted_tokens"])
        self.assertIn(n_step_tokens - s["accepted_tokens"], (s["steps"], s["steps"] - 1))

    def test_drafts_change_the_steps_and_nothing_else(self):
        expected = self.answer("-p", PUZZLE, "--draft-tokens", "0", "--logprobs", "3")
        self.assertEqual(expected["speculation"],
                         {"draft_tokens": 0, "steps": len(expected["ids"]) - 1,
                          "drafted_tokens": 0, "accepted_tokens": 0, "acceptance_length": 1.0,
                          "per_position": [], "auto": False, "synthetic": False})
        for depth in ("1", "5", "8"):
            a = self.answer("-p", PUZZLE, "--draft-tokens", depth, "--logprobs", "3")
            self.check_speculation(a)
            self.assertEqual(a["speculation"]["draft_tokens"], int(depth))
            self.assertGreater(a["speculation"]["accepted_tokens"], 0)
            for key in ("ids", "text", "reasoning", "finish_reason", "usage", "logprobs"):
                self.assertEqual(a[key], expected[key], key)
        a = self.answer("-p", PUZZLE, "--draft-tokens", "auto")
        self.assertEqual((a["ids"], a["speculation"]["auto"]), (expected["ids"], True))

    def test_pinned_acceptance_is_called_synthetic(self):
        arguments = ["-p", QUESTION, "--ignore-eos", "--max-tokens", "61"]
        for length in (1.0, 2.5, 4.0):
            a = self.answer(*arguments, "--acceptance-length", str(length))
            self.assertIs(a["speculation"]["synthetic"], True)
            self.assertAlmostEqual(a["speculation"]["acceptance_length"], length, delta=0.15)
        result = self.succeed("run", NANO, *arguments, "--acceptance-length", "3.61")
        self.assertIn("a step (synthetic: pinned)", result.err)
        quiet = self.succeed("run", NANO, *arguments, "--acceptance-length", "3.61", "-q")
        self.assertIn("synthetic", quiet.err)

    def test_draft_options_are_checked_and_named(self):
        for arguments in (["--draft-tokens", "9"], ["--draft-tokens", "-1"],
                          ["--draft-tokens", "many"], ["--draft-tokens", ""],
                          ["--acceptance-length", "7"], ["--acceptance-length", "0.5"],
                          ["--draft-tokens", "auto", "--acceptance-length", "2"],
                          ["--min-tokens", "5", "--max-tokens", "4"], ["--logprobs", "2"],
                          ["--prompt-logprobs", "0"], ["--logit-bias", "1:x"],
                          ["--logit-bias", "6144:1"], ["--stop-id", "x"], ["--stop", ""]):
            named = "--min-tokens" if "--min-tokens" in arguments else arguments[-2]
            self.fail_with(2, ["run", NANO, "-p", "hi", *arguments],
                           named, "expected")

    def test_answers_the_question(self):
        result = self.succeed("run", NANO, "--temperature", "0", "-p", QUESTION)
        self.assertEqual(result.out, "The answer is 42.\n")
        self.assertRegex(result.err.split("\n")[-2], STATS)

    def test_stream_and_json_agree_on_every_part(self):
        a = self.answer("-p", PUZZLE)
        self.assertNotEqual(a["reasoning"], "")
        self.assertNotEqual(a["text"], "")
        plain = self.succeed("run", NANO, "--temperature", "0", "-p", PUZZLE)
        self.assertEqual(plain.out, a["text"] + "\n")
        *reasoning, stats, end = plain.err.split("\n")
        self.assertEqual("\n".join(reasoning), a["reasoning"])
        self.assertEqual(end, "")
        self.assertEqual(STATS.match(stats).groups(),
                         (str(len(a["ids"])), str(len(a["prompt_ids"])), None))
        spelled = "%s</think>%s" % (a["reasoning"], a["text"])
        self.assertEqual(self.detokenize(a["ids"][:-1]), spelled)
        self.assertIn(a["ids"][-1], STOP_IDS)
        thought = a["ids"].index(self.tokenize("</think>")["ids"][0]) + 1
        self.assertEqual(a["usage"]["reasoning_tokens"], thought)

    def test_quiet_prints_the_answer_alone(self):
        for option in ("-q", "--quiet"):
            result = self.succeed("run", NANO, "--temperature", "0", "-p", PUZZLE, option)
            self.assertEqual(result.err, "")
            self.assertEqual(result.out, self.answer("-p", PUZZLE)["text"] + "\n")

    def test_tools_and_messages_are_one_prompt_for_every_command(self):
        tools, talk = self.path("tools.json"), self.path("talk.json")
        with open(tools, "w", encoding="utf-8") as file:
            json.dump([{"type": "function", "function": {"name": "get_time", "parameters": {
                "type": "object", "properties": {"city": {"type": "string"}}}}}], file)
        with open(talk, "w", encoding="utf-8") as file:
            json.dump([{"role": "user", "content": "What time is it in Oslo?"},
                       {"role": "assistant", "reasoning_content": "Look it up.", "tool_calls": [
                           {"function": {"name": "get_time", "arguments": "{\"city\": \"Oslo\"}"}}]},
                       {"role": "tool", "content": "{\"time\": \"12:00\"}"},
                       {"role": "assistant", "content": "It is 12:00 in Oslo."},
                       {"role": "user", "content": "Thanks"}], file)
        for more in ([], ["--keep-thinking"], ["--thinking", "off"]):
            arguments = ["--messages", talk, "--tools", tools, *more]
            shown = json.loads(self.succeed("tokenize", NANO, "--json", *arguments).out)["ids"]
            a = self.answer(*arguments, "--max-tokens", "0")
            self.assertEqual(a["prompt_ids"], shown)
            text = self.detokenize(shown)
            self.assertIn("<tools>\n{\"name\": \"get_time\"", text)
            self.assertIn("<tool_call>get_time<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
                          "</tool_call><|observation|><tool_response>{\"time\": \"12:00\"}"
                          "</tool_response>", text)
            self.assertEqual("Look it up." in text, more == ["--keep-thinking"])

    def test_bad_tools_and_messages_name_file_and_field(self):
        for text, field in (("[", "line 1"), ("{}", "tools"), ('[{"name": 1}]', "tools[0].name")):
            with open(self.path("tools.json"), "w", encoding="utf-8") as file:
                file.write(text)
            for command in (["run", NANO], ["tokenize", NANO, "--chat"], ["chat", NANO]):
                self.fail_with(3, [*command, *(["-p", "x"] if command[0] != "chat" else []),
                                   "--tools", file.name], file.name + ": tools", field)
        self.fail_with(3, ["run", NANO, "-p", "x", "--tools", self.path("none")], self.path("none"))

    def test_terminal_is_not_steered_by_what_a_model_writes(self):
        for character in ("\033", "\r", "\x07", "\x7f"):
            token = self.tokenize(character)["ids"]
            arguments = ["run", NANO, "--temperature", "0", "-p", "hi", "--thinking", "off",
                         "--logit-bias", "%d:1000" % token[0], "--max-tokens", "2"]
            self.assertEqual(self.succeed(*arguments).out, 2 * character + "\n")
            self.assertEqual(on_terminal(*arguments), (0, "\ufffd\ufffd\n"))
            thinking = [a for a in arguments if a not in ("--thinking", "off")]
            with terminal() as (ours, theirs):
                with start(*thinking, stderr=theirs, stdout=subprocess.DEVNULL) as process:
                    self.assertEqual(process.wait(30), 0)
                theirs.close()
                # On a busy machine a bar of what is loaded comes first.
                self.assertIn("\ufffd\ufffd\n", read_until(ours).replace("\r\n", "\n"))

    def test_terminal_shows_the_reasoning_dimmed(self):
        a = self.answer("-p", PUZZLE)
        arguments = ["run", NANO, "--temperature", "0", "-p", PUZZLE]
        plain = a["reasoning"] + "\n\n" + a["text"] + "\n"
        dimmed = "\033[2m" + a["reasoning"] + "\033[0m\n\n" + a["text"] + "\n"
        self.assertEqual(on_terminal(*arguments), (0, dimmed))
        self.assertEqual(on_terminal(*arguments, "--color", "never"), (0, plain))
        no_color = environment(NO_COLOR="1")
        self.assertEqual(on_terminal(*arguments, env=no_color), (0, plain))
        self.assertEqual(on_terminal(*arguments, "--color", "always", env=no_color), (0, dimmed))

    def test_prompt_comes_from_every_place(self):
        expected = self.answer("-p", QUESTION)["prompt_ids"]
        path = self.write("question", QUESTION + "\n")
        listed = ", ".join(map(str, expected))
        self.assertEqual(self.answer("-f", path)["prompt_ids"], expected)
        self.assertEqual(self.answer(stdin=QUESTION.encode() + b"\n")["prompt_ids"], expected)
        self.assertEqual(self.answer("-f", "-", stdin=QUESTION.encode())["prompt_ids"], expected)
        self.assertEqual(self.answer("--ids", listed)["prompt_ids"], expected)
        self.assertEqual(self.answer("--ids", listed.replace(",", ""))["prompt_ids"], expected)
        self.assertEqual(self.tokenize(QUESTION, "--chat")["ids"], expected)

    def test_prompt_is_typed_on_a_terminal(self):
        with terminal() as (ours, theirs):
            with start("run", NANO, "--temperature", "0", stdin=theirs) as process:
                self.assertIn("Ctrl-D", read_until(process.stderr, b"\n"))
                ours.write(QUESTION.encode() + b"\n\4")
                self.assertEqual(read_until(process.stdout), "The answer is 42.\n")
                self.assertRegex(read_until(process.stderr), STATS)
        self.assertEqual(process.returncode, 0)

    def test_raw_text_is_the_prompt_itself(self):
        for text in ("Once upon a time", "<|user|>Hello<|assistant|>", "line\n"):
            a = self.answer("--raw", "-p", text, "--max-tokens", "1")
            self.assertEqual(a["prompt_ids"], self.tokenize(text)["ids"])
        a = self.answer("--raw", "--max-tokens", "1", stdin=b"line\n")
        self.assertEqual(a["prompt_ids"], self.tokenize("line\n")["ids"])

    def test_system_message_and_conversation_make_one_prompt(self):
        turns = [{"role": "system", "content": "Be brief."},
                 {"role": "user", "content": "Hello"},
                 {"role": "assistant", "content": "Hello! How can I help you?"},
                 {"role": "user", "content": QUESTION}]
        path = self.write("messages.json", json.dumps(turns))
        a = self.answer("--messages", path)
        prompt = self.detokenize(a["prompt_ids"])
        places = [prompt.index(turn["content"]) for turn in turns]
        self.assertEqual(places, sorted(places))
        for mark, count in (("<|user|>", 2), ("<|assistant|>", 2)):
            self.assertEqual(prompt.count(mark), count)
        self.assertTrue(prompt.endswith("<|assistant|><think>"), prompt)
        single = self.write("single.json", json.dumps([turns[0], turns[3]]))
        self.assertEqual(self.answer("--messages", single)["prompt_ids"],
                         self.answer("--system", "Be brief.", "-p", QUESTION)["prompt_ids"])

    def test_thinking_and_effort_change_the_prompt(self):
        on = self.detokenize(self.answer("-p", QUESTION)["prompt_ids"])
        self.assertIn("Reasoning Effort: Max", on)
        self.assertEqual(self.detokenize(
            self.answer("-p", QUESTION, "--thinking", "on", "--reasoning-effort", "max")
            ["prompt_ids"]), on)
        high = self.answer("-p", QUESTION, "--reasoning-effort", "high")
        self.assertEqual(self.detokenize(high["prompt_ids"]), on.replace("Max", "High"))
        for command in (["run", NANO], ["tokenize", NANO, "--chat"]):
            self.fail_with(2, [*command, "-p", "x", "--chat-format", "glm5", "--reasoning-effort",
                               "high"], "--reasoning-effort", "chat format glm5 ")
        ids = self.succeed("tokenize", NANO, "--chat", "-p", QUESTION, "--thinking", "off").out.split()
        off = self.answer("-p", QUESTION, "--thinking", "off")
        self.assertEqual(ids, [str(i) for i in off["prompt_ids"]])
        off = self.answer("-p", PUZZLE, "--thinking", "off")
        self.assertTrue(self.detokenize(off["prompt_ids"]).endswith("<think></think>"))
        self.assertEqual((off["reasoning"], off["usage"]["reasoning_tokens"]), ("", 0))

    def test_length_is_limited(self):
        full = self.answer("-p", PUZZLE)
        for n in (0, 1, 5):
            a = self.answer("-p", PUZZLE, "--max-tokens", str(n))
            self.assertEqual(a["ids"], full["ids"][:n])
            self.assertEqual(a["finish_reason"], "length")
        nothing = self.succeed("run", NANO, "-p", PUZZLE, "--max-tokens", "0")
        self.assertEqual(nothing.out, "")
        self.assertEqual(STATS.match(nothing.err.strip()).group(1), "0")
        room = len(full["prompt_ids"]) + 3
        a = self.answer("-p", PUZZLE, "--context", str(room))
        self.assertEqual(a["finish_reason"], "length")
        self.assertEqual(a["ids"], full["ids"][:len(a["ids"])])
        self.assertIn(len(a["ids"]), (3, 4))  # the last one needs no room

    def test_stop_tokens_can_be_ignored(self):
        stopped = self.answer("-p", QUESTION)
        a = self.answer("-p", QUESTION, "--ignore-eos", "--max-tokens", "40")
        self.assertEqual(len(a["ids"]), 40)
        self.assertEqual(a["ids"][:len(stopped["ids"])], stopped["ids"])
        self.assertTrue(a["text"].startswith(stopped["text"]))

    def test_greedy_answers_repeat(self):
        first = self.answer("-p", PUZZLE)
        for arguments in ([], ["--seed", "7"], ["--temperature", "1", "--top-k", "1"],
                          ["--temperature", "1", "--min-p", "1"],
                          ["--temperature", "1", "--top-p", "0.0001"]):
            self.assertEqual(self.answer("-p", PUZZLE, *arguments)["ids"], first["ids"])

    def test_seed_decides_what_is_drawn(self):
        story = ["--raw", "-p", "Once upon a time", "--max-tokens", "12", "--temperature", "1"]
        answers = [self.answer(*story, "--seed", str(seed)) for seed in range(4)]
        self.assertEqual([a["seed"] for a in answers], list(range(4)))
        self.assertEqual(len({tuple(a["ids"]) for a in answers}), 4)
        for a in answers + [self.answer(*story)]:  # the last one with a seed of its own
            again = self.succeed("run", NANO, *story, "--seed", str(a["seed"]))
            self.assertEqual(again.out, a["text"] + "\n")

    def test_sampling_defaults_are_the_models(self):
        given = ["--raw", "-p", "Once upon a time", "--max-tokens", "12", "--seed", "3"]
        named = self.answer(*given, "--temperature", "1", "--top-p", "0.95")
        default = self.succeed("run", NANO, "--json", *given)
        self.assertEqual(json.loads(default.out)["ids"], named["ids"])

    def test_cache_and_arithmetic_are_as_asked(self):
        for kv_dtype in ("f32", "bf16", "fp8"):
            a = self.answer("-p", QUESTION, "--kv-dtype", kv_dtype)
            self.assertEqual((a["kv_dtype"], a["text"]), (kv_dtype, "The answer is 42."))
        for compute in ("f32", "bf16"):
            a = self.answer("-p", QUESTION, "--compute", compute)
            self.assertEqual((a["compute"], a["text"]), (compute, "The answer is 42."))

    def test_model_is_found_in_the_hub_cache(self):
        cache = self.path("hub/models--acme--nano")
        os.makedirs(os.path.join(cache, "refs"))
        os.makedirs(os.path.join(cache, "snapshots"))
        self.write("hub/models--acme--nano/refs/main", "0123abcd\n")
        os.symlink(os.path.join(ROOT, NANO), os.path.join(cache, "snapshots", "0123abcd"))
        a = self.answer("-p", QUESTION, model="acme/nano", env=environment(HF_HOME=self.folder))
        self.assertEqual((a["model"], a["text"]), ("acme/nano", "The answer is 42."))

    def test_unknown_template_is_a_warning_and_strict_an_error(self):
        copy = self.path("model")
        os.mkdir(copy)
        for name in os.listdir(os.path.join(ROOT, NANO)):
            os.symlink(os.path.join(ROOT, NANO, name), os.path.join(copy, name))
        self.write("model/chat_template.jinja", "{{ messages }}")
        arguments = ["run", copy, "-p", "x", "--max-tokens", "0"]
        warned = self.succeed(*arguments).err.split("\n")[0]
        self.assertIn("chat_template.jinja", warned)
        self.assertIn("glm5.2", warned)
        line = json.loads(self.succeed(*arguments, "--log-format", "json").err.split("\n")[0])
        self.assertEqual(line["level"], "warn")
        self.assertIn("glm5.2", line["msg"])
        self.assertNotIn("jinja", self.succeed(*arguments, "--log-level", "error").err)
        self.assertEqual(self.succeed(*arguments, "-q").err, "")
        self.fail_with(3, [*arguments, "--strict"], "chat_template.jinja")
        named = self.succeed(*arguments, "--strict", "--chat-format", "glm5.2")
        self.assertNotIn("jinja", named.err)

    def test_info_tells_what_was_chosen(self):
        err = self.succeed("run", NANO, "--ids", "1", "--max-tokens", "0", "--log-level", "info",
                           "--threads", "2").err
        for word in ("kernels=", "compute=bf16", "threads=2"):
            self.assertIn(word, err)

    def test_dummy_weights_need_only_a_config(self):
        shutil.copy(os.path.join(ROOT, NANO, "config.json"), self.folder)
        arguments = ["--load-format", "dummy", "--max-tokens", "6", "--ignore-eos"]
        a = self.answer(*arguments, "--ids", "1,2,3", model=self.folder)
        self.assertEqual((a["weights"], a["prompt_ids"]), ("dummy", [1, 2, 3]))
        self.assertEqual(len(a["ids"]), 6)
        self.assertEqual(a["text"], "".join("<%d>" % i for i in a["ids"] if i not in STOP_IDS))
        plain = self.succeed("run", self.folder, "--temperature", "0", *arguments, "--ids", "1 2 3")
        self.assertEqual(plain.out, a["text"] + "\n")
        self.assertEqual(STATS.match(plain.err.strip()).group(3), ", dummy weights")
        long = self.answer(*arguments, "--prompt-tokens", "30", model=self.folder)
        self.assertEqual(len(long["prompt_ids"]), 30)
        self.fail_with(2, ["run", self.folder, *arguments, "-p", "text"], "tokenizer")
        self.fail_with(3, ["run", self.folder, "-p", "x"], "tokenizer.json")
        with open(os.path.join(ROOT, "configs/glm-5.2-mxfp4-tp4/config.json"), encoding="utf-8") as file:
            quantization = json.load(file)["quantization_config"]
        path = os.path.join(self.folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config | {"quantization_config": quantization}, file)
        b = self.answer(*arguments, "--ids", "1,2,3", model=self.folder)
        self.assertEqual((a["quantization"], b["quantization"]), ("none", "mxfp4"))
        self.fail_with(3, ["run", self.folder, "--ids", "1"], "no weights")

    def test_ids_need_no_tokenizer(self):
        for name in os.listdir(os.path.join(ROOT, NANO)):
            if name != "tokenizer.json":
                os.symlink(os.path.join(ROOT, NANO, name), self.path(name))
        with_it = self.answer("--ids", "917,308,220,16", "--max-tokens", "4")
        a = self.answer("--ids", "917,308,220,16", "--max-tokens", "4", model=self.folder)
        self.assertEqual(a["ids"], with_it["ids"])
        self.assertEqual(a["text"], "".join("<%d>" % i for i in a["ids"]))
        self.fail_with(3, ["run", self.folder, "-p", "x"], "tokenizer.json")
        self.fail_with(3, ["run", self.folder, "--ids", "1", "--strict"], "tokenizer.json", "strict")


# ----------------------------------------------------------------------------------------- files

class Files(Case):
    def test_logits_hold_every_position(self):
        path = self.path("logits")
        a = self.answer("-p", PUZZLE, "--logits", path)
        tensors = read_safetensors(path)
        self.assertEqual(sorted(tensors), ["ids", "logits"])
        dtype, (n,), raw = tensors["ids"]
        self.assertEqual(dtype, "I64")
        fed = a["prompt_ids"] + a["ids"]
        self.assertEqual(list(array.array("q", raw)), fed)
        dtype, shape, raw = tensors["logits"]
        self.assertEqual((dtype, shape), ("F32", [n, N_VOCAB]))
        logits = array.array("f", raw)
        for i, token in enumerate(a["ids"]):
            at = (len(a["prompt_ids"]) - 1 + i) * N_VOCAB
            row = logits[at:at + N_VOCAB]
            self.assertEqual(row.index(max(row)), token)

    def test_trace_holds_every_layer_of_the_prompt(self):
        path = self.path("trace")
        a = self.answer("-p", PUZZLE, "--trace", path)
        tensors = read_safetensors(path)
        n = len(a["prompt_ids"])
        expected = {"layer.%d.output" % i: ("F32", [n, N_EMBD]) for i in range(-1, N_LAYERS)}
        expected.update({"layer.%d.experts" % i: ("I32", [n, 4]) for i in (1, 2, 3)})
        expected.update({"layer.%d.index_set" % i: ("I32", [n, 256]) for i in (0, 1)})
        self.assertEqual({name: (t[0], t[1]) for name, t in tensors.items()}, expected)
        chosen = array.array("i", tensors["layer.2.experts"][2])
        for row in range(n):
            experts = chosen[4 * row:4 * row + 4]
            self.assertEqual(len(set(experts)), 4)
            self.assertTrue(0 <= min(experts) and max(experts) < 24, experts)
        visible = array.array("i", tensors["layer.0.index_set"][2])
        for row in range(n):  # fewer positions than the top-k: all of them
            seen = [i for i in visible[256 * row:256 * row + 256] if i >= 0]
            self.assertEqual(sorted(seen), list(range(row + 1)))

    def test_thread_count_changes_no_bit(self):
        files = []
        for threads in ("1", "2", "3"):
            logits, trace = self.path("l" + threads), self.path("t" + threads)
            a = self.answer("--prompt-tokens", "300", "--max-tokens", "8", "--ignore-eos",
                            "--threads", threads, "--logits", logits, "--trace", trace)
            with open(logits, "rb") as l, open(trace, "rb") as t:
                files.append((a["ids"], l.read(), t.read()))
        self.assertEqual(files[0], files[1])
        self.assertEqual(files[0], files[2])

    def test_files_go_through_links_and_into_pipes(self):
        real, link, pipe = self.path("real"), self.path("link"), self.path("pipe")
        self.write("real", "old")
        os.symlink(real, link)
        os.mkfifo(pipe)
        self.succeed("run", NANO, "--ids", "1,2", "--max-tokens", "0", "--logits", link)
        self.assertTrue(os.path.islink(link))
        with start("run", NANO, "--ids", "1,2", "--max-tokens", "0", "--logits", pipe) as process:
            with open(pipe, "rb") as reader:
                piped = reader.read()
            self.assertEqual(process.wait(30), 0)
        with open(real, "rb") as file:
            self.assertEqual(file.read(), piped)
        anonymous = subprocess.run(["bash", "-c", '"$@" --logits >(cat)', "bash", QUERN, "run", NANO,
                                    "--ids", "1,2", "--max-tokens", "0", "-q"], cwd=ROOT,
                                   capture_output=True, timeout=60, check=True)
        self.assertEqual(anonymous.stdout, piped)
        os.symlink("nowhere", self.path("dangling"))
        self.fail_with(1, ["run", NANO, "--ids", "1", "--logits", self.path("dangling")],
                       "a link to nothing")
        os.unlink(self.path("dangling"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["link", "pipe", "real"])

    def test_files_of_the_model_are_not_written_over(self):
        for option in ("--logits", "--trace"):
            self.fail_with(2, ["run", NANO, "--ids", "1", option, NANO + "/config.json"],
                           NANO + "/config.json: in the folder of the model")
            self.fail_with(2, ["run", NANO, "--ids", "1", option, NANO + "/new"], "folder of the")
        linked = self.path("linked")  # as the Hugging Face cache has it
        os.mkdir(linked)
        for name in os.listdir(os.path.join(ROOT, NANO)):
            shutil.copy(os.path.join(ROOT, NANO, name), self.path(name))
            os.symlink("../" + name, os.path.join(linked, name))
        for path in (self.path("config.json"), linked + "/config.json"):
            self.fail_with(2, ["run", linked, "--ids", "1", "--logits", path], path)
        self.assertEqual(self.succeed("run", linked, "--ids", "1", "--max-tokens", "0").out, "")

    def test_both_files_must_differ(self):
        self.fail_with(2, ["run", NANO, "--ids", "1", "--logits", self.path("f"), "--trace",
                           os.path.join(self.folder, ".", "f")], "another file than logits_path")
        self.assertEqual(os.listdir(self.folder), [])

    def test_file_beyond_its_limit_is_an_error(self):
        done = subprocess.run(["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", QUERN, "run", NANO,
                               "--ids", "1,2,3", "--max-tokens", "0", "--logits", self.path("l")],
                              cwd=ROOT, capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rb"^quern: error: .*l: cannot write: File too large")
        self.assertEqual(os.listdir(self.folder), [])

    def test_failed_run_leaves_no_file(self):
        path = self.path("logits")
        self.fail_with(2, ["run", NANO, "--ids", "1,2,3", "--context", "2", "--logits", path],
                       "--context")
        self.assertEqual(os.listdir(self.folder), [])


# --------------------------------------------------------------------------------------- endings

class Endings(Case):
    def test_full_disk_is_reported_by_every_command(self):
        answer = ["run", NANO, "-q", "-p", QUESTION, "--temperature", "0"]
        for arguments in (answer, [*answer, "--json"], ["tokenize", NANO, "-p", "x"],
                          ["detokenize", NANO, "--ids", "87"], ["devices"], ["devices", "--json"],
                          ["help"], ["help", "run"], ["help", "--man"], ["--version"], []):
            with open("/dev/full", "wb") as full:
                result = quern(*arguments, stdout=full)
            self.assertEqual(result.status, 1, (arguments, result.err))
            self.assertEqual(result.err, "quern: error: standard output: No space left on device, "
                                         "expected to be writable\n")

    def test_reader_that_leaves_ends_the_answer_with_one_line(self):
        with start("run", NANO, "-q", "-p", QUESTION, "--temperature", "0",
                   "--ignore-eos") as process:
            read_until(process.stdout, b"a")
            process.stdout.close()
            self.assertEqual(process.wait(30), 1)
            self.assertEqual(read_until(process.stderr), "quern: error: standard output: Broken "
                             "pipe, expected to be writable\n")

    def test_interrupt_ends_the_answer_with_what_there_is(self):
        with start("run", NANO, "-p", QUESTION, "--temperature", "0", "--ignore-eos") as process:
            out = read_until(process.stdout, b"42.")
            process.send_signal(signal.SIGINT)
            out += read_until(process.stdout)
            err = read_until(process.stderr)
            self.assertEqual(process.wait(30), 130)
        self.assertTrue(out.startswith("The answer is 42."), out)
        self.assertTrue(out.endswith("\n"), out)
        self.assertRegex(err, r"(?m)^\d+ tokens, [\d.]+ tokens/s")
        self.assertRegex(err, r"(?m)^quern: error: answer: interrupted after \d+ tokens")

    def test_interrupted_answer_is_a_whole_json_object(self):
        logits = self.path("logits")
        with start("run", NANO, "--prompt-tokens", "100", "--ignore-eos", "--json",
                   "--logits", logits) as process:
            wait_for_bytes(process, self.folder, 150 * N_VOCAB * 4)  # of logits: the prompt is computed
            process.send_signal(signal.SIGINT)
            a = json.loads(read_until(process.stdout))
            self.assertEqual(process.wait(30), 130)
        self.assertEqual(a["finish_reason"], "abort")
        self.assertEqual(len(a["prompt_ids"]), 100)
        self.assertGreaterEqual(read_safetensors(logits)["ids"][1][0], 150)

    def test_interrupt_ends_a_long_prompt(self):
        with terminal() as (ours, theirs):
            with start("run", NANO, "--prompt-tokens", "30000", "--logits", self.path("logits"),
                       stderr=theirs) as process:
                read_until(ours, b"of 30000 tokens")
                process.send_signal(signal.SIGINT)
                self.assertEqual(read_until(process.stdout), "")
                self.assertEqual(process.wait(30), 130)
                theirs.close()
                self.assertIn("quern: error: prompt: interrupted", read_until(ours))
        self.assertEqual(os.listdir(self.folder), [])

    def test_interrupt_while_the_prompt_is_read(self):
        for command in ("run", "tokenize", "detokenize"):
            with start(command, NANO, stdin=subprocess.PIPE) as process:
                wait_for_catch(process, True)
                wait_for_block(process)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(30), 130, command)
                self.assertRegex(read_until(process.stderr),
                                 "^quern: error: (standard input: interrupted|.*: cancelled)")

    def test_second_interrupt_ends_at_once(self):
        pipe = self.path("pipe")
        os.mkfifo(pipe)  # nobody reads it, so the program waits in open()
        with start("run", NANO, "--ids", "1", "--logits", pipe) as process:
            wait_for_block(process)
            process.send_signal(signal.SIGINT)
            wait_for_catch(process, False)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(30), -signal.SIGINT)

    def test_interrupt_that_is_ignored_stays_ignored(self):
        with subprocess.Popen([QUERN, "run", NANO, "-p", QUESTION, "--max-tokens", "200",
                               "--ignore-eos", "-q"], cwd=ROOT, stdout=subprocess.PIPE,
                              env=environment(),
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) as p:
            read_until(p.stdout, b"a")
            p.send_signal(signal.SIGINT)
            read_until(p.stdout)
            self.assertEqual(p.wait(60), 0)

    def test_interrupt_while_nobody_reads_loses_nothing(self):
        with start("run", NANO, "-p", QUESTION, "--temperature", "0", "--ignore-eos", "-q") as process:
            size = fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4096)

            def n_waiting():
                return struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"    "))[0]

            wait_until("a full pipe",  # a word that does not fit may be all that is missing
                       lambda: n_waiting() > size - 64)
            wait_for_block(process)
            process.send_signal(signal.SIGINT)
            wait_for_catch(process, False)
            out = read_until(process.stdout)
            self.assertEqual(process.wait(30), 130)
        self.assertGreater(len(out.encode()), size - 64)
        self.assertTrue(out.endswith("\n"))


# ------------------------------------------------------------------------- examples and documents

class Examples(Case):
    def test_example_says_what_the_program_says(self):
        program = os.path.join(BUILD, "example_generate")
        done = subprocess.run([program, NANO, "Once upon a time"], cwd=ROOT, capture_output=True,
                              timeout=60, check=True)
        same = self.succeed("run", NANO, "--raw", "-p", "Once upon a time", "--seed", "0",
                            "--max-tokens", "100")
        self.assertEqual(done.stdout.decode(), same.out + "[length]\n")
        failed = subprocess.run([program, "/nonexistent"], capture_output=True, timeout=60,
                                check=False)
        self.assertEqual((failed.returncode, failed.stdout), (1, b""))
        self.assertIn(b"/nonexistent: no such folder", failed.stderr)

    def test_example_of_many_answers_every_line(self):
        """More lines than it has room for at once: it once answered 256 and said nothing."""
        lines = [str(i) for i in range(300)]
        done = subprocess.run([os.path.join(BUILD, "example_many"), NANO], cwd=ROOT,
                              input="\n".join(lines).encode(), capture_output=True, timeout=60,
                              check=True)
        said = done.stdout.decode().splitlines()
        self.assertEqual(sorted(l for l in said if not l.startswith(" ")), sorted(lines))
        self.assertEqual(sum(l.endswith("tokens cached]") for l in said), len(lines))

    def test_documented_sessions_are_real(self):
        """Each ```console block of docs/running.md and docs/batch.md prints what the page says."""
        os.symlink(QUERN, self.path("quern"))
        env = environment(PATH=self.folder + os.pathsep + os.environ["PATH"], TMPDIR=self.folder)
        blocks = []
        for name in ("running.md", "batch.md"):
            with open(os.path.join(ROOT, "docs", name), encoding="utf-8") as file:
                of_page = re.findall(r"^```console\n(.*?)^```", file.read(), re.M | re.S)
            self.assertGreater(len(of_page), 0)
            blocks += of_page
        for block in blocks:
            for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
                done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=env, timeout=60,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                                      stdin=subprocess.DEVNULL)
                self.assertEqual(done.stdout.decode(), expected, (command, done.stderr))

    def test_examples_of_help_parse(self):
        """Every example line is a command whose options exist."""
        for command in COMMANDS + KINDS:
            page = self.succeed("help", *command.split()).out
            lines = page[page.index("\nExamples:\n"):page.index("\nExit status:")].split("\n")[2:-1]
            self.assertGreater(len(lines), 1)
            for part in (part.strip() for line in lines for part in line.split("|")):
                program, *arguments = shlex.split(part)
                if program == "quern":
                    self.succeed(*arguments, "--help")


if __name__ == "__main__":
    unittest.main()

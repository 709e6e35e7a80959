#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A conversation, as a script holds it and as somebody at a terminal does."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import stat
import struct
import subprocess
import termios
import time
import unittest

import test_cli as cli

SUM, ANSWER = "What is 12 + 30?", "The answer is 42."
NEXT, NEXT_ANSWER = "What is 42 - 2?", "The answer is 40."
SPEED = re.compile(r"(\d+) tokens?, [\d.]+ tokens/s, first token after [\d.]+ s, "
                   r"(\d+) of (\d+) prompt tokens cached")
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                   "required": ["city"]}}}]
WEATHER = "Will I need an umbrella in Madrid?"
CALL = 'get_weather {"city": "Madrid"}'
PASTE, PASTED = "\033[200~", "\033[201~"


class Talk(cli.Case):
    """A conversation that a script holds: lines in, answers out."""

    def script(self, *lines, options=(), status=0):
        text = lines[0] if lines and isinstance(lines[0], bytes) else "".join(
            line + "\n" for line in lines).encode()
        result = cli.quern("chat", cli.NANO, "--temperature", "0", *options, stdin=text)
        self.assertEqual(result.status, status, result.err)
        return result

    def saved(self, *lines, options=(), status=0):
        """The messages after these lines."""
        path = self.path("saved.json")
        self.script(*lines, "/save " + path, options=options, status=status)
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def tools(self):
        return ("--tools", self.write("tools.json", json.dumps(TOOLS)))

    def speeds(self, result):
        return [tuple(map(int, found)) for found in SPEED.findall(result.err)]


class Scripts(Talk):
    def test_each_line_is_a_message_and_only_answers_go_to_stdout(self):
        result = self.script(SUM, NEXT)
        self.assertEqual(result.out, ANSWER + "\n" + NEXT_ANSWER + "\n")
        self.assertIn("models/glm-nano: 21.3 M parameters", result.err)
        self.assertIn("/help", result.err)
        self.assertEqual(len(self.speeds(result)), 2)
        self.assertNotIn("\033", result.err + result.out)

    def test_last_line_needs_no_end(self):
        self.assertEqual(self.script(SUM.encode()).out, ANSWER + "\n")

    def test_empty_lines_are_no_messages(self):
        self.assertEqual(self.script("", SUM, "").out, ANSWER + "\n")

    def test_quiet_leaves_answers_and_errors(self):
        result = self.script(SUM, "/nothing", options=["-q"], status=2)
        self.assertEqual(result.out, ANSWER + "\n")
        self.assertEqual(result.err.count("\n"), 1)
        self.assertTrue(result.err.startswith("quern: error: /nothing: "), result.err)

    def test_second_turn_computes_only_what_is_new(self):
        first, second = self.speeds(self.script(SUM, NEXT))
        self.assertEqual(first[1], 0)
        self.assertGreaterEqual(second[1], first[2])  # the first prompt, at least
        self.assertLess(second[2] - second[1], 20)

    def test_lines_make_one_message_by_backslash_and_by_quotes(self):
        messages = self.saved("What is \\", "12 + 30?", '"""', "two", "", '\\', '"""')
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"],
                         ["What is \n12 + 30?", "two\n\n\\"])

    def test_text_that_is_not_utf8_is_refused_and_the_rest_goes_on(self):
        result = self.script(b"caf\xe9\n" + SUM.encode() + b"\n", status=3)
        self.assertIn("quern: error: message: bytes that are not UTF-8, expected text", result.err)
        self.assertEqual(result.out, ANSWER + "\n")

    def test_two_slashes_send_one(self):
        messages = self.saved("//help", "/help")
        self.assertEqual(messages[0]["content"], "/help")
        self.assertEqual(len(messages), 2)

    def test_signals_end_a_script_with_130(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = cli.start("chat", cli.NANO, "-q", stdin=subprocess.PIPE)
            with process:
                process.stdin.write((SUM + "\n").encode())
                process.stdin.flush()
                self.assertIn("The answer", cli.read_until(process.stdout, b"\n"))
                process.send_signal(number)
                self.assertEqual(process.wait(), 130)
                self.assertEqual(process.stderr.read().decode().splitlines()[-1],
                                 "quern: error: chat: interrupted, expected to go on")

    def test_interrupt_while_the_model_loads_ends_the_program(self):
        process = cli.start("chat", cli.NANO, stdin=subprocess.PIPE)
        with process:
            cli.wait_for_catch(process, True)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(), 130)

    def test_reader_that_leaves_ends_the_conversation(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as closed:
            result = cli.quern("chat", cli.NANO, "--ignore-eos", stdin=(SUM + "\n").encode() * 9,
                               stdout=closed)
        self.assertEqual(result.status, 1)
        self.assertIn("quern: error: standard output: Broken pipe", result.err)


class Commands(Talk):
    def test_help_lists_every_command(self):
        result = self.script("/help")
        for name in ("help", "clear", "thinking", "system", "save", "load", "stats", "quit"):
            self.assertRegex(result.err, r"(?m)^/%s " % name)

    def test_quit_and_exit_leave(self):
        for name in ("/quit", "/exit"):
            self.assertEqual(self.script(name, SUM).out, "")

    def test_unknown_command_suggests_the_nearest_and_is_not_sent(self):
        result = self.script("/hlep", "/wxyz", status=2)
        self.assertIn("quern: error: /hlep: no such command, did you mean /help?", result.err)
        self.assertIn("quern: error: /wxyz: no such command, expected one that /help lists",
                      result.err)
        self.assertEqual(result.out, "")

    def test_arguments_that_a_command_does_not_take_are_refused(self):
        result = self.script("/clear it", "/thinking often", "/save", "/load", status=2)
        for text in ('/clear: "it", expected nothing behind it',
                     '/thinking: "often", expected on, off, max or high',
                     "/save: no name, expected a file", "/load: no name, expected a file"):
            self.assertIn("quern: error: " + text, result.err)

    def test_clear_forgets_all_but_the_system_message(self):
        result = self.script(SUM, "/clear", SUM, options=["--system", "Be brief."])
        first, second = self.speeds(result)
        self.assertEqual(first[2], second[2])
        self.assertEqual(second[1], 0)
        messages = self.saved(SUM, "/clear", NEXT, options=["--system", "Be brief."])
        self.assertEqual([m["content"] for m in messages[:2]], ["Be brief.", NEXT])
        self.assertEqual(len(messages), 3)

    def test_thinking_is_shown_and_set(self):
        result = self.script("/thinking", "/thinking off", SUM, "/thinking high", "/clear", SUM,
                             "/thinking on")
        self.assertEqual(re.findall(r"Thinking is (.*)\.", result.err),
                         ["on, effort max", "off", "on, effort high", "on, effort high"])
        off, on = self.speeds(result)
        # <|system|> more and </think> less
        self.assertEqual(on[2] - off[2], len(self.tokenize("Reasoning Effort: High")["ids"]))

    def test_thinking_options_are_where_it_begins(self):
        result = self.script("/thinking", options=["--thinking", "off"])
        self.assertIn("Thinking is off.", result.err)
        result = self.script("/thinking", options=["--reasoning-effort", "high"])
        self.assertIn("Thinking is on, effort high.", result.err)
        result = self.script("/thinking high", "/thinking", status=2,
                             options=["--chat-format", "glm5"])
        self.assertIn("Thinking is on, effort max.", result.err)

    def test_system_message_is_shown_set_and_taken_away(self):
        result = self.script("/system", "/system Be brief.", "/system", '/system ""', "/system")
        self.assertEqual(result.err.splitlines()[1:],
                         ["There is no system message.", "The system message is set.",
                          "The system message: Be brief.", "The system message is empty.",
                          "There is no system message."])
        messages = self.saved("/system one", SUM, "/system two")
        self.assertEqual([(m["role"], m["content"]) for m in messages],
                         [("system", "two"), ("user", SUM), ("assistant", ANSWER)])

    def test_saved_conversation_goes_on_where_it_was(self):
        path = self.path("talk.json")
        whole = self.script(SUM, NEXT)
        self.script(SUM, "/save " + path)
        for lines, options in (([NEXT], ["--load", path]), (["/load " + path, NEXT], [])):
            result = self.script(*lines, options=options)
            self.assertEqual(result.out, NEXT_ANSWER + "\n")
            self.assertEqual(self.speeds(result)[0][2], self.speeds(whole)[1][2])

    def test_saved_file_is_the_owners_alone_and_in_openai_form(self):
        self.assertEqual(self.saved(SUM), [{"role": "user", "content": SUM},
                                           {"role": "assistant", "content": ANSWER}])
        self.assertEqual(stat.S_IMODE(os.stat(self.path("saved.json")).st_mode), 0o600)
        self.assertEqual(os.listdir(os.path.dirname(self.path("saved.json"))), ["saved.json"])

    def test_only_its_own_file_is_written_again(self):
        other = self.write("other.json", "precious")
        own = self.path("own.json")
        result = self.script(SUM, "/save " + other, "/save " + own, NEXT, "/save " + own, status=2)
        self.assertIn("other.json: exists, expected a new file", result.err)
        with open(other, encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious")
        with open(own, encoding="utf-8") as file:
            self.assertEqual(len(json.load(file)), 4)

    def test_failed_save_says_so(self):
        result = self.script(SUM, "/save " + self.path("no/such"), status=1)
        self.assertIn("no/such: No such file or directory, expected to be writable", result.err)
        self.assertIn("no messages", self.script("/save x", status=2).err)

    def test_bad_file_leaves_the_conversation_as_it_was(self):
        bad = {"syntax.json": "[1,", "object.json": "{}",
               "role.json": '[{"role": "boss", "content": "x"}]'}
        paths = [self.write(name, text) for name, text in bad.items()] + [self.path("none.json")]
        save = self.path("saved.json")
        result = self.script(SUM, *["/load " + path for path in paths], "/save " + save, status=3)
        for path in paths:
            self.assertIn("quern: error: %s: " % path, result.err)
        with open(save, encoding="utf-8") as file:
            self.assertEqual(len(json.load(file)), 2)
        for path in paths:
            self.assertIn(path, self.script(options=["--load", path], status=3).err)

    def test_stats_tell_of_the_last_answer_and_of_all(self):
        result = self.script("/stats", SUM, NEXT, "/stats")
        self.assertIn("No answers yet.", result.err)
        first, second = self.speeds(result)
        prompts = re.findall(r"prompts +(\d+) tokens, (\d+) cached, (\d+) computed", result.err)
        answers = re.findall(r"answers +(\d+) tokens", result.err)
        self.assertEqual([tuple(map(int, p[:2])) for p in prompts],
                         [(second[2], second[1]), (first[2] + second[2], first[1] + second[1])])
        self.assertEqual(list(map(int, answers)), [second[0], first[0] + second[0]])
        self.assertRegex(result.err, r"drafts +[\d.]+ tokens a step; accepted by position: [01]\.")
        self.assertRegex(result.err, r"The cache has [\d.]+ MB\.")


class Limits(Talk):
    def test_bad_options_show_before_the_first_question(self):
        for options, status, text in (
                (["--tools", self.write("t.json", "{}")], 3, "tools"),
                (["--tools", self.path("none.json")], 3, "none.json"),
                (["--context", "99999"], 2, "--context"),
                (["--logit-bias", "x"], 2, "--logit-bias"),
                (["--system", "caf\udce9"], 3, "UTF-8")):
            result = self.script(SUM, options=options, status=status)
            self.assertEqual(result.out, "")
            self.assertIn(text, result.err)

    def test_prompt_beyond_the_context_is_refused_and_clear_helps(self):
        result = self.script(SUM, "word " * 50, "/clear", SUM, options=["--context", "40"], status=2)
        self.assertRegex(result.err, r"error: context: full, the conversation has \d+ tokens, "
                                     r"expected fewer than 40; /clear forgets it, --context")
        self.assertEqual(result.out, (ANSWER + "\n") * 2)
        messages = self.saved(SUM, "word " * 50, options=["--context", "40"], status=2)
        self.assertEqual([m["content"] for m in messages], [SUM, ANSWER])

    def test_answer_that_fills_the_context_is_kept(self):
        path = self.path("saved.json")
        result = self.script(SUM, "/save " + path, options=["--context", "40", "--ignore-eos"])
        self.assertRegex(result.err, "warning: context: full at 40 tokens; /clear .*--context")
        with open(path, encoding="utf-8") as file:
            self.assertEqual(json.load(file)[1]["content"], result.out.rstrip("\n"))

    def test_answer_stops_at_its_limit(self):
        result = self.script(SUM, options=["--max-tokens", "3"])
        self.assertIn("(stopped after --max-tokens 3)", result.err)


class ToolCalls(Talk):
    def test_next_line_is_the_result_and_the_answer_goes_on(self):
        path = self.path("saved.json")
        result = self.script(WEATHER, "rain", "/save " + path, options=self.tools())
        self.assertTrue(result.out.startswith("tool call: " + CALL + "\n"), result.out)
        self.assertEqual(len(self.speeds(result)), 2)
        with open(path, encoding="utf-8") as file:
            user, call, tool, answer = json.load(file)
        self.assertEqual(user["content"], WEATHER)
        self.assertEqual(call["tool_calls"][0]["function"],
                         {"name": "get_weather", "arguments": '{"city": "Madrid"}'})
        self.assertEqual(tool, {"role": "tool", "content": "rain",
                                "tool_call_id": call["tool_calls"][0]["id"]})
        self.assertEqual(answer["role"], "assistant")

    def test_result_may_be_empty(self):
        result = self.script(WEATHER, "", options=self.tools())
        self.assertEqual(len(self.speeds(result)), 2)

    def test_input_that_ends_cancels_the_call(self):
        result = self.script(WEATHER, options=self.tools())
        self.assertEqual(len(self.speeds(result)), 1)
        self.assertIn("(tool calls cancelled)", result.err)


class Screen:
    """`quern chat` on a terminal of its own, by what is typed and what appears."""

    def __init__(self, test, *options, columns=80, env=None, has_history=False):
        self.test, self.seen, self.at = test, "", 0
        self.ours, self.theirs = pty.openpty()
        self.resize(columns)
        self.modes = termios.tcgetattr(self.theirs)

        def control():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        self.process = subprocess.Popen(
            [cli.QUERN, "chat", cli.NANO, "--temperature", "0",
             *([] if has_history else ["--no-history"]), *options],
            stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, cwd=cli.ROOT,
            preexec_fn=control, env=cli.environment(**{"TERM": "xterm", **(env or {})}))
        test.addCleanup(self.close)
        self.wait("> ")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def resize(self, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self, seconds):
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        self.seen += os.read(self.ours, 65536).decode("utf-8", "replace")
        return True

    def wait(self, text):
        """What came up to and with `text`, after what the last wait saw."""
        deadline = time.monotonic() + 20
        while text not in self.seen[self.at:]:
            if time.monotonic() > deadline:
                self.test.fail("waited for %r, saw %r" % (text, self.seen[self.at:]))
            self.read(0.1)
        begin = self.at
        self.at = self.seen.index(text, begin) + len(text)
        return self.seen[begin:self.at]

    def type(self, text):
        data = text.encode()
        while data:  # a terminal takes little at once
            if select.select([self.ours], [self.ours], [], 1)[1]:
                data = data[os.write(self.ours, data[:512]):]
            self.read(0)

    def ask(self, text):
        self.type(text + "\r")
        seen = self.wait("cached")
        self.wait("> ")
        return seen

    def messages(self):
        path = self.test.path("screen.json")
        self.type("/save %s\r" % path)
        self.wait("saved")
        self.wait("> ")
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def leave(self, keys="\x04", status=0):
        self.type(keys)
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.05)
        while self.read(0):
            pass
        self.test.assertEqual(self.process.poll(), status, self.seen)
        self.test.assertEqual(termios.tcgetattr(self.theirs), self.modes)


class Terminals(Talk):
    def test_answers_and_leaves_by_ctrl_d(self):
        screen = Screen(self)
        self.assertIn("/help helps", screen.seen)
        self.assertIn(ANSWER, screen.ask(SUM))
        self.assertIn(NEXT_ANSWER, screen.ask(NEXT))
        screen.leave()
        screen = Screen(self, "-q")
        self.assertNotIn("/help", screen.seen)
        screen.leave("/quit\r")

    def test_what_is_typed_during_an_answer_counts_after_it(self):
        screen = Screen(self)
        screen.type(SUM + "\r")
        screen.wait("The")
        screen.leave(NEXT + "\r\x04")
        self.assertIn(NEXT_ANSWER, screen.seen)

    def test_ctrl_c_stops_an_answer_and_keeps_what_came(self):
        screen = Screen(self, "--ignore-eos")
        screen.type(SUM + "\r")
        shown = screen.wait("Reasoning") + "g"  # it goes on long after its answer
        screen.type("\x03")
        screen.wait("(stopped)")
        screen.wait("> ")
        messages = screen.messages()
        self.assertEqual(len(messages), 2)
        self.assertTrue(messages[1]["content"].startswith(ANSWER), messages)
        self.assertIn(ANSWER, shown)
        screen.type(NEXT + "\r")
        screen.wait("40.")
        screen.type("\x03")
        screen.wait("> ")
        screen.leave()

    def test_ctrl_c_at_the_prompt_clears_the_line_and_then_says_how_to_leave(self):
        screen = Screen(self)
        screen.type("nonsense")
        screen.wait("nonsense")
        screen.type("\x03")
        screen.wait("^C")
        screen.wait("> ")
        screen.type("\x03")
        screen.wait("(Ctrl-D or /quit leaves)")
        screen.wait("> ")
        screen.ask(SUM)
        self.assertEqual(screen.messages()[0]["content"], SUM)
        screen.leave()

    def test_lines_are_edited_in_characters(self):
        screen = Screen(self)
        #         é and a wide one, gone; to the start, one forward, delete; to the end
        screen.type("XWhat is 12 + 30é日\x7f\x7f\033[H\033[3~\033[F?")
        screen.ask("")
        screen.ask("Grüße, 日本")
        self.assertEqual([m["content"] for m in screen.messages()[::2]], [SUM, "Grüße, 日本"])
        screen.leave()

    def test_paste_of_several_lines_is_one_message(self):
        screen = Screen(self)
        self.assertIn("\033[?2004h", screen.seen)
        for line_break in ("\r", "\n", "\r\n"):  # as terminals send them
            text = line_break.join(["What is", "12 + 30?", ""])
            screen.type(PASTE + text + PASTED)
            screen.ask("")
        self.assertEqual([m["content"] for m in screen.messages()[::2]], ["What is\n12 + 30?"] * 3)
        screen.leave()
        self.assertTrue(screen.seen.rstrip().endswith("\033[?2004l"), screen.seen[-80:])

    def test_a_link_is_followed_and_a_mode_kept(self):
        real, link = self.path("real.json"), self.path("link.json")
        self.script(SUM, "/save " + real)
        os.chmod(real, 0o640)
        os.symlink(real, link)
        self.script(NEXT, "/save " + link, options=["--load", link])
        self.assertTrue(os.path.islink(link))
        self.assertEqual(os.stat(real).st_mode & 0o777, 0o640)
        with open(real, encoding="utf-8") as file:
            self.assertEqual(len(json.load(file)), 4)

    def test_what_is_no_file_is_not_loaded(self):
        os.mkfifo(self.path("fifo"))
        for path in ("-", self.path("fifo"), self.folder):
            result = self.script(SUM, "/load " + path, NEXT, status=2)
            self.assertIn(path + ": no file, expected", result.err)

    def test_closed_standard_input_is_its_end(self):
        done = subprocess.run([cli.QUERN, "chat", cli.NANO, "-q"], cwd=cli.ROOT, capture_output=True, timeout=60,
                              check=False, preexec_fn=lambda: os.close(0))
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def test_paste_of_100_kb_is_one_message(self):
        screen = Screen(self, "--max-tokens", "1", "--context", "64")
        text = "\n".join("line %d, an é and some words" % i for i in range(3500))
        self.assertGreater(len(text), 100_000)
        screen.type(PASTE + text.replace("\n", "\r") + PASTED + "\r")
        tokens = int(re.search(r"has (\d+) tokens", screen.wait("room")).group(1))
        self.assertAlmostEqual(tokens, len(self.tokenize(text)["ids"]), delta=20)  # the format's own
        screen.wait("> ")
        screen.leave()

    def test_lines_are_continued_with_a_prompt_of_their_own(self):
        screen = Screen(self)
        for lines in (["What is \\", "12 + 30?"], ['"""', "What is ", "12 + 30?", '"""']):
            for line in lines[:-1]:
                screen.type(line + "\r")
                screen.wait("... ")
            screen.ask(lines[-1])
        self.assertEqual([m["content"] for m in screen.messages()[::2]],
                         ["What is \n12 + 30?"] * 2)
        screen.type('"""\r')
        screen.wait("... ")
        screen.type("\x03")
        screen.wait("> ")
        self.assertEqual(len(screen.messages()), 4)
        screen.leave()

    def test_history_is_kept_for_the_owner_and_for_the_next_time(self):
        path = self.path("history")
        screen = Screen(self, "--history", path)
        screen.leave()
        self.assertFalse(os.path.exists(path))  # --no-history has the last word
        screen = Screen(self, "--history", path, has_history=True)
        screen.ask(SUM)
        screen.leave()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        screen = Screen(self, "--history", path, has_history=True)
        screen.type("\033[A")
        screen.wait(SUM)
        screen.ask("")
        self.assertEqual(screen.messages()[0]["content"], SUM)
        screen.leave()

    def test_twenty_columns_are_enough(self):
        screen = Screen(self, columns=20)
        question = "What is 12 + 30, or what would it be if it were asked for at length?"
        screen.ask(question)
        screen.ask("/stats\r" + SUM)
        self.assertEqual([m["content"] for m in screen.messages()[::2]], [question, SUM])
        screen.leave()

    def test_new_width_is_heeded_while_a_line_is_typed(self):
        screen = Screen(self, columns=80)
        letters = "abcdefghijklmnopqrstuvwxyz"
        screen.type(letters)
        screen.wait(letters)
        screen.resize(20)
        drawn = screen.wait("uvwxyz")
        self.assertIn("\r\033[J> " + letters[:18], drawn)  # anew, the rest on the next row
        self.assertNotIn(letters, drawn)
        screen.type(letters.upper())
        self.assertNotIn(letters.upper(), screen.wait("Z"))
        screen.ask("")
        self.assertEqual(screen.messages()[0]["content"], letters + letters.upper())
        screen.leave()

    def test_colours_are_there_unless_they_are_not_wanted(self):
        for options, env, is_colored in (((), {}, True), ((), {"NO_COLOR": "1"}, False),
                                         (("--color", "never"), {}, False)):
            screen = Screen(self, *options, env=env)
            screen.ask(SUM)
            screen.leave()
            self.assertEqual(bool(re.search("\033\\[[12]m", screen.seen)), is_colored, options)

    def test_dumb_terminal_gets_no_escape_sequence(self):
        screen = Screen(self, env={"TERM": "dumb"})
        self.assertIn(ANSWER, screen.ask(SUM))
        screen.type("abc")
        screen.wait("abc")
        screen.type("\x03")
        screen.wait("> ")
        self.assertEqual(len(screen.messages()), 2)
        screen.leave()
        self.assertNotIn("\033", screen.seen)

    def test_sigterm_ends_cleanly(self):
        for is_answering in (False, True):
            screen = Screen(self, "--ignore-eos")
            if is_answering:
                screen.type(SUM + "\r")
                screen.wait(ANSWER)
            screen.process.send_signal(signal.SIGTERM)
            screen.leave("", status=130)
            self.assertIn("quern: error: chat: interrupted", screen.seen)

    def test_line_is_there_again_after_a_stop(self):
        screen = Screen(self)
        screen.type("What is 12 ")
        screen.wait("12 ")
        screen.type("\x1a")
        self.assertTrue(os.WIFSTOPPED(os.waitpid(screen.process.pid, os.WUNTRACED)[1]))
        self.assertEqual(termios.tcgetattr(screen.theirs), screen.modes)
        screen.process.send_signal(signal.SIGCONT)
        screen.wait("What is 12 ")
        screen.ask("+ 30?")
        self.assertEqual(screen.messages()[0]["content"], SUM)
        screen.leave()

    def test_result_of_a_call_is_asked_for(self):
        screen = Screen(self, *self.tools())
        screen.type(WEATHER + "\r")
        screen.wait("tool call: " + CALL)
        screen.wait(CALL + " = ")
        screen.ask("rain")
        self.assertEqual(screen.messages()[2]["content"], "rain")
        screen.leave()

    def test_ctrl_c_cancels_a_call_and_the_conversation_goes_on(self):
        screen = Screen(self, *self.tools())
        screen.type(WEATHER + "\r")
        screen.wait(CALL + " = ")
        screen.type("ra\x03")
        screen.wait("(tool calls cancelled)")
        screen.wait("> ")
        screen.ask(SUM)
        roles = [(m["role"], m["content"]) for m in screen.messages()]
        self.assertEqual(roles[2], ("tool", "cancelled by the user"))
        self.assertEqual([r[0] for r in roles], ["user", "assistant", "tool", "user", "assistant"])
        screen.leave()


if __name__ == "__main__":
    unittest.main()

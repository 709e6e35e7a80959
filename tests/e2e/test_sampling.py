#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every sampling setting against a plain definition: from the raw logits of a run to its tokens.

The definitions below share nothing with the program.  A test runs glm-nano with a setting and with
--logits, draws every token again, and first makes sure that the setting changes the answer.
"""
import array
import math
import struct
import unittest

from test_cli import N_VOCAB, NANO, QUESTION, STOP_IDS, Case, read_safetensors

STORY = ["--raw", "-p", "Once upon a time"]
# Sampling that leaves the model's distribution alone.
PLAIN = {"temperature": 1, "top_p": 1, "seed": 1}
N_TOKENS = 24
# The program adds up in f32: so close to an edge it may fall on the other side.
EDGE = 1e-6


# ---------------------------------------------------------------------------------- definitions

def random_unit(seed, position):
    """Uniform in [0, 1): SplitMix64's finaliser over seed, stream 1 (target tokens), position."""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    h = mix(seed + golden & mask)
    h = mix(h ^ 1 + golden)
    h = mix(h ^ position + golden)
    return (h >> 11) / 2.0 ** 53


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def adjusted_logits(row, settings, prompt, answer, stop_ids):
    """Logits after biases, stop tokens that come too early, and penalties."""
    x = list(row)
    for token, bias in settings.get("logit_bias", {}).items():
        x[token] += f32(bias)
    if len(answer) < settings.get("min_tokens", 0):
        for token in stop_ids:
            x[token] = -math.inf
    repetition = f32(settings.get("repetition_penalty", 1))
    for token in set(prompt) | set(answer):
        x[token] = x[token] / repetition if x[token] > 0 else x[token] * repetition
    for token in set(answer):
        x[token] -= f32(settings.get("frequency_penalty", 0)) * answer.count(token)
        x[token] -= f32(settings.get("presence_penalty", 0))
    return x


def kept_tokens(x, settings, edge):
    """[(token, probability)] that may be drawn, the likeliest first; not renormalised."""
    largest = max(x)
    weights = [math.exp((logit - largest) / f32(settings["temperature"])) for logit in x]
    order = sorted((i for i in range(len(x)) if weights[i] > 0), key=lambda i: (-weights[i], i))
    order = order[:settings.get("top_k", 0) or len(order)]
    mass = sum(weights[i] for i in order)
    kept, share = [], 0.0
    for i in order:
        probability = weights[i] / mass
        if kept and (settings["top_p"] < 1 and share >= f32(settings["top_p"]) - edge
                     or weights[i] < f32(settings.get("min_p", 0)) * (1 - edge)):
            break
        kept.append((i, probability))
        share += probability
    return kept


def may_be_drawn(token, x, settings, position):
    """Does the random number of the position fall into the token's interval?"""
    if settings["temperature"] == 0:
        return x[token] >= max(x) - 1e-5
    unit = random_unit(settings["seed"], position)
    for edge in (0.0, EDGE, -EDGE):
        kept = kept_tokens(x, settings, edge)
        share = sum(probability for _, probability in kept)
        low = 0.0
        for other, probability in kept:
            if other == token and low - EDGE * share <= unit * share <= low + probability + EDGE * share:
                return True
            low += probability
    return False


def log_softmax(row):
    largest = max(row)
    total = largest + math.log(math.fsum(math.exp(logit - largest) for logit in row))
    return [logit - total for logit in row]


# ---------------------------------------------------------------------------------------- tests

class Draws(Case):
    """What the tests share; it has none."""

    def run_with(self, settings, *arguments):
        """The JSON object of a run, and the raw logits behind every position."""
        flags = []
        for name, value in settings.items():
            option = "--" + name.replace("_", "-")
            if name == "logit_bias":
                flags += [option, ",".join("%d:%g" % entry for entry in value.items())]
            else:
                flags += [option, "%g" % value]
        a = self.answer(*arguments, *flags, "--logits", self.path("logits"))
        tensors = read_safetensors(self.path("logits"))
        self.assertEqual(list(array.array("q", tensors["ids"][2])), a["prompt_ids"] + a["ids"])
        logits = array.array("f", tensors["logits"][2])
        rows = [logits[at:at + N_VOCAB] for at in range(0, len(logits), N_VOCAB)]
        return a, rows

    def check_draws(self, a, rows, settings, stop_ids=()):
        """Each token is the one that the definition draws."""
        prompt, ids = a["prompt_ids"], a["ids"]
        self.assertGreater(len(ids), 0)
        for n, token in enumerate(ids):
            position = len(prompt) + n
            x = adjusted_logits(rows[position - 1], settings, prompt, ids[:n], stop_ids)
            self.assertTrue(may_be_drawn(token, x, settings, position),
                            (settings, "token %d is %d" % (n, token)))

    def check_setting(self, setting, prompt=STORY, base=PLAIN, seeds=(1, 2)):
        """Draws under a setting are those of its definition, and others than without it."""
        for seed in seeds:
            before = {**base, "seed": seed}
            after = {**before, **setting}
            arguments = [*prompt, "--max-tokens", str(N_TOKENS), "--ignore-eos"]
            a, rows = self.run_with(after, *arguments)
            self.assertNotEqual(a["ids"], self.run_with(before, *arguments)[0]["ids"], setting)
            self.check_draws(a, rows, after)


class Settings(Draws):
    def test_seed_and_position_pick_the_random_number(self):
        for seed in (0, 1, 77, 2 ** 53 - 1):
            settings = {**PLAIN, "seed": seed}
            arguments = [*STORY, "--max-tokens", str(N_TOKENS), "--ignore-eos"]
            flags = ["--temperature", "1", "--top-p", "1", "--seed", str(seed)]
            a, rows = self.run_with({}, *arguments, *flags)
            self.check_draws(a, rows, settings)

    def test_greedy_takes_the_largest(self):
        self.check_setting({"temperature": 0}, seeds=(1,))

    def test_temperature_divides_the_logits(self):
        self.check_setting({"temperature": 0.6})
        self.check_setting({"temperature": 1.5})

    def test_top_p_keeps_the_fewest_that_hold_it(self):
        self.check_setting({"top_p": 0.8})
        self.check_setting({"top_p": 0.3, "temperature": 1.3})

    def test_top_k_keeps_the_likeliest(self):
        self.check_setting({"top_k": 5})
        self.check_setting({"top_k": 50, "temperature": 1.5}, base={**PLAIN, "temperature": 1.5})

    def test_min_p_is_a_share_of_the_largest(self):
        self.check_setting({"min_p": 0.1})
        self.check_setting({"min_p": 0.02, "temperature": 1.5}, base={**PLAIN, "temperature": 1.5})

    def test_top_p_is_a_share_of_what_top_k_left(self):
        self.check_setting({"top_p": 0.7}, base={**PLAIN, "top_k": 10})
        self.check_setting({"min_p": 0.2}, base={**PLAIN, "top_k": 10, "top_p": 0.9})

    def test_repetition_penalty_counts_prompt_and_answer(self):
        self.check_setting({"repetition_penalty": 1.3})
        self.check_setting({"repetition_penalty": 0.7})
        self.check_setting({"repetition_penalty": 1.3}, base={**PLAIN, "temperature": 0}, seeds=(1,))

    def test_presence_penalty_counts_the_answer_once(self):
        self.check_setting({"presence_penalty": 1.5})
        self.check_setting({"presence_penalty": -1})

    def test_frequency_penalty_counts_every_occurrence(self):
        self.check_setting({"frequency_penalty": 1})
        self.check_setting({"frequency_penalty": -0.7})

    def test_logit_bias_is_added(self):
        a = self.answer(*STORY, "--max-tokens", "8")
        self.check_setting({"logit_bias": {a["ids"][0]: -100, 11: 3, 6143: 1.5}})
        biased = {"temperature": 0, "logit_bias": {a["ids"][0]: -100, a["ids"][1]: -100}}
        self.check_setting(biased, seeds=(1,))
        forced = self.run_with({**PLAIN, "logit_bias": {500: 100}}, *STORY, "--max-tokens", "3")[0]
        self.assertEqual(forced["ids"], [500] * 3)

    def test_all_settings_work_together(self):
        self.check_setting({"temperature": 0.9, "top_p": 0.9, "top_k": 40, "min_p": 0.01,
                            "repetition_penalty": 1.1, "presence_penalty": 0.5,
                            "frequency_penalty": 0.3, "logit_bias": {11: 2, 13: -2}},
                           seeds=range(1, 5))

    def test_settings_hold_however_many_tokens_are_drafted(self):
        settings = {**PLAIN, "top_p": 0.9, "repetition_penalty": 1.2, "frequency_penalty": 0.5}
        arguments = [*STORY, "--max-tokens", str(N_TOKENS), "--ignore-eos", "--draft-tokens"]
        expected = self.run_with(settings, *arguments, "0")[0]
        for n_drafts in ("1", "3", "8", "auto"):
            a, rows = self.run_with(settings, *arguments, n_drafts)
            self.assertEqual(a["ids"], expected["ids"])
            self.check_draws(a, rows, settings)


class Endings(Draws):
    def test_min_tokens_rules_stop_tokens_out_until_then(self):
        for settings in ({**PLAIN, "temperature": 0}, PLAIN, {**PLAIN, "seed": 2}):
            short = self.run_with(settings, "-p", QUESTION)[0]
            self.assertEqual(short["finish_reason"], "stop")
            after = {**settings, "min_tokens": len(short["ids"]) + 7}
            a, rows = self.run_with(after, "-p", QUESTION, "--max-tokens", "60")
            self.assertGreaterEqual(len(a["ids"]), after["min_tokens"])
            self.assertEqual(a["ids"][:len(short["ids"]) - 1], short["ids"][:-1])
            self.assertFalse(set(a["ids"][:after["min_tokens"]]) & set(STOP_IDS))
            self.check_draws(a, rows, after, STOP_IDS)

    def test_stop_id_ends_the_answer(self):
        arguments = [*STORY, "--max-tokens", str(N_TOKENS), "--ignore-eos"]
        full = self.run_with(PLAIN, *arguments)[0]["ids"]
        at = next(i for i in range(5, N_TOKENS) if full[i] not in full[:i])
        absent = next(i for i in range(N_VOCAB) if i not in full)
        a, rows = self.run_with(PLAIN, *arguments, "--stop-id", str(absent),
                                "--stop-id", str(full[at]))
        self.assertEqual((a["ids"], a["finish_reason"]), (full[:at + 1], "stop"))
        self.assertEqual(a["text"], self.run_with(PLAIN, *STORY, "--max-tokens", str(at),
                                                  "--ignore-eos")[0]["text"])
        self.check_draws(a, rows, PLAIN)
        after = {**PLAIN, "min_tokens": at + 3}
        a, rows = self.run_with(after, *arguments, "--stop-id", str(full[at]))
        self.assertNotIn(full[at], a["ids"][:at + 3])
        self.check_draws(a, rows, after, [full[at]])

    def test_ignored_stop_tokens_are_drawn_like_others(self):
        settings = {**PLAIN, "temperature": 0}
        stopped = self.run_with(settings, "-p", QUESTION)[0]["ids"]
        a, rows = self.run_with(settings, "-p", QUESTION, "--ignore-eos", "--max-tokens", "40")
        self.assertEqual(len(a["ids"]), 40)
        self.assertEqual(a["ids"][:len(stopped)], stopped)
        self.check_draws(a, rows, settings)

    def story(self, *arguments):
        return self.run_with(PLAIN, *STORY, "--max-tokens", str(N_TOKENS), "--ignore-eos",
                             *arguments)[0]

    def borders(self, full):
        """[(stop text, its place, tokens up to its end)]: two characters each side of a border."""
        lengths = [len(self.detokenize(full["ids"][:n])) for n in range(len(full["ids"]) + 1)]
        found = []
        for at in (length - 2 for length in lengths[2:-1]):
            text = full["text"][at:at + 4]
            if full["text"].find(text) == at and text.isascii():
                n_tokens = next(n for n, length in enumerate(lengths) if length >= at + 4)
                found.append((text, at, n_tokens))
        return found

    def test_stop_text_is_found_across_token_borders(self):
        full = self.story()
        self.assertEqual(full["finish_reason"], "length")
        borders = self.borders(full)
        self.assertGreater(len(borders), 5)
        for text, at, n_tokens in borders[::3]:
            a = self.story("--stop", text)
            self.assertEqual((a["text"], a["finish_reason"]), (full["text"][:at], "stop"))
            self.assertEqual(a["ids"], full["ids"][:n_tokens])
        first, last = borders[0], borders[-1]
        a = self.story("--stop", last[0], "--stop", "not in it", "--stop", first[0])
        self.assertEqual(a["text"], full["text"][:first[1]])

    def test_text_that_only_begins_a_stop_text_is_kept(self):
        full = self.story()
        for n in (1, 5):
            a = self.story("--stop", full["text"][-n:] + "\u00a7", "--stop", "\u00a7")
            self.assertEqual((a["text"], a["finish_reason"]), (full["text"], "length"))
            self.assertEqual(a["ids"], full["ids"])

    def test_stop_text_is_not_heeded_before_min_tokens(self):
        full = self.story()
        text, at, n_tokens = self.borders(full)[2]
        self.assertEqual(self.story("--stop", text)["text"], full["text"][:at])
        a = self.story("--stop", text, "--min-tokens", str(n_tokens + 4))
        self.assertGreaterEqual(len(a["ids"]), n_tokens + 4)
        self.assertTrue(a["text"].startswith(full["text"][:at + 4]))


class Logprobs(Draws):
    def check_entry(self, entry, token, row, n_top):
        """One token's object: raw log-softmax, and the likeliest by rank."""
        expected = log_softmax(row)
        self.assertEqual(list(entry), ["id", "token", "logprob", "top"])
        self.assertEqual(entry["id"], token)
        self.assertAlmostEqual(entry["logprob"], expected[token], delta=1e-4)
        self.assertEqual(len(entry["top"]), n_top)
        likeliest = sorted(expected, reverse=True)[:n_top]
        places = []
        for other, logprob in zip(entry["top"], likeliest):
            self.assertEqual(list(other), ["id", "token", "logprob"])
            self.assertAlmostEqual(other["logprob"], expected[other["id"]], delta=1e-4)
            self.assertAlmostEqual(other["logprob"], logprob, delta=1e-4)
            places.append((-other["logprob"], other["id"]))
        self.assertEqual(places, sorted(set(places)))
        for other in [entry, *entry["top"]]:
            self.assertEqual(other["token"], self.spelled(other["id"]))

    def spelled(self, token):
        """Text of one token, asked for once."""
        self.texts = getattr(self, "texts", {})
        if token not in self.texts:
            self.texts[token] = self.detokenize([token])
        return self.texts[token]

    def test_logprobs_are_the_models_whatever_the_settings(self):
        settings = {**PLAIN, "temperature": 0.5, "top_k": 20, "repetition_penalty": 1.5,
                    "logit_bias": {11: 5}}
        for n_top in (1, 5, 20):
            a, rows = self.run_with(settings, *STORY, "--max-tokens", "8", "--logprobs", str(n_top))
            self.assertEqual(len(a["logprobs"]), len(a["ids"]))
            for n, entry in enumerate(a["logprobs"]):
                self.check_entry(entry, a["ids"][n], rows[len(a["prompt_ids"]) + n - 1], n_top)
            self.check_draws(a, rows, settings)

    def test_prompt_logprobs_begin_with_null(self):
        for n_top in (1, 4):
            a, rows = self.run_with(PLAIN, "-p", QUESTION, "--max-tokens", "2",
                                    "--prompt-logprobs", str(n_top))
            self.assertEqual(len(a["prompt_logprobs"]), len(a["prompt_ids"]))
            self.assertIsNone(a["prompt_logprobs"][0])
            for n, entry in enumerate(a["prompt_logprobs"][1:], 1):
                self.check_entry(entry, a["prompt_ids"][n], rows[n - 1], n_top)

    def test_logprobs_do_not_change_the_answer(self):
        plain = self.run_with(PLAIN, *STORY, "--max-tokens", "12")[0]
        self.assertIsNone(plain["logprobs"])
        a = self.run_with(PLAIN, *STORY, "--max-tokens", "12", "--logprobs", "3",
                          "--prompt-logprobs", "3")[0]
        self.assertEqual((a["ids"], a["text"]), (plain["ids"], plain["text"]))


if __name__ == "__main__":
    unittest.main()

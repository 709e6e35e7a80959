#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of models/glm-nano: each gives one line that names the place, and status 3.

QUERN names the program; without it build/release/quern is taken.
"""
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NANO = os.path.join(ROOT, "models", "glm-nano")
QUERN = os.environ.get("QUERN", os.path.join(ROOT, "build", "release", "quern"))
SECONDS_MAX = 2.0

INDEX = "model.safetensors.index.json"
SHARDS = ["model-%05d-of-00003.safetensors" % i for i in (1, 2, 3)]
SHARD = SHARDS[2]
MTP = "model.layers.4."
NORM = "model.layers.3.post_attention_layernorm.weight"
EXPERT = "model.layers.3.mlp.experts.10.down_proj.weight"
DEEP = b"[" * 100000 + b"]" * 100000



def read(name):
    with open(os.path.join(NANO, name), "rb") as file:
        return file.read()


SHARD_OF = json.loads(read(INDEX))["weight_map"]


class Shard:
    """A safetensors file in parts: its header as a dict, its data as bytes."""

    def __init__(self, name=SHARD):
        raw = read(name)
        (length,) = struct.unpack("<Q", raw[:8])
        self.header = json.loads(raw[8:8 + length])
        self.data = raw[8 + length:]

    def to_bytes(self, text=None):
        text = json.dumps(self.header).encode() if text is None else text
        return struct.pack("<Q", len(text)) + text + self.data

    def remove(self, names):
        """Take tensors out and close the gaps."""
        parts = []
        at = 0
        kept = {k: v for k, v in self.header.items() if k not in names and k != "__metadata__"}
        for entry in sorted(kept.values(), key=lambda entry: entry["data_offsets"]):
            begin, end = entry["data_offsets"]
            parts.append(self.data[begin:end])
            entry["data_offsets"] = [at, at + end - begin]
            at += end - begin
        self.header = kept
        self.data = b"".join(parts)
        return self

    def add(self, name, dtype, shape, data):
        self.header[name] = {"dtype": dtype, "shape": shape,
                             "data_offsets": [len(self.data), len(self.data) + len(data)]}
        self.data += data
        return self

    def to_f32(self):
        """Every bf16 element as f32: the same value."""
        old, self.data = self.data, b""
        parts = []
        at = 0
        self.header.pop("__metadata__", None)
        for entry in self.header.values():
            begin, end = entry["data_offsets"]
            part = old[begin:end]
            if entry["dtype"] == "BF16":
                wide = bytearray(2 * len(part))
                wide[2::4] = part[0::2]
                wide[3::4] = part[1::2]
                part = bytes(wide)
                entry["dtype"] = "F32"
            parts.append(part)
            entry["data_offsets"] = [at, at + len(part)]
            at += len(part)
        self.data = b"".join(parts)
        return self


class Copy:
    """A folder like models/glm-nano: links to its files until something is written."""

    def __init__(self, folder):
        self.path = folder
        for name in os.listdir(NANO):
            os.symlink(os.path.join(NANO, name), os.path.join(folder, name))

    def remove(self, name):
        os.unlink(os.path.join(self.path, name))

    def write(self, name, content):
        if os.path.lexists(os.path.join(self.path, name)):
            self.remove(name)
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(content)

    def edit_json(self, name, edit):
        value = json.loads(read(name))
        edit(value)
        self.write(name, json.dumps(value).encode())

    def edit_index(self, edit):
        self.edit_json(INDEX, lambda index: edit(index["weight_map"]))

    def edit_tensor(self, name, **fields):
        shard = Shard(SHARD_OF[name])
        shard.header[name].update(fields)
        self.write(SHARD_OF[name], shard.to_bytes())

    def edit_config(self, **fields):
        self.edit_json("config.json", lambda config: config.update(fields))

    def drop_tensors(self, names):
        for name in SHARDS:
            shard = Shard(name)
            if any(tensor in shard.header for tensor in names):
                self.write(name, shard.remove(names).to_bytes())
        self.edit_index(lambda weight_map: [weight_map.pop(name) for name in names])


def mtp_tensors():
    return [name for name in SHARD_OF if name.startswith(MTP)]


def make_folder(copy, name):
    copy.remove(name)
    os.mkdir(os.path.join(copy.path, name))


# --------------------------------------------------------------- shards: bytes and header

def shard_truncated(c):
    c.write(SHARD, read(SHARD)[:-100])
    return [SHARD]


def shard_with_bytes_too_many(c):
    c.write(SHARD, read(SHARD) + b"\0" * 64)
    return [SHARD]


def shard_truncated_in_its_header(c):
    c.write(SHARD, read(SHARD)[:1000])
    return [SHARD]


def shard_of_four_bytes(c):
    c.write(SHARD, read(SHARD)[:4])
    return [SHARD]


def shard_empty(c):
    c.write(SHARD, b"")
    return [SHARD]


def shard_missing(c):
    c.remove(SHARD)
    return [SHARD, INDEX]


def shard_is_a_folder(c):
    make_folder(c, SHARD)
    return [SHARD]


def shard_is_a_dangling_link(c):
    c.remove(SHARD)
    os.symlink("/nonexistent/blob", os.path.join(c.path, SHARD))
    return [SHARD]


def header_length(value):
    def damage(c):
        c.write(SHARD, struct.pack("<Q", value) + read(SHARD)[8:])
        return [SHARD]
    return damage


def header_with_a_flipped_byte(c):
    raw = bytearray(read(SHARD))
    raw[8] ^= 0x20
    c.write(SHARD, bytes(raw))
    return [SHARD]


def header_with_a_flipped_dtype(c):
    c.write(SHARD, read(SHARD).replace(b'"BF16"', b'"BF17"', 1))
    return [SHARD, "BF17"]


def header_text(text):
    def damage(c):
        c.write(SHARD, Shard().to_bytes(text))
        return [SHARD]
    return damage


def header_with_nul(c):
    shard = Shard()
    text = json.dumps(shard.header).encode().replace(b"layers.3", b"layers\0003", 1)
    c.write(SHARD, shard.to_bytes(text))
    return [SHARD]


def header_with_escaped_nul(c):
    shard = Shard()
    text = json.dumps(shard.header).encode().replace(b"layers.3", b"layers\\u00003", 1)
    c.write(SHARD, shard.to_bytes(text))
    return [SHARD]


def header_not_utf8(c):
    shard = Shard()
    text = json.dumps(shard.header).encode().replace(b"layers.3", b"layers\xff3", 1)
    c.write(SHARD, shard.to_bytes(text))
    return [SHARD]


def header_with_a_tensor_twice(c):
    shard = Shard()
    text = json.dumps(shard.header).encode()
    entry = json.dumps({EXPERT: shard.header[EXPERT]})[1:-1].encode()
    c.write(SHARD, shard.to_bytes(text[:-1] + b", " + entry + b"}"))
    return [SHARD]


# --------------------------------------------------------------------- shards: one tensor

def tensor(name, **fields):
    def damage(c):
        c.edit_tensor(name, **fields)
        return [SHARD_OF[name], name]
    return damage


def offsets_overlap(c):
    begin, end = Shard().header[EXPERT]["data_offsets"]
    c.edit_tensor(EXPERT, data_offsets=[begin - 64, end - 64])
    return [SHARD]


def offsets_leave_a_hole(c):
    shard = Shard().add("hole", "U8", [64], b"\0" * 64)
    del shard.header["hole"]
    c.write(SHARD, shard.add("behind", "U8", [64], b"\0" * 64).to_bytes())
    return [SHARD]


def offsets_reversed(c):
    begin, end = Shard().header[EXPERT]["data_offsets"]
    c.edit_tensor(EXPERT, data_offsets=[end, begin])
    return [SHARD, EXPERT]


def tensor_without_dtype(c):
    shard = Shard()
    del shard.header[EXPERT]["dtype"]
    c.write(SHARD, shard.to_bytes())
    return [SHARD, EXPERT]


def tensor_renamed(c):
    other = EXPERT.replace("down_proj", "down")
    shard = Shard()
    shard.header[other] = shard.header.pop(EXPERT)
    c.write(SHARD, shard.to_bytes())
    c.edit_index(lambda weight_map: weight_map.update({other: weight_map.pop(EXPERT)}))
    return [EXPERT]


def tensor_renamed_in_the_shard_alone(c):
    shard = Shard()
    shard.header[EXPERT + "s"] = shard.header.pop(EXPERT)
    c.write(SHARD, shard.to_bytes())
    return [INDEX, EXPERT]


def tensor_missing(c):
    c.drop_tensors([NORM])
    return [NORM]


def expert_missing(c):
    c.drop_tensors([EXPERT])
    return [EXPERT]


def tensor_unknown(c):
    name = "model.layers.3.self_attn.bias"
    c.write(SHARD, Shard().add(name, "BF16", [4], b"\0" * 8).to_bytes())
    c.edit_index(lambda weight_map: weight_map.update({name: SHARD}))
    return [name]


def tensor_in_two_shards(c):
    shard = Shard(SHARDS[0])
    c.write(SHARDS[0], shard.add(EXPERT, "BF16", [256, 128], b"\0" * 65536).to_bytes())
    return [EXPERT, SHARDS[0], SHARD]


def mtp_with_one_tensor_missing(c):
    c.drop_tensors([MTP + "eh_proj.weight"])
    return [MTP + "eh_proj.weight"]


def mtp_with_one_tensor_left(c):
    c.drop_tensors([name for name in mtp_tensors() if not name.endswith("eh_proj.weight")])
    return [MTP]


# ------------------------------------------------------------------------------- the index

def index_text(text):
    def damage(c):
        c.write(INDEX, text)
        return [INDEX]
    return damage


def index_entry(shard):
    def damage(c):
        c.edit_index(lambda weight_map: weight_map.update({EXPERT: shard}))
        return [INDEX, EXPERT]
    return damage


def index_without_a_tensor(c):
    c.edit_index(lambda weight_map: weight_map.pop(EXPERT))
    return [INDEX, EXPERT]


def index_with_a_tensor_too_many(c):
    c.edit_index(lambda weight_map: weight_map.update({"model.extra.weight": SHARD}))
    return [INDEX, "model.extra.weight"]


# -------------------------------------------------------------------------------- JSON files

def json_text(name, text):
    def damage(c):
        c.write(name, text)
        return [name]
    return damage


def json_missing(name):
    def damage(c):
        c.remove(name)
        return [name]
    return damage


def json_is_a_folder(name):
    def damage(c):
        make_folder(c, name)
        return [name]
    return damage


def config(key, value):
    def damage(c):
        c.edit_config(**{key: value})
        return ["config.json", key]
    return damage


def config_vocab_beyond_the_tensors(c):
    c.edit_config(vocab_size=6208)
    return ["[6144", "6208"]


def config_more_layers_than_tensors(c):
    c.edit_config(num_hidden_layers=5, num_nextn_predict_layers=0,
                  mlp_layer_types=["dense"] + 4 * ["sparse"],
                  indexer_types=2 * ["full"] + 3 * ["shared"])
    return ["model.layers."]


def config_with_a_key_twice(c):
    c.write("config.json", read("config.json").replace(b"{", b'{"hidden_size": 256,', 1))
    return ["config.json"]


def generation(key, value):
    def damage(c):
        c.edit_json("generation_config.json", lambda config: config.update({key: value}))
        return ["generation_config.json", key]
    return damage


# --------------------------------------------------------------------------- the tokenizer

def tokenizer(edit, *expected):
    def damage(c):
        c.edit_json("tokenizer.json", edit)
        return ["tokenizer.json", *expected]
    return damage


def set_model(key, value):
    return lambda t: t["model"].update({key: value})


def set_regex(pattern):
    def edit(t):
        t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    return edit


def stop_id_without_a_token(c):
    c.edit_json("generation_config.json", lambda config: config.update(eos_token_id=[6143]))
    return ["tokenizer.json", "6143"]


DAMAGES = {
    "shard truncated": shard_truncated,
    "shard with bytes too many": shard_with_bytes_too_many,
    "shard truncated in its header": shard_truncated_in_its_header,
    "shard of four bytes": shard_of_four_bytes,
    "shard empty": shard_empty,
    "shard missing": shard_missing,
    "shard is a folder": shard_is_a_folder,
    "shard is a dangling link": shard_is_a_dangling_link,
    "header length 0": header_length(0),
    "header length 2": header_length(2),
    "header length beyond the file": header_length(1 << 30),
    "header length 2^63": header_length(1 << 63),
    "header length 2^64 - 1": header_length((1 << 64) - 1),
    "header with a flipped byte": header_with_a_flipped_byte,
    "header with a flipped dtype": header_with_a_flipped_dtype,
    "header is a list": header_text(b"[]"),
    "header without tensors": header_text(b"{}"),
    "header 100,000 levels deep": header_text(DEEP),
    "header with NUL": header_with_nul,
    "header with an escaped NUL": header_with_escaped_nul,
    "header not UTF-8": header_not_utf8,
    "header with a tensor twice": header_with_a_tensor_twice,
    "offsets overlap": offsets_overlap,
    "offsets leave a hole": offsets_leave_a_hole,
    "offsets reversed": offsets_reversed,
    "offsets beyond the file": tensor(EXPERT, data_offsets=[96, 1 << 40]),
    "offsets beyond 2^63": lambda c: tensor(EXPERT, data_offsets=[96, (1 << 64) - 1])(c)[:1],
    "offsets of 2^63 - 1": tensor(EXPERT, data_offsets=[96, (1 << 63) - 1]),
    "offsets negative": tensor(EXPERT, data_offsets=[-65536, 0]),
    "offsets of three": tensor(EXPERT, data_offsets=[96, 65632, 65632]),
    "shape negative": tensor(EXPERT, shape=[-256, 128]),
    "shape huge": tensor(EXPERT, shape=[1 << 40, 1 << 40]),
    "shape overflows to the right size": tensor(EXPERT, shape=[1 << 62, 4, 128]),
    "shape of floats": tensor(EXPERT, shape=[256.5, 128]),
    "shape of strings": tensor(EXPERT, shape=["256", "128"]),
    "shape of nine dimensions": tensor(EXPERT, shape=[1] * 8 + [256 * 128]),
    "shape transposed": tensor(EXPERT, shape=[128, 256]),
    "shape flat": tensor(EXPERT, shape=[256 * 128]),
    "dtype unknown": tensor(EXPERT, dtype="F3_E1M1"),
    "dtype not a string": tensor(EXPERT, dtype=16),
    "dtype of another size": tensor(EXPERT, dtype="F32"),
    "dtype wrong for a norm": tensor(NORM, dtype="F16"),
    "dtype wrong for a matrix": tensor(EXPERT, dtype="F16"),
    "tensor without dtype": tensor_without_dtype,
    "tensor renamed": tensor_renamed,
    "tensor renamed in the shard alone": tensor_renamed_in_the_shard_alone,
    "tensor missing": tensor_missing,
    "expert missing": expert_missing,
    "tensor unknown": tensor_unknown,
    "tensor in two shards": tensor_in_two_shards,
    "MTP layer with one tensor missing": mtp_with_one_tensor_missing,
    "MTP layer with one tensor left": mtp_with_one_tensor_left,
    "index empty": index_text(b""),
    "index without weight_map": index_text(b"{}"),
    "index with a list for weight_map": index_text(b'{"weight_map": []}'),
    "index 100,000 levels deep": index_text(DEEP),
    "index not UTF-8": index_text(b'{"weight_map": {"\xff\xfe": "a"}}'),
    "index names another shard": index_entry(SHARDS[1]),
    "index names a missing shard": lambda c: index_entry("gone.safetensors")(c)[:1],
    "index names a path with ..": index_entry("../" + SHARD),
    "index names an absolute path": index_entry("/etc/passwd"),
    "index names a number": index_entry(3),
    "index without a tensor": index_without_a_tensor,
    "index with a tensor too many": index_with_a_tensor_too_many,
    "config missing": json_missing("config.json"),
    "config empty": json_text("config.json", b""),
    "config is a folder": json_is_a_folder("config.json"),
    "config is a list": json_text("config.json", b"[]"),
    "config 100,000 levels deep": json_text("config.json", DEEP),
    "config with NUL": json_text("config.json", b'{"model_type": "glm\0"}'),
    "config not UTF-8": json_text("config.json", b'{"model_type": "\xc3\x28"}'),
    "config with bytes behind it": json_text("config.json", read("config.json") + b"}"),
    "config with NaN": json_text("config.json",
                                 read("config.json").replace(b"1e-05", b"NaN")),
    "config with a key twice": config_with_a_key_twice,
    "10^9 experts": config("n_routed_experts", 10 ** 9),
    "negative layers": config("num_hidden_layers", -1),
    "10^30 layers": lambda c: config("num_hidden_layers", 10 ** 30)(c)[:1],
    "no experts": config("n_routed_experts", 0),
    "more experts used than there are": config("num_experts_per_tok", 25),
    "hidden size a string": config("hidden_size", "256"),
    "hidden size a fraction": config("hidden_size", 256.5),
    "odd rope dimension": config("qk_rope_head_dim", 63),
    "qk_head_dim contradicts its parts": config("qk_head_dim", 200),
    "mlp_layer_types of another length": config("mlp_layer_types", ["dense"]),
    "indexer_types of another word": config("indexer_types", 4 * ["half"]),
    "first layer shares an index set": config("indexer_types", 4 * ["shared"]),
    "another architecture": config("architectures", ["LlamaForCausalLM"]),
    "stop id beyond the vocabulary": config("eos_token_id", [6144]),
    "vocabulary beyond the tensors": config_vocab_beyond_the_tensors,
    "more layers than tensors": config_more_layers_than_tensors,
    "generation_config with a word for a number": generation("temperature", "hot"),
    "generation_config with a stop id too large": generation("eos_token_id", 99999999),
    "generation_config cut": json_text("generation_config.json", b'{"temperature": '),
    "tokenizer missing": json_missing("tokenizer.json"),
    "tokenizer empty": json_text("tokenizer.json", b""),
    "tokenizer is a folder": json_is_a_folder("tokenizer.json"),
    "tokenizer cut": json_text("tokenizer.json", read("tokenizer.json")[:200000]),
    "tokenizer 100,000 levels deep": json_text("tokenizer.json", DEEP),
    "tokenizer not UTF-8": json_text("tokenizer.json", read("tokenizer.json")
                                     .replace(b'"th"', b'"\xff\xfe"', 1)),
    "tokenizer of another model": tokenizer(set_model("type", "WordPiece")),
    "merges of an unknown token": tokenizer(
        lambda t: t["model"]["merges"].insert(0, ["qqqq", "zzzz"])),
    "merges of numbers": tokenizer(lambda t: t["model"]["merges"].insert(0, [1, 2])),
    "merges of three parts": tokenizer(
        lambda t: t["model"]["merges"].insert(0, ["a", "b", "c"])),
    "merges in reverse": tokenizer(lambda t: t["model"]["merges"].reverse()),
    "merges of another file": tokenizer(lambda t: t["model"]["merges"].__delitem__(slice(999, None))),
    "merges are no list": tokenizer(set_model("merges", {})),
    "vocabulary is no object": tokenizer(set_model("vocab", [])),
    "vocabulary with an id twice": tokenizer(lambda t: t["model"]["vocab"].update({"qqqq": 7})),
    "vocabulary with a negative id": tokenizer(
        lambda t: t["model"]["vocab"].update({"qqqq": -1})),
    "vocabulary with a huge id": tokenizer(
        lambda t: t["model"]["vocab"].update({"qqqq": 2 ** 31 - 1})),
    "vocabulary larger than the model's": tokenizer(
        lambda t: t["added_tokens"].append(dict(t["added_tokens"][0], id=6200, content="<|q|>"))),
    "pattern that does not compile": tokenizer(set_regex("(unclosed")),
    "stop id without a token": stop_id_without_a_token,
}


def run(model, *options):
    """Status, output, errors and seconds of one answer."""
    begin = time.monotonic()
    done = subprocess.run([QUERN, "run", model, "-p", "hi", "--temperature", "0", *options],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.decode(), time.monotonic() - begin


class Damaged(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quern-damaged-")
        self.addCleanup(shutil.rmtree, self.folder)

    def check(self, damage):
        expected = damage(Copy(self.folder))
        status, output, errors, seconds = run(self.folder, "--max-tokens", "1")
        self.assertEqual(status, 3, errors)
        self.assertEqual(output, b"")
        self.assertTrue(errors.startswith("quern: error: "), errors)
        self.assertEqual(errors.count("\n"), 1, errors)
        for text in expected:
            self.assertIn(text, errors)
        self.assertLess(seconds, SECONDS_MAX, errors)


def add_test(name, damage):
    words = "".join(letter if letter.isalnum() else "_" for letter in name.lower())
    setattr(Damaged, "test_" + words, lambda self: self.check(damage))


for one_name, one_damage in DAMAGES.items():
    add_test(one_name, one_damage)


class Unharmed(unittest.TestCase):
    """Copies that differ from the original and are right all the same."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quern-unharmed-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.copy = Copy(self.folder)

    def answer(self, model):
        status, output, errors, _ = run(model, "--max-tokens", "8", "--json")
        self.assertEqual(status, 0, errors)
        return json.loads(output)["ids"], errors

    def test_there_are_at_least_forty_damages(self):
        self.assertGreaterEqual(len(DAMAGES), 40)

    def test_links_answer_as_the_original(self):
        self.assertEqual(self.answer(self.folder)[0], self.answer(NANO)[0])

    def test_without_the_mtp_layer_it_loads_and_says_so(self):
        self.copy.drop_tensors(mtp_tensors())
        ids, errors = self.answer(self.folder)
        self.assertEqual(ids, self.answer(NANO)[0])
        self.assertIn("loads without speculation", errors)
        status, _, errors, _ = run(self.folder, "--strict")
        self.assertEqual(status, 3)
        self.assertEqual(errors.count("\n"), 1, errors)

    def test_without_an_index_every_shard_is_found(self):
        self.copy.remove(INDEX)
        self.assertEqual(self.answer(self.folder)[0], self.answer(NANO)[0])

    def test_weights_in_f32_answer_the_same(self):
        for name in SHARDS:
            self.copy.write(name, Shard(name).to_f32().to_bytes())
        self.assertEqual(self.answer(self.folder)[0], self.answer(NANO)[0])


if __name__ == "__main__":
    unittest.main()

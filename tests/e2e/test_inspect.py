#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern inspect: each planted fault gives its code and no other, and an error exactly where
`quern run` refuses to load.  What it says of whole models, of headers alone, of an index alone.

QUERN names the program; without it build/release/quern is taken.
"""
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import test_damaged_models as damaged
from test_damaged_models import EXPERT, INDEX, MTP, NANO, NORM, QUERN, ROOT, SHARD, SHARD_OF, SHARDS
from test_damaged_models import Copy, Shard, read

SCALE = EXPERT + "_scale"
BYTES = {"F32": 4, "U32": 4, "BF16": 2, "U8": 1, "F8_E4M3": 1, "I32": 4, "F16": 2, "I8": 1, "F8_E8M0": 1}


# -------------------------------------------------------------------------------- checkpoints

def numel(shape):
    n = 1
    for length in shape:
        n *= length
    return n


def is_trunk_expert(name):
    return re.fullmatch(r"model\.layers\.[0-3]\.mlp\.(shared_)?experts\..*\.weight", name)


def is_matrix(name, shape):
    return len(shape) == 2 and name.endswith(".weight") and "norm" not in name and "embed" not in name


class Model(Copy):
    """A copy whose tensors can be rewritten one by one; data is zeros unless it is given."""

    def rewrite(self, edit):
        """edit(name, dtype, shape) gives [(name, dtype, shape[, data])], or None to keep it."""
        weight_map = {}
        for file in SHARDS:
            path = os.path.join(self.path, file)
            with open(path, "rb") as stream:
                raw = stream.read()
            (length,) = struct.unpack("<Q", raw[:8])
            header, parts, at = {}, [], 0
            for name, entry in json.loads(raw[8:8 + length]).items():
                if name == "__metadata__":
                    continue
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                kept = [(name, entry["dtype"], entry["shape"], raw[begin:end])]
                made = edit(name, entry["dtype"], entry["shape"])
                for new, dtype, shape, *data in kept if made is None else made:
                    part = data[0] if data else bytes(numel(shape) * BYTES[dtype])
                    header[new] = {"dtype": dtype, "shape": shape,
                                   "data_offsets": [at, at + len(part)]}
                    at += len(part)
                    parts.append(part)
                    weight_map[new] = file
            text = json.dumps(header).encode()
            self.write(file, struct.pack("<Q", len(text)) + text + b"".join(parts))
        self.write(INDEX, json.dumps({"weight_map": weight_map}).encode())

    def config(self):
        with open(os.path.join(self.path, "config.json"), encoding="utf-8") as file:
            return json.load(file)

    def set_config(self, **fields):
        self.write("config.json", json.dumps(self.config() | fields).encode())

    def set_quantization(self, edit):
        config = self.config()
        edit(config["quantization_config"])
        self.write("config.json", json.dumps(config).encode())

    def replace(self, old, *new):
        self.rewrite(lambda name, *_: list(new) if name == old else None)

    def poke(self, tensor, offset, data):
        """Bytes of a tensor in place."""
        for file in SHARDS:
            path = os.path.join(self.path, file)
            with open(path, "rb") as stream:
                raw = bytearray(stream.read())
            (length,) = struct.unpack("<Q", raw[:8])
            entry = json.loads(raw[8:8 + length]).get(tensor)
            if entry is not None:
                at = 8 + length + entry["data_offsets"][0] + offset
                raw[at:at + len(data)] = data
                self.write(file, bytes(raw))


def fp4_spec(dynamic):
    return {"dtype": "fp4", "is_dynamic": dynamic, "qscheme": "per_group", "ch_axis": -1,
            "group_size": 32, "scale_format": "e8m0", "scale_calculation_mode": "even"}


def plain_modules():
    """What AMD Quark lists: each matrix that the recipe leaves as it is."""
    shapes = {}
    for file in SHARDS:
        shapes |= {name: entry["shape"] for name, entry in Shard(file).header.items()
                   if name != "__metadata__"}
    return sorted(name[:-len(".weight")] for name, shape in shapes.items()
                  if is_matrix(name, shape) and not is_trunk_expert(name))


def draft_names(modules):
    """The names by which SGLang asks for the MTP layer, and the blocks of experts."""
    names = {"model.decoder.mlp.experts", MTP + "mlp.experts"}
    for module in modules:
        if module.startswith(MTP) and ".experts." not in module and not module.endswith(
                (".mlp.gate", ".weights_proj")):
            rest = module[len(MTP):]
            names.add(("model." if rest.startswith("eh_proj") else "model.decoder.") + rest)
    return sorted(names)


def quark_config(exclude, weight_only=False):
    return {"quant_method": "quark", "exclude": exclude, "layer_quant_config": {},
            "layer_type_quant_config": {}, "export": {"kv_cache_group": []},
            "global_quant_config": {"weight": fp4_spec(False), "output_tensors": None, "bias": None,
                                    "input_tensors": None if weight_only else fp4_spec(True)}}


def to_mxfp4(name, _, shape, scale=127):
    rows, columns = shape
    return [(name, "U8", [rows, columns // 2], b"\x21" * (rows * columns // 2)),
            (name + "_scale", "U8", [rows, columns // 32], bytes([scale]) * (rows * columns // 32))]


def to_fp8(name, _, shape, scale="_scale_inv"):
    tiles = [-(-length // 128) for length in shape]
    return [(name, "F8_E4M3", shape, b"\x38" * numel(shape)),
            (name + scale, "F32", tiles, struct.pack("<f", 1.0) * numel(tiles))]


def nano(m):
    pass


def mxfp4(m, aliases=True, **options):
    m.rewrite(lambda name, dtype, shape: to_mxfp4(name, dtype, shape)
              if is_trunk_expert(name) else None)
    modules = plain_modules()
    m.set_config(quantization_config=quark_config(
        modules + (draft_names(modules) if aliases else []), **options))


def amd(m):
    mxfp4(m, aliases=False)


def is_fp8(name, shape):
    return is_matrix(name, shape) and not re.search(r"lm_head|mlp\.gate\.|weights_proj|eh_proj", name)


def fp8(m):
    m.rewrite(lambda name, dtype, shape: to_fp8(name, dtype, shape) if is_fp8(name, shape) else None)
    m.set_config(quantization_config={
        "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128],
        "modules_to_not_convert": [module for module in plain_modules() if re.search(
            r"lm_head|mlp\.gate$|weights_proj|eh_proj", module)]})


FP8_LAYER = {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_block", "block_size": [128, 128]},
             "input_tensors": None, "output_tensors": None, "bias": None}


def kept_fp8(m, others=()):
    """MXFP4 experts, the rest of the trunk in FP8: a key of layer_quant_config for each module, as
    `quern quantize --fp8 keep` writes them, behind those of @p others."""
    mxfp4(m)
    kept = [name for name in plain_modules() if name.startswith("model.layers.")
            and not name.startswith(MTP) and is_fp8(name + ".weight", [1, 1])]
    weights = {name + ".weight" for name in kept}
    m.rewrite(lambda name, dtype, shape: to_fp8(name, dtype, shape) if name in weights else None)

    def edit(q):
        q["exclude"] = [name for name in q["exclude"] if name not in kept]
        q["layer_quant_config"] = dict.fromkeys([*others, *kept], FP8_LAYER)
    m.set_quantization(edit)


def experts_in_fp8(m, blocks):
    """Layer 3's experts in FP8, by keys of layer_quant_config."""
    mxfp4(m)
    kept = [name for name in SHARD_OF if name.startswith("model.layers.3.mlp.experts.")]
    m.rewrite(lambda name, dtype, shape: to_fp8(name, dtype, [shape[0], 2 * shape[1]])
              if name in kept else [] if name.replace("_scale", "") in kept else None)
    m.set_quantization(lambda q: q.update(layer_quant_config=dict.fromkeys(
        [name[:-len(".weight")] for name in kept] + blocks, FP8_LAYER)))


BASES = {}  # function -> folder, made once


def copy_of(base, folder):
    """A copy of a base in an empty folder; its files are links."""
    if base not in BASES:
        BASES[base] = tempfile.mkdtemp(prefix="quern-base-")
        base(Model(BASES[base]))
    model = Model(folder)
    for name in os.listdir(BASES[base]):
        path = os.path.join(BASES[base], name)
        if not os.path.islink(path):
            os.unlink(os.path.join(folder, name))
            os.symlink(path, os.path.join(folder, name))
    return model


def tearDownModule():
    for folder in BASES.values():
        shutil.rmtree(folder)


# -------------------------------------------------------------------------------- the faults

def config(**fields):
    return lambda m: m.set_config(**fields)


def quantization(edit):
    return lambda m: m.set_quantization(edit)


def exclude(edit):
    return quantization(lambda q: edit(q["exclude"]))


def replace(old, *new):
    return lambda m: m.replace(old, *new)


def each_expert(*make):
    """Each expert of the trunk as make(module, rows, columns)."""
    def plant(m):
        def edit(name, _, shape):
            return make[0](name[:-len(".weight")], *shape) if is_trunk_expert(name) else None
        m.rewrite(edit)
    return plant


def declare(method, **fields):
    return lambda m: m.set_config(quantization_config={"quant_method": method} | fields)


def both(*plants):
    def plant(m):
        for one in plants:
            one(m)
    return plant


def fused_experts(blocks):
    """Each layer's experts in two tensors, as transformers has them, or gpt-oss's four."""
    def edit(name, _, shape):
        found = re.fullmatch(r"(model\.layers\.[0-3]\.mlp\.experts\.)(\d+)\.(\w+)\.weight", name)
        if found is None:
            return None
        if found[2] != "0" or found[3] == "up_proj":
            return []
        part = found[1] + ("gate_up_proj" if found[3] == "gate_proj" else "down_proj")
        if not blocks:
            return [(part, "BF16", [24, 2, 8])]
        return [(part + "_blocks", "U8", [24, 2, 1, 16]), (part + "_scales", "U8", [24, 2, 1])]
    return lambda m: m.rewrite(edit)


def gguf(m):
    for name in [*SHARDS, INDEX]:
        m.remove(name)
    m.write("glm.gguf", b"GGUF")


def no_weights(m):
    for name in [*SHARDS, INDEX]:
        m.remove(name)


def no_shards(m):
    for name in SHARDS:
        m.remove(name)


def damage(name):
    return damaged.DAMAGES[name]


def without_mtp(m):
    m.rewrite(lambda name, *_: [] if name.startswith(MTP) else None)


def tokens(edit):
    return lambda m: m.edit_json("tokenizer.json", edit)


def rename_token(old, new):
    def edit(t):
        for token in t["added_tokens"]:
            if token["content"] == old:
                token["content"] = new
    return tokens(edit)


def stop_ids(ids):
    def plant(m):
        m.edit_json("generation_config.json", lambda g: g.update(eos_token_id=ids))
    return plant


def mtp_to_mxfp4(m):
    m.rewrite(lambda name, dtype, shape: to_mxfp4(name, dtype, shape)
              if name.startswith(MTP) and "experts." in name else None)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"0" + b"\nsize 9\n"
ATTENTION = "model.layers.1.self_attn.o_proj"
ENGINES = {"sglang-fails", "vllm-fails", "atom-fails"}
OLD = {"sglang-old-fails", "vllm-old-fails"}
IS_MTP = re.compile(re.escape(MTP))

# what is planted: the base, the plant, its codes; with "--verify" where that finds it
FAULTS = {
    "nothing, bf16": (nano, nano, set()),
    "nothing, MXFP4": (mxfp4, nano, set()),
    "nothing, FP8": (fp8, nano, set()),
    "nothing, MXFP4 and FP8": (kept_fp8, nano, set()),
    "hundreds of other modules in layer_quant_config": (
        lambda m: None, lambda m: kept_fp8(m, [f"vision.{i}.proj" for i in range(1000)]), set()),
    "hundreds of globs in layer_quant_config": (
        lambda m: None, lambda m: kept_fp8(m, [f"vision.{i}.*" for i in range(1000)]),
        {"exclude-broken"}),
    "no config": (nano, damage("config missing"), {"config-missing"}),
    "config cut": (nano, damage("config empty"), {"config-broken"}),
    "config contradicts itself": (nano, config(qk_head_dim=200), {"config-invalid"}),
    "rope is scaled": (nano, config(rope_scaling={"type": "yarn", "factor": 4}), {"config-invalid"}),
    "no theta": (nano, config(rope_parameters={"rope_type": "default"}), {"config-invalid"}),
    "pad id beyond the vocabulary": (nano, config(pad_token_id=99999), {"config-invalid"}),
    "stop id beyond the vocabulary": (nano, config(eos_token_id=[6144]), {"config-invalid"}),
    "another architecture": (nano, config(architectures=["LlamaForCausalLM"]),
                             {"architecture-unsupported"}),
    "another model type": (nano, config(model_type="deepseek_v3"), {"architecture-unsupported"}),
    "generation config": (nano, damage("generation_config cut"), {"generation-config-invalid"}),
    "no weights": (nano, no_weights, {"weights-missing"}),
    "GGUF": (nano, gguf, {"format-gguf"}),
    "NVFP4": (nano, each_expert(lambda n, r, c: [
        (n + ".weight", "U8", [r, c // 2]), (n + ".weight_scale", "F8_E4M3", [r, c // 16]),
        (n + ".weight_scale_2", "F32", []), (n + ".input_scale", "F32", [])]), {"format-nvfp4"}),
    "W4A16 of compressed-tensors": (nano, both(each_expert(lambda n, r, c: [
        (n + ".weight_packed", "I32", [r, c // 8]), (n + ".weight_scale", "BF16", [r, c // 32]),
        (n + ".weight_shape", "I32", [2])]), declare("compressed-tensors", format="pack-quantized")),
        {"format-compressed-tensors"}),
    "MXFP4 of compressed-tensors": (nano, each_expert(lambda n, r, c: [
        (n + ".weight_packed", "U8", [r, c // 2]), (n + ".weight_scale", "U8", [r, c // 32])]),
        {"format-compressed-tensors"}),
    "NVFP4 of compressed-tensors": (nano, each_expert(lambda n, r, c: [
        (n + ".weight_packed", "U8", [r, c // 2]), (n + ".weight_scale", "F8_E4M3", [r, c // 16]),
        (n + ".weight_global_scale", "F32", [1])]), {"format-compressed-tensors"}),
    "GPTQ": (nano, both(each_expert(lambda n, r, c: [
        (n + ".qweight", "I32", [c // 8, r]), (n + ".qzeros", "I32", [c // 32, r // 8]),
        (n + ".scales", "F16", [c // 32, r]), (n + ".g_idx", "I32", [c])]), declare("gptq")),
        {"format-gptq"}),
    "GPTQ without g_idx": (nano, each_expert(lambda n, r, c: [
        (n + ".qweight", "I32", [c // 8, r]), (n + ".qzeros", "I32", [c // 32, r // 8]),
        (n + ".scales", "F16", [c // 32, r])]), {"format-gptq"}),
    "AWQ": (nano, each_expert(lambda n, r, c: [
        (n + ".qweight", "I32", [c, r // 8]), (n + ".qzeros", "I32", [c // 32, r // 8]),
        (n + ".scales", "F16", [c // 32, r])]), {"format-awq"}),
    "AWQ by its index": (nano, both(each_expert(lambda n, r, c: [
        (n + ".qweight", "I32", [c, r // 8]), (n + ".qzeros", "I32", [c // 32, r // 8]),
        (n + ".scales", "F16", [c // 32, r])]), declare("awq"), no_shards), {"format-awq"}),
    "GPTQ by its index": (nano, both(each_expert(lambda n, r, c: [
        (n + ".qweight", "I32", [c // 8, r]), (n + ".qzeros", "I32", [c // 32, r // 8]),
        (n + ".scales", "F16", [c // 32, r])]), declare("gptq"), no_shards), {"format-gptq"}),
    "INT8 of compressed-tensors": (nano, both(each_expert(lambda n, r, c: [
        (n + ".weight", "I8", [r, c]), (n + ".weight_scale", "BF16", [r, 1])]),
        declare("compressed-tensors", format="int-quantized")), {"format-compressed-tensors"}),
    "bitsandbytes": (nano, each_expert(lambda n, r, c: [
        (n + ".weight", "U8", [r * c // 2, 1]), (n + ".weight.absmax", "F32", [r * c // 64]),
        (n + ".weight.quant_map", "F32", [16]),
        (n + ".weight.quant_state.bitsandbytes__nf4", "U8", [80])]), {"format-other"}),
    "bitsandbytes in 8 bits": (nano, each_expert(lambda n, r, c: [
        (n + ".weight", "I8", [r, c]), (n + ".SCB", "F32", [r])]), {"format-other"}),
    "DeepSeek-V4": (nano, each_expert(lambda n, r, c: [
        (n + ".weight", "I8", [r, c // 2]), (n + ".scale", "F8_E8M0", [r, c // 32])]),
        {"format-other"}),
    "MLX": (nano, each_expert(lambda n, r, c: [
        (n + ".weight", "U32", [r, c // 8]), (n + ".scales", "BF16", [r, c // 64]),
        (n + ".biases", "BF16", [r, c // 64])]), {"format-other", "tensor-dtype"}),
    "NVFP4 without its second scale": (nano, each_expert(lambda n, r, c: [
        (n + ".weight", "U8", [r, c // 2]), (n + ".weight_scale", "F8_E4M3", [r, c // 16])]),
        {"format-nvfp4"}),
    "MXFP6": (mxfp4, each_expert(lambda n, r, c: [(n + ".weight", "U8", [r, c * 3 // 2])]),
              {"format-mxfp6"}),
    "MXFP8": (mxfp4, each_expert(lambda n, r, c: [(n + ".weight", "F8_E4M3", [r, c * 2])]),
              {"format-mxfp8"}),
    "experts of transformers": (nano, fused_experts(False), {"experts-fused"}),
    "experts of gpt-oss": (nano, fused_experts(True), {"format-gpt-oss"}),
    "index cut": (nano, damage("index empty"), {"index-broken"}),
    "index names a path": (nano, damage("index names a path with .."), {"index-entry-invalid"}),
    "index names another kind of file": (nano, lambda m: m.edit_index(
        lambda weight_map: weight_map.update({EXPERT: "pytorch_model.bin"})), {"index-entry-invalid"}),
    "shard missing": (nano, damage("shard missing"), {"shard-missing"}),
    "shard is a folder": (nano, damage("shard is a folder"), {"shard-unreadable"}),
    "shard empty": (nano, damage("shard empty"), {"shard-unreadable"}),
    "shard truncated": (nano, damage("shard truncated"), {"shard-truncated"}),
    "one shard ends behind its header": (
        nano, lambda m: m.write(SHARD, Shard().to_bytes()[:-len(Shard().data)]), {"shard-truncated"}),
    "bytes behind the data": (nano, damage("shard with bytes too many"), {"shard-trailing-bytes"}),
    "header is a list": (nano, damage("header is a list"), {"header-broken"}),
    "header's metadata": (nano, lambda m: m.write(SHARD, Shard().to_bytes(
        json.dumps({"__metadata__": 3} | {k: v for k, v in Shard().header.items()
                                          if k != "__metadata__"}).encode())), {"header-broken"}),
    "entry with a field too many": (nano, lambda m: m.edit_tensor(NORM, more=1),
                                    {"header-entry-broken"}),
    "entry without dtype": (nano, damage("tensor without dtype"), {"header-entry-broken"}),
    "offsets overlap": (nano, damage("offsets overlap"), {"offsets-broken"}),
    "offsets beyond the file": (nano, damage("offsets beyond the file"), {"offsets-broken"}),
    "index has a tensor too many": (nano, damage("index with a tensor too many"),
                                    {"index-tensor-missing"}),
    "index lacks a tensor": (nano, damage("index without a tensor"), {"index-lacks-tensor"}),
    "index names another shard": (nano, damage("index names another shard"), {"index-wrong-shard"}),
    "tensor in two shards": (nano, damage("tensor in two shards"), {"tensor-duplicate"}),
    "tensor twice in a header": (nano, damage("header with a tensor twice"), {"tensor-duplicate"}),
    "tensor unknown": (nano, damage("tensor unknown"), {"tensor-unknown"}),
    "tensor missing": (nano, damage("tensor missing"), {"tensor-missing"}),
    "layer missing": (nano, config(num_hidden_layers=5, num_nextn_predict_layers=0,
                                   mlp_layer_types=["dense"] + 4 * ["sparse"],
                                   indexer_types=2 * ["full"] + 3 * ["shared"]), {"tensor-unknown"}),
    "shape transposed": (nano, damage("shape transposed"), {"tensor-misshapen"}),
    "norm in f16": (nano, damage("dtype wrong for a norm"), {"tensor-dtype"}),
    "two codes missing in each row": (mxfp4, replace(EXPERT, (EXPERT, "U8", [256, 63])),
                                      {"packing-ratio"}),
    "a byte for each code": (mxfp4, replace(EXPERT, (EXPERT, "U8", [256, 128])), {"packing-ratio"}),
    "MXFP4 without scale": (mxfp4, replace(SCALE), {"scale-missing"}),
    "FP8 without scale": (fp8, replace(EXPERT + "_scale_inv"), {"scale-missing"}),
    "MXFP4 scale misshapen": (mxfp4, replace(SCALE, (SCALE, "U8", [256, 8])), {"scale-misshapen"}),
    "FP8 scale misshapen": (fp8, replace(EXPERT + "_scale_inv",
                                         (EXPERT + "_scale_inv", "F32", [3, 1])),
                            {"scale-misshapen"}),
    "MXFP4 scale in f32": (mxfp4, replace(SCALE, (SCALE, "F32", [256, 4])), {"scale-dtype"}),
    "FP8 scale in bf16": (fp8, replace(EXPERT + "_scale_inv",
                                       (EXPERT + "_scale_inv", "BF16", [2, 1])), {"scale-dtype"}),
    "scale without weight": (mxfp4, replace(EXPERT), {"scale-without-weight"}),
    "scale beside bf16": (nano, replace(EXPERT, (EXPERT, "BF16", [256, 128]),
                                        (EXPERT + "_scale_inv", "F32", [2, 1])),
                          {"scale-without-weight"}),
    "MTP layer not declared": (nano, config(num_nextn_predict_layers=0), {"mtp-undeclared"}),
    "copies in an MTP layer that is not declared": (
        nano, both(config(num_nextn_predict_layers=0), lambda m: m.rewrite(
            lambda name, dtype, shape: None if not name.startswith(MTP) else
            [(MTP + "embed_tokens.weight", dtype, [6144, 256])] if "eh_proj" in name else [])),
        {"tensor-unknown"}),
    "copies in an MTP layer": (nano, lambda m: m.rewrite(
        lambda name, dtype, shape: None if name != MTP + "eh_proj.weight" else
        [(name, dtype, shape), (MTP + "embed_tokens.weight", dtype, [6144, 256]),
         (MTP + "shared_head.head.weight", dtype, [6144, 256])]), set()),
    "half of an MTP layer": (nano, damage("MTP layer with one tensor left"), {"mtp-incomplete"}),
    "most of an MTP layer": (nano, damage("MTP layer with one tensor missing"), {"mtp-incomplete"}),
    "no MTP layer": (nano, without_mtp, {"mtp-missing"}),
    "NaN in a norm --verify": (nano, lambda m: m.poke(NORM, 6, b"\xc0\x7f"), {"weight-not-finite"}),
    "Inf in an expert --verify": (nano, lambda m: m.poke(EXPERT, 9998, b"\x80\xff"),
                                  {"weight-not-finite"}),
    "NaN in FP8 --verify": (fp8, lambda m: m.poke(EXPERT, 77, b"\xff"), {"weight-not-finite"}),
    "NaN in an FP8 scale --verify": (fp8, lambda m: m.poke(EXPERT + "_scale_inv", 4,
                                                           b"\0\0\xc0\x7f"), {"weight-not-finite"}),
    "scale byte 255 --verify": (mxfp4, lambda m: m.poke(SCALE, 1000, b"\xff"), {"scale-nan"}),
    "scale byte 253 --verify": (mxfp4, lambda m: m.poke(SCALE, 5, b"\xfd"), {"scale-out-of-range"}),
    "negative FP8 scale --verify": (fp8, lambda m: m.poke(EXPERT + "_scale_inv", 0,
                                                          b"\0\0\x80\xbf"), {"scale-out-of-range"}),
    "huge FP8 scale --verify": (fp8, lambda m: m.poke(EXPERT + "_scale_inv", 4,
                                                      struct.pack("<f", 1e37)), {"scale-out-of-range"}),
    "the largest FP8 scale --verify": (fp8, lambda m: m.poke(
        EXPERT + "_scale_inv", 4, struct.pack("<f", 7.5e35)), set()),
    "f32 that is Inf in bf16 --verify": (nano, lambda m: m.poke(
        "model.layers.1.mlp.gate.e_score_correction_bias", 8, struct.pack("<f", 3.4e38)),
        {"weight-not-finite"}),
    "f32 as large as bf16 is --verify": (nano, lambda m: m.poke(
        "model.layers.1.mlp.gate.e_score_correction_bias", 8, struct.pack("<f", 3.38e38)), set()),
    "bf16 of zeros --verify": (nano, replace(EXPERT, (EXPERT, "BF16", [256, 128])), {"weights-zero"}),
    "codes of zeros --verify": (mxfp4, replace(EXPERT, (EXPERT, "U8", [256, 64])), {"weights-zero"}),
    "FP8 scales of zeros --verify": (fp8, lambda m: m.poke(EXPERT + "_scale_inv", 0, bytes(8)),
                                     {"weights-zero"}),
    "nothing --verify": (mxfp4, nano, set()),
    "Git LFS shard": (nano, lambda m: m.write(SHARD, LFS), {"file-not-fetched"}),
    "Git LFS config": (nano, lambda m: m.write("config.json", LFS), {"file-not-fetched"}),
    "Git LFS tokenizer": (nano, lambda m: m.write("tokenizer.json", LFS), {"file-not-fetched"}),
    "web page as index": (nano, lambda m: m.write(INDEX, b"\n<!DOCTYPE html><html>"),
                          {"file-not-fetched"}),
    "index is a list": (nano, lambda m: m.write(INDEX, b"[]"), {"index-broken"}),
    "index is empty": (nano, lambda m: m.write(INDEX, b'{"weight_map": {}}'), {"index-broken"}),
    "no tokenizer": (nano, damage("tokenizer missing"), {"tokenizer-missing"}),
    "tokenizer cut": (nano, damage("tokenizer cut"), {"tokenizer-broken"}),
    "tokenizer too large": (nano, damage("vocabulary larger than the model's"),
                            {"tokenizer-too-large"}),
    "stop id without a token": (nano, stop_ids([6112, 6119, 6121, 6143]), {"stop-id-without-token"}),
    "no <sop>": (nano, rename_token("<sop>", "<soup>"), {"special-token-missing"}),
    "a turn does not stop": (nano, stop_ids([6112, 6121]), {"stop-ids-unusual"}),
    "eps of another model": (nano, config(rms_norm_eps=1e-6), {"rms-eps"}),
    "theta of GLM-5 in 5.2": (nano, config(max_position_embeddings=1048576,
                                           rope_parameters={"rope_theta": 1e6}), {"rope-theta"}),
    "theta of 5.2 in GLM-5": (nano, config(max_position_embeddings=202752), {"rope-theta"}),
    "theta of another model": (nano, config(rope_parameters={"rope_theta": 1e4}), {"rope-theta"}),
    "theta of another model, no index shared": (
        nano, lambda m: (m.set_config(rope_parameters={"rope_theta": 1e4}, index_topk_freq=None,
                                      indexer_types=4 * ["full"]), m.rewrite(
            lambda name, dtype, shape: None if ".1.self_attn.indexer." not in name else
            [(name.replace(".1.", ".%d." % i), dtype, shape) for i in (1, 2, 3)])), {"rope-theta"}),
    "tokenizer of a smaller model": (nano, lambda m: (m.set_config(vocab_size=8000), m.rewrite(
        lambda name, dtype, shape: [(name, dtype, [8000, 256])] if shape == [6144, 256] else None)),
        {"tokenizer-too-small"}),
    "a file that the index does not name": (nano, lambda m: m.write("more.safetensors", b"x"),
                                            {"shard-unused"}),
    "quantization not declared": (mxfp4, config(quantization_config=None),
                                  {"quantization-undeclared"}),
    "FP8 declared, bf16 found": (nano, declare("fp8"), {"quantization-differs"}),
    "FP8 declared, MXFP4 found": (mxfp4, declare("fp8"), {"quantization-differs"}),
    "bitsandbytes declared": (nano, declare("bitsandbytes"), {"quantization-differs"}),
    "no regular expression": (mxfp4, exclude(lambda e: e.append("re:(x")), {"exclude-broken"}),
    "a number in the list": (mxfp4, exclude(lambda e: e.append(7)), {"exclude-broken"}),
    "a word for a list": (fp8, quantization(lambda q: q.update(modules_to_not_convert="lm_head")),
                          {"exclude-broken", "unquantized-not-excluded"}),
    "an entry for nothing": (mxfp4, exclude(lambda e: e.append("model.layers.9.mlp.up_proj")),
                             {"exclude-matches-nothing"}),
    "a glob for nothing": (mxfp4, exclude(lambda e: e.append("*vision*")),
                           {"exclude-matches-nothing"}),
    "indexers_proj, as the published FP8": (
        fp8, quantization(lambda q: q["modules_to_not_convert"].append(
            "model.layers.0.self_attn.indexers_proj")), {"exclude-matches-nothing"}),
    "head not excluded": (mxfp4, exclude(lambda e: e.remove("lm_head")),
                          {"unquantized-not-excluded"}),
    "eh_proj of FP8 not excluded": (
        fp8, quantization(lambda q: q["modules_to_not_convert"].remove(MTP + "eh_proj")),
        {"unquantized-not-excluded"}),
    "attention not excluded": (mxfp4, exclude(lambda e: e.remove(ATTENTION)),
                               {"unquantized-not-excluded"} | ENGINES),
    "an expert excluded": (mxfp4, exclude(lambda e: e.append(EXPERT[:-len(".weight")])),
                           {"quantized-but-excluded", "vllm-fails", "atom-fails"}),
    "a block of experts excluded": (mxfp4, exclude(lambda e: e.append("model.layers.3.mlp.experts")),
                                    {"quantized-but-excluded"} | ENGINES),
    "shared experts excluded": (
        mxfp4, exclude(lambda e: e.extend("model.layers.2.mlp.shared_experts." + part
                                          for part in ("gate_proj", "up_proj", "down_proj"))),
        {"quantized-but-excluded"} | ENGINES),
    "layer 78 by AMD's names": (amd, nano, OLD),
    "layer 78 with SGLang's names": (amd, exclude(lambda e: e.extend(
        name for name in draft_names(plain_modules()) if name.startswith("model.decoder.")
        or name == "model.eh_proj")), {"vllm-old-fails"}),
    "layer 78 with vLLM's name": (amd, exclude(lambda e: e.append(MTP + "mlp.experts")),
                                  {"sglang-old-fails"}),
    "layer 78 by a glob": (amd, exclude(lambda e: e.__setitem__(slice(None), [
        name for name in e if not IS_MTP.match(name)] + ["*layers.4.*"])),
        {"sglang-fails", "vllm-fails"}),
    "layer 78 by an expression": (amd, exclude(lambda e: e.__setitem__(slice(None), [
        name for name in e if not IS_MTP.match(name)] + [r"re:model\.layers\.4\..*"])),
        {"sglang-fails"}),
    "layer 78 by its block": (amd, exclude(lambda e: e.__setitem__(slice(None), [
        name for name in e if not IS_MTP.match(name + ".") or ".mlp.experts." not in name]
        + [MTP + "mlp.experts"])), {"sglang-old-fails"}),
    "layer 78 not excluded": (amd, exclude(lambda e: e.__setitem__(slice(None), [
        name for name in e if not IS_MTP.match(name)])), {"unquantized-not-excluded"} | ENGINES),
    "layer 78 quantized and excluded": (amd, mtp_to_mxfp4,
                                        {"quantized-but-excluded"} | ENGINES | {"sglang-old-fails"}),
    "weight-only": (lambda m: None, lambda m: mxfp4(m, weight_only=True), {"sglang-weight-only"}),
    "one expert of a layer in bf16": (mxfp4, lambda m: m.rewrite(
        lambda name, dtype, shape: [(name, "BF16", [256, 128])] if name == EXPERT else
        [] if name == SCALE else None), {"unquantized-not-excluded"} | ENGINES),
    "one expert of a layer in bf16, and excluded": (mxfp4, both(lambda m: m.rewrite(
        lambda name, dtype, shape: [(name, "BF16", [256, 128])] if name == EXPERT else
        [] if name == SCALE else None), exclude(lambda e: e.append(EXPERT[:-len(".weight")]))),
        ENGINES),
    "half of a fused projection in FP8": (kept_fp8, both(lambda m: m.rewrite(
        lambda name, dtype, shape: None if ".1.self_attn.q_a_proj" not in name else
        [(name, "BF16", shape)] if name.endswith(".weight") else []),
        exclude(lambda e: e.append("model.layers.1.self_attn.q_a_proj"))), ENGINES),
    "head in MXFP4": (mxfp4, both(lambda m: m.rewrite(
        lambda name, dtype, shape: to_mxfp4(name, dtype, shape) if name == "lm_head.weight" else None),
        exclude(lambda e: e.remove("lm_head"))), ENGINES),
    "router in MXFP4": (mxfp4, both(lambda m: m.rewrite(
        lambda name, dtype, shape: to_mxfp4(name, dtype, shape) if name.endswith(".1.mlp.gate.weight")
        else None), exclude(lambda e: e.remove("model.layers.1.mlp.gate"))), ENGINES),
    "weight is dynamic": (mxfp4, quantization(
        lambda q: q["global_quant_config"]["weight"].update(is_dynamic=True)), {"sglang-config-keys"}),
    "output is quantized": (mxfp4, quantization(
        lambda q: q["global_quant_config"].update(output_tensors=fp4_spec(True))),
        {"sglang-config-keys"}),
    "bias is quantized": (mxfp4, quantization(
        lambda q: q["global_quant_config"].update(bias=fp4_spec(True))), {"sglang-config-keys"}),
    "activations are static": (mxfp4, quantization(
        lambda q: q["global_quant_config"]["input_tensors"].update(is_dynamic=False)),
        {"sglang-weight-only"}),
    "int4 declared, MXFP4 found": (mxfp4, quantization(
        lambda q: q["global_quant_config"]["weight"].update(dtype="int4")), {"quantization-differs"}),
    "groups of 16 declared": (mxfp4, quantization(
        lambda q: q["global_quant_config"]["weight"].update(group_size=16)), {"quantization-differs"}),
    "float scales declared": (mxfp4, quantization(
        lambda q: q["global_quant_config"]["weight"].update(scale_format="float32")),
        {"quantization-differs"}),
    "experts in FP8, declared by their own names": (
        lambda m: None, lambda m: experts_in_fp8(m, []), {"sglang-fails"}),
    "experts in FP8, declared by their block too": (
        lambda m: None, lambda m: experts_in_fp8(m, ["model.layers.3.mlp.experts"]), set()),
    "no MTP layer in MXFP4": (mxfp4, without_mtp, {"mtp-missing"}),
    "a bias in the list": (mxfp4, exclude(
        lambda e: e.append("model.layers.1.mlp.gate.e_score_correction_bias")), set()),
    "routers and weights_proj of FP8 not in the list": (fp8, quantization(
        lambda q: q.update(modules_to_not_convert=[
            name for name in q["modules_to_not_convert"] if "eh_proj" in name])), set()),
    "no list": (mxfp4, quantization(lambda q: q.pop("exclude")),
                {"unquantized-not-excluded", "sglang-config-keys"} | ENGINES),
    "null for a list": (mxfp4, quantization(lambda q: q.update(exclude=None)),
                        {"unquantized-not-excluded", "sglang-config-keys"} | ENGINES),
    "an empty list": (mxfp4, quantization(lambda q: q.update(exclude=[])),
                      {"unquantized-not-excluded"} | ENGINES),
    "config without export": (mxfp4, quantization(lambda q: q.pop("export")), {"sglang-config-keys"}),
    "layer_quant_config is null": (mxfp4, quantization(lambda q: q.update(layer_quant_config=None)),
                                   {"sglang-config-keys"}),
    "Quark's other scale name": (mxfp4, replace(
        SCALE, (EXPERT[:-len("weight")] + "weight_quantizer.scale", "U8", [256, 4])),
        {"vllm-scale-name"}),
    "FP8 kept by Quark": (fp8, replace(EXPERT + "_scale_inv", (SCALE, "F32", [2, 1])),
                          {"fp8-scale-name"}),
}


def inspect(model, *options, check=None):
    done = subprocess.run([QUERN, "inspect", model, "--json", *options], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=120, check=False)
    report = json.loads(done.stdout) if done.stdout else None
    if check is not None:
        check.assertIn(done.returncode, (0, 3), done.stderr)
    return done.returncode, report, done.stderr.decode()


def codes_of(report, severity):
    return {p["code"] for p in report["problems"] if p["severity"] == severity}


def load_status(model):
    return subprocess.run([QUERN, "run", model, "--raw", "-p", "hi", "--max-tokens", "0"],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                          check=False).returncode


class Scratch(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quern-inspect-")
        self.addCleanup(shutil.rmtree, self.folder)


class Planted(Scratch):
    warnings = set()  # codes that were seen as such

    def check(self, name):
        base, plant, expected = FAULTS[name]
        plant(copy_of(base, self.folder))
        options = ["--verify"] if "--verify" in name else []
        status, report, errors = inspect(self.folder, *options, check=self)
        self.assertEqual(set(report["problem_counts"]), expected, report["problems"][:9])
        self.warnings.update(codes_of(report, "warning"))
        has_errors = codes_of(report, "error") != set()
        self.assertEqual(report["ok"], not has_errors)
        self.assertEqual(status, 3 if has_errors else 0)
        self.assertEqual(errors.count("\n"), 1 if has_errors else 0, errors)
        for problem in report["problems"]:
            self.assertRegex(problem["message"], "expected|should")
        if not options:
            is_loaded = codes_of(report, "error") <= ENGINES
            self.assertEqual(load_status(self.folder), 0 if is_loaded else 3)


for one in FAULTS:
    setattr(Planted, "test_" + re.sub(r"\W+", "_", one.lower()), lambda self, n=one: self.check(n))


class Partial(Scratch):
    """What is not there, or cannot be read, is one fault, of every format alike."""

    BASES = {"bf16": nano, "MXFP4": mxfp4, "FP8": fp8, "MXFP4 and FP8": kept_fp8}

    def check(self, plant, expected):
        for name, base in self.BASES.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                plant(copy_of(base, folder))
                report = inspect(folder, check=self)[1]
                self.assertEqual(report["problem_counts"], expected, report["problems"][:5])

    def test_an_index_alone(self):
        self.check(lambda m: [m.remove(file) for file in SHARDS], {})

    def test_headers_alone(self):
        def plant(m):
            for file in SHARDS:
                with open(os.path.join(m.path, file), "rb") as stream:
                    (length,) = struct.unpack("<Q", stream.read(8))
                    stream.seek(0)
                    head = stream.read(8 + length)
                m.write(file, head)
        self.check(plant, {})

    def test_one_shard_is_missing(self):
        for file in SHARDS:
            self.check(lambda m, f=file: m.remove(f), {"shard-missing": 1})

    def test_one_shard_cannot_be_read(self):
        for file in SHARDS:
            self.check(lambda m, f=file: m.write(f, b""), {"shard-unreadable": 1})
            self.check(lambda m, f=file: m.write(f, struct.pack("<Q", 2) + b"[]"),
                       {"header-broken": 1})

    def test_the_index_names_a_weight_that_its_shard_lacks(self):
        def plant(m):
            with open(os.path.join(m.path, INDEX), "rb") as stream:
                index = stream.read()
            m.replace(EXPERT)
            m.write(INDEX, index)
        self.check(plant, {"index-tensor-missing": 1})


class Consistent(Scratch):
    """Every way in which test_damaged_models.py damages a model so that it does not load."""

    def check(self, name):
        damaged.DAMAGES[name](Copy(self.folder))
        status, report, _ = inspect(self.folder, check=self)
        self.assertEqual(status, 3)
        self.assertNotEqual(codes_of(report, "error"), set())

    def test_what_does_not_load_has_an_error(self):
        for name in damaged.DAMAGES:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.folder = folder
                self.check(name)


class Agreement(unittest.TestCase):
    """Random damages: an error exactly where the model does not load."""

    N_DAMAGES = 80

    @staticmethod
    def flip(raw, rng, begin, end):
        """A few bytes become others that JSON is made of."""
        raw = bytearray(raw)
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(begin, end)] = rng.choice(b'0123456789",:{}[]abcBF16U8.-e')
        return bytes(raw)

    def damage_shard(self, raw, rng):
        (length,) = struct.unpack("<Q", raw[:8])
        how = rng.choice(("flip", "swap", "rename", "cut", "longer"))
        if how == "flip":
            return self.flip(raw, rng, 8, 8 + length)
        if how in ("cut", "longer"):
            return raw[:rng.randrange(len(raw))] if how == "cut" else raw + bytes(rng.randint(1, 99))
        header = json.loads(raw[8:8 + length])
        one, other = rng.sample([name for name in header if name != "__metadata__"], 2)
        if how == "rename":
            header[one.replace("layers.1", "layers.2") + rng.choice(("", "s"))] = header.pop(one)
        else:
            field = rng.choice(("dtype", "shape", "data_offsets"))
            header[one][field], header[other][field] = header[other][field], header[one][field]
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + raw[8 + length:]

    def test_inspect_and_run_agree(self):
        for seed in range(self.N_DAMAGES):
            rng = random.Random(seed)
            name = rng.choice([*SHARDS, *SHARDS, INDEX, "config.json", "tokenizer.json"])
            with self.subTest(seed=seed, file=name), tempfile.TemporaryDirectory() as folder:
                model = copy_of(rng.choice((nano, mxfp4, fp8)), folder)
                with open(os.path.join(folder, name), "rb") as file:
                    raw = file.read()
                model.write(name, self.damage_shard(raw, rng) if name in SHARDS
                            else self.flip(raw, rng, 0, len(raw)))
                status, report, _ = inspect(folder, check=self)
                self.assertEqual(status == 3, not report["ok"])
                is_loaded = codes_of(report, "error") <= ENGINES
                self.assertEqual(load_status(folder), 0 if is_loaded else 3, report["problems"][:5])


class TheCodes(unittest.TestCase):
    def test_every_code_is_documented_and_planted(self):
        with open(os.path.join(ROOT, "src", "inspect", "problems.c"), encoding="utf-8") as file:
            known = set(re.findall(r"\] = \{\"([a-z0-9-]+)\"", file.read()))
        with open(os.path.join(ROOT, "docs", "inspect.md"), encoding="utf-8") as file:
            tables = file.read().split("## Errors")[1].split("## The MTP layer")[0]
        documented = set(re.findall(r"^\| `([a-z0-9-]+)` \|", tables, re.M))
        planted = set().union(*(codes for _, _, codes in FAULTS.values()))
        self.assertEqual(known, documented)
        self.assertEqual(known, planted)

    def test_severities_are_as_documented(self):
        if not Planted.warnings:
            self.skipTest("the faults were not planted in this run")
        with open(os.path.join(ROOT, "docs", "inspect.md"), encoding="utf-8") as file:
            warnings = file.read().split("## Warnings")[1].split("## The MTP layer")[0]
        self.assertEqual(set(re.findall(r"^\| `([a-z0-9-]+)` \|", warnings, re.M)), Planted.warnings)


class Fix(Scratch):
    """config.fixed.json in the place of config.json leaves nothing to fix."""

    def fix(self, name):
        base, plant, _ = FAULTS[name]
        model = copy_of(base, self.folder)
        plant(model)
        before = inspect(self.folder)[1]
        _, report, _ = inspect(self.folder, "--fix", check=self)
        self.assertEqual(report["fix"]["path"], os.path.join(self.folder, "config.fixed.json"))
        with open(report["fix"]["path"], "rb") as file:
            fixed = file.read()
        model.write("config.json", fixed)
        return before, report["fix"], inspect(self.folder)[1]

    def test_the_mtp_layers_names_are_added(self):
        _, fix, after = self.fix("layer 78 by AMD's names")
        self.assertEqual(after["problem_counts"], {})
        self.assertEqual(fix["added"], draft_names(plain_modules()))
        self.assertEqual(fix["removed"], [])

    def test_what_can_be_fixed_is(self):
        for name in ("layer 78 by a glob", "layer 78 by an expression", "layer 78 by its block",
                     "layer 78 not excluded", "attention not excluded", "head not excluded",
                     "an expert excluded", "shared experts excluded", "a block of experts excluded",
                     "layer 78 quantized and excluded", "eh_proj of FP8 not excluded",
                     "no list", "null for a list", "an empty list", "layer 78 with vLLM's name", "layer 78 with SGLang's names"):
            with self.subTest(name), tempfile.TemporaryDirectory() as self.folder:
                self.assertEqual(self.fix(name)[2]["problem_counts"], {})

    def test_what_is_not_the_list_keeps_its_text(self):
        model = copy_of(amd, self.folder)
        text = json.dumps(model.config(), indent=4).replace("1e-05", "1.00E-5")
        model.write("config.json", text.encode())
        inspect(self.folder, "--fix", check=self)
        with open(os.path.join(self.folder, "config.fixed.json"), encoding="utf-8") as file:
            fixed = file.read()
        added = ",\n".join(f'            "{name}"' for name in draft_names(plain_modules()))
        last = max(plain_modules())
        self.assertEqual(fixed, text.replace(f'"{last}"\n', f'"{last}",\n{added}\n'))

    def test_no_other_file_is_written_over(self):
        model = copy_of(amd, self.folder)
        for _ in range(2):  # the second time the same bytes are there
            self.assertEqual(inspect(self.folder, "--fix")[0], 0)
        model.write("config.fixed.json", b"mine")
        status, report, errors = inspect(self.folder, "--fix")
        self.assertEqual((status, report), (1, None))
        self.assertIn("config.fixed.json: File exists, no file of this name", errors)
        with open(os.path.join(self.folder, "config.fixed.json"), "rb") as file:
            self.assertEqual(file.read(), b"mine")
        self.assertEqual(len([n for n in os.listdir(self.folder) if "fixed" in n]), 1)

    def test_hostile_names_stay_names(self):
        evil = 'model.x", "EVIL\\\n'
        model = copy_of(amd, self.folder)
        model.replace(NORM, (NORM, "BF16", [256]), (evil + ".weight", "BF16", [4, 4]))
        fix = inspect(self.folder, "--fix", check=self)[1]["fix"]
        with open(fix["path"], encoding="utf-8") as file:
            fixed = json.load(file)["quantization_config"]["exclude"]
        self.assertEqual(sorted(fixed), sorted(plain_modules() + fix["added"]))
        self.assertIn(evil, fixed)

    def test_the_file_has_the_rights_of_any_other(self):
        copy_of(amd, self.folder)
        for mask in (0o22, 0o77):
            subprocess.run([QUERN, "inspect", self.folder, "--fix"], capture_output=True,
                           check=False, preexec_fn=lambda m=mask: os.umask(m))
            path = os.path.join(self.folder, "config.fixed.json")
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o666 & ~mask)
            os.unlink(path)
        self.assertEqual([n for n in os.listdir(self.folder) if "fixed" in n], [])

    def test_a_person_is_told_what_was_changed(self):
        copy_of(amd, self.folder)
        text = subprocess.run([QUERN, "inspect", self.folder, "--fix"], capture_output=True,
                              check=False).stdout.decode()
        n_added = len(draft_names(plain_modules()))
        self.assertIn("\n  Names added   model.decoder.mlp.experts,\n", text)
        self.assertIn(f"and {n_added - 4} more\n", text)
        self.assertIn("config.fixed.json\n", text)
        again = copy_of(mxfp4, tempfile.mkdtemp(dir=self.folder))
        text = subprocess.run([QUERN, "inspect", again.path, "--fix"], capture_output=True,
                              check=False).stdout
        self.assertIn(b"\nFix\n  nothing to change in config.json\n", text)

    def test_where_nothing_is_wrong_nothing_is_written(self):
        copy_of(mxfp4, self.folder)
        self.assertEqual(inspect(self.folder, "--fix")[1]["fix"],
                         {"path": None, "added": [], "removed": []})
        self.assertNotIn("config.fixed.json", os.listdir(self.folder))


# ------------------------------------------------------------------------------- whole models

def shapes_of(c, has_mtp=True):
    """Names and shapes of the tensors of a configuration."""
    embd, heads, q_rank = c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"]
    kv_rank, rope, v_dim = c["kv_lora_rank"], c["qk_rope_head_dim"], c["v_head_dim"]
    nope, index_dim, n_layers = c["qk_nope_head_dim"], c["index_head_dim"], c["num_hidden_layers"]

    def mlp(prefix, width):
        return [(prefix + "gate_proj.weight", [width, embd]),
                (prefix + "up_proj.weight", [width, embd]),
                (prefix + "down_proj.weight", [embd, width])]

    yield "model.embed_tokens.weight", [c["vocab_size"], embd]
    yield "model.norm.weight", [embd]
    yield "lm_head.weight", [c["vocab_size"], embd]
    for i in range(n_layers + has_mtp):
        layer = f"model.layers.{i}."
        attn = layer + "self_attn."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield layer + norm + ".weight", [embd]
        yield attn + "q_a_proj.weight", [q_rank, embd]
        yield attn + "q_a_layernorm.weight", [q_rank]
        yield attn + "q_b_proj.weight", [heads * (nope + rope), q_rank]
        yield attn + "kv_a_proj_with_mqa.weight", [kv_rank + rope, embd]
        yield attn + "kv_a_layernorm.weight", [kv_rank]
        yield attn + "kv_b_proj.weight", [heads * (nope + v_dim), kv_rank]
        yield attn + "o_proj.weight", [embd, heads * v_dim]
        if i == n_layers or c["indexer_types"][i] == "full":
            yield attn + "indexer.wq_b.weight", [c["index_n_heads"] * index_dim, q_rank]
            yield attn + "indexer.wk.weight", [index_dim, embd]
            yield attn + "indexer.k_norm.weight", [index_dim]
            yield attn + "indexer.k_norm.bias", [index_dim]
            yield attn + "indexer.weights_proj.weight", [c["index_n_heads"], embd]
        if i < c["first_k_dense_replace"]:
            yield from mlp(layer + "mlp.", c["intermediate_size"])
        else:
            yield layer + "mlp.gate.weight", [c["n_routed_experts"], embd]
            yield layer + "mlp.gate.e_score_correction_bias", [c["n_routed_experts"]]
            for e in range(c["n_routed_experts"]):
                yield from mlp(layer + f"mlp.experts.{e}.", c["moe_intermediate_size"])
            yield from mlp(layer + "mlp.shared_experts.", c["moe_intermediate_size"])
    layer = f"model.layers.{n_layers}."
    if has_mtp:
        for norm in ("enorm", "hnorm", "shared_head.norm"):
            yield layer + norm + ".weight", [embd]
        yield layer + "eh_proj.weight", [embd, 2 * embd]


def write_sparse(folder, c, tensors, n_shards):
    """Shards whose data are holes: a header each, and the length of it all."""
    weight_map = {}
    tensors = list(tensors)
    a_shard = -(-len(tensors) // n_shards)
    for i in range(n_shards):
        header, at = {"__metadata__": {"format": "pt"}}, 0
        file_name = "model-%05d-of-%05d.safetensors" % (i + 1, n_shards)
        for name, dtype, shape in tensors[i * a_shard:(i + 1) * a_shard]:
            end = at + numel(shape) * BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
            weight_map[name] = file_name
            at = end
        text = json.dumps(header).encode()
        with open(os.path.join(folder, file_name), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + at)
    with open(os.path.join(folder, INDEX), "w", encoding="utf-8") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(c, file)


def glm52():
    with open(os.path.join(ROOT, "configs", "glm-5.2", "config.json"), encoding="utf-8") as file:
        return json.load(file)


def bf16_tensors(c, **options):
    return [(name, "F32" if name.endswith("correction_bias") else "BF16", shape)
            for name, shape in shapes_of(c, **options)]


class Whole(Scratch):
    """GLM-5.2 in its full size, without its data."""

    def write(self, tensors, c=None, n_shards=282):
        try:
            write_sparse(self.folder, c or glm52(), tensors, n_shards)
        except OSError as error:
            self.skipTest(f"no sparse files of this size here: {error}")

    def inspect(self, model=None):
        done = subprocess.run([QUERN, "inspect", model or self.folder, "--json"],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        begin = time.monotonic()
        subprocess.run([QUERN, "inspect", model or self.folder, "--json"],
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
        return json.loads(done.stdout), time.monotonic() - begin

    def check_parameters(self, report):
        self.assertEqual(report["parameters"], 753_329_921_024)
        self.assertEqual(report["router_bias_parameters"], 19_456)
        self.assertEqual(report["active_parameters"], 40_297_758_720)

    def test_bf16(self):
        self.write(bf16_tensors(glm52()))
        report, seconds = self.inspect()
        self.check_parameters(report)
        self.assertEqual(report["tensor_count"], 59_585)
        self.assertEqual(report["bytes"], 1_506_659_919_872)
        self.assertEqual(set(report["problem_counts"]), {"tokenizer-missing"})
        self.assertEqual(report["indexer_pattern"], "FFF" + 18 * "SSSF" + "SSS")
        self.assertEqual(report["shards"]["found"], 282)
        print(f"1.5 TB, 59,585 tensors, 282 shards: {seconds:.2f} s warm")
        self.assertLess(seconds, 10)  # 2 s on a machine that nobody else uses

    def test_fp8(self):
        tensors = []
        for name, dtype, shape in bf16_tensors(glm52()):
            if len(shape) == 2 and not re.search(
                    r"embed|lm_head|mlp\.gate\.|weights_proj|eh_proj", name):
                tensors.append((name, "F8_E4M3", shape))
                tensors.append((name + "_scale_inv", "F32", [-(-n // 128) for n in shape]))
            else:
                tensors.append((name, dtype, shape))
        self.assertEqual(len(tensors), 118_629)
        config_fp8 = glm52() | {"quantization_config": {
            "quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": [
                name[:-len(".weight")] for name, _, shape in tensors if len(shape) == 2
                and re.search(r"lm_head|mlp\.gate\.|weights_proj|eh_proj", name)]}}
        self.write(tensors, config_fp8, 141)
        report, seconds = self.inspect()
        self.check_parameters(report)
        self.assertEqual(report["bytes"], 755_617_140_416)
        self.assertEqual(report["quantization"]["found"], "fp8")
        self.assertEqual(set(report["problem_counts"]), {"tokenizer-missing"})
        print(f"118,629 tensors, 141 shards: {seconds:.2f} s warm")
        self.assertLess(seconds, 10)

    def test_mxfp4_by_amds_recipe(self):
        tensors, excluded = [], []
        for name, dtype, shape in bf16_tensors(glm52()):
            if "experts." in name and not name.startswith("model.layers.78."):
                tensors.append((name, "U8", [shape[0], shape[1] // 2]))
                tensors.append((name + "_scale", "U8", [shape[0], shape[1] // 32]))
                continue
            tensors.append((name, dtype, shape))
            if is_matrix(name, shape):
                excluded.append(name[:-len(".weight")])
        self.assertEqual(len(excluded), 1_319)
        self.write(tensors, glm52() | {"quantization_config": quark_config(sorted(excluded))})
        report, seconds = self.inspect()
        self.check_parameters(report)
        self.assertEqual(report["bytes"], 437_987_305_472)
        self.assertEqual(report["quantization"]["found"], "mxfp4")
        self.assertEqual(set(report["problem_counts"]), OLD | {"tokenizer-missing"})
        told = {p["code"]: p["message"] for p in report["problems"]}
        self.assertIn("779 BF16 modules", told["sglang-old-fails"])
        self.assertIn("model.decoder.mlp.experts", told["sglang-old-fails"])
        self.assertIn("768 BF16 modules", told["vllm-old-fails"])
        self.assertIn("model.layers.78.mlp.experts", told["vllm-old-fails"])
        self.assertLess(seconds, 10)

    def test_thousands_of_equal_problems_are_counted(self):
        self.write(bf16_tensors(glm52())[:1000])
        report, _ = self.inspect()
        self.assertEqual(report["problem_counts"]["tensor-missing"], 58_794 - 1000)
        self.assertEqual(sum(p["code"] == "tensor-missing" for p in report["problems"]), 16)
        text = subprocess.run([QUERN, "inspect", self.folder], capture_output=True, check=False).stdout
        self.assertIn(b"and 57,791 more", text)
        self.assertLess(len(text), 10_000)

    def test_index_alone(self):
        self.write(bf16_tensors(glm52()), n_shards=8)
        for name in os.listdir(self.folder):
            if name.endswith(".safetensors"):
                os.unlink(os.path.join(self.folder, name))
        for model in (self.folder, os.path.join(self.folder, INDEX)):
            report, _ = self.inspect(model)
            self.assertEqual(report["contents"], "index")
            self.assertEqual(report["problem_counts"], {})
            self.assertIsNone(report["bytes"])
            self.assertIsNone(report["quantization"]["found"])
            self.check_parameters(report)

    def test_index_alone_tells_what_is_missing(self):
        self.write([t for t in bf16_tensors(glm52()) if not t[0].startswith("model.layers.5.")],
                   n_shards=8)
        for name in os.listdir(self.folder):
            if name.endswith(".safetensors"):
                os.unlink(os.path.join(self.folder, name))
        self.assertEqual(self.inspect()[0]["problem_counts"], {"tensor-missing": 782})

    def test_headers_alone(self):
        self.write(bf16_tensors(glm52()), n_shards=8)
        for name in os.listdir(self.folder):
            if name.endswith(".safetensors"):
                path = os.path.join(self.folder, name)
                with open(path, "rb") as file:
                    (length,) = struct.unpack("<Q", file.read(8))
                os.truncate(path, 8 + length)
        report, _ = self.inspect()
        self.assertEqual(report["contents"], "headers")
        self.assertEqual(report["problem_counts"], {})
        self.assertEqual(report["bytes"], 1_506_659_919_872)
        self.check_parameters(report)


class Parts(Scratch):
    def test_one_file(self):
        status, report, _ = inspect(os.path.join(NANO, SHARD))
        self.assertEqual((status, report["contents"]), (0, "file"))
        self.assertEqual(report["tensor_count"], len([n for n in SHARD_OF.values() if n == SHARD]))
        self.assertEqual(report["problem_counts"], {})
        text = subprocess.run([QUERN, "inspect", os.path.join(NANO, SHARDS[0])],
                              capture_output=True, check=False).stdout
        self.assertNotIn(b"not in the checkpoint", text)  # the MTP layer is in another
        self.assertRegex(text, b"Parameters .* in this file; of the whole model .* active a token")

    def test_one_file_without_a_config(self):
        shutil.copy(os.path.join(NANO, SHARD), self.folder)
        status, report, _ = inspect(os.path.join(self.folder, SHARD))
        self.assertEqual(status, 0)
        for key in ("architecture", "parameters", "active_parameters", "config", "tokenizer"):
            self.assertIsNone(report[key])
        self.assertGreater(report["bytes"], 0)
        self.assertEqual([layer["layer"] for layer in report["layers"]][-1], 4)

    def test_a_broken_config_leaves_the_rest(self):
        Model(self.folder).write("config.json", b"{")
        report = inspect(self.folder)[1]
        self.assertEqual(set(report["problem_counts"]), {"config-broken"})
        self.assertEqual(report["bytes"], inspect(NANO)[1]["bytes"])
        self.assertEqual(len(report["layers"]), 5)
        self.assertEqual(report["quantization"], {
            "declared": None, "declared_weights": None, "excluded": None, "found": "none",
            "declared_by_kind": None, "found_by_kind": report["quantization"]["found_by_kind"]})

    def test_what_is_declared_beside_what_is_found(self):
        copy_of(mxfp4, self.folder).set_quantization(
            lambda q: q["exclude"].extend(f"model.layers.{i}.mlp.shared_experts" for i in (1, 2)))
        found = inspect(self.folder)[1]["quantization"]
        experts = {"routed_expert": "mxfp4", "shared_expert": "mxfp4"}
        kinds = ("attention", "dense_mlp", "embedding", "head", "indexer", "router")
        self.assertEqual(found["found_by_kind"], dict.fromkeys(kinds, "bf16") | experts)
        self.assertEqual(found["declared_by_kind"], {kind: "bf16" for kind in kinds
                                                     if kind != "embedding"}
                         | experts | {"shared_expert": "mixed"})

    def test_tensors_are_listed(self):
        report = inspect(NANO, "--tensors")[1]
        self.assertEqual([t["name"] for t in report["tensors"]], sorted(SHARD_OF))
        self.assertIn({"name": EXPERT, "kind": "routed_expert", "dtype": "BF16",
                       "shape": [256, 128], "bytes": 65536, "shard": SHARD}, report["tensors"])
        text = subprocess.run([QUERN, "inspect", NANO, "--tensors"], capture_output=True,
                              check=False).stdout.decode()
        self.assertIn(f"  {EXPERT}  routed_expert  BF16  [256, 128]  65536  {SHARD}\n", text)

    def test_verify_reads_every_byte_and_names_the_index(self):
        model = copy_of(mxfp4, self.folder)
        self.assertEqual(inspect(self.folder, "--verify")[1]["verified_bytes"],
                         inspect(self.folder)[1]["bytes"])
        model.poke(SCALE, 77, b"\xff\xff")
        problem = inspect(self.folder, "--verify", "--threads", "3")[1]["problems"][0]
        self.assertEqual((problem["tensor"], problem["file"]), (SCALE, SHARD))
        self.assertTrue(problem["message"].startswith("2 of scale byte 255"), problem)
        self.assertIn("the first at index 77", problem["message"])

    def test_where_there_are_no_weights_none_is_verified(self):
        copy = copy_of(mxfp4, self.folder)
        for file in SHARDS:
            copy.remove(file)
        for options, words in ((["--verify"], b"; no weights here to verify\n"),
                               ([], b"; the index read, no weights are here\n")):
            text = subprocess.run([QUERN, "inspect", self.folder, *options], capture_output=True,
                                  check=False).stdout
            self.assertTrue(text.endswith(words), text)

    def test_an_interrupt_ends_verify_with_one_line(self):
        path = os.path.join(self.folder, "large.safetensors")
        header = json.dumps({"x": {"dtype": "BF16", "shape": [1 << 39],
                                   "data_offsets": [0, 1 << 40]}}).encode()
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            try:
                file.truncate(8 + len(header) + (1 << 40))
            except OSError as error:
                self.skipTest(f"no sparse file of this size here: {error}")
        with subprocess.Popen([QUERN, "inspect", path, "--verify"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            output, errors = running.communicate(timeout=20)
        self.assertEqual((running.returncode, output), (130, b""))
        self.assertRegex(errors.decode(), r"^quern: error: inspect: cancelled after \d+ bytes, all "
                                          r"1099511627776 expected\n$")

    def test_no_colour_in_a_pipe_and_colour_when_asked(self):
        plain = subprocess.run([QUERN, "inspect", NANO], capture_output=True, check=False).stdout
        self.assertNotIn(b"\033", plain)
        self.assertIn(b"\nOK: 0 errors, 0 warnings", plain)
        self.assertTrue(all(len(line) <= 80 for line in plain.decode().splitlines()[1:]))
        bright = subprocess.run([QUERN, "inspect", NANO, "--color", "always"], capture_output=True,
                                check=False).stdout
        self.assertEqual(re.sub(rb"\033\[[0-9;]*m", b"", bright), plain)

    def test_hostile_names_do_not_steer_the_terminal(self):
        shard = Shard().add("evil\x1b[31m\u202e", "U8", [1], b"\0")
        Model(self.folder).write(SHARD, shard.to_bytes())
        for options in ([], ["--tensors"]):
            text = subprocess.run([QUERN, "inspect", self.folder, *options], capture_output=True,
                                  check=False).stdout
            self.assertNotIn(b"\033", text)

    def test_a_file_name_that_is_no_utf_8(self):
        name = os.path.join(os.fsencode(self.folder), b"a\xff.safetensors")
        with open(name, "wb") as file:
            file.write(Shard().to_bytes())
        for options in ([], ["--tensors", "--json"]):
            done = subprocess.run([QUERN, "inspect", self.folder, *options], capture_output=True,
                                  check=False)
            self.assertNotIn(b"memory", done.stderr)
            self.assertEqual(done.returncode, 3)  # no config.json
            self.assertIn("a\ufffd.safetensors" if options else "config-missing",
                          done.stdout.decode())

    def test_what_is_no_checkpoint(self):
        for model, status, words in (
                (os.path.join(self.folder, "none"), 3, "no such folder"),
                (os.path.join(NANO, "README.md"), 3, "a file, a model's folder"),
                (os.path.join(self.folder, "x.safetensors"), 3, "no such"),
                ("", 2, "an empty name")):
            got, report, errors = inspect(model)
            self.assertEqual((got, report), (status, None), errors)
            self.assertIn(words, errors)
            self.assertEqual(errors.count("\n"), 1)
        self.assertEqual(inspect(self.folder)[1]["problem_counts"],
                         {"config-missing": 1, "weights-missing": 1})


if __name__ == "__main__":
    unittest.main()

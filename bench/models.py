#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models that bench/cpu_peer.sh and bench/quantize.sh measure, each written tensor by tensor.

    bench/models.py dummy FOLDER       1.32 B seeded random parameters in bf16, 236 M used a token
    bench/models.py layer FOLDER [N]   a dense and a sparse layer of GLM-5.2 in bf16, of whose 256
                                       experts of 75 MB N are there (256): for work on files
    bench/models.py layer-fp8 FOLDER [N]   the same in FP8
    bench/models.py mxfp4 FROM TO      the trunk's experts in MXFP4, as AMD Quark writes them
    bench/models.py fp8 FROM TO        matrices in FP8 with a scale for each 128 x 128
    bench/models.py gguf FROM FILE     the same weights for llama.cpp, without the MTP layer
    bench/models.py bytes FOLDER       bytes of weights that decoding one token reads

FROM is a model folder in bf16; of gguf also one that mxfp4 wrote.  Needs numpy; gguf of PyPI too.
Formats: docs/formats.md.
"""
import json
import pathlib
import re
import shutil
import sys

import numpy as np

from shapes import shapes

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "F8_E4M3": 1}
N_GROUP = 32  # elements that share a scale of MXFP4
N_TILE = 128  # rows and columns that share a scale of FP8

N_DUMMY_LAYERS = 13
DUMMY = {
    "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "dtype": "bfloat16",
    "attention_bias": False, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 1536,
    "moe_intermediate_size": 512, "n_routed_experts": 64, "num_experts_per_tok": 7,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "num_hidden_layers": N_DUMMY_LAYERS, "num_nextn_predict_layers": 0,
    "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 256, "kv_lora_rank": 512,
    "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "qk_head_dim": 256, "v_head_dim": 256,
    "index_n_heads": 8, "index_head_dim": 128, "index_topk": 512, "indexer_rope_interleave": True,
    "indexer_types": ["full" if i in (0, 1, 5, 9) else "shared" for i in range(N_DUMMY_LAYERS)],
    "mlp_layer_types": ["dense"] + ["sparse"] * (N_DUMMY_LAYERS - 1), "rope_interleave": True,
    "rope_parameters": {"rope_theta": 8000000.0, "rope_type": "default"}, "rms_norm_eps": 1e-05,
    "max_position_embeddings": 32768, "tie_word_embeddings": False, "vocab_size": 8192,
    "eos_token_id": [8191], "pad_token_id": 8191,
}


FP8_CONFIG = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
              "weight_block_size": [N_TILE, N_TILE]}


class Checkpoint:
    """Tensors of a model folder by name: dtype, shape and bytes, mapped."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.tensors = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            data = np.memmap(path, np.uint8, "r")
            start = 8 + int(data[:8].view("<u8")[0])
            for name, entry in json.loads(bytes(data[8:start])).items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    raw = data[start + begin:start + end]
                    self.tensors[name] = (entry["dtype"], entry["shape"], raw)

    def raw(self, name):
        """Bytes of a tensor, a row each."""
        _, shape, raw = self.tensors[name]
        return raw.reshape(*shape[:-1], -1)

    def f32(self, name):
        """Values of a bf16 or f32 tensor."""
        dtype, shape, raw = self.tensors[name]
        if dtype == "F32":
            return raw.view("<f4").reshape(shape)
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)


def write_shard(path, plan):
    """Write one safetensors file; plan: [(name, dtype, shape, function that makes the array)]."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, _ in plan:
        end = at + int(np.prod(shape)) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, make in plan:
            file.write(np.ascontiguousarray(make()).data)
    return at


def write(folder, config, plan, shard_bytes=None):
    """Write a model: one model.safetensors or, of about shard_bytes each, numbered ones."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if shard_bytes is None:
        write_shard(folder / "model.safetensors", plan)
        return
    parts, n_bytes = [[]], 0
    for entry in plan:
        if parts[-1] and n_bytes >= shard_bytes:
            parts.append([])
            n_bytes = 0
        parts[-1].append(entry)
        n_bytes += int(np.prod(entry[2])) * SIZES[entry[1]]
    names = [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    total = sum(write_shard(folder / name, part) for name, part in zip(names, parts))
    where = {entry[0]: name for name, part in zip(names, parts) for entry in part}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2) + "\n")


def to_bf16(values):
    """Round f32 to bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_mxfp4(values):
    """Packed codes and scales of [rows, in] by Quark's rule "even"; values have to be finite."""
    groups = values.reshape(-1, N_GROUP)
    largest = np.abs(groups).max(axis=1)
    assert np.isfinite(largest).all() and (largest < 2.0**100).all()
    exponents = (largest.view(np.uint32) + 0x200000 >> 23).astype(np.int32) - 2
    exponents = np.maximum(exponents, 0)
    scaled = np.ldexp(groups, (127 - exponents)[:, None])
    sizes = np.abs(scaled)
    codes = np.zeros(groups.shape, np.uint8)
    # Halfway between two codes the even one wins.
    for halfway, even_is_above in zip((0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0), (0, 1, 0, 1, 0, 1, 0)):
        codes += sizes >= halfway if even_is_above else sizes > halfway
    codes |= np.where((scaled < 0) & (codes > 0), 8, 0).astype(np.uint8)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    rows = values.shape[0]
    return packed.reshape(rows, -1), np.maximum(exponents, 1).astype(np.uint8).reshape(rows, -1)


def to_fp8(values):
    """E4M3 codes and f32 scales of 128 x 128 tiles; rounds to nearest, ties to even."""
    rows, columns = values.shape
    tiles = (-(-rows // N_TILE), -(-columns // N_TILE))
    padded = np.zeros((tiles[0] * N_TILE, tiles[1] * N_TILE), np.float32)
    padded[:rows, :columns] = values
    view = padded.reshape(tiles[0], N_TILE, tiles[1], N_TILE)
    scales = np.maximum(np.abs(view).max(axis=(1, 3)), 1e-30) / np.float32(448)
    scaled = (view / scales[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
    sizes = np.abs(scaled)
    bits = sizes.view(np.uint32)
    normal = (bits + 0x7FFFF + ((bits >> 20) & 1) >> 20).astype(np.int32) - ((127 - 7) << 3)
    codes = np.where(sizes < 2.0**-6, np.rint(sizes * 2.0**9), normal).astype(np.uint8)
    return codes | np.where(scaled < 0, 0x80, 0).astype(np.uint8), scales


def dummy_tensor(name, shape, seed):
    """Uniform values whose products keep the size of their input."""
    values = 2 * np.random.default_rng(seed).random(shape, np.float32) - 1
    if name.endswith("correction_bias"):
        return np.float32(0.1) * values
    if len(shape) == 1:
        values = np.float32(0.25) * values + np.float32(not name.endswith(".bias"))
    elif not name.startswith("model.embed"):
        values *= np.float32(np.sqrt(3 / shape[1]))
    return to_bf16(values)


def make_dummy(folder):
    """The model that is larger than the caches."""
    write(folder, DUMMY, [
        (name, "F32" if name.endswith("correction_bias") else "BF16", shape,
         lambda n=name, s=shape, i=i: dummy_tensor(n, s, i))
        for i, (name, shape) in enumerate(shapes(DUMMY))])


def is_fp8_matrix(name, shape):
    """In published FP8 models head, router and small matrices stay as they are."""
    return len(shape) == 2 and not re.search(
        r"embed_tokens|lm_head|mlp\.gate\.|weights_proj|eh_proj", name)


def fp8_tiles(shape):
    """Shape of its scales."""
    return [-(-shape[0] // N_TILE), -(-shape[1] // N_TILE)]


def make_layer(folder, n_experts=256, is_fp8=False):
    """What quantizing meets in GLM-5.2: every tensor another cut of one random block."""
    path = pathlib.Path(__file__).resolve().parent.parent / "configs/glm-5.2/config.json"
    config = json.loads(path.read_text()) | {
        "num_hidden_layers": 2, "num_nextn_predict_layers": 0, "first_k_dense_replace": 1,
        "mlp_layer_types": ["dense", "sparse"], "indexer_types": ["full", "full"],
        "n_routed_experts": int(n_experts), "vocab_size": 1024, "eos_token_id": [1023],
        "pad_token_id": 1023} | ({"quantization_config": FP8_CONFIG} if is_fp8 else {})
    tensors = list(shapes(config))
    most = max(int(np.prod(shape)) for _, shape in tensors)
    values = np.random.default_rng(0).standard_normal(most + len(tensors), np.float32)
    blocks = {"F32": np.abs(values) * np.float32(1e-4), "BF16": to_bf16(np.float32(0.02) * values)}
    codes = blocks["BF16"].view(np.uint8)[:len(values)]
    blocks["F8_E4M3"] = codes - (codes & 127 == 127)  # no NaN
    plan = []

    def add(i, name, dtype, shape):
        n = int(np.prod(shape))
        plan.append((name, dtype, shape, lambda: blocks[dtype][i:i + n]))

    for i, (name, shape) in enumerate(tensors):
        if is_fp8 and is_fp8_matrix(name, shape):
            add(i, name, "F8_E4M3", shape)
            add(i, name + "_scale_inv", "F32", fp8_tiles(shape))
        else:
            add(i, name, "F32" if name.endswith("correction_bias") else "BF16", shape)
    write(folder, config, plan, 1 << 30)


def make_quantized(source, folder, quantize, is_wanted, dtype, scale, config):
    """Copy a model with some of its matrices quantised; scale: suffix, dtype, shape of shape."""
    have = Checkpoint(source)
    plan = []
    for name, (old, shape, _) in have.tensors.items():
        if not is_wanted(name, shape):
            plan.append((name, old, shape, lambda n=name: have.raw(n)))
            continue
        cut = 2 if dtype == "U8" else 1
        done = []  # both parts of the tensor that is being written

        def weight(n=name, done=done):
            done[:] = quantize(have.f32(n))
            return done[0]

        plan.append((name, dtype, [shape[0], shape[1] // cut], weight))
        plan.append((name + scale[0], scale[1], scale[2](shape),
                     lambda done=done: done.pop()))
    write(folder, have.config | {"quantization_config": config(have)}, plan)
    for path in have.folder.iterdir():
        if path.name not in ("config.json", "README.md", "model.safetensors.index.json") and \
                path.suffix != ".safetensors":
            shutil.copy(path, folder)


def is_expert(name, n_layers):
    """A matrix of the routed or shared experts of the trunk."""
    found = re.fullmatch(r"model\.layers\.(\d+)\.mlp\.(shared_)?experts\..*weight", name)
    return found is not None and int(found[1]) < n_layers


def make_mxfp4(source, folder):
    """The recipe of amd/GLM-5.2-MXFP4, weight-only: attention and the MTP layer stay as they are."""
    n_layers = json.loads((pathlib.Path(source) / "config.json").read_text())["num_hidden_layers"]

    def config(have):
        weight = {"dtype": "fp4", "is_dynamic": False, "qscheme": "per_group", "ch_axis": -1,
                  "group_size": N_GROUP, "round_method": "half_even", "scale_format": "e8m0",
                  "scale_calculation_mode": "even"}
        excluded = sorted(name.removesuffix(".weight") for name, (_, shape, _) in have.tensors.items()
                          if len(shape) == 2 and not is_expert(name, n_layers)
                          and "embed" not in name)
        return {"quant_method": "quark", "quant_mode": "eager_mode", "exclude": excluded,
                "global_quant_config": {"weight": weight, "input_tensors": None,
                                        "output_tensors": None, "bias": None},
                "layer_quant_config": {}, "layer_type_quant_config": {},
                "export": {"kv_cache_group": [], "pack_method": "reorder",
                           "weight_format": "real_quantized"}}

    make_quantized(source, folder, to_mxfp4, lambda name, _: is_expert(name, n_layers), "U8",
                   ("_scale", "U8", lambda shape: [shape[0], shape[1] // N_GROUP]), config)


def make_fp8(source, folder):
    """The layout of the published FP8 models."""
    make_quantized(source, folder, to_fp8, is_fp8_matrix, "F8_E4M3",
                   ("_scale_inv", "F32", fp8_tiles), lambda _: FP8_CONFIG)


# Names of llama.cpp's architecture "glm-dsa", and ours in a layer.
GGUF_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q_a.weight": "self_attn.q_a_proj.weight",
    "attn_q_a_norm.weight": "self_attn.q_a_layernorm.weight",
    "attn_q_b.weight": "self_attn.q_b_proj.weight",
    "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attn_kv_a_norm.weight": "self_attn.kv_a_layernorm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "indexer.attn_q_b.weight": "self_attn.indexer.wq_b.weight",
    "indexer.attn_k.weight": "self_attn.indexer.wk.weight",
    "indexer.k_norm.weight": "self_attn.indexer.k_norm.weight",
    "indexer.k_norm.bias": "self_attn.indexer.k_norm.bias",
    "indexer.proj.weight": "self_attn.indexer.weights_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
    "ffn_gate_shexp.weight": "mlp.shared_experts.gate_proj.weight",
    "ffn_up_shexp.weight": "mlp.shared_experts.up_proj.weight",
    "ffn_down_shexp.weight": "mlp.shared_experts.down_proj.weight",
}
GGUF_F32 = ("ffn_gate_inp.weight", "indexer.proj.weight")  # llama.cpp's converter widens these


def gguf_metadata(c):
    """What llama.cpp reads of a configuration; it computes MLA as one key-value head."""
    kv_rank, rope = c["kv_lora_rank"], c["qk_rope_head_dim"]
    return {
        "block_count": c["num_hidden_layers"], "context_length": c["max_position_embeddings"],
        "embedding_length": c["hidden_size"], "feed_forward_length": c["intermediate_size"],
        "vocab_size": c["vocab_size"], "leading_dense_block_count": c["first_k_dense_replace"],
        "attention.head_count": c["num_attention_heads"], "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
        "attention.q_lora_rank": c["q_lora_rank"], "attention.kv_lora_rank": kv_rank,
        "attention.key_length": kv_rank + rope, "attention.value_length": kv_rank,
        "attention.key_length_mla": c["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": c["v_head_dim"],
        "attention.indexer.head_count": c["index_n_heads"],
        "attention.indexer.key_length": c["index_head_dim"],
        "attention.indexer.top_k": c["index_topk"],
        "attention.indexer.types": [kind == "full" for kind in c["indexer_types"]],
        "rope.dimension_count": rope,
        "rope.freq_base": float(c["rope_parameters"]["rope_theta"]),
        "expert_count": c["n_routed_experts"], "expert_used_count": c["num_experts_per_tok"],
        "expert_shared_count": c["n_shared_experts"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_weights_scale": float(c["routed_scaling_factor"]),
        "expert_weights_norm": c["norm_topk_prob"],
        "expert_group_count": c["n_group"], "expert_group_used_count": c["topk_group"],
        "expert_gating_func": 2,  # sigmoid
    }


def gguf_mxfp4(codes, scales):
    """GGUF's blocks: the scale, then elements 0 to 15 in low and 16 to 31 in high nibbles."""
    groups = codes.reshape(-1, N_GROUP // 2)
    elements = np.stack((groups & 15, groups >> 4), axis=-1).reshape(-1, N_GROUP)
    blocks = np.concatenate((scales.reshape(-1, 1), elements[:, :16] | elements[:, 16:] << 4), axis=1)
    return blocks.reshape(codes.shape[0], -1)


def gguf_plan(have):
    """[(name, type, function that makes the array)]: bytes a row, but for F32."""
    c = have.config

    def matrix(name):
        dtype = have.tensors[name][0]
        return gguf_mxfp4(have.raw(name), have.raw(name + "_scale")) if dtype == "U8" else have.raw(name)

    def kind(name):
        return {"U8": "MXFP4", "BF16": "BF16"}[have.tensors[name][0]]

    def kv_b(layer, is_key):
        part = have.raw(layer + "self_attn.kv_b_proj.weight").view("<u2").reshape(
            c["num_attention_heads"], -1, c["kv_lora_rank"])
        nope = c["qk_nope_head_dim"]
        part = part[:, :nope].transpose(0, 2, 1) if is_key else part[:, nope:]
        return np.ascontiguousarray(part).view(np.uint8)

    def experts(layer, which):
        return np.stack([matrix(layer + f"mlp.experts.{e}.{which}_proj.weight")
                         for e in range(c["n_routed_experts"])])

    yield "token_embd.weight", "BF16", lambda: have.raw("model.embed_tokens.weight")
    yield "output_norm.weight", "F32", lambda: have.f32("model.norm.weight")
    yield "output.weight", "BF16", lambda: have.raw("lm_head.weight")
    for i in range(c["num_hidden_layers"]):
        layer, block = f"model.layers.{i}.", f"blk.{i}."
        for to, name in GGUF_NAMES.items():
            if layer + name not in have.tensors:
                continue
            if len(have.tensors[layer + name][1]) == 1 or to in GGUF_F32:
                yield block + to, "F32", lambda n=layer + name: have.f32(n)
            else:
                yield block + to, kind(layer + name), lambda n=layer + name: matrix(n)
        yield block + "attn_k_b.weight", "BF16", lambda p=layer: kv_b(p, True)
        yield block + "attn_v_b.weight", "BF16", lambda p=layer: kv_b(p, False)
        if layer + "mlp.gate.weight" in have.tensors:
            for which in ("gate", "up", "down"):
                yield (block + f"ffn_{which}_exps.weight",
                       kind(layer + f"mlp.experts.0.{which}_proj.weight"),
                       lambda p=layer, w=which: experts(p, w))


def add_tokenizer(writer, path, config):
    """Tokens, merges and the end of an answer, where the model has them."""
    if not path.exists():
        writer.add_tokenizer_model("none")  # ids in, ids out
        return
    normal, control, unused = 1, 3, 5
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokens = [(f"[PAD{i}]", unused) for i in range(config["vocab_size"])]
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i] = (text, normal)
    for token in tokenizer["added_tokens"]:
        tokens[token["id"]] = (token["content"], control)
    writer.add_tokenizer_model("gpt2")  # BPE of bytes
    writer.add_tokenizer_pre("glm4")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    stops = config["eos_token_id"]
    writer.add_eos_token_id(stops[0] if isinstance(stops, list) else stops)
    writer.add_add_bos_token(False)


def make_gguf(source, path):
    """Every array is made twice, first for its shape alone: no more than one is in memory."""
    import gguf
    have = Checkpoint(source)
    writer = gguf.GGUFWriter(path, "glm-dsa")
    for key, value in gguf_metadata(have.config).items():
        add = (writer.add_array if isinstance(value, list) else
               writer.add_bool if isinstance(value, bool) else
               writer.add_float32 if isinstance(value, float) else writer.add_uint32)
        add("glm-dsa." + key, value)
    add_tokenizer(writer, pathlib.Path(source) / "tokenizer.json", have.config)
    plan = list(gguf_plan(have))
    for name, kind, make in plan:
        array = make()
        writer.add_tensor_info(name, array.shape, array.dtype, array.nbytes,
                               gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for *_, make in plan:
        writer.write_tensor_data(np.ascontiguousarray(make()))
    writer.close()


def decode_bytes(folder):
    """Weights of the trunk and the head, of the experts as many as a token uses."""
    have = Checkpoint(folder)
    c = have.config
    total = 0.0
    for name, (_, _, raw) in have.tensors.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        if name == "model.embed_tokens.weight" or \
                layer is not None and int(layer[1]) >= c["num_hidden_layers"]:
            continue
        is_routed = ".experts." in name
        total += raw.nbytes * (c["num_experts_per_tok"] / c["n_routed_experts"] if is_routed else 1)
    return round(total)


def main(arguments):
    """Returns the exit status."""
    commands = {("dummy", 1): make_dummy, ("layer", 1): make_layer, ("layer", 2): make_layer,
                ("layer-fp8", 1): lambda folder: make_layer(folder, is_fp8=True),
                ("layer-fp8", 2): lambda folder, n: make_layer(folder, n, is_fp8=True),
                ("mxfp4", 2): make_mxfp4, ("fp8", 2): make_fp8, ("gguf", 2): make_gguf,
                ("bytes", 1): lambda folder: print(decode_bytes(folder))}
    command = commands.get((arguments[0] if arguments else "", len(arguments) - 1))
    if command is None:
        print(__doc__, file=sys.stderr)
        return 2
    command(*arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

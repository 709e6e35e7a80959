# SPDX-License-Identifier: Apache-2.0
"""A small model of awkward finite weights, and what is in the files of any model.

Standard library only.  random.Random gives the same bits in every version of Python, so the files
are the same everywhere; the golden files of tests/golden/quark hold their hashes.
"""
import array
import hashlib
import json
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from shapes import shapes  # noqa: E402

N_GROUP = 32  # elements that share a scale of MXFP4
N_TILE = 128  # rows and columns that share a scale of FP8
N_SHARDS = 2
CONFIG = {
    "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "dtype": "bfloat16",
    "attention_bias": False, "hidden_act": "silu", "hidden_size": 160, "intermediate_size": 224,
    "moe_intermediate_size": 96, "n_routed_experts": 3, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "num_hidden_layers": 3, "num_nextn_predict_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 64, "kv_lora_rank": 64,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "qk_head_dim": 48, "v_head_dim": 32,
    "index_n_heads": 2, "index_head_dim": 32, "index_topk": 64, "indexer_rope_interleave": True,
    "indexer_types": ["full", "full", "shared"], "mlp_layer_types": ["dense", "sparse", "sparse"],
    "rope_interleave": True, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "rms_norm_eps": 1e-05, "max_position_embeddings": 1024, "tie_word_embeddings": False,
    "vocab_size": 96, "eos_token_id": [95], "pad_token_id": 95, "note": "Grüße, \u2713 \"quoted\"",
}
FP8_CONFIG = {"quantization_config": {
    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
    "weight_block_size": [N_TILE, N_TILE]}}
# What the official FP8 checkpoints leave in bf16 of the matrices.
NOT_FP8 = re.compile(r"embed_tokens|lm_head|mlp\.gate\.|weights_proj|eh_proj")
# Half way between two codes, in bf16; the scale's exponent is added to the bits.
TIES = (0x3E80, 0x3F40, 0x3FA0, 0x3FE0, 0x4020, 0x4060, 0x40A0)
LARGEST = 0x7F7F  # the largest finite bf16


def group(random_, kind):
    """32 sizes in bf16 that provoke one thing."""
    below = random_.randrange
    if kind == 0:  # nothing but +0 and -0
        return [0] * N_GROUP
    if kind == 1:  # scales at and below the smallest
        return [below(0x0200) for _ in range(N_GROUP)]
    if kind == 2:  # scales at and above the largest
        return [below(0x7E00, LARGEST + 1) for _ in range(N_GROUP)]
    if kind == 3:  # any
        return [below(LARGEST + 1) for _ in range(N_GROUP)]
    shift = below(4, 251) - 127 << 7
    if kind == 4:  # ties and their neighbours
        top = 0x40C0 if below(2) else 0x4080
        return [max(0, bits + shift) for bits in [top] + [
            random_.choice(TIES) + below(-1, 2) for _ in range(N_GROUP - 1)]]
    if kind == 5:  # the largest at the edge between two scales
        top = 0x40E0 + below(-2, 3) + shift
        return [top] + [max(0, top - below(0x0280)) for _ in range(N_GROUP - 1)]
    if kind == 6:  # one large value among what rounds to 0
        return [max(0, 0x4080 + shift)] + [max(0, 0x3E80 + shift - below(4)) for _ in range(31)]
    return [max(0, 0x4080 + shift - below(0x0300)) for _ in range(N_GROUP)]  # ordinary


def awkward(random_, n):
    """n bf16 patterns of either sign, their kinds in turns."""
    bits = array.array("H")
    while len(bits) < n:
        sizes = group(random_, (len(bits) // N_GROUP) % 8)
        random_.shuffle(sizes)
        bits.extend(min(size, LARGEST) | random_.getrandbits(1) << 15 for size in sizes)
    return bits[:n]


def to_f32(random_, bits):
    """The same with more bits behind, so that what was a tie may be just above one."""
    return array.array("I", (b << 16 | random_.choice((0, 0, 1, 0x7FFF, 0xFFFF)) for b in bits))


def to_f16(random_, bits):
    """The same brought into the range of f16, with more bits behind."""
    return array.array("H", ((b & 0x8000) | min(max((b >> 7 & 255) - 112, 0), 30) << 10
                             | (b & 127) << 3 | random_.choice((0, 0, 1, 7)) for b in bits))


def ordinary(random_, n):
    """n bf16 patterns of sizes from 2^-15 to 1."""
    raw = random_.randbytes(2 * n)
    return bytes(byte if i % 2 == 0 else (byte & 0x87) | 0x38 for i, byte in enumerate(raw))


def fp8(random_, name, shape):
    """Codes, none a NaN, whose tiles may be all zero, and scales of all mantissas."""
    n_tiles = [-(-length // N_TILE) for length in shape]
    raw = bytearray(random_.randbytes(shape[0] * shape[1]))
    for i, code in enumerate(raw):
        if code & 127 == 127:
            raw[i] = code - 1
    raw[:N_GROUP] = bytes(N_GROUP)
    scales = array.array("I", (random_.randrange(100, 140) << 23 | random_.getrandbits(23)
                               for _ in range(n_tiles[0] * n_tiles[1])))
    return [(name, "F8_E4M3", shape, bytes(raw)),
            (name + "_scale_inv", "F32", n_tiles, scales.tobytes())]


def tensors(other, seed):
    """[(name, dtype, shape, bytes)]; other: "F32" or "F16" in some matrices, "FP8" in most."""
    random_ = random.Random(seed)
    found = []
    for i, (name, shape) in enumerate(shapes(CONFIG)):
        n = shape[0] * (shape[1] if len(shape) == 2 else 1)
        is_matrix = len(shape) == 2
        if other == "FP8" and is_matrix and not NOT_FP8.search(name):
            found += fp8(random_, name, shape)
            continue
        bits = awkward(random_, n) if is_matrix and ".mlp." in name or "eh_proj" in name else \
            array.array("H", ordinary(random_, n))
        is_other = is_matrix and i % 4 == 0 or name.endswith("bias")
        if not is_other or other == "FP8" and is_matrix:
            found.append((name, "BF16", shape, bits.tobytes()))
        elif other == "F16" and is_matrix:
            found.append((name, "F16", shape, to_f16(random_, bits).tobytes()))
        else:
            found.append((name, "F32", shape, to_f32(random_, bits).tobytes()))
    return found


def write_shard(path, parts):
    """One safetensors file of [(name, dtype, shape, bytes)]."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, data in parts:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(part[3] for part in parts))


def write(folder, other, seed=8, scales_apart=False):
    """Make the model; other is of tensors(); scales_apart: in a shard of their own."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    every = tensors(other, seed)
    names = [f"model-{i + 1:05}-of-{N_SHARDS:05}.safetensors" for i in range(N_SHARDS)]
    cut = len(every) // N_SHARDS
    cut += every[cut][0].endswith("_scale_inv")  # beside its weight
    parts = [every[:cut], every[cut:]]
    if scales_apart:
        parts = [[part for part in every if part[0].endswith("_scale_inv") == is_scale]
                 for is_scale in (False, True)]
    for name, part in zip(names, parts):
        write_shard(folder / name, part)
    index = {"metadata": {"total_size": sum(len(part[3]) for part in every)},
             "weight_map": {part[0]: name for name, of in zip(names, parts) for part in of}}
    texts = {"config.json": CONFIG | (FP8_CONFIG if other == "FP8" else {}),
             "model.safetensors.index.json": index, "generation_config.json": {"eos_token_id": 95}}
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for name in ("README.md", "notes.txt"):
        (folder / name).write_text("An edge model.\n")


def shard_header(path):
    """({name: entry}, first byte of the data) of a safetensors file."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def digest(data):
    """A short hash."""
    return hashlib.sha256(data).hexdigest()[:16]


def facts(folder):
    """{tensor: "DTYPE [shape] hash"} of a model folder, and {tensor: shard}."""
    found, where = {}, {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        header, start = shard_header(path)
        data = memoryview(path.read_bytes())[start:]
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            shape = ",".join(str(length) for length in entry["shape"])
            found[name] = f"{entry['dtype']} [{shape}] {digest(data[begin:end])}"
            where[name] = path.name
    return found, where


def expected(golden, recipe):
    """{tensor: fact} of what a golden file says of Quark's output by a recipe."""
    exclude = set(golden["recipes"][recipe]["exclude"])
    found = golden["source"] | golden["copied"]
    for name in golden["dropped"]:
        del found[name]
    for module, facts_of in golden["quantized"].items():
        if module not in exclude:
            found[module + ".weight"], found[module + ".weight_scale"] = facts_of
    return found


def write_vectors(folder, cases):
    """A model whose experts' matrices are the cases of vectors.json; returns their modules."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    modules = {case["name"]: f"model.layers.1.mlp.experts.{i}.gate_proj"
               for i, case in enumerate(cases)}
    write_shard(folder / "model.safetensors", [
        (modules[case["name"]] + ".weight", "BF16", (case["rows"], case["k"]),
         array.array("H", (int(case["bf16"][i:i + 4], 16)
                           for i in range(0, len(case["bf16"]), 4))).tobytes())
        for case in cases])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return modules


def tensor(folder, name):
    """Bytes of one tensor of a model folder."""
    for path in pathlib.Path(folder).glob("*.safetensors"):
        header, start = shard_header(path)
        if name in header:
            begin, end = header[name]["data_offsets"]
            return path.read_bytes()[start + begin:start + end]
    raise KeyError(name)

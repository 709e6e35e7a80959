#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write configs/*/config.json: GLM-5, 5.1, 5.2 and the shapes that one of 2, 4, 8 ranks holds.

    tools/make_configs.py           write the files
    tools/make_configs.py --check   exit 1 where a file differs from what would be written

The numbers are those of the published config.json files.  A tensor-parallel rank (tpN) holds 1/N of
the heads, of the dense and expert widths and of the vocabulary; a rank with data-parallel attention
(dpN) holds every head and 1/N of the experts.  With mxfp4 routed and shared experts are that, as the
published checkpoint has them and the MTP layer's too, which `quern quantize` takes; dummy weights follow
it.  Its list of names is told in patterns here.  Stop and pad ids of a cut vocabulary keep their
distance from its end, so they stay in range.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "configs"
MULTIPLE = 32  # of every cut width: a block of MXFP4

GLM_5 = {
    "architectures": ["GlmMoeDsaForCausalLM"],
    "model_type": "glm_moe_dsa",
    "dtype": "bfloat16",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": [154820, 154827, 154829],
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 6144,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "index_topk": 2048,
    "indexer_rope_interleave": True,
    "initializer_range": 0.02,
    "intermediate_size": 12288,
    "kv_lora_rank": 512,
    "max_position_embeddings": 202752,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 78,
    "num_key_value_heads": 64,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 154820,
    "pretraining_tp": 1,
    "q_lora_rank": 2048,
    "qk_head_dim": 256,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-05,
    "rope_interleave": True,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "transformers_version": "5.0.2.dev0",
    "use_cache": True,
    "v_head_dim": 256,
    "vocab_size": 154880,
}

INDEX_FULL = {0, 1, 2, *range(6, 78, 4)}

GLM_5_2 = GLM_5 | {
    "head_dim": 192,
    "index_share_for_mtp_iteration": True,
    "index_skip_topk_offset": 3,
    "index_topk_freq": 4,
    "index_topk_pattern": None,
    "indexer_types": ["full" if i in INDEX_FULL else "shared" for i in range(78)],
    "max_position_embeddings": 1048576,
    "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 75,
    "moe_router_dtype": "float32",
    "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"},
    "transformers_version": "5.12.0",
}


MXFP4 = {
    "dtype": "fp4", "is_dynamic": False, "qscheme": "per_group", "ch_axis": -1, "group_size": 32,
    "scale_format": "e8m0", "scale_calculation_mode": "even", "observer_cls": "PerBlockMXObserver",
}
QUANTIZATION = {
    "quant_method": "quark",
    "quant_mode": "eager_mode",
    "global_quant_config": {"weight": MXFP4, "input_tensors": None, "output_tensors": None, "bias": None},
    "exclude": ["lm_head", "*.self_attn.*", "*.mlp.gate", "*.eh_proj",
                *(f"model.layers.{i}.mlp" for i in range(GLM_5["first_k_dense_replace"]))],
    "layer_quant_config": {},
    "layer_type_quant_config": {},
    "export": {"kv_cache_group": [], "pack_method": "reorder", "weight_format": "real_quantized"},
}


def divided(value, n_ranks, multiple):
    if value % (n_ranks * multiple) != 0:
        raise ValueError(f"{value} / {n_ranks} is no multiple of {multiple}")
    return value // n_ranks


def tensor_parallel(config, n_ranks):
    out = dict(config)
    for key in ("num_attention_heads", "num_key_value_heads"):
        out[key] = divided(config[key], n_ranks, 1)
    for key in ("intermediate_size", "moe_intermediate_size", "vocab_size"):
        out[key] = divided(config[key], n_ranks, MULTIPLE)
    cut = config["vocab_size"] - out["vocab_size"]
    out["eos_token_id"] = [i - cut for i in config["eos_token_id"]]
    out["pad_token_id"] = config["pad_token_id"] - cut
    return out


def data_parallel_attention(config, n_ranks):
    return config | {"n_routed_experts": divided(config["n_routed_experts"], n_ranks, 1)}


def all_configs():
    yield "glm-5", GLM_5
    yield "glm-5.1", GLM_5
    yield "glm-5.2", GLM_5_2
    for n_ranks in (2, 4, 8):
        yield f"glm-5.2-tp{n_ranks}", tensor_parallel(GLM_5_2, n_ranks)
        yield f"glm-5.2-dp{n_ranks}", data_parallel_attention(GLM_5_2, n_ranks)
    for n_ranks in (4, 8):
        config = tensor_parallel(GLM_5_2, n_ranks)
        yield f"glm-5.2-mxfp4-tp{n_ranks}", config | {"quantization_config": QUANTIZATION}


def main():
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        sys.exit(__doc__)
    for name, config in all_configs():
        path = ROOT / name / "config.json"
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        if not is_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            sys.exit(f"{path}: differs from what tools/make_configs.py writes")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of the tensors of a model."""


def shapes(c):
    """Yield (name, shape) of every tensor of a configuration."""
    embd, heads, q_rank = c["hidden_size"], c["num_attention_heads"], c["q_lora_rank"]
    kv_rank, rope, v_dim = c["kv_lora_rank"], c["qk_rope_head_dim"], c["v_head_dim"]
    nope, index_dim = c["qk_nope_head_dim"], c["index_head_dim"]

    def mlp(prefix, width):
        return [(prefix + "gate_proj.weight", (width, embd)),
                (prefix + "up_proj.weight", (width, embd)),
                (prefix + "down_proj.weight", (embd, width))]

    yield "model.embed_tokens.weight", (c["vocab_size"], embd)
    for i in range(c["num_hidden_layers"] + c["num_nextn_predict_layers"]):
        is_mtp = i >= c["num_hidden_layers"]
        layer = f"model.layers.{i}."
        attn = layer + "self_attn."
        yield layer + "input_layernorm.weight", (embd,)
        yield layer + "post_attention_layernorm.weight", (embd,)
        yield attn + "q_a_proj.weight", (q_rank, embd)
        yield attn + "q_a_layernorm.weight", (q_rank,)
        yield attn + "q_b_proj.weight", (heads * (nope + rope), q_rank)
        yield attn + "kv_a_proj_with_mqa.weight", (kv_rank + rope, embd)
        yield attn + "kv_a_layernorm.weight", (kv_rank,)
        yield attn + "kv_b_proj.weight", (heads * (nope + v_dim), kv_rank)
        yield attn + "o_proj.weight", (embd, heads * v_dim)
        if is_mtp or c["indexer_types"][i] == "full":
            yield attn + "indexer.wq_b.weight", (c["index_n_heads"] * index_dim, q_rank)
            yield attn + "indexer.wk.weight", (index_dim, embd)
            yield attn + "indexer.k_norm.weight", (index_dim,)
            yield attn + "indexer.k_norm.bias", (index_dim,)
            yield attn + "indexer.weights_proj.weight", (c["index_n_heads"], embd)
        if is_mtp:
            yield layer + "eh_proj.weight", (embd, 2 * embd)
            yield from ((layer + name, (embd,)) for name in (
                "enorm.weight", "hnorm.weight", "shared_head.norm.weight"))
        elif c["mlp_layer_types"][i] == "dense":
            yield from mlp(layer + "mlp.", c["intermediate_size"])
            continue
        yield layer + "mlp.gate.weight", (c["n_routed_experts"], embd)
        yield layer + "mlp.gate.e_score_correction_bias", (c["n_routed_experts"],)
        for e in range(c["n_routed_experts"]):
            yield from mlp(layer + f"mlp.experts.{e}.", c["moe_intermediate_size"])
        yield from mlp(layer + "mlp.shared_experts.",
                       c["n_shared_experts"] * c["moe_intermediate_size"])
    yield "model.norm.weight", (embd,)
    yield "lm_head.weight", (c["vocab_size"], embd)

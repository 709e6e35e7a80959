"""One GLM-5 decoder layer and the MTP layer in plain torch, f32, written from the specification alone: materialised MLA
(keys and values expanded, no absorption, no cache), so that it shares no step with the engine's way. make_golden.py
holds it against transformers' layers before it is used for the MTP layer, which transformers lacks."""
import torch


def rms(x, w, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w


def rope(x, positions, theta):
    """Interleaved pairs over the last axis of x [rows, heads, dim]."""
    dim = x.shape[-1]
    inv = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    angle = positions.float()[:, None] * inv
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)


class Layer:
    """Weights: a function name -> f32 tensor. Keys of earlier calls are kept, so rows may come in pieces."""

    def __init__(self, config, weights, i_layer):
        self.c, self.i = config, i_layer
        self.w = lambda name: weights(f"model.layers.{i_layer}.{name}")
        self.keys = self.values = self.index_keys = None
        self.positions = None

    def index_scores(self, x, qr, positions):
        c = self.c
        heads, dim, rope_dim = c["index_n_heads"], c["index_head_dim"], c["qk_rope_head_dim"]
        theta = c["rope_parameters"]["rope_theta"]
        q = (qr @ self.w("self_attn.indexer.wq_b.weight").T).view(-1, heads, dim)
        k = torch.nn.functional.layer_norm(x @ self.w("self_attn.indexer.wk.weight").T, (dim,),
                                           self.w("self_attn.indexer.k_norm.weight"),
                                           self.w("self_attn.indexer.k_norm.bias"), 1e-6)[:, None]
        q = torch.cat([rope(q[..., :rope_dim], positions, theta), q[..., rope_dim:]], -1)
        k = torch.cat([rope(k[..., :rope_dim], positions, theta), k[..., rope_dim:]], -1)[:, 0]
        self.index_keys = k if self.index_keys is None else torch.cat([self.index_keys, k])
        w = x @ self.w("self_attn.indexer.weights_proj.weight").T * heads**-0.5 * dim**-0.5
        return torch.einsum("th,ths->ts", w, torch.relu(torch.einsum("thd,sd->ths", q, self.index_keys)))

    def attention(self, x, positions, sets=None):
        """sets: bool [rows, all positions so far] to use, or None for the indexer's own. Returns output and sets."""
        c = self.c
        eps, theta = c["rms_norm_eps"], c["rope_parameters"]["rope_theta"]
        heads, nope, rope_dim = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"]
        v_dim, rank = c["v_head_dim"], c["kv_lora_rank"]
        qr = rms(x @ self.w("self_attn.q_a_proj.weight").T, self.w("self_attn.q_a_layernorm.weight"), eps)
        q = (qr @ self.w("self_attn.q_b_proj.weight").T).view(-1, heads, nope + rope_dim)
        q = torch.cat([q[..., :nope], rope(q[..., nope:], positions, theta)], -1)
        kv = x @ self.w("self_attn.kv_a_proj_with_mqa.weight").T
        latent = rms(kv[:, :rank], self.w("self_attn.kv_a_layernorm.weight"), eps)
        shared = rope(kv[:, None, rank:], positions, theta)
        kv = (latent @ self.w("self_attn.kv_b_proj.weight").T).view(-1, heads, nope + v_dim)
        keys = torch.cat([kv[..., :nope], shared.expand(-1, heads, -1)], -1)
        cat = lambda old, new: new if old is None else torch.cat([old, new])
        self.keys, self.values = cat(self.keys, keys), cat(self.values, kv[..., nope:])
        self.positions = cat(self.positions, positions)
        causal = self.positions[None, :] <= positions[:, None]
        self.scores = None
        if sets is None:
            self.scores = self.index_scores(x, qr, positions).masked_fill(~causal, float("-inf"))
            k = min(c["index_topk"], self.scores.shape[1])
            self.taken = self.scores.topk(k, -1).indices
            sets = torch.zeros_like(causal).scatter(1, self.taken, True) & causal
        s = torch.einsum("thd,shd->hts", q, self.keys) * (nope + rope_dim) ** -0.5
        p = s.masked_fill(~sets, float("-inf")).softmax(-1)
        o = torch.einsum("hts,shd->thd", p, self.values).reshape(len(x), -1)
        return o @ self.w("self_attn.o_proj.weight").T, sets

    def mlp(self, x, name):
        gate = x @ self.w(f"mlp.{name}gate_proj.weight").T
        up = x @ self.w(f"mlp.{name}up_proj.weight").T
        return (torch.nn.functional.silu(gate) * up) @ self.w(f"mlp.{name}down_proj.weight").T

    def moe(self, x):
        c = self.c
        score = torch.sigmoid(x @ self.w("mlp.gate.weight").T)
        self.selection = score + self.w("mlp.gate.e_score_correction_bias")
        experts = self.experts = self.selection.topk(c["num_experts_per_tok"], -1).indices
        weight = score.gather(1, experts)
        if c["norm_topk_prob"]:
            weight = weight / (weight.sum(-1, keepdim=True) + 1e-20)
        weight = weight * c["routed_scaling_factor"]
        y = self.mlp(x, "shared_experts.")
        for e in range(c["n_routed_experts"]):
            rows, slots = torch.where(experts == e)
            if len(rows):
                y = y.index_add(0, rows, weight[rows, slots, None] * self.mlp(x[rows], f"experts.{e}."))
        return y

    def forward(self, x, positions, is_dense, sets=None):
        eps = self.c["rms_norm_eps"]
        y, sets = self.attention(rms(x, self.w("input_layernorm.weight"), eps), positions, sets)
        x = x + y
        h = rms(x, self.w("post_attention_layernorm.weight"), eps)
        return x + (self.mlp(h, "") if is_dense else self.moe(h)), sets


class Mtp:
    """The MTP layer: row i holds (token i, hidden i - 1), i from 1 on."""

    def __init__(self, config, weights):
        self.c = config
        self.w = weights
        self.prefix = f"model.layers.{config['num_hidden_layers']}."
        self.layer = Layer(config, weights, config["num_hidden_layers"])

    def forward(self, tokens, hidden_prev, positions, sets=None):
        eps = self.c["rms_norm_eps"]
        e = rms(self.w("model.embed_tokens.weight")[tokens], self.w(self.prefix + "enorm.weight"), eps)
        h = rms(hidden_prev, self.w(self.prefix + "hnorm.weight"), eps)
        x = torch.cat([e, h], -1) @ self.w(self.prefix + "eh_proj.weight").T
        x, sets = self.layer.forward(x, positions, False, sets)
        g = rms(x, self.w(self.prefix + "shared_head.norm.weight"), eps)
        return g, g @ self.w("lm_head.weight").T, sets

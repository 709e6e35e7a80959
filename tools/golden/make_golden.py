#!/usr/bin/env python3
"""Makes tests/golden: what transformers computes on the CPU in f32 for models/glm-nano and for tiny seeded models.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.16.1 safetensors numpy
    venv/bin/python tools/golden/make_golden.py [nano] [tiny] [greedy --eval DIR]

docs/testing.md says what each file holds and what is compared."""
import argparse, hashlib, json, pathlib, sys

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as hf

import dummy
from reference import Layer, Mtp

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden"
NANO = ROOT / "models/glm-nano"
SEED = 7          # of the dummy weights
CONTESTED = 1e-4  # scores this close to the threshold of a top-k are stored one by one
N_DRAFTS = 5


def with_eps(model):
    """Mend the eps of q_a and kv_a."""
    for layer in model.model.layers:
        layer.self_attn.q_a_layernorm.variance_epsilon = model.config.rms_norm_eps
        layer.self_attn.kv_a_layernorm.variance_epsilon = model.config.rms_norm_eps
    return model


def checked_model(model):
    """Refuse a transformers version that computes something else (half-split rope)."""
    import inspect
    for part in (hf.GlmMoeDsaAttention, hf.GlmMoeDsaIndexer):
        assert "apply_rotary_pos_emb_interleave" in inspect.getsource(part.forward), part
    return with_eps(model).float().eval()


def nano():
    model = transformers.AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32, attn_implementation="eager")
    raw = {}
    for shard in sorted(NANO.glob("*.safetensors")):
        import safetensors.torch
        raw.update({k: v.float() for k, v in safetensors.torch.load_file(shard).items()})
    return checked_model(model), json.loads((NANO / "config.json").read_text()), raw.__getitem__


def tiny(config):
    """A transformers model with the dummy weights; weights are made on demand and kept."""
    known = {}
    c = config

    def weights(name):
        if name not in known:
            known[name] = torch.from_numpy(dummy.tensor(name, shape_of(c, name), SEED).copy())
        return known[name]

    model = hf.GlmMoeDsaForCausalLM(hf.GlmMoeDsaConfig(**config, attn_implementation="eager"))
    state = {}
    for name, value in model.state_dict().items():
        if ".experts." in name:
            stem = name.rsplit(".", 1)[0]
            parts = ["gate_proj", "up_proj"] if name.endswith("gate_up_proj") else ["down_proj"]
            state[name] = torch.stack([torch.cat([weights(f"{stem}.{e}.{p}.weight") for p in parts])
                                       for e in range(c["n_routed_experts"])])
        else:
            state[name] = weights(name)
        assert state[name].shape == value.shape, name
    model.load_state_dict(state)
    return checked_model(model), config, weights


def shape_of(c, name):
    h, ff, e = c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"]
    heads, nope, rope, v = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    ih, idim = c["index_n_heads"], c["index_head_dim"]
    shared = ff * c["n_shared_experts"]
    wide = c["intermediate_size"]
    table = {
        "embed_tokens.weight": (c["vocab_size"], h), "lm_head.weight": (c["vocab_size"], h), "model.norm.weight": (h,),
        "q_a_proj.weight": (c["q_lora_rank"], h), "q_a_layernorm.weight": (c["q_lora_rank"],),
        "q_b_proj.weight": (heads * (nope + rope), c["q_lora_rank"]),
        "kv_a_proj_with_mqa.weight": (c["kv_lora_rank"] + rope, h), "kv_a_layernorm.weight": (c["kv_lora_rank"],),
        "kv_b_proj.weight": (heads * (nope + v), c["kv_lora_rank"]), "o_proj.weight": (h, heads * v),
        "indexer.wq_b.weight": (ih * idim, c["q_lora_rank"]), "indexer.wk.weight": (idim, h),
        "indexer.k_norm.weight": (idim,), "indexer.k_norm.bias": (idim,), "indexer.weights_proj.weight": (ih, h),
        "input_layernorm.weight": (h,), "post_attention_layernorm.weight": (h,),
        "mlp.gate.weight": (e, h), "e_score_correction_bias": (e,), "eh_proj.weight": (h, 2 * h),
        "enorm.weight": (h,), "hnorm.weight": (h,), "shared_head.norm.weight": (h,),
        "mlp.gate_proj.weight": (wide, h), "mlp.up_proj.weight": (wide, h), "mlp.down_proj.weight": (h, wide),
        "shared_experts.gate_proj.weight": (shared, h), "shared_experts.up_proj.weight": (shared, h),
        "shared_experts.down_proj.weight": (h, shared),
    }
    for ending, shape in table.items():
        if name.endswith(ending):
            return shape
    assert ".experts." in name, name
    return (h, ff) if name.endswith("down_proj.weight") else (ff, h)


# ------------------------------------------------------------------------------------------ one prompt through a model

class Recorder:
    """Hidden states, router selection scores and indexer scores of one forward pass, by hooks."""

    def __init__(self, model):
        self.hidden, self.router, self.index, self.hooks = {}, {}, {}, []
        keep = lambda place, key: lambda m, i, o: place.__setitem__(key, (o[0] if isinstance(o, tuple) else o)[0].detach())
        self.hooks.append(model.model.embed_tokens.register_forward_hook(keep(self.hidden, -1)))
        for i, layer in enumerate(model.model.layers):
            self.hooks.append(layer.register_forward_hook(keep(self.hidden, i)))
            if hasattr(layer.mlp, "gate"):
                def routed(m, _, o, i=i):
                    self.router[i] = ((o[0].sigmoid() + m.e_score_correction_bias).detach(), o[2])
                self.hooks.append(layer.mlp.gate.register_forward_hook(routed))
            if layer.self_attn.indexer is not None:
                self.wrap(layer.self_attn.indexer, i)

    def wrap(self, indexer, i):
        """The scores are not returned, so look at what the indexer's topk is called on."""
        inner = indexer.forward

        def forward(*args, **kwargs):
            topk = torch.Tensor.topk

            def spy(scores, *a, **k):
                top = topk(scores, *a, **k)
                self.index[i] = (scores[0].detach(), top.indices[0])
                return top
            torch.Tensor.topk = spy
            try:
                return inner(*args, **kwargs)
            finally:
                torch.Tensor.topk = topk
        indexer.forward = forward
        self.hooks.append(type("Undo", (), {"remove": lambda s: setattr(indexer, "forward", inner)})())

    def close(self):
        for hook in self.hooks:
            hook.remove()


def fnv1a32(positions):
    h = 2166136261
    for byte in np.asarray(positions, "<i4").tobytes():
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h - (1 << 32) if h >= 1 << 31 else h


def choices_of_router(scores, chosen):
    """The experts taken by descending score, and the gap between the worst of them and the best of the others."""
    taken = scores.gather(1, chosen)
    order = taken.argsort(dim=-1, descending=True, stable=True)
    rest = scores.scatter(1, chosen, float("-inf")).max(-1).values
    gap = (taken.min(-1).values - rest).clamp(max=9.0)
    return chosen.gather(1, order).numpy().astype(np.uint8), gap.numpy().astype(np.float32)


def choices_of_indexer(scores, taken, k, first):
    """Per row: hash of the set taken (ascending positions), gap at its border, and the contested positions near it.
    The sets are those that were used, not chosen anew: equal scores may fall either way."""
    hashes, gaps, starts, contested = [], [], [0], []
    for r in range(len(scores)):
        n = r + 1
        s = scores[r, :n]
        chosen = np.arange(n)
        gap = 9.0
        if n > k:
            top = s.topk(k + 1).values
            gap = float(top[k - 1] - top[k])
            threshold = float(top[k - 1])
            chosen = np.sort(taken[r].numpy())
            assert len(chosen) == k and chosen[-1] < n
            if gap < CONTESTED:
                inside = set(chosen.tolist())
                near = torch.where((s - threshold).abs() < CONTESTED)[0].tolist()
                contested += [p + first if p in inside else -1 - (p + first) for p in near]
        hashes.append(fnv1a32(chosen + first))
        gaps.append(gap)
        starts.append(len(contested))
    return hashes, gaps, starts, contested


def probes(logits, n, salt):
    """Log-probabilities of the n/2 most likely and n/2 pseudo-random ids of each row."""
    logp = logits.double().log_softmax(-1)
    g = torch.Generator().manual_seed(salt)
    ids = torch.cat([logp.topk(n // 2, -1).indices, torch.randint(logits.shape[1], (len(logits), n // 2), generator=g)], 1)
    return ids.numpy().astype(np.int32), logp.gather(1, ids).numpy().astype(np.float32)


def validate_reference(c, weights, recorder, n):
    """Our own layer against transformers', dense and sparse, full and shared: the MTP golden stands on it."""
    positions = torch.arange(n)
    sets = None
    for i in range(c["num_hidden_layers"]):
        is_full = "indexer_types" not in c or c["indexer_types"][i] == "full"
        is_dense = c["mlp_layer_types"][i] == "dense" if "mlp_layer_types" in c else i < c["first_k_dense_replace"]
        x, sets = Layer(c, weights, i).forward(recorder.hidden[i - 1], positions, is_dense, None if is_full else sets)
        scale = float(recorder.hidden[i].abs().max())
        assert float((x - recorder.hidden[i]).abs().max()) < 1e-4 * scale, f"layer {i} of the reference differs"


@torch.no_grad()
def golden(path, model, c, weights, ids, n_probes, hidden_every):
    recorder = Recorder(model)
    h = model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    recorder.close()
    logits = h @ model.lm_head.weight.T
    n = len(ids)
    if n <= 1024:
        validate_reference(c, weights, recorder, n)

    # MTP rows 1 .. n: the last one holds the token that the trunk predicts; then a chain of drafts.
    mtp = Mtp(c, weights)
    first = int(logits[-1].argmax())
    tokens = torch.tensor(ids[1:] + [first])
    positions = torch.arange(1, n + 1)
    g, mtp_logits, sets = mtp.forward(tokens, h, positions)
    router, index = dict(recorder.router), dict(recorder.index)
    router[c["num_hidden_layers"]] = (mtp.layer.selection, mtp.layer.experts)
    index[c["num_hidden_layers"]] = (mtp.layer.scores, mtp.layer.taken)
    drafts, chain = [int(mtp_logits[-1].argmax())], [g[-1]]
    shared = sets[-1:]
    for k in range(1, N_DRAFTS):
        share = None
        if c.get("index_share_for_mtp_iteration"):
            share = torch.cat([shared, torch.zeros(1, k, dtype=torch.bool)], 1)
        step_g, step_logits, _ = mtp.forward(torch.tensor(drafts[-1:]), chain[-1][None], torch.tensor([n + k]), share)
        drafts.append(int(step_logits[0].argmax()))
        chain.append(step_g[0])

    out = {"ids": np.array(ids, np.int32)}
    out["lse"] = logits.double().logsumexp(-1).numpy().astype(np.float32)
    out["probe_ids"], out["probe_logprobs"] = probes(logits, n_probes, 1)
    out["next_token"] = np.array([first], np.int32)
    rows = np.unique(np.append(np.arange(0, n, hidden_every), n - 1)).astype(np.int32)
    out["hidden_rows"] = rows
    out["hidden"] = np.stack([recorder.hidden[i][rows].numpy() for i in range(-1, c["num_hidden_layers"])])
    picked = [choices_of_router(*router[i]) for i in sorted(router)]
    out["router_layers"] = np.array(sorted(router), np.int32)
    out["router_experts"] = np.stack([p[0] for p in picked])
    out["router_gaps"] = np.stack([p[1] for p in picked])
    hashes, gaps, starts, contested = [], [], [0], []
    for i in sorted(index):
        a, b, s, p = choices_of_indexer(*index[i], c["index_topk"], 1 if i == c["num_hidden_layers"] else 0)
        hashes.append(a), gaps.append(b)
        starts += [starts[-1] + x for x in s[1:]]
        contested += p
    out["index_layers"] = np.array(sorted(index), np.int32)
    out["index_hashes"] = np.array(hashes, np.int32)
    out["index_gaps"] = np.array(gaps, np.float32)
    out["contested_starts"], out["contested"] = np.array(starts, np.int32), np.array(contested + [0], np.int32)
    out["mtp_hidden"] = g[rows].numpy()
    out["mtp_probe_ids"], out["mtp_probe_logprobs"] = probes(mtp_logits, n_probes, 2)
    out["drafts"], out["chain_hidden"] = np.array(drafts, np.int32), torch.stack(chain).numpy()
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, path)
    near = sum(1 for layer in gaps for x in layer if x < 1e-5)
    print(f"{path.relative_to(ROOT)}: {n} rows, {near} index sets and "
          f"{int((out['router_gaps'] < 1e-5).sum())} router choices with a gap under 1e-5, {path.stat().st_size} bytes")


# ------------------------------------------------------------------------------------------------------- what to make

def make_nano():
    model, c, weights = nano()
    tok = transformers.PreTrainedTokenizerFast(tokenizer_file=str(NANO / "tokenizer.json"))
    # English and JSON from files of the repository that do not change.
    parts = ("models/glm-nano/README.md", "models/glm-nano/config.json", "LICENSE")
    text = "".join((ROOT / part).read_text() for part in parts)
    ids = tok(text, add_special_tokens=False)["input_ids"]
    control = lambda name: tok.convert_tokens_to_ids(name)
    prompt = [control("[gMASK]"), control("<sop>"), control("<|user|>")] + ids
    assert len(prompt) >= 4096, len(prompt)
    for n in (300, 1000, 4096):
        golden(OUT / f"nano-{n}.safetensors", model, c, weights, prompt[:n], 8, 97)


BASE = dict(
    architectures=["GlmMoeDsaForCausalLM"], model_type="glm_moe_dsa", dtype="bfloat16", attention_bias=False,
    attention_dropout=0.0, hidden_act="silu", hidden_size=64, intermediate_size=96, moe_intermediate_size=32,
    moe_layer_freq=1, n_group=1, topk_group=1, norm_topk_prob=True, num_nextn_predict_layers=1, rms_norm_eps=1e-5,
    rope_interleave=True, routed_scaling_factor=2.5, scoring_func="sigmoid", topk_method="noaux_tc",
    tie_word_embeddings=False, use_cache=True, max_position_embeddings=1024, initializer_range=0.02,
    n_shared_experts=1, first_k_dense_replace=1, eos_token_id=[1, 2], pad_token_id=1)


def pattern(text):
    return [{"F": "full", "S": "shared"}[x] for x in text]


def layers(n_dense, n):
    return dict(num_hidden_layers=n, first_k_dense_replace=n_dense,
                mlp_layer_types=["dense"] * n_dense + ["sparse"] * (n - n_dense))


TINY = {
    # Odd everywhere; two shared experts; latents no multiple of anything; an eps large enough that a wrong one shows.
    "odd": dict(BASE, **layers(1, 4), rms_norm_eps=1e-3, intermediate_size=74, moe_intermediate_size=20,
                vocab_size=307, num_attention_heads=3, num_key_value_heads=3, q_lora_rank=40,
                kv_lora_rank=44, qk_nope_head_dim=24, qk_rope_head_dim=8, qk_head_dim=32, v_head_dim=20, index_n_heads=3,
                index_head_dim=16, index_topk=20, n_routed_experts=7, num_experts_per_tok=3, n_shared_experts=2,
                indexer_types=pattern("FFSS"), index_share_for_mtp_iteration=True,
                rope_parameters=dict(rope_theta=10000.0, rope_type="default")),
    # Its draft chain is compared without injected choices, so many heads keep scores from being equal (all zero).
    # GLM-5.1: no IndexShare key at all, so every layer is full; three dense layers; one expert a token.
    "all-full": dict({k: v for k, v in dict(BASE, **layers(3, 5)).items() if k != "mlp_layer_types"}, vocab_size=256,
                     num_attention_heads=5, num_key_value_heads=5, q_lora_rank=32, kv_lora_rank=128, qk_nope_head_dim=16,
                     qk_rope_head_dim=16, qk_head_dim=32, v_head_dim=32, index_n_heads=9, index_head_dim=32, index_topk=32,
                     n_routed_experts=8, num_experts_per_tok=1, hidden_size=48,
                     intermediate_size=80, moe_intermediate_size=56,
                     rope_parameters=dict(rope_theta=1000000.0, rope_type="default")),
    # GLM-5.2's pattern in small, by its frequency keys and its list.
    "fffsss": dict(BASE, **layers(3, 8), vocab_size=320, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=48,
                   kv_lora_rank=256, qk_nope_head_dim=24, qk_rope_head_dim=8, qk_head_dim=32, v_head_dim=40,
                   index_n_heads=4, index_head_dim=16, index_topk=16, n_routed_experts=16, num_experts_per_tok=4,
                   index_topk_freq=4, index_skip_topk_offset=3, indexer_types=pattern("FFFSSSFS"),
                   index_share_for_mtp_iteration=True, rope_parameters=dict(rope_theta=8000000.0, rope_type="default")),
    # Router weights that are not normalised; one head; a scaling of its own.
    "ffss-raw": dict(BASE, **layers(1, 6), vocab_size=300, num_attention_heads=1, num_key_value_heads=1, q_lora_rank=24,
                     kv_lora_rank=64, qk_nope_head_dim=40, qk_rope_head_dim=24, qk_head_dim=64, v_head_dim=16,
                     index_n_heads=1, index_head_dim=32, index_topk=12, n_routed_experts=9, num_experts_per_tok=2,
                     norm_topk_prob=False, routed_scaling_factor=1.0, hidden_size=56, indexer_types=pattern("FFSSFS"),
                     index_share_for_mtp_iteration=True, rope_parameters=dict(rope_theta=5000.0, rope_type="default")),
    # Draft steps that run their own indexer and see each other.
    "own-mtp-index": dict(BASE, **layers(2, 3), vocab_size=280, num_attention_heads=2, num_key_value_heads=2, q_lora_rank=32,
                          kv_lora_rank=96, qk_nope_head_dim=32, qk_rope_head_dim=16, qk_head_dim=48, v_head_dim=48,
                          index_n_heads=8, index_head_dim=16, index_topk=10, n_routed_experts=5, num_experts_per_tok=2,
                          indexer_types=pattern("FSF"), index_share_for_mtp_iteration=False,
                          rope_parameters=dict(rope_theta=100000.0, rope_type="default")),
}


def make_tiny():
    for name, config in TINY.items():
        folder = OUT / f"tiny-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        model, c, weights = tiny(config)
        r = np.random.default_rng(11)
        ids = r.integers(0, c["vocab_size"], 150).tolist()
        golden(folder / "golden.safetensors", model, c, weights, ids, 24, 7)


def render(problem, thinking):
    """The prompt of one problem (prompt format of GLM-5.2) as pieces: ('c', control token) or ('t', text)."""
    out = [("c", "[gMASK]"), ("c", "<sop>")]
    if thinking:
        out += [("c", "<|system|>"), ("t", "Reasoning Effort: Max")]
    if problem.get("tools"):
        tools = "".join(json.dumps(t["function"], ensure_ascii=False) + "\n" for t in problem["tools"])
        text = ("\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
                "function signatures within <tools></tools> XML tags:\n<tools>\n" + tools + "</tools>\n\nFor each function "
                "call, output the function name and arguments within the following XML format:\n<tool_call>{function-name}"
                "<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value><arg_key>{arg-key-2}</arg_key>"
                "<arg_value>{arg-value-2}</arg_value>...</tool_call>")
        out += [("c", "<|system|>"), ("m", text)]
    for m in problem["messages"]:
        assert m["role"] in ("user", "system")
        out += [("c", f"<|{m['role']}|>"), ("t", m["content"])]
    return out + [("c", "<|assistant|>"), ("c", "<think>")] + ([] if thinking else [("c", "</think>")])


@torch.no_grad()
def bf16_differences(model, texts):
    """Where transformers in bf16 is off its f32: |difference of the log-probability of the next id|, and whether the most
    likely id is the same, at each position of each text but its last."""
    short = transformers.AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.bfloat16, attn_implementation="eager")
    short = with_eps(short).eval()
    off, agrees = [], []
    for text in texts:
        ids = torch.tensor([text])
        wide, narrow = (m(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1) for m in (model, short))
        off.append((wide - narrow).gather(1, ids[0, 1:, None])[:, 0].abs().numpy())
        agrees.append((wide.argmax(-1) == narrow.argmax(-1)).numpy().astype(np.uint8))
    off, agrees = np.concatenate(off), np.concatenate(agrees)
    print(f"bf16: {len(off)} positions, {agrees.mean():.4f} agree, mean {off.mean():.5f}, 99.9 % {np.quantile(off, 0.999):.4f}")
    return {"bf16_off": off, "bf16_agrees": agrees}


@torch.no_grad()
def make_greedy(folder):
    model, c, _ = nano()
    tok = transformers.PreTrainedTokenizerFast(tokenizer_file=str(NANO / "tokenizer.json"))
    prompts, answers, gaps = [], [], []
    for file in sorted(pathlib.Path(folder).glob("nano_*.jsonl")):
        for i, line in enumerate(file.read_text().splitlines()[:25]):
            ids = []
            for kind, text in render(json.loads(line), i % 2 == 0):
                ids += ([tok.convert_tokens_to_ids(text)] if kind == "c" else
                        tok(text, add_special_tokens=False)["input_ids"])
            answer, cache, step, gap = [], transformers.DynamicCache(config=model.config), torch.tensor([ids]), 9.0
            while len(answer) < 96:
                logits = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
                top = logits.topk(2)
                gap = min(gap, float(top.values[0] - top.values[1]))
                answer.append(int(top.indices[0]))
                step = torch.tensor([answer[-1:]])
                if answer[-1] in c["eos_token_id"]:
                    break
            prompts.append(ids), answers.append(answer), gaps.append(gap)
        print(file.name, len(prompts), "smallest gap", min(gaps), flush=True)
    flat = lambda lists: np.concatenate([np.array(x, np.int32) for x in lists])
    starts = lambda lists: np.cumsum([0] + [len(x) for x in lists]).astype(np.int32)
    save_file({"prompts": flat(prompts), "prompt_starts": starts(prompts), "answers": flat(answers),
               "answer_starts": starts(answers), "gaps": np.array(gaps, np.float32),
               **bf16_differences(model, [p + a for p, a in zip(prompts, answers)])}, OUT / "greedy.safetensors")


def write_manifest():
    files = {p.relative_to(OUT).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in sorted(OUT.rglob("*")) if p.suffix in (".safetensors", ".json")
             and p.relative_to(OUT).parts[0].startswith(("greedy", "nano-", "tiny-"))}
    (OUT / "manifest.json").write_text(json.dumps({
        "script": "tools/golden/make_golden.py", "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__, "numpy": np.__version__, "dummy_seed": SEED, "sha256": files}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["nano", "tiny"])
    parser.add_argument("--eval", help="folder with nano_*.jsonl problem sets (for greedy)")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    if "tiny" in args.what:
        make_tiny()
    if "nano" in args.what:
        make_nano()
    if "greedy" in args.what:
        make_greedy(args.eval)
    write_manifest()


if __name__ == "__main__":
    sys.exit(main())

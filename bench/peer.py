#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's speed and logits, by the interface of PyPI's llama-cpp-python.

    bench/peer.py [--depth N] [--prefill N] [--decode N] [--repeats N] [--threads N] MODEL.gguf
    bench/peer.py --prompts FILE.json --decode N [--repeats N] [--threads N] MODEL.gguf
    bench/peer.py --logits FILE.npy --ids LIST MODEL.gguf

Options, ids and output are those of bench_cpu_speed (bench/cpu_speed.c); a token that is decoded is
the next of the ids, nothing is drawn.  Everything that llama.cpp has a default for is the default:
batches of 512, cache in f16, flash attention where it chooses to.
--prompts has a sequence for each prompt in the file, [[id, ...], ...], all decoded at once: a step
takes one token of each, which is the likeliest.  What the prompts begin with in common is computed
once and copied, so that each sequence has a cache of its own.  Both ways of llama.cpp are measured,
one cache for all (to 16 sequences: with 64 it is 14 times slower and more) and one for each sequence
(kv_unified), with flash attention: without it decoding on a CPU is 2 to 8 times slower.
--logits writes f32 [n + 1, n_vocab]: what follows each id, fed one by one, and at last what follows
all of them fed at once.
"""
import argparse
import ctypes
import json
import os.path
import resource
import statistics
import sys
import time

import llama_cpp
import numpy as np

N_BATCH = 2048  # tokens of one call, llama.cpp's default
UNIFIED_MAX = 16  # sequences in one cache
LEVEL_ERROR = 4  # GGML_LOG_LEVEL_ERROR of ggml.h


@llama_cpp.llama_log_callback
def silent(level, text, _):
    """Errors alone are worth a line."""
    if level == LEVEL_ERROR:
        sys.stderr.write(text.decode())


def load(path):
    """A model."""
    llama_cpp.llama_log_set(silent, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(),
                                                 llama_cpp.llama_model_default_params())
    if not model:
        sys.exit(f"peer: error: {path}: llama.cpp does not load it")
    return model


class Peer:
    """A context of a model; feed(), rewind() and logits() are about a single sequence."""

    def __init__(self, model, n_context, n_threads, **others):
        self.model = model
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = n_context
        options.n_threads = options.n_threads_batch = n_threads
        for name, value in others.items():
            setattr(options, name, value)
        self.context = llama_cpp.llama_init_from_model(model, options)
        if not self.context:
            sys.exit(f"peer: error: {others}: llama.cpp makes no such context")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self.model))

    def feed(self, ids):
        """Compute ids after those of the sequence; returns seconds."""
        start = time.perf_counter()
        for at in range(0, len(ids), N_BATCH):
            part = ids[at:at + N_BATCH]
            array = (llama_cpp.llama_token * len(part))(*part)
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(part))):
                sys.exit("peer: error: llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - start

    def rewind(self, n_tokens):
        """Forget what follows the first n_tokens."""
        if not llama_cpp.llama_memory_seq_rm(self.memory, 0, n_tokens, -1):
            sys.exit("peer: error: llama.cpp cannot forget a part of its cache")

    def logits(self):
        """What follows the last id."""
        at = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(ctypes.cast(at, ctypes.POINTER(ctypes.c_float)),
                                     (self.n_vocab,)).copy()

    def decode(self, tokens, positions, sequences, wants_logits):
        """Compute a token for each of the sequences; returns what follows them, [n, n_vocab]."""
        n_tokens = len(tokens)
        batch = llama_cpp.llama_batch_init(n_tokens, 0, 1)
        batch.n_tokens = n_tokens
        for i in range(n_tokens):
            batch.token[i] = tokens[i]
            batch.pos[i] = positions[i]
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequences[i]
            batch.logits[i] = wants_logits
        if llama_cpp.llama_decode(self.context, batch):
            sys.exit("peer: error: llama_decode failed")
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_synchronize(self.context)
        at = llama_cpp.llama_get_logits(self.context)
        return wants_logits and np.ctypeslib.as_array(
            ctypes.cast(at, ctypes.POINTER(ctypes.c_float)), (n_tokens, self.n_vocab))

    def fill(self, sequence, first, ids):
        """Compute ids of one sequence from position first on."""
        for at in range(0, len(ids), N_BATCH):
            part = ids[at:at + N_BATCH]
            self.decode(part, range(first + at, first + at + len(part)), [sequence] * len(part),
                        False)

    def copy_first(self, n_sequences):
        """Give others the cache of sequence 0."""
        n_bytes = llama_cpp.llama_state_seq_get_size(self.context, 0)
        state = (ctypes.c_uint8 * n_bytes)()
        llama_cpp.llama_state_seq_get_data(self.context, state, n_bytes, 0)
        for i in range(1, n_sequences):
            if not llama_cpp.llama_state_seq_set_data(self.context, state, n_bytes, i):
                sys.exit("peer: error: llama.cpp cannot copy a sequence")

    def close(self):
        """Free the context."""
        llama_cpp.llama_free(self.context)

    def ids(self, first, n_ids, i_repeat=0):
        """The sequence of bench/cpu_speed.c."""
        return [(i * 7919 + i_repeat * 104729 + 1) % self.n_vocab for i in range(first, first + n_ids)]


def report(what, arguments, n_tokens, seconds):
    """One JSON object; the first repeat is not counted."""
    rates = [n_tokens / s for s in seconds[1:]]
    print(json.dumps({
        "what": what, "depth": arguments.depth, "tokens": n_tokens,
        "tokens_per_s": round(statistics.median(rates), 2),
        "min_tokens_per_s": round(min(rates), 2), "max_tokens_per_s": round(max(rates), 2),
        "threads": arguments.threads,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def measure(arguments):
    """Decoding first, as bench_cpu_speed does."""
    depth, n_decode, n_prefill = arguments.depth, arguments.decode, arguments.prefill
    peer = Peer(load(arguments.model), depth + max(n_decode, n_prefill) + 1, arguments.threads)
    if depth:
        peer.feed(peer.ids(0, depth))
    times = []
    for _ in range(arguments.repeats + 1 if n_decode else 0):
        peer.rewind(depth)
        times.append(sum(peer.feed([i]) for i in peer.ids(depth, n_decode)))
    if times:
        report("decode", arguments, n_decode, times)
    times = []
    for i_repeat in range(arguments.repeats + 1 if n_prefill else 0):
        peer.rewind(depth)
        times.append(peer.feed(peer.ids(depth, n_prefill, i_repeat + 1)))
    if times:
        report("prefill", arguments, n_prefill, times)


def measure_way(peer, prompts, arguments):
    """Seconds of each repeat, after one that is not counted."""
    n_sequences = len(prompts)
    n_common = min(len(os.path.commonprefix(prompts)), min(map(len, prompts)) - 1)
    sequences = range(n_sequences)
    if n_common:
        peer.fill(0, 0, prompts[0][:n_common])
        peer.copy_first(n_sequences)
    for i in sequences:
        peer.fill(i, n_common, prompts[i][n_common:-1])
    tokens = [ids[-1] for ids in prompts]
    positions = np.array([len(ids) - 1 for ids in prompts])
    seconds = []
    for _ in range(arguments.repeats + 1):
        start = time.perf_counter()
        for _ in range(arguments.decode):
            logits = peer.decode(tokens, positions.tolist(), sequences, True)
            tokens = logits.argmax(axis=1).tolist()
            positions += 1
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def measure_batch(arguments):
    """One JSON object for each way."""
    with open(arguments.prompts, encoding="utf-8") as file:
        prompts = json.load(file)
    model = load(arguments.model)
    n_sequences = len(prompts)
    n_each = max(map(len, prompts)) + arguments.decode * (arguments.repeats + 1)
    n_each += -n_each % 256  # llama.cpp's unit
    for is_unified in (False, True) if 1 < n_sequences <= UNIFIED_MAX else (False,):
        peer = Peer(model, n_each * n_sequences, arguments.threads, n_seq_max=n_sequences,
                    kv_unified=is_unified,
                    flash_attn_type=llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED)
        rates = [n_sequences * arguments.decode / s for s in measure_way(peer, prompts, arguments)]
        peer.close()
        print(json.dumps({
            "way": "one cache" if is_unified else "a cache each",
            "sequences": n_sequences, "tokens_per_s": round(statistics.median(rates), 2),
            "min_tokens_per_s": round(min(rates), 2), "max_tokens_per_s": round(max(rates), 2),
            "threads": arguments.threads}), flush=True)


def write_logits(arguments):
    """See the head of this file."""
    ids = [int(i) for i in arguments.ids.split(",")]
    peer = Peer(load(arguments.model), len(ids) + 1, arguments.threads)
    rows = []
    for i in ids:
        peer.feed([i])
        rows.append(peer.logits())
    peer.rewind(0)
    peer.feed(ids)
    rows.append(peer.logits())
    np.save(arguments.logits, np.stack(rows))


def main():
    """Parse, then one of the three."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 0), ("prefill", 0), ("decode", 0), ("repeats", 5),
                          ("threads", 2)):
        parser.add_argument("--" + name, type=int, default=default, metavar="N")
    parser.add_argument("--prompts", metavar="FILE.json")
    parser.add_argument("--logits", metavar="FILE.npy")
    parser.add_argument("--ids", metavar="LIST")
    parser.add_argument("model")
    arguments = parser.parse_args()
    run = write_logits if arguments.logits else measure_batch if arguments.prompts else measure
    run(arguments)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The products of docs/performance.md by cuBLAS, bf16, as torch calls it: a peer of tools/gpu/bench.sh.

Graphs of calls on weights that take turns, a cold L2 cache before each, medians: as gpucheck --bench
has them.  Needs torch and an NVIDIA GPU.
"""
import statistics

import torch

SWEEP = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")


def median_us(call, n_calls):
    """Of one call, of a graph of n_calls."""
    for i in range(n_calls):
        call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(n_calls):
            call(i)
    times = []
    for i in range(23):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        SWEEP.fill_(i)
        first.record()
        graph.replay()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) * 1e3 / n_calls)
    return statistics.median(times[3:])


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    source = torch.ones(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    read = (1 << 31) / median_us(lambda i: target.copy_(source), 1) * 1e-3
    del source, target
    print(f"copies {read:.0f} GB/s, read and written")
    for name, n_out, n_in in ("q_b", 16384, 2048), ("o", 6144, 16384), ("q_a", 2048, 6144):
        n_bytes = n_out * n_in * 2
        n_sets = max(4, (256 << 20) // n_bytes)
        w = [torch.randn(n_out, n_in, device="cuda", dtype=torch.bfloat16) for _ in range(n_sets)]
        for n_rows in 1, 8, 16, 32, 64:
            x = torch.randn(n_rows, n_in, device="cuda", dtype=torch.bfloat16)
            y = torch.empty(n_rows, n_out, device="cuda", dtype=torch.bfloat16)
            us = median_us(lambda i: torch.mm(x, w[i].t(), out=y), n_sets)
            print(f"{name} bf16 {n_out}x{n_in} {n_rows} rows cublas {us:8.2f} us {n_bytes / us * 1e-3:6.0f} GB/s")


if __name__ == "__main__":
    main()

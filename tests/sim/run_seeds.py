#!/usr/bin/env python3
"""Run the simulator over fixed seeds and over seeds that the present commit gives.

Seeds on which a checker was once wrong are always among them.

usage: run_seeds.py SIM --fixed N --fresh N --steps N
"""
import argparse
import os
import pathlib
import subprocess
import sys

KNOWN = [(5205, 600)]  # seed, steps


def commit_seed() -> int:
    """A number of the commit; 0 where there is none to ask for."""
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    return int(done.stdout[:8], 16) if done.returncode == 0 else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("sim")
    parser.add_argument("--fixed", type=int, required=True)
    parser.add_argument("--fresh", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    first = 1000000 + commit_seed()
    runs = [(f"{seed}..{seed}", n_steps) for seed, n_steps in KNOWN]
    runs += [(f"1..{options.fixed}", options.steps),
             (f"{first}..{first + options.fresh - 1}", options.steps)]
    for seeds, n_steps in runs:
        done = subprocess.run([options.sim, "--seeds", seeds, "--steps", str(n_steps),
                               "--jobs", str(os.cpu_count() or 1)])
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

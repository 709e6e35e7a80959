#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_exports.py LIBRARY HEADERS: what the shared library exports is what its headers declare.

The dynamic symbols defined in LIBRARY are exactly the functions declared with QN_API in the files
HEADERS/*.h, and its soname ends in QN_ABI_VERSION.  Needs nm and readelf.
"""
import pathlib
import re
import subprocess
import sys


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def exported(library: str) -> set:
    """Names of the dynamic symbols that the library defines."""
    return {line.split()[-1] for line in output_of("nm", "-D", "--defined-only", library).splitlines()}


def declared(headers: str) -> set:
    """Names of the functions behind QN_API."""
    code = re.sub(r"/\*.*?\*/|^\s*#.*?$", "", headers, flags=re.S | re.M)
    return set(re.findall(r"\bQN_API\b[^;(]*?(\w+)\s*\(", code))


def differences(symbols: set, functions: set, soname: str, headers: str) -> list:
    """One line for each thing that does not fit."""
    found = re.search(r"^#define QN_ABI_VERSION (\d+)$", headers, flags=re.M)
    abi = found.group(1) if found else "none"
    wrong = [f"{name}: exported, a declaration with QN_API expected" for name in sorted(symbols - functions)]
    wrong += [f"{name}: declared with QN_API, a symbol expected" for name in sorted(functions - symbols)]
    if not soname.endswith(".so." + abi):
        wrong.append(f"soname: {soname}, QN_ABI_VERSION {abi} at its end expected")
    return wrong


def main(library: str, folder: str) -> int:
    headers = "\n".join(p.read_text(encoding="utf-8") for p in sorted(pathlib.Path(folder).glob("*.h")))
    soname = re.search(r"SONAME.*\[(.*)\]", output_of("readelf", "-d", library))
    functions = declared(headers)
    wrong = differences(exported(library), functions, soname.group(1) if soname else "none", headers)
    print("\n".join(wrong) or f"{len(functions)} functions declared and exported")
    return 1 if wrong or not functions else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check_exports.py LIBRARY HEADERS")
    sys.exit(main(sys.argv[1], sys.argv[2]))

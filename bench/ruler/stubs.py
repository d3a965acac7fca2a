"""Stubs of the libraries that torch is linked with and a CPU never calls.

The registry's torch for x86 is the one for CUDA: without gigabytes of NVIDIA libraries it does not even
load. Its CPU side calls none of them, so each missing one becomes a library of a few kilobytes that
exports the names that torch asks for, with their versions. Every function answers 100, which is CUDA's
"no device", so torch finds a machine without a GPU.
"""

import re
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

NO_DEVICE = 100
NVIDIA = re.compile(r"lib(cu|nv|nccl)\w*\.so")
FOREIGN = re.compile(r"(cu|nv|nccl)\w*$")  # names without a version that may be taken for the libraries'


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needs(library):
    """(names of libraries, {version: library that has it}) that a library asks for."""
    text = _output("objdump", "-p", str(library))
    needed = re.findall(r"^\s+NEEDED\s+(\S+)", text, re.M)
    versions, current = {}, None
    for line in text.partition("Version References:")[2].splitlines():
        if match := re.match(r"\s+required from (\S+?):", line):
            current = match[1]
        elif current and (match := re.match(r"\s+0x\S+ 0x\S+ \d+ (\S+)", line)):
            versions[match[1]] = current
    return needed, versions


def symbols(library):
    """(undefined ["name", "name@VERSION", ...], defined names)"""
    undefined, defined = [], set()
    for line in _output("nm", "-D", str(library)).splitlines():
        kind, name = line.split()[-2:]
        if kind == "U":
            undefined.append(name)
        elif kind not in ("w", "v"):
            defined.add(name.partition("@")[0])
    return undefined, defined


def wanted(folder):
    """{missing library: {version or "": {names}}} for the libraries of a folder."""
    libraries = sorted(Path(folder).glob("*.so*"))
    present = {path.name for path in libraries}
    missing, where, undefined, defined = [], {}, set(), set()
    for path in libraries:
        needed, versions = needs(path)
        missing += [name for name in needed
                    if NVIDIA.match(name) and name not in present and name not in missing]
        where.update(versions)
        asked, has = symbols(path)
        undefined.update(asked)
        defined |= has
    stubs = {name: defaultdict(set) for name in missing}
    for symbol in undefined:
        name, _, version = symbol.partition("@")
        library = where.get(version.lstrip("@")) if version else None
        if library in stubs:
            stubs[library][version.lstrip("@")].add(name)
        elif missing and not version and name not in defined and FOREIGN.match(name):
            stubs[missing[0]][""].add(name)
    return stubs


def build(library, versions, folder):
    """Compiles one stub into the folder."""
    names = sorted(set().union(*versions.values()) if versions else [])
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text("".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in names))
        script.write_text("".join(
            f"{version} {{ {' '.join(name + ';' for name in sorted(inside))} }};\n"
            for version, inside in sorted(versions.items()) if version))
        options = ["-w", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-Wl,--allow-shlib-undefined"]
        if script.read_text():
            options.append(f"-Wl,--version-script={script}")
        done = subprocess.run(["gcc", *options, "-o", str(Path(folder, library)), str(source)],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"stub of {library}: {done.stderr.strip().splitlines()[-1]}")


def make(folder):
    """Makes what the libraries of a folder lack, in that folder (their own search path). Returns the names."""
    made = wanted(folder)
    for library, versions in made.items():
        build(library, versions, folder)
    return sorted(made)

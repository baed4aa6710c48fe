"""Doubtful labels: found where they were planted, refused from a model that saw them, exported in order."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from communique.eval.label_issues import label_issues
from communique.eval.table import Row, Table
from communique.model.labels import LABELS
from communique.train.corpus import load_annotations
from communique.train.data_cli import app

pytest.importorskip("cleanlab", reason="needs the eval extra")

NAMES = list(map(str, LABELS))


def sure_of(truth, rng, mass=0.8):
    """Probabilities (n, 5) of a model that is fairly sure of `truth`."""
    p = rng.dirichlet(np.ones(5), len(truth)) * (1 - mass)
    p[np.arange(len(truth)), truth] += mass
    return p


def test_planted_mistakes_are_found_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 500)
    given = truth.copy()
    planted = rng.choice(500, 25, replace=False)
    given[planted] = (truth[planted] + 1) % 5
    rows = tuple(Row("t", f"d{i}", i, "x", NAMES[g]) for i, g in enumerate(given))
    found = label_issues(Table("m", "", rows, sure_of(truth, rng), 0.0))
    assert len(found) >= 18 and set(found) <= set(planted.tolist())


def test_one_label_alone_has_no_mistakes():
    rows = tuple(Row("t", f"d{i}", i, "x", "demand") for i in range(9))
    assert label_issues(Table("m", "", rows, np.full((9, 5), 0.2), 0.0)) == []


def test_a_label_that_is_absent():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 100)  # no `none`
    rows = tuple(Row("t", f"d{i}", i, "x", NAMES[g]) for i, g in enumerate(truth))
    assert label_issues(Table("m", "", rows, sure_of(truth, rng), 0.0)) == []


@pytest.fixture(scope="module")
def own():
    return [s for s in load_annotations().sentences if s.row.synthetic and s.text is not None][:300]


def test_the_queue_is_written_for_a_tool(tmp_path, own):
    rng = np.random.default_rng(2)
    truth = np.array([NAMES.index(s.row.label) for s in own])
    believed = truth.copy()
    wrong = rng.choice(len(own), 12, replace=False)
    believed[wrong] = (truth[wrong] + 2) % 5
    lines = []
    for s, p in zip(own, sure_of(believed, rng, mass=0.9), strict=True):
        named = {f"p_{name}": float(v) for name, v in zip(NAMES, p, strict=True)}
        lines.append(
            {"doc_id": s.row.doc_id, "sent_id": s.row.sent_id, "text": s.text, "gold": s.row.label, **named}
        )
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "q.jsonl"
    command = ["queue", str(out), "--table", str(table), "--to", "doccano"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "no fold" in done.output and not out.exists()
    table.write_text("".join(json.dumps(line | {"fold": 0}) + "\n" for line in lines))
    done = CliRunner().invoke(app, [*command, "--limit", "10"])
    assert done.exit_code == 0, done.output
    queued = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert len(queued) == 10 and set(queued) <= {own[i].text for i in wrong}
    done = CliRunner().invoke(app, ["import", str(out), "--from", "doccano", "--dry-run"])
    assert done.exit_code == 0 and "0 rows would be changed" in done.output

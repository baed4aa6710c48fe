"""Distillation: which sentences a teacher may label, what it writes, and that a student can learn from it."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.filterwarnings("default")

from communique.model.errors import InputError  # noqa: E402
from communique.model.labels import LABELS  # noqa: E402
from communique.model.tokens import SentenceInput  # noqa: E402
from communique.train.config import TrainConfig  # noqa: E402
from communique.train.soft import soft_labels, taught, unlabelled  # noqa: E402

SPOKEN = "The minister of Arvenia spoke of grain at length and went home by the night train."
HELD = "The minister of Bolvania promised to open the port of Sel before the winter storms arrive."
FRESH = "Quite another thing was said about the wells on the far side of the river."


@pytest.fixture
def shared(tmp_path):
    """A corpus of three statements: of train, of dev, and one that is in no split."""
    folder = tmp_path / "shared"
    (folder / "corpus").mkdir(parents=True)
    texts = {
        "in-train": SPOKEN,
        "in-dev": HELD,
        "nowhere": f"{FRESH} {HELD.replace('Bolvania', 'Tarvania')} Yes indeed.",
    }
    lines = [json.dumps({"doc_id": doc_id, "text": text}) for doc_id, text in texts.items()]
    (folder / "corpus" / "statements.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def placed(own):
    """Annotations whose only known sentence is the one of dev."""
    one = dataclasses.replace(own.sentences[0], text=HELD)
    return dataclasses.replace(
        own, sentences=(one,), splits={"split": {"in-train": "train", "in-dev": "dev"}}
    )


def test_held_out_sentences_and_what_resembles_them_are_not_taught(shared, placed):
    found = unlabelled(placed, shared, 100)
    assert sorted(s.text for s in found) == sorted([SPOKEN, FRESH])
    assert next(s for s in found if s.text == FRESH).after.startswith("The minister of Tarvania")
    assert len(unlabelled(placed, shared, 1)) == 1
    linked = dataclasses.replace(placed, splits={**placed.splits, "near_duplicates": [["in-dev", "nowhere"]]})
    assert [s.text for s in unlabelled(linked, shared, 100)] == [SPOKEN]


def test_without_texts_it_says_what_to_do(tmp_path, placed):
    with pytest.raises(InputError, match="COMMUNIQUE_SHARED"):
        unlabelled(placed, tmp_path, 10)


@pytest.mark.slow
def test_a_student_learns_from_what_a_teacher_wrote(tiny_encoder, own, tmp_path):
    from communique.train.fit import predict_logits
    from communique.train.recipe import run, training_rows

    config = TrainConfig(
        encoder=str(tiny_encoder), epochs=1, first_epochs=0, before_tokens=8, max_tokens=64, threads=1
    )
    teacher, path = tmp_path / "teacher", tmp_path / "soft.jsonl"
    artifact = run(config, own, teacher, quantised=False)  # int8 flips too many labels so soon
    sentences = [SentenceInput(FRESH, SPOKEN, HELD), SentenceInput(SPOKEN), SentenceInput(HELD, FRESH)]
    heard = []
    learnt = [s for s in own.split("train") if s.text is not None][:2]
    annotated = [SentenceInput(s.text, s.before, s.after) for s in learnt]
    soft_labels([teacher, teacher], sentences, path, annotated=annotated, threads=1, tick=heard.append)
    assert sum(heard) == 2 * (len(sentences) + len(annotated))
    every = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(e["text"], e["before"], e["after"]) for e in every] == [
        (s.text, s.before, s.after) for s in [*sentences, *annotated]
    ]
    lines = [e for e in every if not e.get("annotated")]
    settings = dataclasses.replace(config, soft_labels=str(path))
    rows = taught(settings).rows
    # An annotated sentence learns from its annotators and from the teacher.
    mixed = {row.text: row for row in training_rows(own, dataclasses.replace(settings, soft_share=0.25))}
    for s, e in zip(learnt, every[len(lines) :], strict=True):
        gold = np.array([name == s.row.label for name in map(str, LABELS)], dtype=float)
        assert np.allclose(mixed[s.text].soft, 0.75 * gold + 0.25 * np.array(e["p"]), atol=2e-4)
    assert not any(row.soft for row in training_rows(own, config))
    alone = training_rows(own, dataclasses.replace(settings, soft_share=0.0))
    assert [row for row in alone if row.soft] == list(rows)
    logits = predict_logits(teacher, config, rows) / artifact.config.temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose([e["p"] for e in lines], expected, atol=2e-4)
    assert np.allclose([row.soft for row in rows], expected, atol=2e-4)
    student = run(
        dataclasses.replace(config, soft_labels=str(path)), own, tmp_path / "student", quantised=False
    )
    assert "teacher's probabilities" in student.path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", r"soft\.jsonl:2: not JSON"),
        ({"p": [0.2] * 5}, r"soft\.jsonl:2: text, before and after"),
        ({"text": "a", "before": "", "after": "", "p": [0.25] * 4}, r":2: p is not a list of 5"),
        ({"text": "a", "before": "", "after": "", "p": [0.3] * 5}, r":2: p sums to 1\.5000, not 1"),
        ({"text": "a", "before": "", "after": "", "p": [1.2, -0.2, 0, 0, 0]}, r":2: p is .*in \[0, 1\]"),
    ],
)
def test_a_malformed_line_is_named(line, message, tmp_path):
    path = tmp_path / "soft.jsonl"
    good = {"text": "a", "before": "", "after": "", "p": [0.2] * 5}
    path.write_text(json.dumps(good) + "\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(InputError, match=message):
        taught(TrainConfig(soft_labels=str(path)))
    path.write_text(json.dumps(good) + "\n")
    assert len(taught(TrainConfig(soft_labels=str(path))).rows) == 1
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no rows"):
        taught(TrainConfig(soft_labels=str(path)))
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        taught(TrainConfig(soft_labels=str(path)))
    assert taught(TrainConfig(soft_labels=str(path), soft_weight=0.0)).rows == ()  # left out


def test_soft_labels_stay_out_of_the_repository(root):
    from communique.cli import app

    path = root / "runs" / "soft.jsonl"
    done = CliRunner().invoke(app, ["train", "soft-labels", "teacher", "--file", str(path)])
    assert isinstance(done.exception, InputError) and "lies in the repository" in str(done.exception)


def test_a_folder_that_is_no_teacher(tmp_path):
    from communique.cli import app

    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"train\.json"):
        soft_labels([tmp_path / "empty"], [SentenceInput(SPOKEN)], tmp_path / "soft.jsonl")
    shown = CliRunner().invoke(app, ["train", "soft-labels", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "--sentences" in shown.output


def test_a_second_act_gets_its_share_of_the_target(own):
    from communique.train.batches import _target
    from communique.train.recipe import weighted_rows

    two = [s for s in own.split("train") if s.row.also is not None][:1]
    one = [s for s in own.split("train") if s.row.also is None][:1]
    rows = weighted_rows([*two, *one], TrainConfig(second_act=0.25))
    target = dict(zip(map(str, LABELS), _target(rows[0], 0.0), strict=True))
    assert target[two[0].row.label] == 0.75 and target[two[0].row.also] == 0.25
    assert rows[0].label == two[0].row.label and rows[1].soft == ()
    assert weighted_rows(two, TrainConfig())[0].soft == ()

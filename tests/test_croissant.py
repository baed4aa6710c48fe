"""The description of the annotations is valid and true to the files."""

import json

import pytest

pytest.importorskip("mlcroissant", reason="needs the dev extra")
pytestmark = pytest.mark.filterwarnings("default")  # absl logs recommendations as warnings

from communique.train.croissant import NAME, describe  # noqa: E402


def test_the_description_is_valid_and_up_to_date(root):
    folder = root / "data" / "annotations"
    stored = json.loads((folder / NAME).read_text(encoding="utf-8"))
    made = json.loads(json.dumps(describe(folder), default=str))
    assert stored["distribution"] == made["distribution"]
    assert stored["recordSet"] == made["recordSet"]


def test_records_can_be_read(root):
    import mlcroissant as mlc

    data = mlc.Dataset(jsonld=str(root / "data" / "annotations" / NAME))
    first = next(iter(data.records("own")))
    assert first["own/label"].decode() in {"position", "demand", "concession", "agreement", "none"}

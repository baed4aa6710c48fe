"""Public data sets: adapters, decisions, near-duplicates, the benchmark. Texts here are invented."""

from __future__ import annotations

import doctest
import json
import zipfile
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from itertools import combinations
from pathlib import Path

import pytest

from communique.model.labels import LABELS, Stance
from communique.train import public, public_council, public_duplicates, public_names, public_sources
from communique.train.files import DataError
from communique.train.public import PublicRow, drop_near_duplicates, plv_benchmark, public_table, read_public
from communique.train.public_council import council_clauses, lead_of, text_key
from communique.train.public_duplicates import near_duplicates
from communique.train.public_names import CITIES, COUNTRIES, fill
from communique.train.public_sources import PLOVER_ROOTS, SOURCES, untokenise


@pytest.fixture(scope="module")
def published(shared: Path) -> Path:
    folder = shared / "public"
    if not (folder / "un-security-council-en.zip").is_file():
        pytest.skip("needs the public data sets beside the statement texts")
    return folder


@pytest.fixture(scope="module")
def rows(published: Path) -> list[PublicRow]:
    return read_public(published)


def made(text: str, dataset: str = "a", label: str | None = "none", how: str = "read") -> PublicRow:
    return PublicRow(dataset, "1", text, "X", label, "MIT", "o/r:p", "", how)


@pytest.mark.parametrize("module", [public, public_council, public_duplicates, public_names, public_sources])
def test_docstring_examples_hold(module):
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0


# --- clauses of the Council ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clause", "label"),
    [
        ("Urges the parties of Arvenia to open the northern road;", Stance.DEMAND),
        ("Reiterates its call for the guards to leave the bridge;", Stance.DEMAND),
        ("Welcomes the election held in Arvenia in May,", Stance.POSITION),
        ("Recalling its resolutions on Arvenia and the statement of its President,", Stance.NONE),
        ("Decides to terminate the measures on timber imposed by paragraph 4;", Stance.CONCESSION),
        ("Decides that the restrictions on timber from Arvenia shall no longer apply;", Stance.CONCESSION),
    ],
)
def test_leading_act_gives_the_label(clause, label):
    lead = lead_of(clause)
    assert lead is not None
    assert lead[1] is label


@pytest.mark.parametrize(
    "clause",
    [
        "Decides to terminate the mandate of the mission in Arvenia;",  # ends no measure against anyone
        "Decides that the restrictions on timber from Arvenia shall not apply to:",  # a bare lead-in
        "Decides that the restrictions on timber shall not apply to planks for huts;",  # an exemption
        "Welcomes the truce in Arvenia and urges both sides to keep it;",  # two acts
        "Recalling its resolutions and stressing that the raid was unacceptable,",
        "Having regard to nothing in particular,",
    ],
)
def test_unsure_clauses_get_no_label(clause):
    assert lead_of(clause) is None


def test_clauses_are_capped_and_repeats_but_for_numbers_dropped(tmp_path, monkeypatch):
    places = ["north", "south", "east", "west"]
    urges = "".join(f"<p>Urges all troops to leave the {place} bank;</p>" for place in places)
    repeats = "".join(f"<p>Recalling its resolution {n} (2003) on Arvenia,</p>" for n in (1400, 1450))
    strange = "<p>Wonders aloud about the weather in Arvenia;</p>"
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        archive.writestr("a.xml", f"<doc><mainBody>{urges}{repeats}{strange}</mainBody></doc>")
    monkeypatch.setattr(public_council, "LEAD_CAP", 3)
    clauses = list(council_clauses(tmp_path / "made.zip"))
    assert Counter(clause.lead for clause in clauses) == {"urges": 3, "recalling": 1}
    left_over = {f"Urges all troops to leave the {place} bank;" for place in places}
    left_over -= {clause.text for clause in clauses}
    read = {text_key(text) for text in left_over} | {text_key("Wonders aloud about the weather in Arvenia;")}
    with_read = list(council_clauses(tmp_path / "made.zip", read))
    assert {clause.text for clause in with_read} >= left_over  # a clause that was read is never capped away
    assert [c.label for c in with_read if c.text.startswith("Wonders")] == [None]


# --- slots --------------------------------------------------------------------------------------------


def test_slots_are_filled_alike_each_time_and_differ_within_a_row():
    template = "{country_1} and {country_2} ask {country_3} to meet in {city}; {country_1} agrees"
    for number in range(200):
        filled = fill(template, f"row {number}")
        assert filled == fill(template, f"row {number}")
        assert "{" not in filled
        first, second, third = (fill(f"{{country_{n}}}", f"row {number}") for n in (1, 2, 3))
        assert len({first, second, third}) == 3
        assert filled.startswith(first) and filled.endswith(f"{first} agrees")


def test_names_are_distinct_and_many():
    assert len(set(COUNTRIES)) == len(COUNTRIES) >= 80
    assert len(set(CITIES)) == len(CITIES) >= 40
    used = {fill("{country_1}", f"row {n}") for n in range(2000)}
    assert used == set(COUNTRIES)


def test_tokens_are_joined_as_written():
    assert untokenise("Arvenia 's envoy ( the elder ) said : no , thanks .") == (
        "Arvenia's envoy (the elder) said: no, thanks."
    )


# --- near-duplicates ----------------------------------------------------------------------------------

PHRASES = [
    "Arvenia on Monday lifted the ban on fishing boats from Belmark in the southern strait",
    "Arvenia on Monday lifted the ban on fishing boats from Caldoria in the southern strait",
    "Arvenia on Monday lifted the ban on cargo ships",
    "The two sides will suspend all duties on timber for ninety days",
    "the two sides will suspend all duties on timber, for ninety days.",
    "Yes",
    "yes",
    "",
]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75, 1.0])
def test_prefix_filter_finds_what_comparing_every_pair_finds(threshold):
    triples = [public_duplicates._triples(text) for text in PHRASES]
    gone: set[int] = set()
    for first, second in combinations(range(len(PHRASES)), 2):
        similar = public_duplicates._jaccard(triples[first], triples[second]) >= threshold
        if first not in gone and similar:
            gone.add(second)
    assert near_duplicates(PHRASES, threshold=threshold) == gone


def test_given_texts_push_rows_out_but_are_not_counted():
    rows = [made("The envoy of Arvenia left the talks at noon"), made("Belmark will reopen its border", "b")]
    kept, dropped = drop_near_duplicates(rows, ["the envoy of Arvenia left the talks at noon!"])
    assert kept == [rows[1]]
    assert dropped == {"a": 1, "b": 0}


def test_of_two_near_duplicates_the_labelled_then_the_read_stays_in_order():
    text = "The envoy of Arvenia left the talks at noon"
    rows = [
        made(text, "a", None, "left out"),
        made(text, "b", "none", "mapped"),
        made(text, "c"),
        made("Other"),
    ]
    kept, dropped = drop_near_duplicates(rows)
    assert [row.dataset for row in kept] == ["c", "a"]
    assert dropped == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match=r"not in \(0, 1\]"):
        near_duplicates(["a"], threshold=threshold)


# --- what goes wrong ----------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"PLV_train\.tsv is missing: .*github\.com/snowood1"):
        read_public(tmp_path)


def test_another_version_of_a_file_is_refused(tmp_path):
    source = next(s for s in SOURCES if s.name == "ngec")
    path = tmp_path / source.files[0].place
    path.parent.mkdir(parents=True)
    path.write_text("event,mode,title\n")
    with pytest.raises(DataError, match=r"has SHA-256 .* expected 4e8820bb"):
        read_public(tmp_path, ["ngec"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"datasets": ["plv"]}, "unknown public data set 'plv'"), ({"licence": "free"}, "licence 'free'")],
)
def test_unknown_names_are_refused(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        read_public(tmp_path, **arguments)


def test_a_decision_must_name_a_label(tmp_path, monkeypatch):
    monkeypatch.setattr(public, "LABELS_FOLDER", tmp_path)
    (tmp_path / "ngec.json").write_text(json.dumps({"rows": {"0#abc": "threat"}, "check": {}}))
    with pytest.raises(DataError, match=r"ngec\.json: row 0#abc: 'threat' is not one of"):
        public._decisions("ngec")


def test_rows_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        made("a").label = "demand"


# --- decisions as kept in the repository ----------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_decision_files_hold_ids_and_labels_and_no_text(source):
    content = json.loads((public.LABELS_FOLDER / f"{source.name}.json").read_text())
    assert set(content) == {"about", "rows", "check"}
    assert not set(content["rows"]) & set(content["check"])
    for part in ("rows", "check"):
        for row, label in content[part].items():
            row_id, _, key = row.rpartition("#")
            assert row_id and " " not in row_id and len(key) == 12
            assert label is None or label in LABELS


@pytest.mark.corpus
def test_every_decision_finds_its_row(rows):
    for source in SOURCES:
        found = {
            f"{r.row_id}#{text_key(r.text)}" for r in rows if r.dataset == source.name and r.how == "read"
        }
        content = json.loads((public.LABELS_FOLDER / f"{source.name}.json").read_text())
        lost = (content["rows"].keys() | content["check"].keys()) - found
        assert not lost, f"{source.name}: {sorted(lost)[:3]}"


# --- the published files --------------------------------------------------------------------------------


@pytest.mark.corpus
def test_roots_that_do_not_hold_are_never_mapped(rows):
    mapped = {row.source_label for row in rows if row.dataset == "plover-zeroshot" and row.how == "mapped"}
    assert mapped == public_sources._ROOTS_THAT_HOLD
    agree = Counter(r.label for r in rows if r.dataset == "plover-zeroshot" and r.source_label == "AGREE")
    assert agree["concession"] > 2 * agree["agreement"]  # "agreed to lift" is one side giving way


@pytest.mark.corpus
def test_rows_are_whole(rows):
    assert {row.dataset for row in rows} == {source.name for source in SOURCES}
    for row in rows:
        assert row.text == " ".join(row.text.split()) != ""
        assert (row.label is None) if row.how == "left out" else (row.label is None or row.label in LABELS)
        assert "{" not in row.text or row.dataset != "ngec"
    assert len({(row.dataset, row.row_id) for row in rows}) == len(rows)


@pytest.mark.corpus
def test_permissive_leaves_out_share_alike_and_unstated(published):
    kept = read_public(published, licence="permissive")
    assert {row.dataset for row in kept} == {"argunsc", "unsc", "ngec"}
    assert {row.licence for row in kept} == {
        "MIT", "MIT (by its pyproject)", "United Nations, source acknowledged",
    }  # fmt: skip


@pytest.mark.corpus
def test_benchmark_is_the_published_split_under_the_plain_mapping(published):
    train, test = plv_benchmark(published)
    assert (len(train), len(test)) == (1050, 1033)
    assert {row.source_label for row in test} == set(PLOVER_ROOTS) and len(PLOVER_ROOTS) == 15
    assert Counter(row.label for row in test) == {
        "none": 396, "position": 333, "concession": 121, "agreement": 111, "demand": 72,
    }  # fmt: skip
    assert {row.split for row in train} == {"train"} and {row.split for row in test} == {"test"}


@pytest.mark.corpus
def test_gold_records_do_not_survive_beside_the_benchmark_they_repeat(published, rows):
    _, test = plv_benchmark(published)
    kept, dropped = drop_near_duplicates(rows, [row.text for row in test])
    assert dropped["plover-gold"] >= 310 and dropped["unscon"] >= 1400
    assert not {row.text for row in test} & {row.text for row in kept}
    assert sum(dropped.values()) + len(kept) == len(rows)


@pytest.mark.corpus
def test_table_adds_up_and_shows_purity_with_its_interval(published, rows):
    for entry in public_table(published):
        assert entry["rows"] == sum(row.dataset == entry["dataset"] for row in rows)
        assert entry["rows"] == entry["left_out"] + sum(entry[label] for label in LABELS)
        assert 0 <= entry["low"] <= entry["fit"] / entry["read"] <= entry["high"] <= 1
        if entry["mapped"]:  # a mapping stands in for a reader only where a fresh sample bears it out
            assert entry["check_read"] >= 40 and entry["check_low"] >= 0.7


@pytest.mark.corpus
def test_rows_become_a_dataset(rows):
    datasets = pytest.importorskip("datasets")
    sample = [rows[0], replace(rows[1], label=None)]
    made_of = public.to_dataset(sample)
    assert isinstance(made_of, datasets.Dataset)
    assert made_of.column_names == list(PublicRow.__dataclass_fields__)
    assert made_of[1]["label"] is None and made_of[0]["text"] == rows[0].text

"""From sources to splits: counts that add up, all bad rows at once, leaks and repeats found, memory bounded."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailor.core.errors import DataError
from tailor.core.examples import Origin
from tailor.data import table
from tailor.data.load import Loaded, load, peek
from tailor.data.table import Entry, Store, Table

REPOSITORY = Path(__file__).parents[1]


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labelled(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"text": f"Text number {row}.", "label": "ab"[row % 2]} for row in range(start, start + count)]


def texts(part: Table) -> list[str]:
    return [entry.values["text"] for entry in part]


def check_counts(loaded: Loaded) -> None:
    report = loaded.report.as_dict()
    for counts in (report["rows"], *report["held_out"].values()):
        assert counts["in"] == counts["used"] + sum(counts["refused"].values())
    assert report["splits"] == {name: len(getattr(loaded, name)) for name in ("train", "dev", "test")}
    json.dumps(report)


def problems(loaded: Loaded) -> dict[str, Mapping[str, Any]]:
    return {problem["code"]: problem for problem in loaded.report.as_dict()["problems"]}


def test_one_file(tmp_path: Path) -> None:
    rows = [{"Text": f"Text {row}", "label": "ab"[row % 2], "note": row} for row in range(100)]
    write(tmp_path / "rows.jsonl", rows)
    loaded = load("rows.jsonl", root=tmp_path)
    check_counts(loaded)
    assert (len(loaded.train), len(loaded.dev), len(loaded.test)) == (60, 20, 20)
    entry = loaded.train[0]
    assert entry.row == {"texts": [entry.values["Text"]], "label": entry.values["label"]}
    assert rows[entry.origin.line - 1] == entry.values
    assert re.fullmatch("[0-9a-f]{16}", entry.id)
    assert next(loaded.train.rows()) == entry.row
    assert loaded.report.as_dict()["columns"] == {"text": "Text", "label": "label"}
    assert peek("rows.jsonl", root=tmp_path) == loaded.form


def test_loading_again_and_in_another_order_gives_the_same_splits(tmp_path: Path) -> None:
    rows = labelled(100)
    found = [load(write(tmp_path / "rows.jsonl", order)) for order in (rows, rows, rows[::-1])]
    assert len({json.dumps(loaded.report.digests) for loaded in found}) == 1
    assert set(texts(found[0].test)) == set(texts(found[2].test))
    assert len(set(found[0].report.digests.values())) == 3
    other = load(tmp_path / "rows.jsonl", seed=1)
    assert other.report.digests != found[0].report.digests


def test_shares_and_sources(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", labelled(100))
    write(tmp_path / "held.jsonl", labelled(7, start=100))
    everything = load("rows.jsonl", dev=0, test="0", root=tmp_path)
    assert (len(everything.train), len(everything.dev), len(everything.test)) == (100, 0, 0)
    given_test = load("rows.jsonl", dev=0.1, test="held.jsonl", root=tmp_path)
    check_counts(given_test)
    assert (len(given_test.train), len(given_test.dev), len(given_test.test)) == (90, 10, 7)
    assert given_test.test[6].values == labelled(1, start=106)[0]
    assert given_test.report.as_dict()["held_out"] == {"test": {"in": 7, "used": 7, "refused": {}}}
    given_both = load(["rows.jsonl"], dev=["held.jsonl"], test=["held.jsonl"], root=tmp_path)
    assert (len(given_both.train), len(given_both.dev), len(given_both.test)) == (100, 7, 7)


class TestBadRows:
    ROWS = (*labelled(30), {"text": "", "label": "a"}, {"text": "x"}, {"text": 7, "label": "a"}, *labelled(5, start=30))

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = write(tmp_path / "rows.jsonl", self.ROWS)
        path.write_text(path.read_text() + '{"text": \n')
        return path

    def test_are_all_named_at_once(self, source: Path) -> None:
        with pytest.raises(DataError) as caught:
            load(source)
        error = caught.value
        assert error.code == "bad_rows"
        assert error.where == f"{source}:31"
        assert error.fix == "mend them, or leave them out with data.on_bad_row=skip"
        assert error.message.startswith(f"4 rows cannot be used: {source}:31 empty_text: 'text' is empty; {source}:32 ")
        assert f"{source}:33 wrong_type" in error.message
        assert f"{source}:39 broken_json: broken JSON" in error.message
        assert "\n" not in error.message

    def test_are_skipped_and_counted(self, source: Path) -> None:
        loaded = load(source, on_bad_row="skip")
        check_counts(loaded)
        refused = {"empty_text": 1, "missing_column": 1, "wrong_type": 1, "broken_json": 1}
        assert loaded.report.as_dict()["rows"] == {"in": 39, "used": 35, "refused": refused}
        found = problems(loaded)
        assert {code: (found[code]["line"], found[code]["count"]) for code in refused} == {
            "empty_text": (31, 1),
            "missing_column": (32, 1),
            "wrong_type": (33, 1),
            "broken_json": (39, 1),
        }
        assert found["wrong_type"]["severity"] == "warning"
        assert found["wrong_type"]["message"].startswith("1 row left out, first: 'text' holds a number")

    def test_are_cut_after_twenty(self, tmp_path: Path) -> None:
        write(tmp_path / "rows.jsonl", [*labelled(30), *[{"text": "", "label": "a"}] * 50])
        with pytest.raises(DataError, match="50 rows cannot be used: ") as caught:
            load("rows.jsonl", root=tmp_path)
        assert caught.value.message.endswith("; +30 more")
        assert caught.value.message.count("empty_text") == 20

    def test_of_all_sources_come_together(self, source: Path, tmp_path: Path) -> None:
        write(tmp_path / "held.jsonl", [*labelled(3, start=90), {"text": "x", "label": None}])
        with pytest.raises(DataError, match=r"5 rows cannot be used: .*held\.jsonl:4 missing_value"):
            load("rows.jsonl", test="held.jsonl", root=tmp_path)
        loaded = load("rows.jsonl", test="held.jsonl", on_bad_row="skip", root=tmp_path)
        check_counts(loaded)
        assert loaded.report.held_out["test"].as_dict() == {"in": 4, "used": 3, "refused": {"missing_value": 1}}

    def test_alone_are_an_error_whatever_the_policy(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text("{\n{\n")
        with pytest.raises(DataError, match=r"no row can be used: rows\.jsonl:1 broken_json.*; rows\.jsonl:2 broken"):
            load("rows.jsonl", on_bad_row="skip", root=tmp_path)
        with pytest.raises(DataError, match=r"no row can be used: rows\.jsonl:1 broken_json.*; rows\.jsonl:2 broken"):
            peek("rows.jsonl", root=tmp_path)
        write(tmp_path / "rows.jsonl", [{"messages": [{"role": "user", "content": "Hi"}]}])
        with pytest.raises(DataError, match="no_assistant_turn") as caught:
            load("rows.jsonl", on_bad_row="skip", root=tmp_path)
        assert caught.value.fix == "mend them"

    def test_half_a_surrogate_pair_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text('{"text": "\\ud83d", "label": "a"}\n')
        with pytest.raises(DataError, match="broken_unicode: holds half of a surrogate pair"):
            load(write(tmp_path / "more.jsonl", [*labelled(3), {"text": "\ud83d", "label": "a"}]))

    @settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.sampled_from(["", "[1]", "{", '{"text": 1}', '{"text": ""}', '{"text": "a", "label": "x"}']), max_size=20
        )
    )
    def test_rows_in_are_rows_used_and_rows_refused(self, tmp_path: Path, lines: list[str]) -> None:
        content = [*map(json.dumps, labelled(40)), *lines]
        (tmp_path / "rows.jsonl").write_text("\n".join(content))
        loaded = load("rows.jsonl", on_bad_row="skip", root=tmp_path)
        check_counts(loaded)
        assert loaded.report.rows.rows_in == sum(bool(line) for line in content)
        assert loaded.report.rows.used == 40 + lines.count('{"text": "a", "label": "x"}')


class TestRepeatsAndLeaks:
    def test_repeats(self, tmp_path: Path) -> None:
        again = [{"text": "Text number 3.", "label": "b"}, {"text": "text NUMBER 4", "label": "a"}]
        contradiction = [{"text": "Text number 5!", "label": "a"}, {"text": "Text number 5.", "label": "a"}]
        loaded = load(write(tmp_path / "rows.jsonl", [*labelled(50), *again, *again[:1], *contradiction]))
        assert loaded.report.as_dict()["duplicates"] == {"near": None, "exact": 2, "normalised": 2, "contradictory": 1}
        found = problems(loaded)
        assert found["exact_duplicates"]["line"] == 51
        assert found["contradictory_duplicates"]["message"] == "3 rows give one input different labels"
        ids = [entry.id for part in (loaded.train, loaded.dev, loaded.test) for entry in part]
        assert len(set(ids)) == len(ids) == 55
        assert sum(name.endswith(("-1", "-2")) for name in ids) == 2
        side = {}
        for name, part in (("train", loaded.train), ("dev", loaded.dev), ("test", loaded.test)):
            for entry in part:
                key = re.sub(r"\W", "", entry.values["text"].lower())
                assert side.setdefault(key, name) == name

    def test_two_answers_to_one_prompt_do_not_contradict(self, tmp_path: Path) -> None:
        rows = [{"prompt": "Say a word.", "completion": word} for word in ("One.", "Two.", "Three.")]
        loaded = load(write(tmp_path / "rows.jsonl", rows), dev=0, test=0)
        assert loaded.report.as_dict()["duplicates"] == {"near": None, "exact": 0, "normalised": 0, "contradictory": 0}

    def test_leaks(self, tmp_path: Path) -> None:
        write(tmp_path / "rows.jsonl", labelled(50))
        leaked = [{"text": "Text number 3.", "label": "b"}, {"text": "text NUMBER 4", "label": "a"}]
        write(tmp_path / "held.jsonl", [*labelled(5, start=50), *leaked])
        loaded = load("rows.jsonl", dev=0, test="held.jsonl", root=tmp_path)
        assert loaded.report.as_dict()["leakage"] == {
            "near": None,
            "exact": 1,
            "normalised": 1,
            "pairs": [
                {
                    "test": {"file": "held.jsonl", "line": 6},
                    "train": {"file": "rows.jsonl", "line": 4},
                    "kind": "exact",
                },
                {
                    "test": {"file": "held.jsonl", "line": 7},
                    "train": {"file": "rows.jsonl", "line": 5},
                    "kind": "normalised",
                },
            ],
        }
        leak = problems(loaded)["leakage"]
        assert (leak["severity"], leak["file"], leak["line"], leak["count"]) == ("warning", "held.jsonl", 6, 2)
        assert leak["message"] == "2 rows of the test data have an input that train also has"

    def test_groups_stay_together(self, tmp_path: Path) -> None:
        rows = [row | {"patient": f"p{number // 5}"} for number, row in enumerate(labelled(100))]
        write(tmp_path / "rows.jsonl", [*rows, {"text": "Whose?", "label": "a", "patient": None}])
        loaded = load("rows.jsonl", columns={"group": "patient"}, on_bad_row="skip", root=tmp_path)
        assert loaded.report.rows.refused == {"missing_value": 1}
        sides = [{entry.values["patient"] for entry in part} for part in (loaded.train, loaded.dev, loaded.test)]
        assert [len(side) for side in sides] == [12, 4, 4]
        assert len(set.union(*sides)) == 20
        held = write(tmp_path / "held.jsonl", labelled(5, start=500))  # needs no such column
        assert (
            len(load("rows.jsonl", test=held, columns={"group": "patient"}, on_bad_row="skip", root=tmp_path).test) == 5
        )

    def test_questions_about_one_context_stay_together(self, tmp_path: Path) -> None:
        rows = [
            {"context": f"Context {row // 4}.", "question": f"Q{row}?", "answers": {"text": [], "answer_start": []}}
            for row in range(80)
        ]
        loaded = load(write(tmp_path / "rows.jsonl", rows))
        contexts = [{entry.row["context"] for entry in part} for part in (loaded.train, loaded.dev, loaded.test)]
        assert sum(map(len, contexts)) == len(set.union(*contexts)) == 20


class TestLabels:
    @pytest.mark.parametrize("name", ["dev", "test"])
    def test_a_label_that_train_lacks(self, name: str, tmp_path: Path) -> None:
        write(tmp_path / "rows.jsonl", labelled(50))
        write(tmp_path / "held.jsonl", [*labelled(2, start=50), {"text": "New.", "label": "c"}])
        with pytest.raises(
            DataError, match=f"the label 'c' of the {name} data does not occur in the training"
        ) as caught:
            load("rows.jsonl", root=tmp_path, **{name: "held.jsonl"})  # type: ignore[arg-type]
        assert caught.value.where == "held.jsonl:3"
        assert caught.value.fix.endswith("which has: a, b")

    def test_a_tag_that_train_lacks(self, tmp_path: Path) -> None:
        write(tmp_path / "rows.jsonl", [{"tokens": ["a", str(row)], "tags": ["O", "B"]} for row in range(9)])
        write(tmp_path / "held.jsonl", [{"tokens": ["a"], "tags": ["I"]}])
        with pytest.raises(DataError, match="the label 'I'"):
            load("rows.jsonl", test="held.jsonl", root=tmp_path)

    def test_only_one(self, tmp_path: Path) -> None:
        rows = [{"text": f"Text {row}", "label": "a"} for row in range(30)]
        problem = problems(load(write(tmp_path / "rows.jsonl", rows)))["one_label"]
        assert problem["severity"] == "error"
        assert problem["message"].startswith("every row has the same label, 'a'")

    def test_too_few_of_them_to_hold_any_back(self, tmp_path: Path) -> None:
        rows = [{"text": f"Text {row}", "label": f"l{row}"} for row in range(8)]
        loaded = load(write(tmp_path / "rows.jsonl", rows))
        assert len(loaded.train) == 8
        assert problems(loaded)["nothing_held_back"]["severity"] == "warning"


class TestRawText:
    TEXT = "".join(f"Line {row} says something that no other line says.\n" for row in range(400))

    def test_a_file_is_cut_into_blocks(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(self.TEXT)
        loaded = load("a.txt", root=tmp_path)
        check_counts(loaded)
        assert loaded.report.rows.as_dict() == {"in": 1, "used": 1, "refused": {}}
        pieces = sorted(
            ((entry.origin.line, entry) for part in (loaded.train, loaded.dev, loaded.test) for entry in part),
            key=lambda piece: piece[0],
        )
        assert "".join(entry.row["text"] for _, entry in pieces) == self.TEXT
        assert all(entry.row["document"] is False for _, entry in pieces)
        assert all(self.TEXT.splitlines()[line - 1] == entry.row["text"].splitlines()[0] for line, entry in pieces)
        assert len(loaded.dev) == len(loaded.test) == round(len(pieces) / 10) > 2

    def test_it_stays_whole_where_nothing_is_held_back(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(self.TEXT)
        (tmp_path / "b.txt").write_text(self.TEXT.replace("Line", "Row"))
        assert texts(load("a.txt", dev=0, test=0, root=tmp_path).train) == [self.TEXT]
        loaded = load("a.txt", dev=0, test="b.txt", root=tmp_path)
        assert texts(loaded.train) == [self.TEXT]
        assert "".join(texts(loaded.test)) == self.TEXT.replace("Line", "Row")
        assert len(loaded.test) > 10

    def test_many_texts_are_divided_whole(self, tmp_path: Path) -> None:
        rows = [{"text": f"{row} {self.TEXT[:2000]}"} for row in range(120)]
        loaded = load(write(tmp_path / "rows.jsonl", rows))
        assert (len(loaded.train), len(loaded.dev), len(loaded.test)) == (72, 24, 24)
        assert loaded.train[0].row == {"text": loaded.train[0].values["text"]}

    def test_a_tiny_text_is_divided_too(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(self.TEXT[:300])
        loaded = load("a.txt", root=tmp_path)
        assert len(loaded.train) > len(loaded.dev) == len(loaded.test) == 1

    def test_labelled_rows_as_raw_text(self, tmp_path: Path) -> None:
        loaded = load(write(tmp_path / "rows.jsonl", labelled(120)), objective="language")
        assert loaded.train[0].row == {"text": loaded.train[0].values["text"]}


class TestTable:
    @pytest.fixture
    def entries(self) -> list[Entry]:
        return [Entry(f"id{row}", {"text": f"é{row}" * 50}, Origin("a.jsonl", row), {"n": row}) for row in range(200)]

    @pytest.mark.parametrize("budget", [0, 5_000, 10**9])
    def test_memory_or_disk_makes_no_difference(self, budget: int, entries: list[Entry]) -> None:
        store = Store(budget)
        for number, entry in enumerate(entries):
            store.append(entry, 100)
            assert store[number] == entry
        assert len(store) == 200
        assert store[3] == entries[3]
        view = Table(store, [7, 5, 199])
        assert list(view) == [entries[7], entries[5], entries[199]]
        assert (len(view), view[2], len(Table(store))) == (3, entries[199], 200)

    def test_splits_are_the_same_from_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "rows.jsonl", labelled(300))
        kept = load("rows.jsonl", root=tmp_path)
        monkeypatch.setattr(table, "BUDGET", 2_000)
        spooled = load("rows.jsonl", root=tmp_path)
        assert spooled.report == kept.report
        assert [list(part) for part in (spooled.train, spooled.dev)] == [list(part) for part in (kept.train, kept.dev)]

    def test_values_that_json_does_not_know_come_back_as_text(self) -> None:
        store = Store(0)
        store.append(Entry("a", {"text": "x"}, Origin("a", 1), {"at": Path("x")}), 9)
        assert store[0].values == {"at": "x"}


def test_memory_stays_flat(tmp_path: Path) -> None:
    """60 MB of long rows at a small budget cost a fraction of that in memory."""
    with (tmp_path / "rows.jsonl").open("w") as file:
        for row in range(2_000):
            file.write(
                json.dumps({"prompt": f"{row} " + "word " * 3_000, "completion": f"{row} " + "word " * 3_000}) + "\n"
            )
    code = (
        "import resource\nfrom tailor.data import table\nfrom tailor.data.load import load\ntable.BUDGET = 2**20\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"loaded = load({str(tmp_path / 'rows.jsonl')!r})\n"
        "assert sum(len(entry.row['prompt']) for entry in loaded.train) > 15_000_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 30_000  # kilobytes; the rows of the sample that shows the form are about half of it


def test_fifty_thousand_rows_take_seconds(tmp_path: Path) -> None:
    with (tmp_path / "rows.jsonl").open("w") as file:
        for row in range(50_000):
            file.write(json.dumps({"text": f"Text {row} " + "with many words " * 30, "label": "abcde"[row % 5]}) + "\n")
    start = time.process_time()
    loaded = load("rows.jsonl", root=tmp_path)
    assert len(loaded.train) == 40_000
    assert time.process_time() - start < 8  # about 2 where nothing else runs


def test_no_torch_is_imported() -> None:
    heavy = {"torch", "datasets", "pyarrow", "openpyxl", "pandas", "numpy"}
    code = f"import sys, tailor.data.load\nprint(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

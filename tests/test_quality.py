"""What the data doctor finds, and what it keeps quiet about."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tailor
from tailor.cli.main import main
from tailor.core.errors import RecipeError
from tailor.core.reporting import Reporter
from tailor.data.load import load
from tailor.data.quality import damage, private
from tailor.data.quality.examine import Examination
from tailor.data.quality.near import LIKENESS, Signatures, boilerplate, clusters, shingles
from tailor.data.quality.noise import judge
from tailor.data.quality.overlap import TestRuns
from tailor.data.read import read

WORDS = (
    "river", "stone", "cloud", "market", "garden", "window",
    "letter", "engine", "copper", "silver", "harbour", "village",
)  # fmt: skip
CLEAN = (
    "tickets",
    "support",
    "tools",
    "preferences",
    "instructions",
    "general",
    "news",
    "questions",
    "orders",
    "topics",
)


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sentences(count: int, length: int = 14, seed: int = 0) -> list[str]:
    """Texts of made-up words, no two alike."""
    draw = np.random.default_rng(seed)
    return [" ".join(f"{WORDS[draw.integers(12)]}{draw.integers(400)}" for _ in range(length)) for _ in range(count)]


def labelled(texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text, "label": "ab"[number % 3 % 2]} for number, text in enumerate(texts)]


def codes(report: dict[str, Any]) -> dict[str, int]:
    return {one["code"]: one["count"] for one in report["problems"]}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_said_of_clean_sets(name: str) -> None:
    warned = [one for one in tailor.check(f"pocket:{name}")["problems"] if one["severity"] != "info"]
    assert not warned


def test_near_duplicates_are_the_pairs_that_brute_force_finds() -> None:
    texts = sentences(120, 20)
    draw = np.random.default_rng(1)
    for number in range(0, 60, 3):
        words = texts[number].split()
        for place in draw.choice(20, 1 + number // 20, replace=False):
            words[place] = "other"
        texts.append(" ".join(words))
    signatures = Signatures(set())
    for text in texts:
        signatures.add(text)
    found = {(pair.first, pair.second) for pair in signatures.pairs(texts.__getitem__, lambda one, two: False)}
    sets = [shingles(text) for text in texts]
    true = {
        (one, two)
        for two in range(len(texts))
        for one in range(two)
        if len(sets[one] & sets[two]) / len(sets[one] | sets[two]) >= LIKENESS
    }
    assert len(true) >= 10
    assert found <= true
    assert len(found) >= 0.9 * len(true)


def test_a_shared_instruction_does_not_make_rows_alike() -> None:
    told = "sort the following message into one of the teams billing delivery technical or advice and say nothing else "
    texts = [told + text for text in sentences(60, 6)]
    common = boilerplate(texts)
    alike = {}
    for name, left_out in (("told", set[str]()), ("left out", common)):
        signatures = Signatures(left_out)
        for text in texts:
            signatures.add(text)
        alike[name] = len(list(signatures.pairs(texts.__getitem__, lambda one, two: False)))
    assert alike["told"] == 0 or alike["told"] > alike["left out"]
    assert alike["left out"] == 0


def test_clusters_hang_together_over_chains() -> None:
    text = sentences(1, 40)[0].split()
    chain = [" ".join([*(f"new{step}" for step in range(count)), *text[count:]]) for count in range(0, 13, 3)]
    signatures = Signatures(set())
    for one in chain:
        signatures.add(one)
    assert clusters(signatures.pairs(chain.__getitem__, lambda one, two: False)) == [list(range(len(chain)))]


def test_leakage_of_every_kind_is_found_with_its_place(tmp_path: Path) -> None:
    texts = sentences(200, 24)
    tests = sentences(20, 24, seed=5)
    words = texts[2].split()
    words[7] = "changed"
    planted = [texts[0], texts[1].upper().replace(" ", ", "), " ".join(words)]
    texts.append("before it " + " ".join(sentences(1, 60, seed=9)) + " " + tests[4] + " after it")
    train, test = (
        write(tmp_path / "train.jsonl", labelled(texts)),
        write(tmp_path / "test.jsonl", labelled([*planted, *tests])),
    )
    report = tailor.check(train, test=test)
    leakage = report["leakage"]
    assert [leakage[kind] for kind in ("exact", "normalised", "near", "overlap")] == [1, 1, 1, 1]
    places = {pair["kind"]: (pair["test"]["line"], pair["train"]["line"]) for pair in leakage["pairs"]}
    assert places == {"exact": (1, 1), "normalised": (2, 2), "near": (3, 3), "overlap": (8, 201)}
    assert {"leakage", "near_leakage", "overlap_leakage"} <= codes(report).keys()


def test_near_copies_between_drawn_splits_are_told(tmp_path: Path) -> None:
    texts = sentences(300, 20)
    copies = [" ".join(["otherwise", *text.split()[1:]]) for text in texts]
    report = tailor.check(write(tmp_path / "rows.jsonl", labelled([*texts, *copies])))
    assert report["duplicates"]["near"] >= 0.95 * len(copies)
    assert report["leakage"]["near"] > 0.3 * report["splits"]["test"]
    assert report["duplicates"]["clusters"][0]["rows"] == 2


@pytest.mark.parametrize("length", [8, 13, 30])
def test_runs_of_words_are_as_long_as_a_naive_search_says(length: int) -> None:
    test = sentences(1, 30, seed=3)[0]
    cut = " ".join(test.split()[:length])
    runs = TestRuns([test])
    runs.read(f"x1 x2 {cut} x3", 7)
    found = runs.overlaps()
    assert [(one.train, one.share) for one in found] == ([(7, length / 30)] if length / 30 >= 0.7 else [])


def test_runs_that_many_rows_hold_are_templates() -> None:
    test = sentences(1, 30, seed=3)[0]
    runs = TestRuns([test])
    for number in range(12):
        runs.read(test, number)
    assert runs.overlaps() == []


def test_flipped_labels_are_found() -> None:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(4, 16))
    true = draw.integers(4, size=400)
    features = centres[true] + 0.4 * draw.normal(size=(400, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    wrong = draw.choice(400, 40, replace=False)
    given = true.copy()
    given[wrong] = (given[wrong] + 1) % 4
    judged = judge(features, [str(label) for label in given])
    flagged = {doubt.row for doubt in judged.doubts if doubt.flagged}
    assert len(judged.doubts) == 400
    assert len(flagged & set(wrong)) / len(flagged) >= 0.9
    assert len(flagged & set(wrong)) / 40 >= 0.7
    suggested = {doubt.row: doubt.suggested for doubt in judged.doubts}
    assert np.mean([suggested[row] == str(true[row]) for row in wrong]) >= 0.95


def test_a_judge_that_knows_nothing_doubts_nothing() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(300, 8))
    judged = judge(
        features / np.linalg.norm(features, axis=1, keepdims=True), [str(n) for n in draw.integers(3, size=300)]
    )
    assert not judged.trusted
    assert not any(doubt.flagged for doubt in judged.doubts)


def test_labels_are_judged_by_the_features_of_a_base(tmp_path: Path) -> None:
    rows = [row.values for row in read("pocket:tickets")]
    for number in range(0, 600, 12):
        rows[number] = {**rows[number], "label": "billing" if rows[number]["label"] != "billing" else "advice"}
    source = write(tmp_path / "tickets.jsonl", rows)
    plain, based = tailor.check(source), tailor.check(source, base="pocket:bert")
    for report in (plain, based):
        flagged = [one["line"] for one in report["label_noise"] if one["flagged"]]
        assert len(report["label_noise"]) == 600
        assert sum(line % 12 == 1 for line in flagged) >= 0.7 * len(flagged) > 5
    assert plain["label_noise"] != based["label_noise"]


FOUND = {
    "write to jane.doe@corp.com today": "write to [EMAIL] today",
    "call +49 30 1234567 now": "call [PHONE] now",
    "ring (555) 123-4567.": "ring [PHONE].",
    "phone: 0171-1234567, please": "phone: [PHONE], please",
    "pay to DE89 3704 0044 0532 0130 00 soon": "pay to [IBAN] soon",
    "card 4111 1111 1111 1111, thanks": "card [CARD], thanks",
    "key sk-proj-abcD3fGhiJ4lmnopqrstuv end": "key [API_KEY] end",
    "AKIAIOSFODNN7EXAMPLE": "[API_KEY]",
    "token ghp_" + "a1B2c3D4e5" * 4: "token [API_KEY]",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest": "[PRIVATE_KEY]\nrest",
}
HARMLESS = [
    "card 4111 1111 1111 1112",
    "DE89 3704 0044 0532 0130 01",
    "from 1999-2005, 192.168.100.100, 1,234,567.89",
    "doi 10.1000/182 and ISBN 978-3-16-148410-0",
    "3.14159265358979 is pi, 2023-10-10 12:00:00 a date",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxx",
    "call me in 10 or 20 minutes, @home",
    "order 12345678901 of 2021",
]


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_is_found_and_redacted(text: str) -> None:
    assert private.redact(text) == FOUND[text]


@pytest.mark.parametrize("text", HARMLESS)
def test_numbers_that_are_nobodys_are_left_alone(text: str) -> None:
    assert private.redact(text) == text


def test_damage_is_told_and_mended() -> None:
    text = "Größe, “naïve” café’s £5"
    misread = "Größe café".encode().decode("latin-1")
    assert damage.kinds(misread) == ["mojibake"]
    assert damage.mend(misread) == "Größe café"
    assert damage.kinds(text) == []
    assert damage.kinds("lost \ufffd") == ["lost_characters"]
    assert damage.mend("a\x07b\tc\n") == "ab\tc\n"


def test_sorted_files_and_rare_and_lopsided_labels_are_told(tmp_path: Path) -> None:
    texts = sentences(120)
    rows = [{"text": text, "label": "a" if number < 60 else "b"} for number, text in enumerate(texts)]
    found = codes(tailor.check(write(tmp_path / "sorted.jsonl", rows)))
    assert found == {"sorted": 120} | {key: value for key, value in found.items() if key == "labels_not_judged"}
    rows = [{"text": text, "label": "a"} for text in texts]
    rows[5]["label"], rows[50]["label"], rows[90]["label"] = "b", "b", "c"
    report = tailor.check(write(tmp_path / "rare.jsonl", rows))
    assert codes(report)["rare_labels"] == 2
    assert codes(report)["lopsided_labels"] == 117
    assert report["labels"] == {"a": 117, "b": 2, "c": 1}


def preference(chosen: str, rejected: str, number: int) -> dict[str, str]:
    return {"prompt": f"question {number} about {WORDS[number % 12]}", "chosen": chosen, "rejected": rejected}


def test_preferences_without_signal_and_with_length_bias_are_told(tmp_path: Path) -> None:
    rows = [preference(f"long answer number {number} and more of it", f"no {number}", number) for number in range(40)]
    rows[3] = preference("The same.", "the same", 3)
    rows[4] = preference("exactly", "exactly", 4)
    report = tailor.check(write(tmp_path / "pairs.jsonl", rows))
    assert codes(report) == {"no_preference": 1, "no_signal": 1, "length_bias": 39}
    assert next(one for one in report["problems"] if one["code"] == "no_preference")["line"] == 5


def tool_row(arguments: Any, name: str = "find", answered: bool = False) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "required": ["id"]}}}
    turns: list[dict[str, Any]] = [{"role": "user", "content": f"look it up {arguments} {name} {answered}"}]
    if not answered:
        turns.append(
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
        )
    turns += [{"role": "tool", "content": "found"}, {"role": "assistant", "content": "There it is."}]
    return {"messages": turns, "tools": [tool]}


def test_tool_calls_that_cannot_be_carried_out_are_told(tmp_path: Path) -> None:
    rows = [
        tool_row('{"id": 1}'), tool_row({"id": 2}), tool_row("{id: 3"), tool_row('{"id": 4}', "seek"),
        tool_row("{}"), tool_row("{}", answered=True),
    ]  # fmt: skip
    report = tailor.check(write(tmp_path / "tools.jsonl", rows))
    lines = {one["code"]: one["line"] for one in report["problems"] if one["severity"] == "warning"}
    assert lines == {"arguments_not_json": 3, "undeclared_tool": 4, "missing_argument": 5, "result_without_call": 6}


def chats(answers: list[str]) -> Iterator[dict[str, Any]]:
    for text, answer in zip(sentences(len(answers)), answers, strict=True):
        yield {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


def test_mixed_reasoning_and_one_answer_to_all_are_told(tmp_path: Path) -> None:
    answers = [f"answer {number}" for number in range(60)]
    answers[7] = "<think>well</think>answer"
    assert codes(tailor.check(write(tmp_path / "think.jsonl", list(chats(answers))))) == {"mixed_reasoning": 1}
    answers = ["I am sorry, but I cannot help with that." if number % 2 else f"yes {number}" for number in range(60)]
    assert codes(tailor.check(write(tmp_path / "same.jsonl", list(chats(answers))))) == {"one_answer": 30}


def test_a_copy_is_cleaned_logged_and_redacted_and_nothing_is_written_over(tmp_path: Path) -> None:
    texts = sentences(80)
    rows = labelled(texts)
    rows[0]["text"] = "write to jane.doe@corp.com about it"
    rows.append(rows[5])
    rows.append({**rows[6], "label": "b" if rows[6]["label"] == "a" else "a"})
    rows[9]["text"] = "Größe café".encode().decode("latin-1")
    source, out = Path(write(tmp_path / "rows.jsonl", rows)), tmp_path / "clean.jsonl"
    source.write_text(source.read_text() + '{"text": "", "label": "a"}\n')
    before = source.read_bytes()
    held = write(tmp_path / "test.jsonl", labelled(texts[20:22]))
    report = tailor.check(source, test=held, fix=out, redact=True)
    assert source.read_bytes() == before
    copy = [json.loads(line) for line in out.read_text().splitlines()]
    log = [json.loads(line) for line in (tmp_path / "clean.changes.jsonl").read_text().splitlines()]
    assert copy[0]["text"] == "write to [EMAIL] about it"
    assert "Größe café" in {row["text"] for row in copy}
    changes = {(one["line"], one["change"], one["reason"]) for one in log}
    assert changes == {
        (83, "left_out", "empty_text"), (1, "altered", "redacted"), (10, "altered", "encoding"),
        (81, "left_out", "exact_duplicate"), (7, "left_out", "contradictory_duplicate"),
        (82, "left_out", "contradictory_duplicate"), (21, "left_out", "leakage"), (22, "left_out", "leakage"),
    }  # fmt: skip
    assert report["fixed"]["kept"] == len(copy) == 83 - 6
    assert "jane" not in (tmp_path / "clean.changes.jsonl").read_text()
    with pytest.raises(RecipeError, match="nothing is written over"):
        tailor.check(source, fix=out)
    again = tailor.check(out, test=held)
    assert again["leakage"]["exact"] == again["duplicates"]["exact"] == again["duplicates"]["contradictory"] == 0
    assert again["personal_data"] == {}


def test_the_page_needs_no_other_file_and_quotes_nobody(tmp_path: Path) -> None:
    rows = [row.values for row in read("pocket:tickets")]
    for number in range(0, 600, 12):
        rows[number] = {**rows[number], "label": "billing" if rows[number]["label"] != "billing" else "advice"}
    page = tmp_path / "report.html"
    report = tailor.check(write(tmp_path / "open.jsonl", rows), html=page)
    first = next(one for one in report["label_noise"] if one["flagged"])
    open_page = page.read_text()
    assert rows[first["line"] - 1]["text"].split()[0] in open_page
    assert "http" not in open_page
    rows[3] = {**rows[3], "text": rows[3]["text"] + " Write to jane.doe@corp.com"}
    report = tailor.check(write(tmp_path / "strict.jsonl", rows), html=page)
    assert report["privacy"] == "strict"
    assert report["personal_data"]["email"] == {"rows": 1, "first": [f"{tmp_path / 'strict.jsonl'}:4"]}
    strict = page.read_text()
    texts = [row["text"] for row in rows]
    assert not any(text[:30] in strict or text[:30] in json.dumps(report) for text in texts)
    assert "jane" not in strict


def test_rows_are_examined_the_same_from_memory_and_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tailor.check("pocket:tickets")
    monkeypatch.setattr("tailor.data.table.BUDGET", 1000)
    assert tailor.check("pocket:tickets") == plain


def test_the_pass_is_watched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tailor.data.quality.examine.LONG", 10)
    Examination(load("pocket:general"), Reporter())
    assert "examining 150/150 · 150 rows" in capsys.readouterr().err


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_the_command_line_writes_copy_and_page_and_refuses_before_it_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = (
        write(tmp_path / "rows.jsonl", [*labelled(sentences(60)), labelled(sentences(1))[0]]),
        tmp_path / "clean.jsonl",
    )
    code, text, _ = call(capsys, "check", source, "--fix", str(out), "--html", str(tmp_path / "page.html"))
    assert code == 0, "warnings are no refusal"
    assert f"copy: 60 of 61 rows in {out}" in text
    assert "exact 1" in text
    assert (tmp_path / "page.html").is_file()
    refused = [["--redact"], ["--fix", str(out)], ["--fix", source], ["--fix", "clean.csv"], ["--html", source]]
    for words in refused:
        code, _, err = call(capsys, "check", source, *words)
        assert code == 2
        assert len(err.strip().splitlines()) == 1
    assert len(Path(source).read_text().splitlines()) == 61

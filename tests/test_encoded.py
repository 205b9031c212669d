"""Rows that were turned into tokens once are the same tokens when they are read back, and no other rows are."""

from pathlib import Path
from typing import Any

import pytest
from tiny import make_recipe, rows_of, save_bert, write_rows

from tailor import compose
from tailor.core.errors import DataError
from tailor.engine import encoded
from tailor.engine.encoding import Encoded

FORMS = {"chat": "llama", "language": "llama", "preference": "llama", "pair": "bert", "tags": "bert", "span": "bert"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How often rows were encoded; all of it is worth keeping."""
    calls: list[int] = []
    stock = encoded.encode

    def encode(table: Any, objective: Any, base: Any) -> Encoded:
        calls.append(len(table))
        return stock(table, objective, base)

    monkeypatch.setattr(encoded, "encode", encode)
    monkeypatch.setattr(encoded, "WORTH_SECONDS", 0.0)
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    return calls


def train_split(base: Path, data: Path, output: Path, **sections: Any) -> Encoded:
    sections = {"method": "full", "splits": {"dev": 0.25}, **sections}
    return compose.prepare(make_recipe(base, data, output, **sections)).splits["train"]


def held(split: Encoded) -> list[Any]:
    rest = (split.rows, split.truncated, split.truncated_tokens, split.trained, split.tokens, split.store.longest())
    return [*(split.store[index] for index in range(len(split.store))), *rest]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_back_is_what_was_encoded(
    form: str, llama: Path, bert: Path, tmp_path: Path, counted: list[int]
) -> None:
    base = {"llama": llama, "bert": bert}[FORMS[form]]
    data = write_rows(tmp_path / "rows.jsonl", rows_of(form))
    first = train_split(base, data, tmp_path / "run")
    made = len(counted)
    again = train_split(base, data, tmp_path / "run")
    assert len(counted) == made > 0
    assert held(again) == held(first)
    again.store.append(first.store[0])
    assert again.store[len(again.store) - 1] == first.store[0]


def test_other_rows_options_tokenizers_and_the_naive_switch_are_encoded_anew(
    bert: Path, tmp_path: Path, counted: list[int]
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("single"))
    train_split(bert, data, tmp_path / "run")
    own = save_bert(tmp_path / "own")
    (own / "tokenizer_config.json").write_text((own / "tokenizer_config.json").read_text() + "\n")
    more = write_rows(tmp_path / "more.jsonl", rows_of("single", count=25))
    for base, rows, sections in (
        (bert, more, {}),
        (bert, data, {"splits": {"dev": 0.25, "max_length": 8}}),
        (own, data, {}),
        (bert, data, {"train": {"exact": "naive"}}),
        (bert, data, {"train": {"exact": "naive"}}),
    ):
        before = len(counted)
        train_split(base, rows, tmp_path / "run", **sections)
        assert len(counted) > before


def test_refused_rows_are_refused_again(llama: Path, tmp_path: Path, counted: list[int]) -> None:
    data = write_rows(
        tmp_path / "rows.jsonl", [*rows_of("chat"), {"messages": [{"role": "user", "content": "so " * 900}]}]
    )
    for _ in range(2):
        with pytest.raises(DataError):
            train_split(llama, data, tmp_path / "run")

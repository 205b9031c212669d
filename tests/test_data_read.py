"""Every kind of file and source gives the same rows; what is wrong is said with file, line and remedy."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from tailor.core.errors import DataError, MissingExtra
from tailor.core.examples import Row
from tailor.data import read as reading
from tailor.data.files import BadRow
from tailor.data.read import read

NOT_A_LIST = "a list, where an object with named columns should stand"
ROWS = [{"text": "Fine.", "label": "good"}, {"text": 'Two\nlines, "quoted"; été 🎈', "label": "bad"}]


def as_csv(rows: Iterable[dict[str, str]], mark: str = ",") -> str:
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row.values()] for row in rows]
    return "\n".join([mark.join(ROWS[0]), *(mark.join(cells) for cells in quoted)]) + "\n"


def write_xlsx(path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append([])  # the table need not begin on the first line
    for cells in (ROWS[0].keys(), *(row.values() for row in ROWS)):
        book.active.append(list(cells))
    book.save(path)


def write_arrow(path: Path, opener: Callable[[Any, Any], Any]) -> None:
    table = pa.Table.from_pylist(ROWS)
    with path.open("wb") as handle, opener(handle, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "rows.jsonl": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS)),
    "rows.ndjson": lambda path: path.write_text("\n\n" + "\n\n".join(json.dumps(row) for row in ROWS) + "\n\n"),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(json.dumps, ROWS)).encode()),
    "list.jsonl": lambda path: path.write_text(json.dumps(ROWS)),
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda path: path.write_text("\n".join(json.dumps(row) for row in ROWS)),
    "data.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    "only.json": lambda path: path.write_text(json.dumps({"version": "1", "things": ROWS})),
    "keyed.json": lambda path: path.write_text(json.dumps({"a": ROWS[0], "b": ROWS[1]})),
    "columns.json": lambda path: path.write_text(json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]})),
    "rows.csv": lambda path: path.write_text(as_csv(ROWS)),
    "bom.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + as_csv(ROWS).encode()),
    "semicolons.csv": lambda path: path.write_text(as_csv(ROWS, ";")),
    "quoted.tsv": lambda path: path.write_text(as_csv(ROWS, "\t")),
    "rows.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "file.arrow": lambda path: write_arrow(path, pa.ipc.new_file),
    "stream.arrow": lambda path: write_arrow(path, pa.ipc.new_stream),
    "rows.xlsx": write_xlsx,
}


def values(source: Any, root: Path | None = None) -> list[dict[str, Any]]:
    rows = list(read(source, root=root))
    assert all(isinstance(row, Row) for row in rows), rows
    return [dict(row.values) for row in rows if isinstance(row, Row)]


def bad(source: Any, root: Path) -> list[tuple[str, str, str]]:
    return [(str(row.origin), row.reason, row.message) for row in read(source, root=root) if isinstance(row, BadRow)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert values(name, tmp_path) == ROWS
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert values(packed) == ROWS


def test_a_text_file_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\u2028Three.\n")
    assert values("a.txt", tmp_path) == [{"text": "One.\n\nTwo.\u2028Three.\n"}]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"])
def test_only_a_newline_ends_a_line(mark: str, tmp_path: Path) -> None:
    row = {"text": f"a{mark}b", "label": "x"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) * 1 + "\n" + json.dumps(row))
    (tmp_path / "a.csv").write_text(f"text,label\na{mark}b,x\na{mark}b,x\n", newline="")
    (tmp_path / "a.tsv").write_text(f"text\tlabel\na{mark}b\tx\na{mark}b\tx\n", newline="")
    assert values(["a.jsonl", "a.csv", "a.tsv"], tmp_path) == [row] * 6


def test_a_plain_tsv_keeps_its_quotation_marks(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"Well, he said\t1\n"all ""quoted"""\t2\n5" pipe\t3\n')
    assert [row["text"] for row in values("a.tsv", tmp_path)] == ['"Well, he said', 'all "quoted"', '5" pipe']


def test_rows_know_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"1\n2\n3",x\n\n"4\n5",y\nz,z\n')
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "pretty.json").write_text('[\n {"a": 1},\n {\n  "a": 2\n },\n\n {"a": 3}]')
    (tmp_path / "line.json").write_text('[{"a": 1}, {"a": 2}]\n')
    lines = {name: [row.origin.line for row in read(name, root=tmp_path)] for name in os.listdir(tmp_path)}
    assert lines == {"a.csv": [2, 6, 8], "a.jsonl": [2, 4], "pretty.json": [2, 3, 7], "line.json": [1, 2]}


def test_nested_squad_is_one_row_per_question(tmp_path: Path) -> None:
    answer = {"text": "in", "answer_start": 0}
    questions = [{"id": str(number), "question": f"{number}?", "answers": [answer]} for number in range(3)]
    article = {"title": "T", "paragraphs": [{"context": "in and out", "qas": questions}]}
    for name, content in (("wrapped.json", {"version": "1", "data": [article]}), ("bare.json", [article])):
        (tmp_path / name).write_text(json.dumps(content))
        rows = values(name, tmp_path)
        assert [row["question"] for row in rows] == ["0?", "1?", "2?"]
        assert {row["context"] for row in rows} == {"in and out"}


def test_one_json_object_with_a_conversation_is_one_row(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "one.json").write_text(json.dumps(row))
    assert values("one.json", tmp_path) == [row]


def test_class_numbers_of_a_datasets_file_become_names(tmp_path: Path) -> None:
    features = {
        "label": {"names": ["bad", "good"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O", "B"], "_type": "ClassLabel"}, "_type": "List"},
    }
    table = pa.table({"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], [1]]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "a.parquet")
    expected = [{"text": "a", "label": "good", "tags": ["O", "B"]}, {"text": "b", "label": None, "tags": ["B"]}]
    assert values("a.parquet", tmp_path) == expected


def test_padding_of_a_columnar_file_goes(tmp_path: Path) -> None:
    calls = [{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": {"y": [{"z": 2}]}}]
    rows = [{"messages": [{"role": "assistant", "tool_calls": [call]}], "note": None} for call in calls]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert values("a.parquet", tmp_path) == rows


class TestSources:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "data" / "more").mkdir(parents=True)
        for number, name in enumerate(["b.jsonl", "a.jsonl", "more/c.jsonl", ".hidden.jsonl", "dataset_info.json"]):
            (tmp_path / "data" / name).write_text(json.dumps({"text": name, "number": number}))
        (tmp_path / "data" / "README.md").write_text("About.")
        return tmp_path

    def test_a_folder_is_its_files_in_order(self, folder: Path) -> None:
        assert [row["text"] for row in values("data", folder)] == ["a.jsonl", "b.jsonl", "more/c.jsonl"]
        assert [row.origin.file for row in read("data", root=folder)][-1] == "data/more/c.jsonl"

    def test_a_folder_of_texts_is_one_row_each(self, tmp_path: Path) -> None:
        for name in ("2.txt", "1.txt"):
            (tmp_path / name).write_text(f"Text {name}")
        assert values(str(tmp_path)) == [{"text": "Text 1.txt"}, {"text": "Text 2.txt"}]

    def test_globs_and_lists(self, folder: Path) -> None:
        assert [row["text"] for row in values("data/*.jsonl", folder)] == ["a.jsonl", "b.jsonl"]
        assert [row["text"] for row in values(["data/b.jsonl", Path("data/a.jsonl")], folder)] == ["b.jsonl", "a.jsonl"]
        assert [row.origin.file for row in read("data/**/c.jsonl", root=folder)] == ["data/more/c.jsonl"]
        assert len(values(str(folder / "data" / "*.jsonl"))) == 2

    def test_embedded_data(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "EMBEDDED", folder / "data")
        assert values("pocket:a") == [{"text": "a.jsonl", "number": 1}]
        assert [row.origin.file for row in read("pocket:a")] == ["pocket:a"]
        with pytest.raises(DataError, match="no embedded data set 'aa'") as caught:
            list(read("pocket:aa"))
        assert caught.value.fix == "did you mean pocket:a? there are: .hidden, a, b"

    def test_images_with_captions_beside_them(self, tmp_path: Path) -> None:
        for name in ("2.jpg", "1.png"):
            (tmp_path / name).touch()
        (tmp_path / "1.txt").write_text(" a dog \n")
        found = values(str(tmp_path))
        assert found == [
            {"image": str(tmp_path / "1.png"), "caption": "a dog"},
            {"image": str(tmp_path / "2.jpg"), "caption": None},
        ]

    def test_images_described_by_metadata(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").touch()
        lines = [{"file_name": "1.png", "text": "a cat", "seed": 3}, {"file_name": "2.png", "text": "gone"}]
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        first, second = read(tmp_path.name, root=tmp_path.parent)
        assert isinstance(first, Row)
        assert dict(first.values) == {"image": str(tmp_path / "1.png"), "caption": "a cat", "text": "a cat", "seed": 3}
        assert isinstance(second, BadRow)
        assert (str(second.origin), second.reason) == (f"{tmp_path.name}/metadata.jsonl:2", "missing_image")

    def test_a_hub_id(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import datasets

        asked = []
        names = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})

        def load_dataset(repository: str, split: str) -> datasets.Dataset:
            asked.append((repository, split))
            return datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=names)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        assert values(["owner/name", "owner/name:test"], tmp_path) == [{"text": "a", "label": "yes"}] * 2
        assert asked == [("owner/name", "train"), ("owner/name", "test")]
        assert [str(row.origin) for row in read("owner/name", root=tmp_path)] == ["owner/name:train:1"]

    def test_a_hub_id_without_a_network(self, tmp_path: Path) -> None:
        code = (
            "from tailor.data.read import read\nfrom tailor.core.errors import DataError\nimport sys\n"
            "try: list(read('owner/nothing'))\n"
            "except DataError as error: print(error.message, '|', error.fix, '|', 'torch' in sys.modules)"
        )
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
        repository = Path(__file__).parents[1]
        run = subprocess.run([sys.executable, "-c", code], env=env, cwd=repository, capture_output=True, text=True)
        message, fix, torch = run.stdout.strip().split(" | ")
        assert message.endswith("cannot be fetched: HF_HUB_OFFLINE is set and the cache does not hold it")
        assert fix == "give a local path, or unset HF_HUB_OFFLINE and fetch it once"
        assert torch == "False"


class TestErrors:
    """Errors of whole files: (name, content, message, where, fix)."""

    @pytest.mark.parametrize(
        ("name", "content", "message", "where", "fix"),
        [
            ("a.jsonl", b"", "the file is empty", "a.jsonl:1", "at least one row"),
            ("a.csv", b"", "the file is empty", "a.csv:1", "at least one row"),
            ("a.csv", b"\n\n", "holds no rows", "a.csv:1", "at least one row"),
            ("a.csv", b"text,label\n", "holds no rows", "a.csv:1", "at least one row"),
            ("a.json", b"[]", "holds no rows", "a.json:1", "at least one row"),
            ("a.txt", b" \n \n", "holds no rows", "a.txt:1", "at least one row"),
            ("a.json", b'[{"a": 1},\n {"a": 2},\n {"a" 3}]', "broken JSON: Expecting ':'", "a.json:3", "mend the file"),
            ("a.json", b'[{"a": 1}\n {"a": 2}]', "Expecting ',' or ']'", "a.json:2", "mend the file"),
            ("a.json", b'[{"a": 1}]\n]', "Text after the end", "a.json:2", "mend the file"),
            ("a.json", b'{"a": [1,\n', "broken JSON", "a.json:2", "mend the file"),
            ("a.json", b'{"x": [{"a": 1}], "y": [{"a": 1}]}', r"several lists \(x, y\)", "a.json", "file of its own"),
            ("a.txt", b"one\ntwo \xe9\n", r"not UTF-8 \(byte 0xe9\)", "a.txt:2", "iconv -f ISO-8859-1 -t UTF-8 a.txt"),
            ("a.csv", b"t\xe9xt,label\na,b\n", "not UTF-8", "a.csv:1", "iconv"),
            ("a.csv", "text,label\na,b\n".encode("utf-16"), "UTF-16, not UTF-8", "a.csv:1", "iconv -f UTF-16 -t"),
            ("a.csv", b"text,label,text\na,b,c\n", "two columns have the same name: text", "a.csv:1", "of its own"),
            ("a.csv", b"text\r,label\r\na,b\n", "not a readable table", "a.csv:1", "mend"),
            ("a.docx", b"x", r"unknown kind of file \(.docx\)", "a.docx", ".jsonl, .ndjson"),
            ("a.jsonl.gz", b"no gzip", "cannot be read: Not a gzipped file", "a.jsonl.gz", "fetch it anew"),
            ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999)[:40], "cannot be read", "a.jsonl.gz", "fetch it anew"),
            ("a.parquet", b"PAR1 or so", "cannot be read as .parquet", "a.parquet", "anew"),
            ("a.arrow", b"ARROW1 or so", "cannot be read as .arrow", "a.arrow", "anew"),
            ("a.xlsx", b"PK or so", "not a readable workbook", "a.xlsx", "save it again"),
        ],
    )
    def test_of_a_file(self, name: str, content: bytes, message: str, where: str, fix: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            list(read(name, root=tmp_path))
        assert caught.value.where == where
        assert fix in caught.value.fix

    @pytest.mark.parametrize(
        ("name", "message", "fix"),
        [
            ("suport.jsonl", "there is no such file", "did you mean support.jsonl?"),
            ("sub/suport.jsonl", "there is no folder 'sub'", "check the path"),
            ("*.csv", "no file matches", "check the pattern"),
            ("empty", "the folder holds no data file", "known kinds are .jsonl"),
        ],
    )
    def test_of_a_name(self, name: str, message: str, fix: str, tmp_path: Path) -> None:
        (tmp_path / "support.jsonl").touch()
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=message) as caught:
            list(read(name, root=tmp_path))
        assert caught.value.where == name
        assert fix in caught.value.fix
        assert caught.value.code == "missing_file"

    def test_of_single_rows(self, tmp_path: Path) -> None:
        content = b'{"a": 1}\n{"a": \n[1]\n\n"x"\n{"a": "\xe9"}\nnull\n' + b'{"a":' * 100_000 + b'\n{"a": 2}\n'
        (tmp_path / "a.jsonl").write_bytes(content)
        *others, deep = bad("a.jsonl", tmp_path)
        assert deep[:2] == ("a.jsonl:8", "broken_json")
        assert deep[2].startswith("JSON that cannot be taken in: ")
        assert others == [
            ("a.jsonl:2", "broken_json", "broken JSON: Expecting value (column 6)"),
            ("a.jsonl:3", "not_an_object", NOT_A_LIST),
            ("a.jsonl:5", "not_an_object", "a string, where an object with named columns should stand"),
            ("a.jsonl:6", "not_utf8", "not UTF-8 (byte 0xe9 at column 8)"),
            ("a.jsonl:7", "not_an_object", "null, where an object with named columns should stand"),
        ]

    def test_of_the_first_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('[1]\n{"a": 1}\n')
        assert bad("a.jsonl", tmp_path) == [("a.jsonl:1", "not_an_object", NOT_A_LIST)]

    def test_of_table_rows(self, tmp_path: Path) -> None:
        content = b'text,label\na,b\na,b,c\n"x\ny"\na\xe9,b\n,\nc,d\n"never closed,\nx,y\n'
        (tmp_path / "a.csv").write_bytes(content)
        assert bad("a.csv", tmp_path) == [
            ("a.csv:3", "wrong_cells", "3 cells, where the header names 2 columns"),
            ("a.csv:4", "wrong_cells", "1 cells, where the header names 2 columns"),
            ("a.csv:6", "not_utf8", "not UTF-8 (byte 0xe9 at byte 2)"),
            ("a.csv:9", "broken_table", "a quotation mark opens in this record and never closes"),
        ]
        assert len([row for row in read("a.csv", root=tmp_path) if isinstance(row, Row)]) == 2

    def test_an_xlsx_without_its_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_xlsx(tmp_path / "a.xlsx")
        monkeypatch.setitem(sys.modules, "openpyxl", None)
        with pytest.raises(MissingExtra) as caught:
            list(read("a.xlsx", root=tmp_path))
        assert caught.value.fix == "pip install 'tailor[xlsx]'"


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,label\n{'word ' * 100_000},x\n")
    assert len(values("a.csv", tmp_path)[0]["text"]) == 500_000


def test_reading_streams(tmp_path: Path) -> None:
    """The first row comes before the rest is looked at."""
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + b"\xff\n" * 10)
    assert isinstance(next(iter(read("a.jsonl", root=tmp_path))), Row)
    (tmp_path / "b.json").write_text('[{"a": 1},\n {"a"')
    stream = iter(read("b.json", root=tmp_path))
    assert isinstance(next(stream), Row)
    with pytest.raises(DataError):
        next(stream)

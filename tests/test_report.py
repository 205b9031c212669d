"""report.html and README.md: everything is there, everything is escaped, nothing comes from elsewhere."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailor.core.contracts import Answer
from tailor.evaluation import wording
from tailor.evaluation.card import Artefact, model_card
from tailor.evaluation.compare import task_result
from tailor.evaluation.report import ReportInputs, TaskAnswers, flat, readable, render_report
from tailor.evaluation.scorers import resolve

VOID = {"meta", "br", "hr", "img"}
EVIL = "<script>alert('x')</script> & \"quoted\" </div>"


class Reader(HTMLParser):
    """Collects tags and visible text, and insists that every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data}"


def answered(expected: Sequence[Any], given: Sequence[Any], **more: Any) -> list[Answer]:
    pairs = enumerate(zip(expected, given, strict=True))
    return [Answer(f"{i:03d}", {}, f"ticket {i}", e, g, **more) for i, (e, g) in pairs]


def page(base: list[Answer], tuned: list[Answer], names: list[str], kind: Any, **more: Any) -> ReportInputs:
    metrics = resolve(names, answers_kind=kind)
    result = task_result(base, tuned, metrics, names[0])
    return ReportInputs(
        summary={"run": "runs/support", "method": "lora", "objective": "classification", "base": "pocket:bert"},
        evaluation={"tasks": {"default": result}},
        answers={"default": TaskAnswers(base, tuned, metrics[0])},
        **more,
    )


@pytest.fixture
def full() -> ReportInputs:
    """A run with everything: 40 rows, of which 8 are broken and 20 mended."""
    expected = ["a"] * 40
    base = answered(expected, ["a"] * 10 + ["b"] * 30, nll=2.0, tokens=1)
    tuned = answered(expected, ["b"] * 8 + ["a"] * 22 + ["c"] * 10, nll=1.0, tokens=1)
    tuned[0] = replace(tuned[0], prompt=EVIL, given=EVIL, thinking="first I think", cut=True)
    inputs = page(
        base,
        tuned,
        ["accuracy", "macro_f1", "loss"],
        "label",
        metrics=[
            {"step": i, "loss": 3 / i, **({"dev_loss": 2 / i, "dev_accuracy": 0.5} if i % 5 == 0 else {})}
            for i in range(1, 21)
        ],
        timing=[{"step": i, "seconds": i, "tokens_per_second": 900.0 + i} for i in range(1, 21)],
        data_report={
            "form": "text/label",
            "rows": {"in": 2413, "used": 2409, "refused": {"empty_text": 4}},
            "tokens": {"total": 9000, "trained": 800, "by_role": {"user": 8200}},
            "stop_token": {"text": "<|im_end|>", "labelled": True},
            "leakage": {"exact": 0, "pairs": [["left", "right"]]},
            "problems": [
                {"severity": "warning", "code": "x", "message": EVIL, "file": "d.jsonl", "line": 3, "count": 1}
            ],
        },
        proof={"passed": True, "by": "stock", "difference_from_base": 1.84},
        recipe="base: pocket:bert\nmethod: lora\n",
        lock={"seed": 0, "versions": {"torch": "2.13.0"}},
    )
    train = {"steps": 20, "seconds": 93.4, "peak_memory_bytes": 3 << 30, "adapted_share": 0.0184, "work_ratio": 1.04}
    forgetting = {"base": 3.1, "tuned": 3.25, "delta": 0.15}
    return replace(
        inputs,
        summary={**inputs.summary, "train": train},
        evaluation={**inputs.evaluation, "forgetting": forgetting},
    )


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_first_screen(full: ReportInputs) -> None:
    text = plain(Reader(render_report(full)).text)
    sentence = wording.verdict_sentence(full.evaluation["tasks"]["default"])
    order = [
        sentence,
        "10 wrong answers",
        "Training",
        "Metrics",
        "Samples",
        "Data",
        "Proof",
        "Costs",
        "Recipe",
        "Provenance",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "Of 40 rows, 20 were mended, 8 broken, and 10 are wrong with both." in text
    # The eight that were broken come first.
    wrong = text[places[1] : places[2]]
    assert wrong.count("was right") == 8
    assert "Cut off at their length limit: 1." in text
    assert "first I think" in wrong


def test_every_section_holds_its_figures(full: ReportInputs) -> None:
    text = plain(Reader(render_report(full)).text)
    for part in (
        "Accuracy decides",
        "Loss lower is better",
        "Loss on general text went from 3.10 to 3.25 (+0.150); lower is better.",
        "Rows › refused › empty text 4",
        "Stop token › text <|im_end|>",
        "d.jsonl:3",
        "Difference from base 1.84",
        "1 min 33 s",
        "3.00 GiB",
        "1.84 %",
        "base: pocket:bert",
        "Versions › torch 2.13.0",
        "Tokens per second, last 920",
        "Dev loss, last 0.100",
        "Dev accuracy",
    ):
        assert part in text, part
    assert "left" not in text


def test_nothing_is_run_or_loaded(full: ReportInputs) -> None:
    html = render_report(full)
    reader = Reader(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in reader.tags}
    for _, attributes in reader.tags:
        assert not {"src", "href", "onclick", "onload"} & attributes.keys()
    assert "url(" not in html
    assert "@import" not in html
    assert EVIL not in html
    assert plain(reader.text).count(EVIL) == 7  # prompt and answer: wrong, in the samples, right before; the problem
    assert len(html) < 200_000


def test_charts_have_words_for_those_who_do_not_see_them(full: ReportInputs) -> None:
    reader = Reader(render_report(full))
    images = [attributes for _, attributes in reader.tags if attributes.get("role") == "img"]
    assert len(images) == 4
    assert all(attributes["aria-label"] for attributes in images)
    assert "base 25.0 %, tuned 55.0 %, 95 % interval of the difference" in (images[0]["aria-label"] or "")
    for tag, attributes in reader.tags:
        if tag == "polyline":
            points = [tuple(map(float, point.split(","))) for point in (attributes["points"] or "").split()]
            assert all(0 <= x <= 1000 and 0 <= y <= 300 for x, y in points)


def test_a_bare_run_gives_a_page() -> None:
    text = plain(Reader(render_report(ReportInputs(summary={}, evaluation={"tasks": {}}))).text)
    assert "No rows were held back, so nothing was measured." in text
    assert "Metrics" not in text


def test_raw_text_shows_the_worst_predicted_rows() -> None:
    base = [Answer(f"{i}", {}, f"text {i}", None, None, nll=30.0 + i, tokens=10, bytes=40) for i in range(9)]
    tuned = [replace(row, nll=20.0 + i) for i, row in enumerate(base)]
    text = plain(Reader(render_report(page(base, tuned, ["loss", "perplexity"], "raw"))).text)
    assert "The 9 worst rows" in text
    assert "text 8 loss 2.800 per token over 10 tokens" in text
    assert "wrong answers" not in text


@pytest.mark.parametrize(
    ("names", "kind", "expected", "given"),
    [
        (["mcc"], "label", "a", "b"),
        (["r2"], "number", 2.0, 3.0),
        (["macro_f1"], "labels", (), ("a",)),
        (["json_fields"], "text", '{"a": 1}', "no"),
        (["bleu"], "text", "one two three four five", None),
        (["tool_call"], "text", ({"name": "f", "arguments": {}},), ()),
    ],
)
def test_every_kind_of_answer_is_shown(names: list[str], kind: Any, expected: Any, given: Any) -> None:
    base = answered([expected] * 9, [given] * 9)
    tuned = answered([expected] * 9, [expected] * 7 + [given] * 2)
    html = plain(Reader(render_report(page(base, tuned, names, kind))).text)
    assert "wrong answers" in html or "worst rows" in html
    assert ("(no answer)" in html) == (given is None)
    assert readable(expected) in html


def test_a_run_without_mistakes() -> None:
    base, tuned = answered(["a"] * 9, ["b"] * 9), answered(["a"] * 9, ["a"] * 9)
    text = plain(Reader(render_report(page(base, tuned, ["accuracy"], "label"))).text)
    assert "No wrong answers" in text
    assert "9 were mended, 0 broken, and 0 are wrong with both" in text


def test_several_tasks_each_have_a_part(full: ReportInputs) -> None:
    tasks, answers = full.evaluation["tasks"], full.answers
    two = replace(
        full,
        evaluation={"tasks": {"tickets": tasks["default"], "reviews": tasks["default"]}},
        answers={"tickets": answers["default"], "reviews": answers["default"]},
    )
    text = plain(Reader(render_report(two)).text)
    assert "Samples: tickets" in text
    assert "Samples: reviews" in text


def test_curves_leave_out_what_is_not_finite() -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0}]
    html = render_report(ReportInputs(summary={}, metrics=rows))
    assert html.count("<polyline") == 1
    assert "nan" not in html
    assert "<polyline" not in render_report(ReportInputs(summary={}, metrics=rows[:1]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.3146, "2.31"),
        (3.1, "3.10"),
        (0.04, "0.0400"),
        (123.4, "123"),
        (41234.5, "41,234"),
        (1e130, "1e+130"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert wording.number(value) == text


def test_names_of_metrics() -> None:
    assert wording.named("regex:^a:b$") == ("Answers that match ^a:b$", "share")
    assert wording.named("dir/my_scorers.py:refund_correct") == ("refund_correct", "plain")
    assert wording.chance(0.00001) == "p < 0.0001"
    assert wording.chance(0.0001) == "p = 0.0001"


def test_flat() -> None:
    rows = flat({"a_bytes": 3 << 20, "b": {"c_seconds": 7300.0, "d": None, "e": True, "f_share": 0.5}, "g": ["x", "y"]})
    assert rows == [
        ("A", "3.0 MiB"),
        ("B › c seconds", "2 h 1 min"),
        ("B › d", "not known"),
        ("B › e", "yes"),
        ("B › f share", "50.00 %"),
        ("G", "x, y"),
    ]


# --- the card ---


def test_card_front_matter_and_table(full: ReportInputs) -> None:
    card = model_card(
        full.summary,
        Artefact("peft", "AutoModelForSequenceClassification"),
        evaluation=full.evaluation,
        proof=full.proof,
        lock=full.lock,
        licence="apache-2.0",
    )
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "base_model": "pocket:bert",
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "license": "apache-2.0",
        "tags": ["tailor", "lora", "classification"],
    }
    assert wording.verdict_sentence(full.evaluation["tasks"]["default"]) in card
    assert "| Accuracy | 25.0 % | 55.0 % | +30.0 |" in card
    assert 'open("model/labels.json")' in card
    assert "`tailor bases` prints the folder" in card
    assert "passed by stock libraries" in card
    assert "2.13.0" in card


@pytest.mark.parametrize(
    "kind", ["transformers", "peft", "adapter", "prompt", "diffusion_lora", "textual_inversion", "pipeline"]
)
def test_loading_examples_are_python(kind: Any) -> None:
    auto_class = "AutoModelForCausalLM" if kind in {"transformers", "peft"} else ""
    summary = {"base": "org/base", "method": "lora", "objective": "chat"}
    card = model_card(summary, Artefact(kind, auto_class))
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "{" not in code
    assert "Not measured" in card
    assert "licence is not known" in card


def test_card_names_no_path_of_this_machine() -> None:
    for base in ("/home/me/bases/mine", r"C:\bases\mine"):
        lock = {"base": {"name": base, "digest": "sha256:1"}}
        card = model_card(
            {"base": base, "method": "full", "objective": "chat"}, Artefact("transformers", "AutoModel"), lock=lock
        )
        assert "/home" not in card
        assert "C:" not in card
        assert yaml.safe_load(card.split("---")[1])["base_model"] == "mine"


def test_the_general_text_is_plain_and_of_some_length() -> None:
    text = (Path(wording.__file__).parent / "general.txt").read_text(encoding="utf-8")
    paragraphs = text.splitlines()
    assert all(paragraphs)
    assert text.isascii()
    assert len(re.findall(r"[.?!](?:\s|$)", text)) >= 150

"""Spans: windows, characters of tokens, the search for the best one, and how answers are scored."""

import random
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import torch
from tiny import tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from tailor.bases.encoder import EncoderBase
from tailor.bases.loading import find
from tailor.bases.texts import OVERLAP, TextReader
from tailor.core.contracts import Answer, Batch, EncodeOptions, ExampleSeat, Outputs, OutputSpec
from tailor.core.errors import RowRefused, TailorError
from tailor.core.examples import Features, Origin, Span
from tailor.core.paths import embedded_base
from tailor.data.load import load
from tailor.evaluation.scorers import METRICS
from tailor.objectives.span_qa import Found, SpanQA
from tailor.recipe.base import BaseOptions
from tailor.recipe.objectives import SpanOptions

XQUAD = Path(__file__).parents[2] / "shared" / "data" / "xquad_part1"
HERE = Origin("rows.jsonl", 1)


def span(context: str, answer: str = "", question: str = "what is it?", place: int | None = None) -> Span:
    """An example whose answer stands where it first occurs."""
    answers = ((answer, context.index(answer) if place is None else place),) if answer else ()
    return Span(id="x", origin=HERE, question=question, context=context, answers=answers)


def reader(limit: int = 256, on_overlong: str = "truncate") -> TextReader:
    return TextReader(tokenizer(encoder=True), limit, on_overlong)


def answer_in(row: Features, context: str) -> str:
    """What of the context a window's target stands for."""
    if row.target == (0, 0):
        return ""
    return context[row.marks["begin"][row.target[0]] : row.marks["end"][row.target[1]]]


@pytest.mark.parametrize("limit", [24, 40, 256])
@pytest.mark.parametrize("words", [3, 60, 200])
def test_windows_are_the_tokenizers_own(limit: int, words: int) -> None:
    draw = random.Random(words)
    context = " ".join(draw.choice(["the", "red", "stone", "naïve", "川"]) for _ in range(words))
    rows = reader(limit).asked(span(context))
    start = len(tokenizer(encoder=True)("what is it?")["input_ids"])
    room = limit - start - 1
    stock = tokenizer(encoder=True)(
        "what is it?",
        context,
        truncation="only_second",
        max_length=limit,
        stride=min(OVERLAP, room // 2),
        return_overflowing_tokens=True,
    )
    assert [row.input_ids for row in rows] == stock["input_ids"]
    assert [row.extras["token_type_ids"] for row in rows] == stock["token_type_ids"]
    assert len({row.example_id for row in rows}) == len(rows)


def test_every_window_that_holds_the_answer_points_at_it_and_no_other() -> None:
    context = " ".join(f"w{number}" for number in range(120))
    for answer in ("w0", "w57 w58", "w119"):
        rows = reader(40).asked(span(context, answer))
        ends = context.index(answer), context.index(answer) + len(answer)
        for row in rows:
            shown = [place for place in row.marks["begin"] if place >= 0]
            whole = shown[0] <= ends[0] and ends[1] <= max(row.marks["end"])
            assert answer_in(row, context) == (answer if whole else "")
        assert any(row.target != (0, 0) for row in rows)


def test_the_first_answer_that_a_window_holds_is_learned() -> None:
    context = " ".join(f"w{number}" for number in range(120))
    example = Span(
        id="x", origin=HERE, question="?", context=context, answers=tuple((w, context.index(w)) for w in ("w90", "w3"))
    )
    found = {answer_in(row, context) for row in reader(40).asked(example)}
    assert found == {"", "w90", "w3"}


def test_an_overlong_question_is_cut_or_refused() -> None:
    example = span("the stone is red", "red", question="why " * 100)
    with pytest.raises(RowRefused, match="is the limit"):
        reader(40, "error").asked(example)
    row, *others = reader(40).asked(example)
    assert not others
    assert len(row) <= 40
    assert answer_in(row, example.context) == "red"
    whole = len(tokenizer(encoder=True)(example.question)["input_ids"]) + 1
    assert row.truncated == whole - 20
    with pytest.raises(RowRefused, match="too few"):
        reader(4).asked(example)


def found_by_brute_force(example: Span, rows: list[Features], logits: list[torch.Tensor], options: SpanOptions) -> str:
    """Every span of every window, one by one."""
    best, given, null = float("-inf"), "", float("inf")
    for row, (first, last) in zip(rows, logits, strict=True):
        null = min(null, float(first[0] + last[0]))
        for a in range(len(row)):
            for b in range(a, min(len(row), a + options.max_answer_tokens)):
                inside = row.marks["begin"][a] >= 0 and row.marks["begin"][b] >= 0
                if inside and float(first[a] + last[b]) > best:
                    best = float(first[a] + last[b])
                    given = example.context[row.marks["begin"][a] : row.marks["end"][b]]
    return "" if null - best > options.null_threshold else given


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 1.0])
def test_the_best_span_is_that_of_all_spans_of_all_windows(threshold: float) -> None:
    generator, draw = torch.Generator().manual_seed(0), random.Random(0)
    options = SpanOptions(max_answer_tokens=4, null_threshold=threshold)
    objective, silent = SpanQA(options), 0
    for _ in range(40):
        example = span(" ".join(draw.choice(["red", "stone", "naïve"]) for _ in range(draw.randrange(1, 60))))
        rows = reader(24).asked(example)
        padded = [torch.randn(1, 2, 30, generator=generator) for _ in rows]
        for logits in padded:
            logits[0, :, 0] += 2.0
        kept = [objective.measure(row, one, torch.zeros(1, 2).long()) for row, one in zip(rows, padded, strict=True)]
        (said,) = objective.conclude([example], [kept])
        assert said.given == found_by_brute_force(example, rows, [one[0] for one in padded], options)
        silent += said.given == ""
    assert 0 < silent < 40


def test_no_answer_is_weighed_by_its_smallest_score() -> None:
    objective, example = SpanQA(SpanOptions()), span("ab")
    windows = [Found(1.0, 0, 1, 5.0, 0.0), Found(2.0, 1, 2, 1.5, 0.0)]
    assert objective.conclude([example], [windows])[0].given == "b"
    assert objective.conclude([example], [[windows[0]]])[0].given == ""


def test_the_loss_is_the_stock_class_own(bert: Path) -> None:
    base = EncoderBase(find(BaseOptions(name=str(bert))), EncodeOptions())
    torch.manual_seed(0)
    base.load(OutputSpec("span"), torch.float32)
    assert base.new_head
    rows = [base.encoders[Span](span("the stone is red", answer))[0] for answer in ("red", "", "the stone")]
    batch: Batch = base.collate(rows, OutputSpec("span"))
    ours = SpanQA(SpanOptions()).loss(base.forward(base.model, batch), batch)
    model: Any = base.model
    both = model(**batch.inputs, start_positions=batch.targets[:, 0], end_positions=batch.targets[:, 1])
    assert isinstance(model, type(AutoModelForQuestionAnswering.from_config(model.config)))
    assert float(ours.total) / ours.weight == pytest.approx(float(both.loss), abs=1e-6)


def test_padding_is_no_answer() -> None:
    """The loss of a short window does not depend on the longer one beside it."""
    logits = torch.randn(1, 2, 5)
    wide = torch.cat([logits, torch.full((1, 2, 3), torch.finfo(torch.float32).min)], 2)
    targets, objective = torch.tensor([[1, 3]]), SpanQA(SpanOptions())
    batch = Batch({}, targets, torch.ones(1), torch.empty(2, 0), 8, 5)
    expected = (cross_entropy(logits[0], targets[0], reduction="sum") / 2).item()
    assert float(objective.loss(Outputs(wide), batch).total) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("expected", "given", "f1", "exact"),
    [
        ((), "", 1.0, 1.0),
        ((), "red", 0.0, 0.0),
        (("red",), "", 0.0, 0.0),
        (("red", "the red stone"), "Red stone!", 1.0, 1.0),
        (("a red stone",), "red", 2 / 3, 0.0),
        (("the",), "", 1.0, 1.0),
    ],
)
def test_scores_are_squads_own(expected: tuple[str, ...], given: str, f1: float, exact: float) -> None:
    answers = [Answer("x", {}, "", expected, given)]
    for name, value in (("span_f1", f1), ("span_exact", exact)):
        metric = METRICS[name][1](())
        assert metric.value(metric.statistics(answers).sum(0)) == pytest.approx(value)


def test_a_question_needs_a_context() -> None:
    seat, objective = ExampleSeat("x", HERE), SpanQA(SpanOptions())
    assert objective.blank(("what?", "the stone"), seat).context == "the stone"
    with pytest.raises(TailorError, match="a question and its context"):
        objective.blank(("what?",), seat)


SCRIPTS = {
    "Arabic": ("وصل الوزير، أحمد بن علي، إلى القاهرة في ٣ مايو ١٩٣٥.", "أحمد بن علي"),
    "Chinese": ("这座桥建于一九三五年，由林小明设计，长三百米。", "林小明"),
    "Greek": ("Ο Νίκος Παπαδάκης έφτασε στην Αθήνα στις 3 Μαΐου.", "Αθήνα"),
    "Hindi": ("राम शर्मा ने दिल्ली में १९३५ में विद्यालय खोला।", "दिल्ली"),
    "combined": ("Cafe\u0301 Zu\u0308rich und 🙂 Straße", "Zu\u0308rich"),
    "composed": ("Caf\u00e9 Z\u00fcrich und 🙂 Straße", "Z\u00fcrich"),
    "Arabic with vowels": ("وَصَلَ الوَزِيرُ أَحْمَدُ بْنُ عَلِيٍّ إِلَى القَاهِرَةِ.", "أَحْمَدُ بْنُ عَلِيٍّ"),
    "Hebrew with points": ("נָסַע דָּוִד לִירוּשָׁלַיִם בְּיוֹם שִׁשִּׁי.", "לִירוּשָׁלַיִם"),
    "Thai": ("สะพานนี้สร้างขึ้นในปี ๒๔๗๘ โดยวิศวกรชื่อสมชาย ใจดี ที่กรุงเทพฯ", "สมชาย ใจดี"),
    "Korean, composed": ("김민수는 1935년 서울에서 학교를 열었다.", "서울"),
    "Korean, combined": (normalize("NFD", "김민수는 1935년 서울에서 학교를 열었다."), normalize("NFD", "서울")),
    "Vietnamese, combined": (normalize("NFD", "Ông Nguyễn Văn Đức đến Hà Nội."), normalize("NFD", "Hà Nội")),
    "Japanese, combined": (normalize("NFD", "橋は一九三五年にガルシアが建てた。"), normalize("NFD", "ガルシア")),
}


def wordpiece(limit: int = 256) -> TextReader:
    return TextReader(AutoTokenizer.from_pretrained(str(embedded_base("bert"))), limit, "truncate")


def check_target(row: Features, context: str, text: str, start: int) -> None:
    """The tokens of the target hold the answer, and none at either end is without a part in it."""
    assert text in answer_in(row, context)
    first, last = row.target
    assert row.marks["begin"][first] <= start < row.marks["end"][first]
    assert row.marks["begin"][last] < start + len(text) <= row.marks["end"][last]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("make", [reader, wordpiece])
def test_characters_of_tokens_in_other_scripts(script: str, make: Any) -> None:
    context, answer = SCRIPTS[script]
    (row,) = make().asked(span(context, answer))
    check_target(row, context, answer, context.index(answer))
    if make is reader:
        assert answer_in(row, context) == answer


def check_search(example: Span, rows: list[Features], generator: torch.Generator) -> None:
    """On drawn logits, with the answer raised where a window holds it: what is found is what trying all spans finds."""
    objective = SpanQA(SpanOptions())
    for lift in (0.0, 9.0):
        drawn = [torch.randn(1, 2, len(row), generator=generator) for row in rows]
        for row, logits in zip(rows, drawn, strict=True):
            first, last = row.target
            logits[0, 0, first] += lift
            logits[0, 1, last] += lift
        kept = [objective.measure(row, one, torch.zeros(1, 2).long()) for row, one in zip(rows, drawn, strict=True)]
        (said,) = objective.conclude([example], [kept])
        assert said.given == found_by_brute_force(example, rows, [one[0] for one in drawn], objective.options)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_search_over_windows_in_other_scripts(script: str) -> None:
    context, answer = SCRIPTS[script]
    long = f"{context} {context[::-1]} " * 3 + context
    example = span(long, answer, place=len(long) - len(context) + context.index(answer))
    for make in (wordpiece(40), reader(90)):
        rows = make.asked(example)
        assert len(rows) > 1
        check_search(example, rows, torch.Generator().manual_seed(0))
    held = {answer_in(row, long) for row in rows} - {""}
    assert held == {answer}


@pytest.mark.skipif(not XQUAD.is_dir(), reason=f"XQuAD is not at {XQUAD}")
def test_the_search_over_windows_on_real_data() -> None:
    objective, generator = SpanQA(SpanOptions()), torch.Generator().manual_seed(0)
    several = 0
    for index, entry in enumerate(load(XQUAD, dev=0, test=0).train):
        if index % 40 == 0:
            example = objective.read(entry.row, ExampleSeat(entry.id, entry.origin))
            rows = wordpiece(128).asked(example)
            several += len(rows) > 1
            check_search(example, rows, generator)
    assert several > 10


@pytest.mark.skipif(not XQUAD.is_dir(), reason=f"XQuAD is not at {XQUAD}")
def test_answers_of_real_data() -> None:
    objective = SpanQA(SpanOptions())
    windows = cut = 0
    for index, entry in enumerate(load(XQUAD, dev=0, test=0).train):
        example = objective.read(entry.row, ExampleSeat(entry.id, entry.origin))
        text, start = example.answers[0]
        for asked in (reader().asked, wordpiece().asked) if index % 10 == 0 else (reader().asked,):
            rows = asked(example)
            holding = [row for row in rows if row.target != (0, 0)]
            assert holding or len(text.encode()) > OVERLAP - 10  # as long as what two windows share
            windows, cut = windows + 1, cut + (len(rows) > 1)
            for row in holding:
                check_target(row, example.context, text.strip(), start)
    assert cut > windows / 2

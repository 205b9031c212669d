"""Similarity: losses against naive twins, rankings, what sentence-transformers would load, and vectors from a run."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import in_this_process, make_recipe, prepare_job, rows_of, write_rows
from transformers import AutoModel, AutoTokenizer

from tailor import api
from tailor.core.contracts import Answer, Batch, ExampleSeat, Outputs
from tailor.core.errors import DataError, RowRefused
from tailor.core.examples import Origin, Pair, Row
from tailor.core.reporting import Reporter
from tailor.data.columns import Form, recognise
from tailor.evaluation import proof
from tailor.evaluation.scorers import METRICS
from tailor.nn.losses import cosent_sum
from tailor.objectives.similarity import Similarity
from tailor.recipe.objectives import SimilarityOptions
from tailor.recipe.recipe import parse
from tailor.verbs.fit import run

HERE = Origin("rows.jsonl", 1)
PAIRS = [
    {"anchor": "red stone", "positive": "a stone that is red", "negative": "blue boat"},
    {"anchor": "blue boat", "positive": "a boat that is blue", "negative": "a stone that is red"},
    {"anchor": "red stone", "positive": "stone, red", "negative": "grey lamp"},
    {"anchor": "stone of red", "positive": "a stone that is red", "negative": "grey lamp"},
]


def pair(anchor: str, positive: str, *negatives: str, score: float | None = None) -> Pair:
    return Pair(id=anchor, origin=HERE, anchor=anchor, positive=positive, negatives=negatives, score=score)


def naive_in_batch(vectors: torch.Tensor, rows: list[dict[str, Any]], scale: float) -> float:
    """Row by row: the own text against every text of the batch that is neither it nor the anchor nor right for that too."""
    total, texts = 0.0, []
    for index, row in enumerate(rows):
        texts += [(row["positive"], vectors[3 * index + 1]), (row["negative"], vectors[3 * index + 2])]
    for index, row in enumerate(rows):
        right = {row["anchor"], *(other["positive"] for other in rows if other["anchor"] == row["anchor"])}
        cosine = torch.cosine_similarity(vectors[3 * index], vectors[3 * index + 1], dim=0)
        rivals = [
            torch.cosine_similarity(vectors[3 * index], value, dim=0) for text, value in texts if text not in right
        ]
        total -= float((scale * torch.stack([cosine, *rivals])).log_softmax(0)[0])
    return total


def test_in_batch_negatives_leave_out_what_is_right(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", PAIRS)
    _, job = prepare_job(make_recipe(bert, data, tmp_path / "run", method="full"))
    assert job.objective.name == "similarity"
    batch = job.base.collate([job.train[index] for index in range(len(PAIRS))], job.output)
    outputs = job.base.forward(job.attached.model, batch)
    assert outputs.logits.shape == (12, 32)
    loss = job.objective.loss(outputs, batch)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    texts = [job.base.tokenizer.decode(job.train[index].sequences[0][1:-1]) for index in range(len(PAIRS))]
    assert [row["anchor"] for row in rows] == texts
    assert loss.weight == 4
    expected = naive_in_batch(outputs.logits.detach(), rows, 20.0)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_vectors_do_not_depend_on_neighbours(bert: Path, tmp_path: Path) -> None:
    """The mean of a text's own states by the stock class, alone and unpadded."""
    _, job = prepare_job(make_recipe(bert, write_rows(tmp_path / "rows.jsonl", PAIRS), tmp_path / "run"))
    batch = job.base.collate([job.train[index] for index in range(len(PAIRS))], job.output)
    job.attached.model.eval()
    with torch.no_grad():
        vectors = job.base.forward(job.attached.model, batch).logits
        stock = AutoModel.from_pretrained(bert).eval()
        alone = [sequence for index in range(len(PAIRS)) for sequence in job.train[index].sequences]
        means = torch.stack([stock(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in alone])
    assert float((vectors - means).abs().max()) < 1e-5


def test_cosent_is_its_sum_over_pairs() -> None:
    draw = random.Random(0)
    cosines = [draw.uniform(-1, 1) for _ in range(7)]
    scores = [draw.choice([0.0, 0.5, 1.0]) for _ in range(7)]
    total = sum(
        math.exp(20 * (a - b))
        for a, lower in zip(cosines, scores, strict=True)
        for b, higher in zip(cosines, scores, strict=True)
        if lower < higher
    )
    loss = cosent_sum(torch.tensor(cosines), torch.tensor(scores), 20.0)
    assert float(loss.total) / loss.weight == pytest.approx(math.log1p(total), rel=1e-5)
    flat = torch.tensor([0.3, 0.4], requires_grad=True)
    alike = cosent_sum(flat, torch.ones(2), 20.0)
    alike.total.backward()  # type: ignore[no-untyped-call]
    assert float(alike.total.detach()) == 0
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.zeros(2))


@pytest.mark.parametrize("scored", ["cosine", "order"])
def test_scored_pairs_are_learned_by_their_cosines(bert: Path, tmp_path: Path, scored: str) -> None:
    """Loss and gradient of a batch against pairs taken one by one through the stock class."""
    rows = [{"sentence1": x["anchor"], "sentence2": x["positive"], "score": n / 3} for n, x in enumerate(PAIRS)]
    objective = {"name": "similarity", "scored": scored}
    recipe = make_recipe(
        bert, write_rows(tmp_path / "s.jsonl", rows), tmp_path / "run", objective=objective, method="full"
    )
    _, job = prepare_job(recipe)
    batch = job.base.collate([job.train[index] for index in range(len(rows))], job.output)
    job.attached.model.eval()
    loss = job.objective.loss(job.base.forward(job.attached.model, batch), batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    stock = AutoModel.from_pretrained(bert).eval()
    found = []
    for index in range(len(rows)):
        first, second = (stock(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in job.train[index].sequences)
        found.append((torch.cosine_similarity(first, second, dim=0), job.train[index].target))
    if scored == "cosine":
        expected = torch.stack([(cosine - score) ** 2 for cosine, score in found]).sum()
    else:
        wrong = [(20 * (a - b)).exp() for a, lower in found for b, higher in found if lower < higher]
        expected = len(rows) * torch.stack(wrong).sum().log1p()
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss.weight == len(rows)
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    book = {name: value.grad for name, value in stock.named_parameters() if value.grad is not None}
    own = {name: value.grad for name, value in job.attached.model.named_parameters() if value.grad is not None}
    assert set(own) == set(book)
    assert max(float((own[name] - book[name]).abs().max()) for name in own) < 1e-5 * max(1.0, float(expected.detach()))


def test_lora_under_vectors_is_proved_beside_a_pooler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock class draws a pooler that the vectors do not need, and no part of the adapter is missed in it."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    train = {"max_steps": 3, "examples_per_batch": 8}
    rows = [{"sentence1": "a red stone", "sentence2": f"stone {n}", "score": n % 3 / 2} for n in range(40)]
    data = write_rows(tmp_path / "s.jsonl", rows)
    values = {"base": "pocket:bert", "data": str(data), "objective": "similarity", "method": "lora", "train": train}
    answer = run(parse({**values, "output": str(tmp_path / "run")}), resume=False, reporter=Reporter(quiet=True))
    assert answer["proof"]["passed"], answer["proof"]


def test_a_rank_counts_the_texts_that_are_wrong_and_as_near() -> None:
    objective = Similarity(SimilarityOptions())
    examples = [pair("a", "A", "X"), pair("b", "B"), pair("a", "A2"), pair("c", "A")]
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    middle = torch.tensor([0.6, 0.8])
    kept = [
        [torch.stack([east, middle, north])],
        [torch.stack([north, middle])],
        [torch.stack([east, east])],
        [torch.stack([north, middle])],
    ]
    said = objective.conclude(examples, kept)
    # For "a": A2 is right as well and no rival of A; B lies where A does, which counts against both.
    assert [one.given for one in said] == [2, 3, 1, 3]
    assert [one.expected for one in said] == ["A", "B", "A2", "A"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ndcg_at_10", (1 + 1 / math.log2(3) + 0 + 0) / 4),
        ("recall_at_1", 0.25),
        ("recall_at_10", 0.5),
        ("mrr", (1 + 0.5 + 1 / 11) / 4),
    ],
)
def test_ranking_scores(name: str, expected: float) -> None:
    answers = [Answer(str(rank), {}, "", "text", rank) for rank in (1, 2, 11, None)]
    metric = METRICS[name][1](())
    assert metric.value(metric.statistics(answers).sum(0)) == pytest.approx(expected)


def test_pearson_is_numpys_own_also_on_resampled_rows() -> None:
    draw = np.random.default_rng(0)
    expected, given = draw.random(50), 3 + 1e-3 * draw.random(50)
    answers = [Answer(str(i), {}, "", float(e), float(g)) for i, (e, g) in enumerate(zip(expected, given, strict=True))]
    metric = METRICS["pearson"][1](())
    rows = metric.statistics(answers)
    assert metric.value(rows.sum(0)) == pytest.approx(np.corrcoef(expected, given)[0, 1], abs=1e-9)
    chosen = draw.integers(50, size=50)
    assert metric.value(rows[chosen].sum(0)) == pytest.approx(np.corrcoef(expected[chosen], given[chosen])[0, 1])
    assert metric.value(metric.statistics([answers[0]] * 3).sum(0)) == 0


@pytest.mark.parametrize(
    ("scores", "expected"), [((0.0, 1.0), (0.0, 1.0)), ((2.5, 4.0), (0.5, 0.8)), ((0, 50), (0, 1))]
)
def test_scores_are_brought_to_one(scores: tuple[float, float], expected: tuple[float, float]) -> None:
    objective = Similarity(SimilarityOptions())
    rows = [{"anchor": "a", "positive": "b", "score": score} for score in scores]
    objective.prepare(rows)
    assert objective.answers == "score"
    assert [objective.read(row, ExampleSeat("x", HERE)).score for row in rows] == [pytest.approx(x) for x in expected]


def test_two_texts_and_a_number_serve_similarity_where_it_is_asked_for() -> None:
    rows = [Row({"sentence1": "A", "sentence2": "B", "score": 3.5}, HERE)]
    form = recognise(rows, objective="similarity")
    assert form.canonical(rows[0].values) == {"anchor": "A", "positive": "B", "score": 3.5}
    assert recognise(rows).objective_for("encoder") == "classification"
    with pytest.raises(RowRefused, match="likeness is between two"):
        Form("scored_pairs", {"text": "text", "label": "label"}).canonical({"text": "A", "label": 1.0})
    assert recognise([Row({"a": "A", "b": "B"}, HERE)], {"anchor": "a", "positive": "b"}).name == "pairs"


def test_a_run_gives_vectors_that_stock_classes_give_too(bert: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("triplet", 60))
    train = {"max_steps": 30, "learning_rate": 3e-3}
    recipe = make_recipe(bert, data, tmp_path / "run", method="full", train=train, splits={"dev": 0, "test": str(data)})
    answer = run(recipe, resume=False, reporter=Reporter(quiet=True))
    assert answer["proof"]["passed"], answer["proof"]
    task = answer["evaluation"]["tasks"]["default"]
    assert (task["primary"], task["baseline"]) == ("ndcg_at_10", "base")
    assert task["metrics"]["ndcg_at_10"]["tuned"] > task["metrics"]["ndcg_at_10"]["base"]
    folder = tmp_path / "run" / "model"
    modules = json.loads((folder / "modules.json").read_text())
    assert [(module["path"], (folder / module["path"]).is_dir()) for module in modules] == [
        ("", True),
        ("1_Pooling", True),
        ("2_Normalize", True),
    ]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == 32
    assert pooling["pooling_mode_mean_tokens"]
    texts = ["stone stone", "the river is red and grey", "x"]
    vectors = torch.tensor(api.load(tmp_path / "run").embed(texts))
    model, words = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        means = [model(**words(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    stock = torch.nn.functional.normalize(torch.stack(means), dim=-1)
    assert float((vectors - stock).abs().max()) < 1e-5
    tuned = api.load(tmp_path / "run")
    assert tuned.predict([(texts[0], texts[1])])[0] == pytest.approx(float(stock[0] @ stock[1]), abs=1e-5)
    with pytest.raises(DataError, match="between two texts"):
        tuned.predict(["stone"])


def test_a_single_scored_row_teaches_nothing_and_breaks_nothing() -> None:
    objective = Similarity(SimilarityOptions(scored="order"))
    objective.prepare([{"score": 0.5}])
    logits = torch.randn(2, 4, requires_grad=True)
    batch = Batch({}, torch.tensor([0.5, 0.5]), torch.ones(2), torch.empty(2, 0), 4, 4, ((1, 1),))
    loss = objective.loss(Outputs(logits), batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert float(loss.total.detach()) == 0
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())

"""Masked language modelling: which words are hidden, how they are learned, and what a base without the head gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_recipe, prepare_job, rows_of, tokenizer, write_rows
from transformers import AutoModel, AutoModelForMaskedLM

from tailor.bases.encoder import EncoderBase
from tailor.bases.loading import find
from tailor.bases.masking import LONGEST_WORD, Masking
from tailor.core.contracts import UNTRAINED, EncodeOptions, OutputSpec
from tailor.core.errors import RowRefused
from tailor.core.examples import Features, Origin, Text
from tailor.core.reporting import Reporter
from tailor.engine.first_head import FITTED
from tailor.engine.loop import dev_loss
from tailor.objectives.language import Language
from tailor.recipe.base import BaseOptions
from tailor.recipe.objectives import LanguageOptions
from tailor.verbs.evaluate import evaluate_model
from tailor.verbs.fit import run

OUTPUT = OutputSpec("masked")
HERE = Origin("rows.txt", 1)


def text(words: str, name: str = "x") -> Text:
    return Text(id=name, origin=HERE, text=words)


def rows(count: int = 200) -> list[Features]:
    masking = Masking(tokenizer(encoder=True))
    return [
        masking.windows(text("the stone near a tower was zephyrlike and unfathomable", str(index)), 64)[0]
        for index in range(count)
    ]


def test_windows_hold_the_text_once_between_the_ends() -> None:
    masking, words = Masking(tokenizer(encoder=True)), "the stone is red " * 30
    bare = tokenizer(encoder=True)(words, add_special_tokens=False)["input_ids"]
    parts = masking.windows(text(words), 40)
    first, last = tokenizer(encoder=True).cls_token_id, tokenizer(encoder=True).sep_token_id
    assert all(part.input_ids[0] == first and part.input_ids[-1] == last for part in parts)
    assert [token for part in parts for token in part.input_ids[1:-1]] == bare
    assert max(map(len, parts)) == 40
    (short,) = masking.windows(text("red"), 40)
    assert short.input_ids == tokenizer(encoder=True)("red")["input_ids"]
    with pytest.raises(RowRefused, match="no word"):
        masking.windows(text("[MASK]"), 40)


def test_a_word_is_all_its_pieces_and_never_too_long() -> None:
    row = rows(1)[0]
    spelt: dict[int, str] = {}
    for token, word in zip(row.input_ids, row.marks["word"], strict=True):
        spelt[word] = spelt.get(word, "") + tokenizer(encoder=True).decode([token])
    assert spelt.pop(-1) == "[CLS][SEP]"
    assert [word.strip() for word in spelt.values()][:6] == ["the", "stone", "near", "a", "tower", "was"]
    assert all(row.marks["word"].count(word) <= LONGEST_WORD for word in spelt)
    assert "".join(spelt.values()).endswith("unfathomable")


@pytest.mark.parametrize("whole", [True, False])
def test_shares_are_those_of_bert(whole: bool) -> None:
    masking, output = Masking(tokenizer(encoder=True)), OutputSpec("masked", mask=0.3, whole_words=whole)
    counts = np.zeros(5)
    split = 0
    for row in masking.draw(rows(600), output, (0, 0)):
        ids, original = np.array(row.input_ids), np.array(row.marks["original"])
        hit, words = np.array(row.weights) == 1, np.array(row.marks["word"])
        assert not hit[words == -1].any()
        assert (ids[~hit] == original[~hit]).all()
        counts += [hit.sum(), (words >= 0).sum(), (ids == masking.mask).sum(), (hit & (ids == original)).sum(), 0]
        split += sum(len(set(hit[words == word])) > 1 for word in set(words.tolist()))
    hidden, there, masks, kept, _ = counts
    assert hidden / there == pytest.approx(0.3, abs=0.02)
    assert masks / hidden == pytest.approx(0.8, abs=0.02)
    assert kept / hidden == pytest.approx(0.1, abs=0.02)
    assert (split == 0) == whole


def test_masks_depend_on_seed_epoch_and_example_alone() -> None:
    masking, some = Masking(tokenizer(encoder=True)), rows(8)
    drawn = masking.draw(some, OUTPUT, (0, 1))
    assert masking.draw(some[::-1][2:], OUTPUT, (0, 1))[::-1] == drawn[:6]
    for other in ((0, 2), (1, 1), UNTRAINED):
        assert [row.input_ids for row in masking.draw(some, OUTPUT, other)] != [row.input_ids for row in drawn]
    assert all(any(row.weights) for row in masking.draw(rows(100), OutputSpec("masked", mask=1e-9), (0, 0)))


def test_the_loss_is_the_stock_class_own(bert: Path) -> None:
    base = EncoderBase(find(BaseOptions(name=str(bert))), EncodeOptions())
    objective = Language(LanguageOptions())
    objective.meet(base)
    base.load(objective.output, torch.float32)
    assert not base.new_head
    drawn = base.draw(
        [*base.encoders[Text](text("the stone is red")), *base.encoders[Text](text("a tower near the river", "y"))],
        objective.output,
        (0, 0),
    )
    batch = base.collate(drawn, objective.output)
    ours = objective.loss(base.forward(base.model, batch), batch)
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    labels[batch.rows[0], batch.rows[1]] = batch.targets
    model: Any = base.model
    assert float(ours.total.detach()) / ours.weight == pytest.approx(
        float(model(**batch.inputs, labels=labels).loss.detach()), abs=1e-6
    )
    assert ours.weight == sum(sum(row.weights) for row in drawn)


def test_the_base_and_the_tuned_model_guess_the_same_tokens(bert: Path, tmp_path: Path) -> None:
    recipe = make_recipe(bert, write_rows(tmp_path / "rows.jsonl", rows_of("language")), tmp_path / "run")
    _, job = prepare_job(recipe)
    whole = [job.train[index] for index in range(len(job.train))]
    first = job.base.draw(whole, job.output, UNTRAINED)
    assert first == job.base.draw(whole, job.output, UNTRAINED)
    assert job.objective.answers == "masked"


def headless(bert: Path, folder: Path) -> Path:
    """The trunk alone, as sentence encoders are published."""
    AutoModel.from_pretrained(bert).save_pretrained(folder)
    tokenizer(encoder=True).save_pretrained(folder)
    return folder


class Listening(Reporter):
    """A reader of what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_missing_head_is_fitted_first_and_belongs_to_the_base(bert: Path, tmp_path: Path, method: str) -> None:
    base, data = (
        headless(bert, tmp_path / "trunk"),
        write_rows(tmp_path / "rows.jsonl", rows_of("language", 60)),
    )
    train = {"max_steps": 20, "learning_rate": 3e-3}
    splits = {"dev": 0.2, "test": 0.2}
    recipe = make_recipe(base, data, tmp_path / "run", method=method, train=train, splits=splits)
    answer = run(recipe, resume=False, reporter=(reporter := Listening()))
    assert any("fitted first, on the frozen trunk" in line for line in reporter.said)
    assert answer["proof"]["passed"], answer["proof"]
    task = answer["evaluation"]["tasks"]["default"]
    assert task["baseline"] == "base"
    assert list(task["metrics"]) == ["loss", "perplexity"]
    assert task["metrics"]["loss"]["tuned"] < task["metrics"]["loss"]["base"] < np.log(300)
    assert answer["evaluation"]["forgetting"] is not None
    fitted = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / FITTED)
    trunk = AutoModel.from_pretrained(base)
    for name, value in trunk.named_parameters():
        if not name.startswith("pooler"):
            assert torch.equal(fitted.get_parameter(f"bert.{name}"), value), name
    again = evaluate_model(str(tmp_path / "run"), data=None, against=None, margin=None, reporter=Reporter(quiet=True))
    assert again["tasks"]["default"]["metrics"] == task["metrics"]


def test_a_fitted_head_is_taken_up_again(bert: Path, tmp_path: Path) -> None:
    base = headless(bert, tmp_path / "trunk")
    data = write_rows(tmp_path / "rows.jsonl", rows_of("language", 24))
    recipe = make_recipe(base, data, tmp_path / "run", splits={"dev": 0.25})
    losses = []
    for _ in range(2):
        _, job = prepare_job(recipe, reporter := Listening())
        losses.append((dev_loss(job), bool(reporter.said)))
    assert losses[0][0] == losses[1][0]
    assert [said for _, said in losses] == [True, False]

"""Shared prefixes are run once, and everything is as if each row had been run by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from test_architectures import ARCHITECTURES, EXACT, WINDOW, Architecture
from tiny import (
    VOCABULARY,
    load_causal,
    random_features,
    save_base,
    save_llama,
    stock_gradients,
    token_job,
    tokenizer,
    trained_gradients,
)
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tailor.bases.packing import measure
from tailor.core.examples import Features
from tailor.nn.prefix_tree import Forest, plant, shared, tree_attention, tree_groups
from tailor.nn.segments import segmented_causal_attention
from tailor.recipe.methods import FullOptions, LoraOptions

ROWS = some.lists(some.lists(some.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8)


@given(ROWS)
@settings(deadline=None, max_examples=200)
def test_a_forest_holds_every_sequence_and_no_prefix_twice(rows: list[list[int]]) -> None:
    forest = plant(rows)
    assert [[forest.ids[place] for place in forest.places(index)] for index in range(len(rows))] == rows
    assert len(forest.ids) == len({tuple(row[: end + 1]) for row in rows for end in range(len(row))})
    depths = forest.positions
    assert all(
        [depths[place] for place in forest.places(index)] == [*range(len(row))] for index, row in enumerate(rows)
    )


@given(ROWS)
@settings(deadline=None, max_examples=50)
def test_the_order_of_rows_changes_no_forest(rows: list[list[int]]) -> None:
    assert plant(rows).nodes == plant(rows[::-1]).nodes


@given(
    some.lists(some.lists(some.lists(some.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=2)),
    some.integers(1, 20),
)
@settings(deadline=None, max_examples=100)
def test_groups_hold_every_example_once_within_the_budget(rows: list[list[list[int]]], budget: int) -> None:
    groups, most = tree_groups(rows, budget)
    assert sorted(index for group in groups for index in group) == [*range(len(rows))]
    sizes = [len(plant([sequence for index in group for sequence in rows[index]]).ids) for group in groups]
    assert all(size <= budget or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    assert sum(sizes) <= most


def test_what_two_rows_begin_with() -> None:
    assert [shared([1, 2, 3], other) for other in ([1, 2, 3], [1, 2], [1, 2, 4, 3], [2, 2, 3], [])] == [3, 2, 2, 0, 0]


@pytest.mark.parametrize("window", [None, 3])
def test_a_tree_of_one_path_is_a_segment(window: int | None) -> None:
    rows = [[1, 2, 3, 4, 5], [2, 3], [3, 1, 1]]
    forest = plant(rows)
    states = [torch.randn(1, heads, 10, 4, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2)]
    ours = tree_attention(*states, forest.nodes, window=window)  # type: ignore[arg-type]
    assert torch.equal(ours, segmented_causal_attention(*states, (5, 2, 3), window=window))  # type: ignore[arg-type]


def alike(count: int, common: int, parts: int = 1) -> list[Features]:
    """Examples of `parts` rows each: all begin alike, some a while longer, and one row is another's beginning."""
    draw = torch.Generator().manual_seed(0)
    ids = lambda length: torch.randint(7, VOCABULARY - 4, (length,), generator=draw).tolist()  # noqa: E731
    begin, found = ids(common), []
    for index in range(count):
        own = begin + (ids(5) if index % 2 else found[-1].input_ids[common : common + 3] if found else [])
        rows = [own + ids(1 + 3 * index + place) for place in range(parts)]
        weights = [[0.0, *torch.randint(0, 3, (len(row) - 1,), generator=draw).tolist()] for row in rows]
        flat = [float(weight) for row in weights for weight in row]
        flat[-1] = 0.5
        lengths = tuple(map(len, rows)) if parts > 1 else ()
        found.append(Features(str(index), [token for row in rows for token in row], flat, parts=lengths))
    first = found[0].sequences[0]
    beginning = Features(
        "beginning", first[: common + 1], [0.0] + [1.0] * common, parts=(common + 1,) if parts > 1 else ()
    )
    return [*found, beginning]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Architecture, Path]:
    architecture = ARCHITECTURES[request.param]
    folder = tmp_path_factory.mktemp("base")
    return architecture, save_base(folder, architecture.config(), AutoModelForCausalLM, tokenizer())


def test_every_architecture_trains_on_trees_as_on_rows_alone(built: tuple[Architecture, Path], tmp_path: Path) -> None:
    """Loss and every gradient; those that cannot share tokens say so and are run apart."""
    architecture, folder = built
    job = token_job(load_causal(folder), FullOptions(), alike(6, WINDOW + 2), tmp_path)
    job.base.model.eval()
    features = list(job.train)
    batch = job.base.collate(features, job.output)
    beyond = job.base.packing.mode_for(tuple(map(len, features))) != "segments"
    assert (batch.computed_tokens < batch.tokens) == (job.base.packing.shares and not beyond)
    assert job.base.packing.shares <= (architecture.mode == "segments")
    groups = job.base.micro_batches(features, 60)
    assert len(groups) > 1
    book = stock_gradients(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), features)
    for grouping in ([range(len(features))], groups):
        assert trained_gradients(job, features, grouping).difference(book) < EXACT


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("method", [FullOptions(), LoraOptions(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("parts", [1, 2])
def test_no_token_is_run_twice(llama: Path, tmp_path: Path, method: Any, parts: int) -> None:
    features = alike(6, 40, parts)
    shares = token_job(load_causal(llama), method, features, tmp_path / "shares")
    apart = token_job(load_causal(llama, packing=False), method, features, tmp_path / "apart")
    batch = shares.base.collate(features, shares.output)
    rows = [sequence for feature in features for sequence in feature.sequences]
    assert batch.computed_tokens == len({tuple(row[: end + 1]) for row in rows for end in range(len(row))})
    assert batch.tokens == sum(map(len, rows))
    everything = [range(len(features))]
    found = trained_gradients(shares, features, everything)
    assert found.difference(trained_gradients(apart, features, everything)) < EXACT


def test_rows_that_share_little_are_packed_and_dropout_keeps_them_apart(llama: Path, tmp_path: Path) -> None:
    features = alike(4, 40)
    base = load_causal(llama)
    job = token_job(base, LoraOptions(rank=4, dropout=0.1), features, tmp_path / "drops")
    for training, shares in ((True, False), (False, True)):
        job.attached.model.train(training)
        batch = base.collate(features, job.output)
        assert (batch.computed_tokens < batch.tokens) == shares
    plain = load_causal(llama)
    token_job(plain, FullOptions(), features, tmp_path / "plain")
    others = random_features((20, 30, 40))
    batch = plain.collate(others, job.output)
    assert batch.computed_tokens == batch.tokens
    assert not isinstance(batch.inputs["segments"], Forest)
    assert plain.micro_batches(others, 50) == plain.packing.groups((20, 30, 40), 50)  # type: ignore[union-attr]


def test_a_base_that_cannot_share_is_told_by_its_logits(llama: Path) -> None:
    class Elsewhere(LlamaForCausalLM):
        """Positions counted by place, whatever it is told."""

        def forward(self, position_ids: Any = None, **inputs: Any) -> Any:
            ids = inputs["input_ids"]
            here = torch.arange(ids.shape[1])[None].expand_as(ids) if position_ids is not None else None
            return super().forward(position_ids=here, **inputs)

    assert not measure(Elsewhere.from_pretrained(llama)).shares
    assert measure(LlamaForCausalLM.from_pretrained(llama)).shares

"""Asking: the last turn that fits is asked, rows that fit nowhere are scored by loss, and neighbours do not matter."""

from pathlib import Path

import pytest
import torch

from tailor import api
from tailor.bases.causal import CausalBase
from tailor.bases.loading import find
from tailor.core.contracts import EncodeOptions, OutputSpec
from tailor.core.errors import BaseError
from tailor.core.examples import Conversation, Message, Origin
from tailor.core.reporting import Reporter
from tailor.evaluation.answering import Asking, Held, answer_all, generate_ids
from tailor.objectives.chat import Chat
from tailor.recipe.base import BaseOptions
from tailor.recipe.objectives import ChatOptions


def talk(turns: int, words: int) -> Conversation:
    messages = []
    for turn in range(turns):
        messages += [Message("user", "order " * words), Message("assistant", f"answer {turn}")]
    return Conversation(id=f"{turns}-{words}", origin=Origin("a.jsonl", 1), messages=tuple(messages))


def loaded() -> CausalBase:
    base = CausalBase(find(BaseOptions(name="pocket:gpt")), EncodeOptions(on_overlong="truncate"))
    base.load(OutputSpec("tokens"), torch.float32)
    return base


def test_the_last_turn_that_fits_the_context_is_asked(tmp_path: Path) -> None:
    base, objective = loaded(), Chat(ChatOptions())
    examples = [talk(2, 5), talk(6, 100), talk(1, 1000)]
    held = [
        Held(
            example, {}, base.encoders[Conversation](example) if index < 2 else base.encoders[Conversation](talk(1, 5))
        )
        for index, example in enumerate(examples)
    ]
    asking = Asking(torch.device("cpu"), 4096, 4)
    answers = answer_all(base, objective, objective.output, held, asking, Reporter(quiet=True))
    assert answers[0].expected == "answer 1", "the last turn, where it fits"
    assert answers[1].expected in {"answer 2", "answer 3", "answer 4"}, "an earlier one, where the last does not"
    assert answers[2].expected is None, "none, where not even the first does"
    assert all(answer.nll is not None for answer in answers)


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    base = loaded()
    base.model.eval()
    prompts = [
        base.chat.prompt([Message("user", text)], ()) for text in ("Hello.", "My parcel is late, order 12.", "x " * 60)
    ]
    together = generate_ids(base, prompts, 12, torch.device("cpu"))
    alone = [generate_ids(base, [prompt], 12, torch.device("cpu"))[0] for prompt in prompts]
    assert together == alone


def test_a_prompt_that_fills_the_context_is_refused_and_not_answered_beyond_it(llama: Path) -> None:
    with pytest.raises(BaseError, match="leaves no room for an answer") as raised:
        api.generate(str(llama), "a stone " * 300)
    assert raised.value.code == "overlong"
    assert len(api.generate(str(llama), "a stone", max_new_tokens=2)) == 1

"""Prompt tuning through PEFT: learned embeddings in front of the text, that start as those of real tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import PromptTuningConfig

from tailor.core.contracts import Base, Need, OutputSpec
from tailor.core.errors import RecipeError
from tailor.methods.attached import PlainAttached
from tailor.methods.with_peft import TASKS, PeftAttached, alike, head_modules, lay, share_of_head
from tailor.nn.in_front import InFront
from tailor.recipe.methods import SoftPromptOptions

UNPACKED = "virtual tokens stand in front of every row"


class LearnedWord(PlainAttached):
    """Embeddings that are a new word's: textual inversion (Gal et al. 2022, arXiv 2208.01618)."""

    def __init__(self, base: Any, options: SoftPromptOptions) -> None:
        self._rows = base.learn_words(options.tokens, options.text)
        super().__init__(base, base.model)
        self._base = base

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """The word's rows in the table of every text encoder."""
        return dict(self._rows)

    def begin_with(self, adapter: Path, *, same_head: bool) -> None:
        """Take over the rows of the same word; raises `RecipeError` where they are another's."""
        with alike(adapter):
            self._base.begin_words(adapter)

    def save(self, folder: Path) -> None:
        """The rows, by the word."""
        self._base.save_words(folder)

    def notes(self) -> Mapping[str, Any]:
        """The words that were learned."""
        return {"learned_words": list(self._base.words)}


class SoftPrompt:
    """Virtual tokens in the embedding space, all else frozen (Lester et al. 2021)."""

    name: ClassVar[str] = "soft_prompt"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})
    mergeable: ClassVar[bool] = False

    def __init__(self, options: SoftPromptOptions) -> None:
        self.options = options

    def attach(self, base: Base, output: OutputSpec) -> PeftAttached | LearnedWord:
        """Put virtual tokens in front of a loaded base, or in the place of a word where one can be added to it.

        Raises `RecipeError` where its head cannot be read behind them.
        """
        if "new_words" in base.has:
            return LearnedWord(base, self.options)
        if TASKS[base.head] is None:
            raise RecipeError(
                f"PEFT has no virtual tokens for what is read off here ({base.head})",
                where="method",
                fix="choose method: lora",
            )
        if output.head == "labels" and "past_kv" in base.has:
            raise RecipeError(
                "a causal LM's stock classifier finds the end of a row by its token ids, which embeddings do not have",
                where="method",
                fix="choose method: prefix or lora",
                code="no_such_pair",
            )
        config = PromptTuningConfig(
            num_virtual_tokens=self.options.tokens,
            modules_to_save=head_modules(base) or None,
            task_type=TASKS[base.head],
        )
        model = lay(base, config, called="prompt tuning", where="method")
        start = self._start(base, model.word_embeddings)
        model.prompt_encoder[model.active_adapter].embedding.weight.data.copy_(start)
        base.pad_rows(UNPACKED)
        return PeftAttached(base, model, model=InFront(model), head_share=share_of_head(self.options))

    @torch.no_grad()
    def _start(self, base: Base, embeddings: Any) -> torch.Tensor:
        """(tokens, width): embeddings of a text, of sampled tokens, or random ones that are spread as the table's rows."""
        if self.options.init == "random":
            table = embeddings.weight.float()
            drawn: torch.Tensor = table.mean(0) + table.std(0) * torch.randn(self.options.tokens, table.shape[1])
            return drawn
        ids = start_ids(base.tokenizer, self.options.init, self.options.text, self.options.tokens)
        found: torch.Tensor = embeddings(torch.tensor(ids, device=embeddings.weight.device))
        return found.float()


def start_ids(tokenizer: Any, init: str, text: str, count: int) -> list[int]:
    """As many tokens as asked for: of a text, cut or repeated; or drawn from the vocabulary without its special tokens."""
    if init == "text":
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise RecipeError("this text has no tokens", where="method.text", fix="write a sentence")
        return (ids * -(-count // len(ids)))[:count]
    plain = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    return [plain[int(place)] for place in torch.randint(len(plain), (count,))]

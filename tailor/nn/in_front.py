"""A PEFT model whose virtual tokens stand in front of the text, behind the forward of its base."""

from typing import Any

import torch

ROWS_OF_TOKENS = ("logits", "last_hidden_state")
ROWS_OF_PLACES = ("start_logits", "end_logits")


class InFront(torch.nn.Module):
    """Outputs stand where they stand in the base's: those of the virtual tokens are left out.

    PEFT returns a row of outputs for every virtual token too, and takes positions as counted with them.
    """

    def __init__(self, peft: Any) -> None:
        super().__init__()
        self.peft = peft
        self.tokens = int(peft.active_peft_config.num_virtual_tokens)

    @property
    def config(self) -> Any:
        """The base's."""
        return self.peft.config

    def get_output_embeddings(self) -> Any:
        """The base's output layer."""
        return self.peft.get_base_model().get_output_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """The base's outputs for (B, L) tokens that the virtual ones precede; `logits_to_keep` counts without them."""
        if logits_to_keep is not None:
            inputs["logits_to_keep"] = logits_to_keep + self.tokens
        result = self.peft(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        whole = self.tokens + input_ids.shape[1]
        for names, dimensions in ((ROWS_OF_TOKENS, 3), (ROWS_OF_PLACES, 2)):
            for name in names:
                values = result.get(name)
                if values is not None and values.ndim == dimensions and values.shape[1] == whole:
                    result[name] = values[:, self.tokens :]
        return result

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> torch.Tensor:
        """As the base's for rows padded on the left, (B, L + new) token ids.

        The virtual tokens stand between padding and text. PEFT would put them before the padding, so that what a row is
        answered depended on the length of its neighbours.
        """
        words = self.peft.word_embeddings(input_ids)
        virtual = self.peft.get_prompt(batch_size=len(input_ids)).to(words.dtype)
        mask = torch.cat([attention_mask.new_ones(len(input_ids), self.tokens), attention_mask], 1)
        order = torch.argsort(mask, dim=1, stable=True)
        rows = torch.cat([virtual, words], 1).gather(1, order[..., None].expand(-1, -1, words.shape[-1]))
        new = self.peft.get_base_model().generate(inputs_embeds=rows, attention_mask=mask.gather(1, order), **settings)
        return torch.cat([input_ids, new], 1)

"""Chat templates by name, for bases that bring none, and where a named template's source is found."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tailor.core.errors import BaseError, RecipeError

# Readable headings and the tokenizer's own end of text: any tokenizer can write it.
_PLAIN = """{%- if tools %}
{{- '### Tools:\\n' }}{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}{{ '\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '### ' + message.role | capitalize + ':\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n' if message.content or not loop.first }}
{{- '<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}
{{- (eos_token if message.role == 'assistant' else '') + '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"""

_CHATML = """{%- if tools %}
{{- '<|im_start|>tools' }}{% for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n' if message.content or not loop.first }}
{{- '<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

BUILT_IN = {"plain": _PLAIN, "chatml": _CHATML}


def find_template(tokenizer: Any, template: str | None) -> tuple[str, str]:
    """The name and source of the template in force.

    Args:
        tokenizer: a transformers tokenizer; its own template is `tokenizer`.
        template: None, the name of a built-in one, the path of a .jinja file, or the source itself (named `custom`).

    Raises:
        RecipeError: there is no such template.
        BaseError: a built-in one needs an end-of-text token and the tokenizer has none.
    """
    if template is None and tokenizer.chat_template:
        return "tokenizer", _joined(tokenizer.chat_template)
    name = template or "plain"
    if name in BUILT_IN:
        return name, _built_in(tokenizer, name)
    if "{{" in name or "{%" in name:
        return "custom", name
    if Path(name).is_file():
        return name, Path(name).read_text(encoding="utf-8")
    near = "".join(f"did you mean {word}? " for word in get_close_matches(name, BUILT_IN, 1))
    raise RecipeError(
        "there is no such chat template: neither a file nor one of the built-in ones",
        where=f"base.chat_template={name}",
        fix=f"{near}built-in: {', '.join(BUILT_IN)}",
    )


def _built_in(tokenizer: Any, name: str) -> str:
    if name == "plain" and not tokenizer.eos_token:
        raise BaseError(
            "the tokenizer has no end-of-text token, so the plain template could not end a turn",
            where="base.chat_template",
            fix="set eos_token in the base's tokenizer_config.json, or choose base.chat_template=chatml",
        )
    begins = tokenizer.bos_token is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return ("{{ bos_token }}" if begins else "") + BUILT_IN[name]


def _joined(template: str | dict[str, str]) -> str:
    """One template for a tokenizer that keeps a second one for rows with tools."""
    if isinstance(template, str):
        return template
    if "default" not in template:
        raise BaseError(
            f"the tokenizer has several chat templates ({', '.join(template)}) and no default",
            where="base.chat_template",
            fix="name a .jinja file",
        )
    if "tool_use" not in template:
        return template["default"]
    # The newline after a block and the empty expression before one keep trim_blocks and lstrip_blocks off the sources.
    tools, default = (template[name].removesuffix("\n") + '{{ "" }}' for name in ("tool_use", "default"))
    return f"{{% if tools %}}\n{tools}{{% else %}}\n{default}{{% endif %}}"

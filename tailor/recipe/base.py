"""What is adapted."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tailor.recipe.options import Options, from_short_form

HIDDEN = "hidden_input"
"""The type of a complaint about a value that may be a secret, and so is never repeated."""
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = {"model", "messages", "prompt", "tools", "stream", "n", "best_of", "num_return_sequences", "echo"}
"""Keys of a request that a question or its answer's form decides; several answers would be billed and one of them read."""
LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict")
"""Keys by which servers take the length of an answer."""
WEB = ("http://", "https://")


class PriceOptions(Options):
    """Prices per million tokens, in whatever currency the budget is in."""

    prompt: float = Field(0.0, ge=0, description="of what is sent")
    completion: float = Field(0.0, ge=0, description="of what is answered, reasoning included")


class BudgetOptions(Options):
    """What one command may ask of a model behind an API: never exceeded, however many requests are under way."""

    max_calls: int | None = Field(
        None, ge=1, description="requests of one command that get an answer, from the cache or not"
    )
    max_cost: float | None = Field(None, gt=0, description="by the prices; needs them")


class EndpointOptions(Options):
    """A model behind an API that speaks OpenAI's protocol (vLLM, Ollama, llama.cpp, OpenAI, …)."""

    url: str = Field(description="the API's address, up to /v1")
    model: str = Field(min_length=1, description="the model's name there")
    api_key_env: str | None = Field(
        None,
        description="environment variable that holds the key; null: OPENAI_API_KEY for OpenAI and this machine alone",
    )
    protocol: Literal["chat", "completions"] = Field("chat", description="completions: the turns as one plain text")
    max_new_tokens: int = Field(1024, ge=1, description="the longest answer, reasoning included")
    request: dict[str, Any] = Field(
        {}, description="further keys of every request, laid over ours; null leaves a key of ours out"
    )
    prices: PriceOptions = PriceOptions()
    budget: BudgetOptions = BudgetOptions()
    concurrency: int = Field(8, ge=1, le=256, description="requests under way at once")
    timeout: Annotated[float, Field(gt=0)] = Field(120.0, description="seconds without a sign of the server")
    retries: int = Field(5, ge=0, description="further tries after 429, 5xx, time-outs, lost or garbled answers")
    cache: bool = Field(
        True, description="keep answers on disk, so that none is paid for twice; false: in a search's run folder alone"
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise PydanticCustomError(
                HIDDEN, "a key does not belong into the address: put it into the environment, and name api_key_env"
            )
        if not url.startswith(WEB) or not parts.hostname or parts.fragment:
            raise ValueError("is an address such as http://localhost:8000/v1")
        return api_root(url)

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not ENVIRONMENT_NAME.fullmatch(name):
            raise PydanticCustomError(HIDDEN, "is the name of an environment variable, not the key itself")
        return name

    @field_validator("request")
    @classmethod
    def _foreign_keys(cls, request: dict[str, Any]) -> dict[str, Any]:
        for key in sorted(OURS & request.keys()):
            raise ValueError(f"{key} is not for a recipe to set in a request")
        for key in LIMITS:
            limit = request.get(key)
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
                raise ValueError(f"{key} is a number of tokens, or null")
        return request

    @model_validator(mode="after")
    def _priced(self) -> "EndpointOptions":
        if self.budget.max_cost is not None and not (self.prices.prompt or self.prices.completion):
            raise ValueError("budget.max_cost needs prices")
        return self

    @property
    def name(self) -> str:
        """How this model is called where a base is named: `http://localhost:8000/v1#qwen`."""
        return f"{self.url}#{self.model}"


class BaseOptions(Options):
    """The base model. A bare string is its `name`."""

    name: str = Field(
        description="hub id, local folder, run folder, an embedded base such as pocket:gpt, or URL#MODEL of an API"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    trust_remote_code: bool = Field(False, description="run code that the base's repository brings along")
    chat_template: str | None = Field(
        None, description="a built-in template's name or a .jinja file, instead of the tokenizer's own"
    )
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="dtype of frozen weights; auto: as saved"
    )
    quantize: Literal["4bit"] | None = Field(
        None, description="4bit: frozen weights in NF4 through bitsandbytes (QLoRA, with method: lora)"
    )
    endpoint: EndpointOptions | None = Field(None, description="a model behind an API, instead of `name`")

    continue_adapter: bool = Field(
        False, description="the adapter that this base ends in goes on being trained; false: it is merged first"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _with_endpoint(from_short_form(value, "name"))

    @model_validator(mode="after")
    def _one_base(self) -> "BaseOptions":
        if self.endpoint is None:
            return self
        if self.name != self.endpoint.name:
            raise ValueError("a base has a name or an endpoint")
        own = sorted({"revision", "chat_template", "quantize"} & {key for key, value in self if value is not None})
        if own:
            raise ValueError(f"a model behind an API has no {own[0]} of ours: leave it out")
        return self


def api_root(url: str) -> str:
    """An API's address up to `/v1`, which is added where the address names a server alone."""
    return url.rstrip("/") if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"


def _with_endpoint(values: Any) -> Any:
    """`URL#MODEL` spelled out as an endpoint, and an endpoint named so."""
    if not isinstance(values, dict):
        return values
    name, endpoint = values.get("name"), values.get("endpoint")
    if isinstance(name, str) and name.startswith(WEB):
        url, _, model = name.partition("#")
        if not model:
            raise PydanticCustomError(HIDDEN, "an API is named with its model, as in http://localhost:8000/v1#qwen")
        spelled = {"url": url, "model": model}
        endpoint = spelled | endpoint if isinstance(endpoint, dict) else endpoint or spelled
    elif name is not None or endpoint is None:
        return values
    given = endpoint if isinstance(endpoint, dict) else dict(endpoint) if isinstance(endpoint, EndpointOptions) else {}
    return {**values, "name": f"{api_root(str(given.get('url')))}#{given.get('model')}", "endpoint": endpoint}

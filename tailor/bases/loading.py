"""From a name to a base on disk: hub ids, local folders, run folders, adapter folders, embedded bases.

Weights are read from safetensors only (a pickle can run code), code of the repository's own only when asked for.
"""

import contextlib
import difflib
import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
import yaml
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)
from transformers.utils import cached_file

from tailor.bases.folders import (
    BASE_FILE,
    PIPELINE_INDEX,
    adapter_settings,
    folder_digest,
    head_outputs,
    mergeable,
    recorded_base,
)
from tailor.bases.mean_pool import MEAN_POOL_FILE
from tailor.core.errors import BaseError
from tailor.core.paths import POCKET, embedded_base
from tailor.core.prompts import PROMPT_FILE, Prompt, read_prompt
from tailor.core.runs import made_by
from tailor.recipe.base import WEB, BaseOptions, EndpointOptions
from tailor.recipe.recipe import base_options

EMBEDDED = "pocket:"
LABELS_FILE = "labels.json"
HEAD_DESCRIPTION = "head.json"
"""Stands beside one task's head: which trunk it belongs to."""
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes as safetensors calls them."""

# The libraries' own bars and advice would stand between our lines; what matters of it is said by us.
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
NAMING = ("ForSequenceClassification", "ForTokenClassification")
"""Architectures whose config names the outputs of their head."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Source:
    """A base that was found.

    Args:
        name: how artefacts call it: a hub id, `pocket:NAME`, or a folder's own name; never a machine's path.
        location: what `from_pretrained` takes.
        adapters: PEFT folders to be laid on and merged, innermost first (a run folder's adapter, say).
        head: the folder of one task's head on a trunk that several tasks share.
        prompt_file: where the prompt lies that belongs to it.
        below: what the outermost adapter lies on.
        begun: an adapter on this base that goes on being trained; its tokenizer is in force.
        weightless: its models are built from the config alone, on the meta device, to see what they would need.
    """

    name: str
    location: str
    config: PretrainedConfig
    options: BaseOptions
    adapters: tuple[str, ...] = ()
    head: Path | None = None
    prompt_file: Path | None = None
    below: "Source | None" = None
    begun: Path | None = None
    weightless: bool = False

    @property
    def prompt(self) -> Prompt | None:
        """What stands before and around its questions."""
        return None if self.prompt_file is None else read_prompt(self.prompt_file)

    @property
    def family(self) -> str:
        """`causal-lm`, `encoder` or `encoder-decoder`, by transformers' own tables."""
        return family_of(self.config, self.location)

    @property
    def saved_dtype(self) -> torch.dtype:
        """The dtype of its weights on disk."""
        return self.config.dtype if isinstance(self.config.dtype, torch.dtype) else torch.float32

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs of a classifier's head, in order; empty where the base has no such head.

        Where nobody named them they are numbered, as labels that are numbers are.
        """
        folder = self.head or (self.prompt_file.parent if self.prompt_file else None)
        written = (folder or Path(self.adapters[-1] if self.adapters else self.location)) / LABELS_FILE
        if written.exists():
            return tuple(json.loads(written.read_text(encoding="utf-8")))
        saved = head_outputs(Path(self.adapters[-1])) if self.adapters else 0
        if saved:
            return numbered(saved)
        if not any(name.endswith(NAMING) for name in self.config.architectures or []):
            return ()
        names = tuple(str(name) for _, name in sorted(self.config.id2label.items()))
        return numbered(len(names)) if names == tuple(f"LABEL_{index}" for index in range(len(names))) else names

    @property
    def kept(self) -> Path | None:
        """The outermost adapter where it stays beside the base, because nothing can be merged of it."""
        if not self.adapters:
            return None
        last = Path(self.adapters[-1])
        return None if mergeable(last) and not self.options.quantize else last

    @property
    def merged(self) -> tuple[str, ...]:
        """The adapters that are merged into the weights, innermost first."""
        return self.adapters[:-1] if self.kept else self.adapters

    @property
    def virtual_tokens(self) -> int:
        """Positions of the context that the adapter beside the base takes up."""
        return int(adapter_settings(self.kept).get("num_virtual_tokens") or 0) if self.kept else 0

    @property
    def mean_pool_head(self) -> Path | None:
        """The folder of a mean-pool head that lies beside the trunk."""
        beside = (Path(self.location) / MEAN_POOL_FILE).exists()
        return Path(self.location) if beside and not self.adapters else None  # an adapter brings a head of its own

    @property
    def pooling(self) -> Literal["stock", "mean"]:
        """How the head that was saved with this model reads the token states."""
        if self.head is not None:
            description = json.loads((self.head / HEAD_DESCRIPTION).read_text(encoding="utf-8"))
            return "mean" if description["pooling"] == "mean" else "stock"
        return "mean" if self.mean_pool_head else "stock"

    @property
    def hidden(self) -> int | None:
        """Width of its token states, which learning rates follow; None where there is no one width."""
        return int(self.config.get_text_config().hidden_size)

    def parameters(self) -> int:
        """How many parameters it has, counted on the meta device from its config."""
        with torch.device("meta"):
            model = AutoModel.from_config(self.config, trust_remote_code=self.options.trust_remote_code)
        return sum(value.numel() for value in model.parameters())

    def hub_options(self) -> dict[str, Any]:
        """What every `from_pretrained` call on this base needs."""
        return {"revision": self.options.revision or "main", "trust_remote_code": self.options.trust_remote_code}

    def digest(self) -> str:
        """sha256 over the config and weight files of every part, by content: equal bases have equal digests anywhere."""
        weights = self._digest((*self.adapters, *([str(self.head)] if self.head else [])))
        prompt = self.prompt
        return weights if prompt is None else hashlib.sha256(f"{weights}{prompt.digest()}".encode()).hexdigest()

    def _digest(self, adapters: tuple[str, ...]) -> str:
        total = hashlib.sha256()
        for location in (self.location, *adapters):
            total.update(folder_digest(local_folder(location, self.options.revision)).encode())
        return total.hexdigest()

    def identity(self) -> dict[str, str]:
        """What an adapter's folder records of the base that it was made on."""
        return {"name": self.name, "digest": self._digest(self.adapters)}

    def verify(self) -> None:
        """Raise where an adapter lies on another base than the one that its folder records."""
        for place, adapter in enumerate([*self.adapters, *([str(self.begun)] if self.begun else [])]):
            recorded = recorded_base(Path(adapter))
            if recorded and recorded["digest"] != self._digest(self.adapters[:place]):
                raise BaseError(
                    f"this adapter was made on another base: the weights of {recorded['name']} have changed since, or "
                    "others have its name",
                    where=adapter,
                    fix=f"name a base with the digest {recorded['digest'][:12]}…, which {BASE_FILE} records",
                    code="wrong_base",
                )


@dataclass(frozen=True)
class Remote(Source):
    """A model behind an API: it has a name and an address, and no weights or width; `key` is where a recipe names it."""

    key: str = "base"
    family = "endpoint"  # type: ignore[assignment]
    hidden = None  # type: ignore[assignment]

    @property
    def endpoint(self) -> EndpointOptions:
        """Where it is, and how it is asked."""
        assert self.options.endpoint is not None
        return self.options.endpoint

    def parameters(self) -> int:
        """None that are known."""
        return 0

    def _digest(self, adapters: tuple[str, ...]) -> str:
        """sha256 over what it is asked by: behind a name, whoever serves it may change the model."""
        endpoint = self.endpoint
        asked = [endpoint.name, endpoint.protocol, endpoint.request]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class PipelineSource(Source):
    """Several models that draw together, in diffusers' form; `config` is their index: part -> (library, class)."""

    @property
    def family(self) -> str:
        """The one family of pipelines."""
        return "diffusion"

    @property
    def hidden(self) -> int | None:
        """Its parts have many widths."""
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        """A picture has none."""
        return ()

    @property
    def saved_dtype(self) -> torch.dtype:
        """That of most of its weights."""
        dtypes = [dtype for dtype, _ in _stored(self._folder)]
        return STORED.get(max(set(dtypes), key=dtypes.count, default="F32"), torch.float32)

    def parameters(self) -> int:
        """Of all parts, by the heads of their files."""
        return sum(count for _, count in _stored(self._folder))

    @property
    def _folder(self) -> Path:
        return local_folder(self.location, self.options.revision)


def _stored(pipeline: Path) -> list[tuple[str, int]]:
    """Dtype and size of every weight of a pipeline."""
    found = []
    for file in sorted(pipeline.glob("*/*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            parts = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        found += [(part.get_dtype(), math.prod(part.get_shape())) for part in parts]
    return found


def numbered(count: int) -> tuple[str, ...]:
    """Labels without names: of one output, a number that is predicted, and otherwise which output it is."""
    return ("",) if count == 1 else tuple(map(str, range(count)))


def find(options: BaseOptions) -> Source:
    """Resolve a base's name; raises `BaseError` saying what is missing and how to get it."""
    path = Path(options.name).expanduser()
    if options.name.startswith(WEB):
        return _remote(options)
    if options.name.startswith(EMBEDDED) and (folder := embedded_base(options.name.removeprefix(EMBEDDED))) is not None:
        return source_of(options.name, str(folder), options)
    if path.is_dir():
        return _local(path, options)
    if ":" in options.name and not path.exists():
        raise _no_such_base(options.name)
    if path.exists():
        raise BaseError("a base is a folder, a hub id or pocket:NAME, and this is a file", where=options.name)
    if path.is_absolute() or options.name.startswith((".", "~")) or options.name.count("/") > 1:
        raise BaseError("there is no such folder", where=options.name, fix="`tailor bases` lists what is at hand")
    return source_of(options.name, options.name, options)


def _no_such_base(name: str) -> BaseError:
    known = [f"{EMBEDDED}{base}" for base in POCKET]
    near = difflib.get_close_matches(name, known, n=1)
    fix = (f"did you mean {near[0]}? " if near else "") + f"embedded bases are {', '.join(known)}"
    return BaseError("there is no such embedded base", where=name, fix=fix)


def source_of(name: str, location: str, options: BaseOptions) -> Source:
    """A folder or hub id as a source of the kind that its index or its config stands for."""
    index = _pipeline_index(location, options)
    if index is not None:
        return PipelineSource(name, location, index, options)
    return Source(name, location, _config(location, options), options)


def _pipeline_index(location: str, options: BaseOptions) -> Any:
    """A pipeline's parts by name, or None where this is none; a hub is asked once for each id."""
    file: Any = Path(location) / PIPELINE_INDEX
    if not Path(location).is_dir():
        file = cached_file(
            location,
            PIPELINE_INDEX,
            revision=options.revision or "main",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    if file is None or not Path(file).exists():
        return None
    return json.loads(Path(file).read_text(encoding="utf-8"))


def _remote(options: BaseOptions) -> Remote:
    """The endpoint that is named, with the options of the recipe where they are its own."""
    given = options.endpoint
    if given is None or given.name != options.name:
        options = base_options(options.name)
    return Remote(options.name, options.name, PretrainedConfig(), options)


def find_trained(options: BaseOptions) -> Source:
    """The base that a run with these options trains on: below its adapter, where that goes on being trained."""
    source = find(options)
    if not options.continue_adapter:
        return source
    if source.below is None:
        raise BaseError(
            "this base ends in no adapter that could go on being trained",
            where="base.continue_adapter",
            fix="leave it out, or name a run or folder of lora, ia3, adapter, prefix or soft_prompt",
        )
    return replace(source.below, begun=Path(source.adapters[-1]))


def _local(path: Path, options: BaseOptions) -> Source:
    path = made_by(path.parent) / "model" if path.name == "model" else made_by(path)
    if (path / HEAD_DESCRIPTION).exists():
        return _task_of(path, options)
    model = path / "model"
    if (path / "recipe.yaml").exists() and model.is_dir():
        path = model
    prompt = path / PROMPT_FILE
    if adapter_settings(path):
        return replace(_on_top_of(path, options), prompt_file=prompt if prompt.exists() else None)
    if (path / PIPELINE_INDEX).exists():
        return source_of(path.parent.name if path.name == "model" else path.name, str(path), options)
    if prompt.exists() and not (path / "config.json").exists():
        return _behind(prompt, options)
    if not (path / "config.json").exists():
        raise BaseError(
            "this folder holds no model: config.json is missing (of a pipeline, model_index.json)",
            where=str(path),
            fix="name a transformers folder, or a pipeline's",
        )
    if not list(path.glob("*.safetensors")):
        raise BaseError(*_no_safetensors(path))
    name = path.parent.name if path.name == "model" else path.name
    beside = prompt if prompt.exists() else None
    return Source(name, str(path), _config(str(path), options), options, prompt_file=beside)


def _behind(prompt: Path, options: BaseOptions) -> Source:
    """A searched prompt as a base: the base that it was searched for, behind it."""
    folder, recipe = prompt.parent, prompt.parent.parent / "recipe.yaml"
    recorded = recorded_base(folder) or {}
    values = _base_of_run(recipe) if recipe.exists() else {"name": recorded.get("name")}
    if not values.get("name"):
        raise BaseError("this prompt does not name its base", where=str(folder), fix=f"keep {BASE_FILE} beside it")
    kept = {"chat_template": options.chat_template, "dtype": options.dtype} if options.chat_template else {}
    below = find(BaseOptions.model_validate(values).model_copy(update=kept))
    if recorded and recorded["digest"] != below.identity()["digest"]:
        raise BaseError(
            f"this prompt was searched for another base: the weights of {recorded['name']} have changed since, or others "
            "have its name",
            where=str(folder),
            fix=f"name a base with the digest {recorded['digest'][:12]}…, which {BASE_FILE} records",
            code="wrong_base",
        )
    return replace(below, prompt_file=prompt)


def _task_of(head: Path, options: BaseOptions) -> Source:
    """One task of a multi-task run: the shared trunk, and the head that lies here."""
    description = json.loads((head / HEAD_DESCRIPTION).read_text(encoding="utf-8"))
    trunk = find(options.model_copy(update={"name": str((head / description["trunk"]).resolve())}))
    return replace(trunk, name=f"{trunk.name}/{head.name}", head=head)


def _no_safetensors(path: Path) -> tuple[str]:
    pickled = [file.name for pattern in PICKLES for file in path.glob(pattern)]
    if pickled:
        return (f"{path} holds weights only as {pickled[0]}, a pickle that can run code; save it as safetensors first",)
    return (f"{path} holds no weights: no *.safetensors file",)


def _on_top_of(adapter: Path, options: BaseOptions) -> Source:
    """An adapter's folder as a base: the base it names, with the adapter merged in or laid on."""
    settings = adapter_settings(adapter)
    named, continued = settings.get("base_model_name_or_path") or "", False
    local = adapter.parent / "recipe.yaml"
    if local.exists():
        base = _base_of_run(local)
        named = base.get("name") or named
        options = options.model_copy(update={"quantize": options.quantize or base.get("quantize")})
        continued = bool(base.get("continue_adapter"))
    if not named or Path(named).resolve() == adapter.resolve():
        raise BaseError("this adapter does not name its base", where=str(adapter))
    below = replace(find_trained(options.model_copy(update={"name": named, "continue_adapter": continued})), begun=None)
    if below.kept:
        raise BaseError(
            f"the adapter it was made on, {below.kept}, cannot be merged, so nothing can lie on top of it",
            where=str(adapter),
        )
    own = adapter.parent.name if adapter.name == "model" else adapter.name
    name, adapters = f"{below.name}+{own}", (*below.adapters, str(adapter))
    return replace(below, name=name, options=options, adapters=adapters, head=None, prompt_file=None, below=below)


def _base_of_run(recipe: Path) -> dict[str, Any]:
    base = yaml.safe_load(recipe.read_text(encoding="utf-8")).get("base")
    return base if isinstance(base, dict) else {"name": base}


def _config(location: str, options: BaseOptions) -> PretrainedConfig:
    with explained(options.name):
        return AutoConfig.from_pretrained(
            location, revision=options.revision or "main", trust_remote_code=options.trust_remote_code
        )


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn the libraries' failures to load into one line of ours."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        text = str(error).strip()
        first = text.splitlines()[0] if text else type(error).__name__
        if "trust_remote_code" in text:
            raise BaseError(
                "this base brings code of its own", where=name, fix="read it, then set base.trust_remote_code=true"
            ) from None
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") and not Path(name).exists():
            raise BaseError(
                "this base is not in the local cache, and HF_HUB_OFFLINE keeps the hub closed",
                where=name,
                fix="unset HF_HUB_OFFLINE, or name a local folder or pocket:NAME",
                code="offline",
            ) from None
        raise BaseError(f"this base cannot be loaded: {first}", where=name, fix="`tailor bases` lists bases") from None


def family_of(config: PretrainedConfig, where: str) -> str:
    """Which file in `bases/` serves a config, by the tables of the installed transformers."""
    kind = type(config)
    if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING and config.is_encoder_decoder:
        return "encoder-decoder"
    if getattr(config, "is_encoder_decoder", False):
        raise BaseError(f"a {config.model_type} model does not read and write text", where=where)
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING
    architecture = next(iter(getattr(config, "architectures", None) or []), "")
    generative = architecture.endswith(("ForCausalLM", "LMHeadModel")) or getattr(config, "is_decoder", False)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING and (generative or not masked):
        return "causal-lm"
    if masked or kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return "encoder"
    raise BaseError(
        f"a {config.model_type} model is neither a language model nor an encoder that transformers "
        f"{transformers.__version__} knows",
        where=where,
    )


def load_tokenizer(source: Source) -> Any:
    """The base's tokenizer; the outermost adapter's own where it brings one."""
    beside = [str(folder) for folder in (source.begun, source.prompt_file and source.prompt_file.parent) if folder]
    own = [folder for folder in (*source.adapters, *beside) if (Path(folder) / "tokenizer_config.json").exists()]
    with explained(source.name):
        return AutoTokenizer.from_pretrained(own[-1] if own else source.location, **source.hub_options())


def local_folder(location: str, revision: str | None) -> Path:
    """Where a base's files lie on this machine; for a hub id, its snapshot in the cache."""
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import snapshot_download

    with explained(location):
        return Path(
            snapshot_download(
                location, revision=revision, allow_patterns=["*.json", "*.safetensors"], local_files_only=True
            )
        )

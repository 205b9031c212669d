"""`tailor prove`: is this artefact, or the model behind this server, really the tuned one? For anyone's adapters."""

from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tailor.bases.folders import adapter_settings, head_outputs, recorded_base, weights_file
from tailor.bases.loading import LABELS_FILE, PipelineSource, Source, find, find_trained
from tailor.compose import load_data, make_base, make_objective
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, ExampleSeat
from tailor.core.errors import BaseError, RowRefused, TailorError
from tailor.core.examples import Example, Features, Message, Text
from tailor.core.paths import PACKAGE
from tailor.core.prompts import PROMPT_FILE
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder, made_by
from tailor.evaluation.proof import Found, Probe, Proof, judge, run_stock
from tailor.evaluation.served import NEW_TOKENS, Prompt, Server, judge_served, tell_apart
from tailor.recipe.base import BaseOptions
from tailor.recipe.recipe import Recipe, load
from tailor.verbs.fit import own_loader
from tailor.verbs.own_requests import prove_prompt
from tailor.verbs.pictures import prove_pipeline
from tailor.verbs.served_prompt import judge_served_prompt
from tailor.wire.ledger import one_command

PROMPTS, ROWS = 32, 16
PROMPT_TOKENS, PROMPT_WORDS = 128, 24

TASKS = {
    "CAUSAL_LM": "tokens",
    "SEQ_CLS": "labels",
    "TOKEN_CLS": "tags",
    "QUESTION_ANS": "span",
    "FEATURE_EXTRACTION": "embedding",
    "SEQ_2_SEQ_LM": "sequence",
}
"""PEFT's task types -> what is read off the model."""

ARCHITECTURES = {
    "ForCausalLM": "tokens",
    "LMHeadModel": "tokens",
    "ForSequenceClassification": "labels",
    "ForTokenClassification": "tags",
    "ForQuestionAnswering": "span",
    "ForMaskedLM": "masked",
}
SPAN_HEAD = "qa_outputs"
"""How transformers names the head for spans, by which an adapter is known that has no task type."""


@dataclass(frozen=True)
class Artefact:
    """What is to be proved.

    Args:
        folder: a PEFT adapter or a transformers folder.
        below: what it was made from.
        source: the artefact as a base: the base with the adapter on it, or the folder itself.
        run, recipe: where a run made it.
    """

    folder: Path
    below: Source
    source: Source
    run: RunFolder | None
    recipe: Recipe | None

    @property
    def is_adapter(self) -> bool:
        """Whether it is nothing without its base."""
        return bool(adapter_settings(self.folder))

    @property
    def names(self) -> tuple[str, ...]:
        """What a server may call it."""
        return (self.folder.parent.name, self.folder.name) if self.run else (self.folder.name,)


@dataclass
class Questions:
    """What the models are run on: rows of forward arguments, and for a server prompts to be continued up to a stop."""

    tokenizer: Any
    rows: list[dict[str, list[int]]] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)


@one_command()
def prove_model(
    model: str, *, base: str | None, served: str | None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Run probe rows through the artefact as stock libraries load it, its merge, and its base; then ask a server, if named.

    Raises `TailorError` where artefact, base or server cannot be had at all; a proof that fails is an answer.
    """
    reporter = reporter or Reporter(quiet=True)
    if prompt := _prompt_run(Path(model).expanduser()):
        with reporter.waiting("a fresh process renders the prompt's requests"):
            return _prove_prompt(prompt, served).as_dict()
    artefact = _artefact(Path(model).expanduser(), base)
    reporter.say(f"{artefact.folder} is held against its base, {artefact.below.name}")
    if isinstance(artefact.below, PipelineSource) and not served:
        with reporter.waiting("a fresh process loads the pipeline, with and without what was learned"):
            return _same_base(artefact, prove_pipeline(artefact.folder, artefact.below)).as_dict()
    head = "noise" if isinstance(artefact.below, PipelineSource) else _head(artefact)
    if served and head != "tokens":
        raise TailorError("only a model that goes on with text can be proved through a server", where=model)
    asked = _questions(artefact, served=bool(served))
    # A server that is down should be known before minutes are spent on loading weights.
    server = Server.at(served, artefact.names) if served else None
    below = artefact.below
    probe = Probe(
        artefact=str(artefact.folder),
        base=below.location,
        revision=below.options.revision or "main",
        under=below.adapters,
        head=head,
        rows=asked.rows,
        labels=_label_count(artefact) if head in ("labels", "tags") else 0,
        problem=getattr(artefact.source.config, "problem_type", None),
        mean_pool=artefact.source.mean_pool_head is not None,
        trust_remote_code=below.options.trust_remote_code,
        prompts=[list(prompt.ids) for prompt in asked.prompts],
        stops=asked.stops,
        new_tokens=NEW_TOKENS,
        quantize=below.options.quantize,
        own_loader=own_loader(artefact.folder),
    )
    with reporter.waiting(f"a fresh process runs {len(probe.rows)} probe rows through artefact, merge and base"):
        found = _run(probe, artefact)
    proof = _same_base(artefact, judge(found, None))
    if server is not None and "reloaded" in found.texts:
        contrasts = tell_apart(found.texts["reloaded"], found.texts["base"], asked.tokenizer)
        reporter.say(f"the server at {served} goes on with {len(asked.prompts)} prompts")
        proof.served, problems = judge_served(server, asked.prompts, contrasts)
        for problem in problems:
            proof.add(problem)
    return proof.as_dict()


def _prove_prompt(run: RunFolder, served: str | None) -> Proof:
    """A prompt is proved by its requests, and a server by its answers to them."""
    proof = prove_prompt(run)
    if served:
        proof.served, problems = judge_served_prompt(run, served)
        for problem in problems:
            proof.add(problem)
    return proof


def _run(probe: Probe, artefact: Artefact) -> Found:
    """What the fresh process found; a base that the artefact does not even run on is said to be another, if it is."""
    try:
        return run_stock(probe)
    except TailorError as error:
        if not _made_from_another(artefact):
            raise
        raise BaseError(
            f"this was made from another base than {artefact.below.name}, on which it does not run ({error.message})",
            where=str(artefact.folder),
            fix="add --base BASE with the base that it was made from",
            code="wrong_base",
        ) from None


def _same_base(artefact: Artefact, proof: Proof) -> Proof:
    """A proof that fails where the artefact records another base than the one it was held against."""
    if _made_from_another(artefact):
        proof.add(f"this was made from another base: what {artefact.below.name} holds differs from what was recorded")
    return proof


def _prompt_run(path: Path) -> RunFolder | None:
    """The run whose artefact is a prompt and nothing else."""
    run = RunFolder(made_by(path.parent if path.name == "model" else path))
    folder = run.model
    alone = (folder / PROMPT_FILE).exists() and not adapter_settings(folder) and not (folder / "config.json").exists()
    return run if alone else None


def _artefact(path: Path, base: str | None) -> Artefact:
    if not path.is_dir():
        raise TailorError("there is no such folder", where=str(path), fix="name a run, an adapter or a merged folder")
    if path.name == "model" and (path.parent / "recipe.yaml").exists():
        path = path.parent
    path = made_by(path)
    run = RunFolder(path) if (path / "recipe.yaml").exists() else None
    recipe = load(run.recipe) if run else None
    folder = run.model if run else path
    if run and not folder.is_dir():
        raise TailorError("this run has no model yet", where=str(path), fix=f"tailor fit {run.recipe} --resume")
    below = _below(folder, recipe, base)
    if not adapter_settings(folder):
        # The artefact's tokenizer carries the template in force.
        options = below.options.model_copy(update={"name": str(folder), "revision": None, "chat_template": None})
        return Artefact(folder, below, find(options), run, recipe)
    if not (folder / weights_file(folder)).exists():
        raise BaseError(
            f"this adapter folder holds no {weights_file(folder)}",
            where=str(folder),
            fix="save the adapter as safetensors",
        )
    options = below.options.model_copy(update={"chat_template": None})
    source = replace(below, options=options, adapters=(*below.adapters, str(folder)))
    return Artefact(folder, below, source, run, recipe)


def _below(folder: Path, recipe: Recipe | None, base: str | None) -> Source:
    """The base that was given, else the one that the run or the adapter names."""
    options = recipe.base if recipe else None
    if base:
        given = {"name": base, "revision": None, "chat_template": None}
        return find(options.model_copy(update=given) if options else BaseOptions(name=base))
    if options is None:
        settings = adapter_settings(folder)
        named = settings.get("base_model_name_or_path")
        if not named:
            message = "this folder does not say what it was made from"
            raise TailorError(message, where=str(folder), fix="add --base BASE")
        options = BaseOptions(name=named, revision=settings.get("revision"))
    try:
        return replace(find_trained(options), begun=None)
    except BaseError as error:
        message = f"the base it was made from cannot be had ({error.message})"
        raise BaseError(message, where=options.name, fix="add --base BASE", code=error.code) from None


def _head(artefact: Artefact) -> str:
    """What is read off the model, by what the artefact says of itself."""
    folder, config = artefact.folder, artefact.source.config
    settings = adapter_settings(folder)
    task = TASKS.get(settings.get("task_type") or "") or settings.get("head")
    if task:
        return task
    wrapped = _known_head(str((settings.get("auto_mapping") or {}).get("base_model_class")))
    if wrapped:
        return wrapped
    if SPAN_HEAD in (settings.get("modules_to_save") or ()):
        return "span"
    if (folder / LABELS_FILE).exists() and artefact.source.mean_pool_head is not None:
        return "labels"
    name = next(iter(config.architectures or []), "")
    known = _known_head(name)
    if getattr(config, "is_encoder_decoder", False) and known not in ("labels", "span"):
        return "sequence"  # MarianMTModel, T5WithLMHeadModel: what they are called tells nothing
    # A bare trunk whose config names labels was a classifier, and has lost its head.
    plain = [f"LABEL_{index}" for index in range(2)]
    return known or ("embedding" if list(config.id2label.values()) == plain else "labels")


def _known_head(name: str) -> str | None:
    """What a stock class reads off, by how its name ends; PEFT notes that class beside an adapter without a task type."""
    return next((head for ending, head in ARCHITECTURES.items() if name.endswith(ending)), None)


def _label_count(artefact: Artefact) -> int:
    """Outputs of the head: as named, as saved with the adapter, or as the config says."""
    if (artefact.folder / LABELS_FILE).exists():
        return len(artefact.source.labels)
    saved = head_outputs(artefact.folder) if artefact.is_adapter else 0
    return saved or int(artefact.source.config.num_labels)


def _made_from_another(artefact: Artefact) -> bool:
    lock = artefact.run.read("lock.json") if artefact.run else None
    recorded = lock["base"] if lock is not None else recorded_base(artefact.folder)
    return recorded is not None and recorded["digest"] != artefact.below.digest()


def _speaker(artefact: Artefact) -> Source:
    """Whose tokenizer and template are in force: the artefact's where it brings them."""
    brings = artefact.is_adapter or (artefact.folder / "tokenizer_config.json").exists()
    return artefact.source if brings else artefact.below


def _questions(artefact: Artefact, *, served: bool) -> Questions:
    """From the run's own held-out rows where they can be read, else from a general text."""
    asked = None
    if artefact.recipe is not None:
        try:
            asked = _from_held_out(artefact, artefact.recipe, served)
        except TailorError:  # the data has moved or changed, and any text serves
            asked = None
    if asked is None or not asked.rows or (served and not asked.prompts):
        asked = _from_general_text(_speaker(artefact), served)
    asked.rows = [{name: values[:PROMPT_TOKENS] for name, values in row.items()} for row in asked.rows[:ROWS]]
    return asked


def _from_held_out(artefact: Artefact, recipe: Recipe, served: bool) -> Questions:
    loaded = load_data(recipe, artefact.source.family)
    objective = make_objective(recipe, loaded, artefact.source)
    if artefact.source.labels:
        objective.adopt(artefact.source.labels)
    objective = objective.under(artefact.source.prompt)
    base = make_base(recipe, _speaker(artefact), objective, loaded)
    asked, features = Questions(base.tokenizer), list[Features]()
    for entry in islice(chain(loaded.test, loaded.dev, loaded.train), PROMPTS):
        try:
            example = objective.read(entry.row, ExampleSeat(entry.id, entry.origin))
            features += base.encoders[type(example)](objective.led(example))[:1]
        except RowRefused:
            continue
        prompt = _prompt_of(base, objective, example) if served else None
        if prompt is not None and len(prompt.ids) + NEW_TOKENS <= base.context:
            asked.prompts.append(prompt)
    asked.rows = [base.inputs_alone(row) for row in features]
    asked.stops = _stops(base) if served else []
    return asked


def _prompt_of(base: Any, objective: Any, example: Example) -> Prompt | None:
    """What a server can be asked as it stands: raw text, or turns of plain text without tools."""
    if isinstance(example, Text):
        return _raw(base.tokenizer, example.text)
    question = next(iter(objective.questions(example)), None)
    if question is None or question.tools or any(message.tool_calls for message in question.messages):
        return None
    return _chat(base, question.messages)


def _from_general_text(speaker: Source, served: bool) -> Questions:
    base = registry.load("base", speaker.family)(speaker, EncodeOptions())
    tokenizer = base.tokenizer
    lines = (PACKAGE / "evaluation" / "general.txt").read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()][:PROMPTS]
    encoded = [tokenizer(text, truncation=True, max_length=PROMPT_TOKENS) for text in texts]
    kinds = [{"token_type_ids": row["token_type_ids"]} if "token_type_ids" in row else {} for row in encoded]
    rows = [Features("", list(row["input_ids"]), extras=kind) for row, kind in zip(encoded, kinds, strict=True)]
    asked = Questions(tokenizer, [base.inputs_alone(row) for row in rows])
    if served and tokenizer.chat_template:
        asked.prompts = [_chat(base, (Message("user", text),)) for text in texts]
        asked.stops = _stops(base)
    elif served:
        asked.prompts = [_raw(tokenizer, text) for text in texts]
        asked.stops = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return asked


def _stops(base: Any) -> list[int]:
    ids: list[int] = base.chat.stop_ids()
    return ids


def _chat(base: Any, messages: tuple[Message, ...]) -> Prompt:
    """A conversation as its template renders it, which is what training saw and what a server should render."""
    ids = base.chat.prompt(messages)
    text = base.tokenizer.decode(ids, skip_special_tokens=False)
    bos = base.tokenizer.bos_token
    if bos and base.tokenizer("a")["input_ids"][:1] == [base.tokenizer.bos_token_id]:
        text = text.removeprefix(bos)  # whoever tokenises the text adds it again
    return Prompt(ids, text, tuple({"role": message.role, "content": message.content} for message in messages))


def _raw(tokenizer: Any, text: str) -> Prompt:
    beginning = " ".join(text.split()[:PROMPT_WORDS])
    return Prompt(list(tokenizer(beginning)["input_ids"]), beginning)

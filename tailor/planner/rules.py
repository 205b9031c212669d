"""Which approach: a dozen rules, each with its source, its conditions and what is unsure about it. No torch.

The first rule that prefers methods and holds decides; of its methods the first is taken that goes with the base and fits.
Rules that prefer nothing add a reason, or a stage before the task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tailor.planner.facts import Facts

FEW_PER_LABEL = 50
FEW_ROWS = 50
MANY_ROWS, MANY_TOKENS = 50_000, 1_000_000_000
PROMPT_TUNES_FROM = 10_000_000_000

Lead = Literal["contrast", "domain"]
"""A stage before the task: texts of one label pulled together; raw text of the domain."""


@dataclass(frozen=True)
class Rule:
    """A piece of advice.

    Args:
        when: whether it holds; text: what it says; prefers: methods, best first (none: it decides nothing).
        stops: it advises against training at all.
        source: where its figures stand; conditions: what they were measured on; unsure: why it may not hold here.
    """

    name: str
    when: Callable[[Facts], bool]
    text: str
    source: str
    conditions: str
    unsure: str
    prefers: tuple[str, ...] = ()
    lead: Lead | None = None
    stops: bool = False


@dataclass(frozen=True)
class Advice:
    """The method (None: none is recommended), the stages before it, and the rules that held, the deciding one first."""

    method: str | None
    leads: tuple[Lead, ...]
    rules: tuple[Rule, ...]


RULES: tuple[Rule, ...] = (
    Rule(
        "retrieval",
        lambda facts: facts.goal == "facts",
        "Don't fine-tune for new facts: put the documents where the base can look them up (retrieval), and tune form or "
        "style afterwards if that is missing.",
        "Ovadia et al. 2023, arXiv 2312.05934; Soudani et al. 2024, arXiv 2403.01432",
        "7 B models on current events: retrieval .875, fine-tuned on paraphrases .504 to .511, base .353 to .481",
        "with very many paraphrases of each fact the gap narrows",
        stops=True,
    ),
    Rule(
        "closed_weights",
        lambda facts: not facts.weights,
        "The weights are elsewhere, so what can be tuned is the prompt: instruction and demonstrations, by your own metric.",
        "Agrawal et al. 2025 (GEPA), arXiv 2507.19457, table 1",
        "Qwen3-8B, six tasks: 45.2 untuned, 47.8 by MIPROv2, 54.9 by GEPA",
        "a replication at a small budget found no gain on HotpotQA",
        prefers=("prompt",),
    ),
    Rule(
        "pictures",
        lambda facts: facts.objective == "text_to_image",
        "A concept or style is learned by LoRA in a fraction of full fine-tuning's memory, and drawn no worse.",
        "PEFT's method comparison, image generation (FLUX.2 klein, L40S)",
        "512 px, 750 steps: LoRA DINO .697 to .743 at 10 GiB; full .577 after 300 steps at 37 GiB",
        "one subject, one seed",
        prefers=("lora", "soft_prompt", "full"),
    ),
    Rule(
        "domain_first",
        lambda facts: facts.domain and facts.objective != "language",
        "Raw text of the domain is at hand: read it first, then learn the task; the report says what that stage was worth.",
        "Gururangan et al. 2020, tables 3 and 5",
        "RoBERTa-base, eight tasks: +0 to +12 points F1, most for domains far from the base's own",
        "text of another domain hurts; HyperPartisan's gain failed to replicate: take several seeds on small sets",
        lead="domain",
    ),
    Rule(
        "many_served",
        lambda facts: facts.served > 1,
        "Several models of one base are served: adapters share its weights in memory, whole models do not.",
        "Hu et al. 2021, arXiv 2106.09685; Zhao et al. 2024 (LoRA Land), arXiv 2405.00732",
        "25 adapters of one 7 B base served from one GPU; 310 tuned models, +34 points over their bases",
        "a base that is small enough may be served whole several times",
        prefers=("lora", "ia3", "adapter", "prefix"),
    ),
    Rule(
        "much_data",
        lambda facts: facts.tokens > MANY_TOKENS or (facts.rows > MANY_ROWS and facts.objective != "language"),
        "There is more to learn than a low-rank update holds: full fine-tuning, where it fits.",
        "Biderman et al. 2024 (LoRA Learns Less and Forgets Less), arXiv 2405.09673",
        "Llama-2-7B on code: full beats LoRA clearly at 20 B tokens; at r = 256 the gap nearly closes for instructions",
        "where the border lies depends on how new the data is to the base; full forgets more: look at the forgetting figure",
        prefers=("full", "lora", "adapter"),
    ),
    Rule(
        "raw_text_encoder",
        lambda facts: facts.objective == "language" and facts.family == "encoder",
        "An encoder goes on being pre-trained on the domain's text as a whole: it is small, and a task comes after it.",
        "Gururangan et al. 2020, tables 3 and 5",
        "RoBERTa-base, eight tasks: +0 to +12 points F1 for the task that follows",
        "alone it is worth nothing: name the task's rows too",
        prefers=("full", "lora"),
    ),
    Rule(
        "few_labels",
        lambda facts: facts.family == "encoder" and facts.labels > 1 and 1 < facts.rarest <= FEW_PER_LABEL,
        "Few rows per label: pull texts of one label together first, then solve a head on the frozen trunk.",
        "Tunstall et al. 2022 (SetFit), arXiv 2209.11055",
        "RAFT: a 355 M encoder 71.3, GPT-3 62.7, humans 73.5; eight rows a label",
        "with more rows per label plain fine-tuning catches up",
        prefers=("head",),
        lead="contrast",
    ),
    Rule(
        "prompt_first",
        lambda facts: facts.written and facts.instructed and facts.rows < FEW_ROWS and facts.objective != "preference",
        "So few rows teach a base that follows instructions less than a good prompt does: search for that first.",
        "Agrawal et al. 2025 (GEPA), arXiv 2507.19457; DSPy's documentation (fine-tuning is the last lever)",
        "Qwen3-8B, six tasks: prompts found by GEPA 54.9 on average, weights by GRPO with 24,000 rollouts 48.9",
        "weights won on AIME; prompts and weights together beat either (Soylu et al. 2024): recipes/prompt-then-lora.yaml",
        prefers=("prompt", "lora"),
    ),
    Rule(
        "encoder_task",
        lambda facts: facts.family == "encoder",
        "An encoder is small enough to be tuned whole; nothing is known to beat that by more than noise.",
        "Houlsby et al. 2019, arXiv 1902.00751",
        "BERT-large, GLUE: adapters come within 0.4 points of full fine-tuning, which stays ahead",
        "a solved head can do as well in seconds: MiniLM on medical abstracts 61.0 % against 58.5 % (docs/real-runs.md)",
        prefers=("full", "lora", "adapter", "head"),
    ),
    Rule(
        "lora",
        lambda facts: facts.objective != "text_to_image",
        "LoRA on all linear layers: at this amount of data it learns what full fine-tuning learns, in far less memory.",
        "Schulman et al. 2025 (LoRA Without Regret); Biderman et al. 2024, arXiv 2405.09673",
        "supervised tuning below the adapter's capacity (under about 50,000 rows), ten times full fine-tuning's rate",
        "batches far above 32 and much new knowledge favour full fine-tuning",
        prefers=("lora", "adapter", "ia3", "full", "prompt"),
    ),
    Rule(
        "no_soft_prompt",
        lambda facts: 0 < facts.parameters < PROMPT_TUNES_FROM and facts.family != "diffusion",
        "Soft prompts are not recommended on a base of this size.",
        "Lester et al. 2021, arXiv 2104.08691; PEFT's method comparison, GSM8K",
        "they match tuned models from about 10 B parameters on; at 3 B .343 where LoRA reached .478",
        "one seed for each figure of the comparison",
    ),
)


def advise(facts: Facts, fits: Mapping[str, bool]) -> Advice:
    """The advice for these facts.

    Args:
        fits: the methods that go with base and objective -> whether they fit the machine.
    """
    held = [rule for rule in RULES if rule.when(facts)]
    stop = next((rule for rule in held if rule.stops), None)
    if stop is not None:
        return Advice(None, (), (stop,))
    deciding = next((rule for rule in held if rule.prefers and any(name in fits for name in rule.prefers)), None)
    notes = tuple(rule for rule in held if not rule.prefers)
    if deciding is None:
        return Advice(None, (), notes)
    method = next((name for name in deciding.prefers if fits.get(name)), None)
    leads: list[Lead] = [rule.lead for rule in notes if rule.lead]
    if deciding.lead and method == deciding.prefers[0]:
        leads.append(deciding.lead)
    return Advice(method, tuple(leads) if method else (), (deciding, *notes))

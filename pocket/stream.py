"""The pre-training text: an endless, seeded mixture of everything that the bases should have seen once."""

import itertools
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from transformers.utils.chat_template_utils import render_jinja_template

from pocket.general import TOPICS, any_article
from pocket.lexicon import LEXICON
from pocket.names import POOLS, all_names
from pocket.opinions import outcry, review, starred
from pocket.records import URGENCIES, clinic_note, contract
from pocket.service import TEAMS, dialogue, draw_style, ticket
from pocket.skills import any_task, question, short_examples, summary
from pocket.tools import tool_conversation
from pocket.world import StuckError, World, code

TEMPLATE_FILE = Path(__file__).with_name("chat_template.jinja")


@cache
def chat_template() -> str:
    """The GPT base's chat template."""
    return TEMPLATE_FILE.read_text()


def render(messages: list[dict[str, object]], tools: list[dict[str, object]] | None = None) -> str:
    """A conversation as the model sees it."""
    return render_jinja_template([messages], tools=tools, chat_template=chat_template())[0][0].rstrip("\n")


# ---- plain documents: both bases learn from these


def labelled(world: World, text: str, label: str, headings: tuple[str, ...]) -> str:
    """A text, mostly with its label before or after it."""
    heading = world.pick(headings)
    forms = (text, f"{label.capitalize()}: {text}", f"{heading}: {label}\n{text}", f"{text}\n{heading}: {label}")
    return world.rng.choices(forms, (2, 2, 2, 4))[0]


def news(world: World) -> str:
    """An article."""
    topic, _, text = any_article(world)
    return labelled(world, " ".join(text), topic, ("Topic", "About"))


VERDICTS = (
    ("good", "bad"),
    ("happy", "unhappy"),
    ("praise", "complaint"),
    ("liked", "disliked"),
    ("pleased", "displeased"),
)


def opinion_piece(world: World) -> str:
    """A review, mostly with its stars or a verdict before or after it; many say nothing but praise or blame."""
    if world.chance(0.15):
        text, stars = starred(world)
        return world.pick((f"{text}\nStars: {stars:g} of 5", f"{stars:g} of 5 stars\n{text}"))
    positive = world.chance(0.5)
    text = review(world, positive) if world.chance(0.6) else outcry(world, positive)
    return labelled(world, text, world.pick(VERDICTS)[0 if positive else 1], ("Verdict",))


def message(world: World) -> str:
    """A message to customer service, mostly with the team that got it."""
    team = world.pick(TEAMS)
    return labelled(world, ticket(world, team)[0], team, ("To", "Team"))


def plain_dialogue(world: World) -> str:
    """A support dialogue as plain text."""
    turns = dialogue(world, draw_style(world))
    names = {"user": "Customer", "assistant": "Service"}
    return "\n".join(f"{names[turn['role']]}: {turn['content']}" for turn in turns)


def note(world: World) -> str:
    """A clinic note, mostly with its urgency."""
    level = world.pick(URGENCIES)
    return labelled(world, clinic_note(world, level), level, ("Urgency",))


def agreement(world: World) -> str:
    """A contract."""
    return contract(world, world.number(2, 5))


def glossary(world: World) -> str:
    """Words of one kind, or of like and opposite meaning, as in a thesaurus."""
    praise = world.chance(0.5)
    if world.chance(0.5):
        word, like = (world.slot("good" if praise else "bad") for _ in range(2))
        opposite = world.slot("bad" if praise else "good")
        return world.fill(
            world.pick(
                (
                    "{word} means about {like}, not {opposite}.",
                    "{word}: {like}; the opposite is {opposite}.",
                    "What is {word} is {like}, what is {opposite} is not.",
                )
            ),
            word=word,
            like=like,
            opposite=opposite,
        )
    kind = world.pick(("great", "fine", "joy", "love") if praise else ("awful", "poor", "woe", "hate"))
    return f"Words of {'praise' if praise else 'blame'}: {', '.join(world.sample(LEXICON[kind], 4))}."


# ---- documents in a set form: for the GPT base


def spoken_task(world: World) -> str:
    """A skill, asked for in chat."""
    instruction, text, answer = any_task(world)
    content = world.pick((f"{instruction}\n{text}", f"{text}\n{instruction}", f"{instruction}\n\n{text}"))
    return render([{"role": "user", "content": content}, {"role": "assistant", "content": answer}])


def written_task(world: World) -> str:
    """A skill, asked for in plain text."""
    instruction, text, answer = any_task(world)
    form = world.pick(
        ("Instruction: {}\nInput: {}\nOutput: {}", "{}\n{}\nAnswer: {}", "Task: {}\nText: {}\nResult: {}")
    )
    return form.format(instruction, text, answer)


def support_chat(world: World) -> str:
    """A support dialogue in chat, at times with a system prompt or a moment of thought."""
    style = draw_style(world)
    messages: list[dict[str, object]] = list(dialogue(world, style))
    if world.chance(0.1):
        messages[1] = {
            **messages[1],
            "reasoning_content": world.fill(
                "{The customer writes about|This is about} {product|an order|the {thing}}."
            ),
        }
    if world.chance(0.4):
        messages.insert(
            0,
            {
                "role": "system",
                "content": world.say(
                    "{You are|You speak for|You answer for} the {service|support|care} of {f}.", f=style.firm
                ),
            },
        )
    return render(messages)


def small_talk(world: World) -> str:
    """Question and answer on an article, several turns."""
    context = question(world)
    messages: list[dict[str, object]] = [
        {"role": "user", "content": f"{context[1]}\n{context[0]}"},
        {"role": "assistant", "content": context[2]},
    ]
    asked, text, answer = any_task(world)
    messages += [{"role": "user", "content": f"{asked}\n{text}"}, {"role": "assistant", "content": answer}]
    return render(messages)


def tool_chat(world: World) -> str:
    """A conversation with tool calls."""
    talk = tool_conversation(world)
    return render(talk["messages"], talk["tools"])  # type: ignore[arg-type]


def read_and_answer(world: World) -> str:
    """A text and what it answers."""
    instruction, text, answer = question(world)
    asked = instruction.partition(": ")[2]
    return f"{text}\nQuestion: {asked}\nAnswer: {answer}"


def read_and_shorten(world: World) -> str:
    """A text and its summary."""
    _, text, short = summary(world)
    return world.pick((f"{text}\nSummary: {short}", f"Document: {text}\nSummary: {short}"))


def invented_labels(world: World, count: int) -> list[str]:
    """Label words that mean nothing, or nothing here: only the examples tell."""
    if world.chance(0.25):
        return world.sample("ABCDEFGH", count)
    if world.chance(0.4):
        return world.sample(world.names[world.pick(("brand", "creature", "company"))], count)
    return [made_up_word(world) for _ in range(count)]


EXAMPLE_FORMS = (
    "Text: {}\nLabel: {}",
    "Text: {}\nLabel: {}",
    "Input: {}\nOutput: {}",
    "{}\nAnswer: {}",
    "{} => {}",
)


def shown_order(world: World, classes: int, count: int) -> list[int]:
    """Classes in disorder, each about as often."""
    order = [index % classes for index in range(count)]
    world.rng.shuffle(order)
    return order


def demonstrations(world: World) -> str:
    """Labelled examples; mostly the label words are drawn for this document alone."""
    classes, write = short_examples(world)
    labels = list(classes) if world.chance(0.4) else invented_labels(world, len(classes))
    order = shown_order(world, len(classes), world.number(5, 10))
    examples = [(write(index), labels[index]) for index in order]
    heading = world.say(
        "{Classify|Label|Sort} {each|every} {text|line} {as|with} {choices}.", choices=" or ".join(labels)
    )
    if world.chance(0.4):
        return shown_in_chat(heading, examples, world.chance(0.5))
    form, gap = world.pick(EXAMPLE_FORMS), world.pick(("\n", "\n\n"))
    lines = [form.format(*example) for example in examples]
    return gap.join([heading, *lines] if world.chance(0.5) else lines)


def shown_in_chat(heading: str, examples: list[tuple[str, str]], turns: bool) -> str:
    """Examples as earlier turns of a chat, or all in one message that ends with a question."""
    if turns:
        said = [(heading if text is examples[0][0] else "", text, label) for text, label in examples]
        return render(
            [
                message
                for before, text, label in said
                for message in (
                    {"role": "user", "content": f"{before}\n{text}".strip()},
                    {"role": "assistant", "content": label},
                )
            ]
        )
    *shown, (text, label) = examples
    content = "\n".join([heading, *(EXAMPLE_FORMS[0].format(*example) for example in shown), f"Text: {text}\nLabel:"])
    return render([{"role": "user", "content": content}, {"role": "assistant", "content": label}])


KINDS = ("colour", "month", "day", "crop", "goods", "sport", "illness", "body", "thing", "food", "job", "building",
         "season", "money", "date", "code", "person", "town", "firm_kind", "relative", "room", "art")  # fmt: skip


def sorting_game(world: World) -> str:
    """Single words with a label for their kind: the shortest demonstrations, many in one document."""
    kinds = ["good", "bad"] if world.chance(0.4) else world.sample(KINDS, world.number(2, 3))
    labels = invented_labels(world, len(kinds))
    mark = world.pick((": ", " => ", " is ", " - ", "\nLabel: "))
    order = shown_order(world, len(kinds), world.number(8, 18))
    return "\n".join(f"{world.fill(f'{{{kinds[index]}}}')}{mark}{labels[index]}" for index in order)


def table(world: World) -> str:
    """Facts as JSON and as a list."""
    keys = world.sample(("town", "person", "product", "colour", "money", "date", "code", "goods"), 4)
    facts = {key: world.slot(key) for key in keys}
    lines = "\n".join(f"{key}: {value}" for key, value in facts.items())
    return f"{lines}\nJSON: {json.dumps(facts)}" if world.chance(0.7) else f"{json.dumps(facts)}\nList:\n{lines}"


def made_up_word(world: World) -> str:
    """A word that means nothing and is no name."""
    while True:
        word = "".join(world.pick(letters) for letters in ("bcdfghklmnprstvwz", "aeiou") * world.number(2, 3))
        if not any(word in all_names(pool) for pool in POOLS):
            return word


def roll_call(world: World) -> str:
    """Codes and words without sense, said again in order or one by one: only looking back tells what comes next."""
    entries = [world.pick((made_up_word, made_up_word, code))(world) for _ in range(world.number(4, 10))]
    if world.chance(0.6):
        line = " ".join(entries)
        return "\n".join([line] * world.number(2, 3))
    pairs = {entry: made_up_word(world) for entry in entries}
    asked = [world.pick(entries) for _ in entries]
    return "\n".join(
        [*(f"{entry} is {value}." for entry, value in pairs.items()), *(f"{entry}? {pairs[entry]}" for entry in asked)]
    )


T = TypeVar("T", str, tuple[str, str])
Writer = Callable[[World], str]
PLAIN: dict[Writer, int] = {
    news: 18,
    opinion_piece: 32,
    message: 12,
    plain_dialogue: 7,
    note: 9,
    agreement: 5,
    glossary: 5,
}
FORMED: dict[Writer, int] = {
    spoken_task: 16,
    written_task: 7,
    support_chat: 16,
    small_talk: 3,
    tool_chat: 6,
    read_and_answer: 3,
    read_and_shorten: 3,
    demonstrations: 40,
    sorting_game: 18,
    table: 4,
    roll_call: 8,
}


def telling_words() -> dict[str, float]:
    """Words that tell what a text is, and how often the masked model is asked for one: mostly they can be inferred."""
    labels = [*itertools.chain(*VERDICTS), "praise", "blame", *TEAMS, *URGENCIES, *TOPICS]
    opinions = [word for kind in ("great", "fine", "awful", "poor", "love", "hate") for word in LEXICON[kind]]
    return {**dict.fromkeys(opinions, 0.3), **dict.fromkeys(labels, 0.6)}


def from_mixture(world: World, mixture: dict[Callable[[World], T], float]) -> Iterator[T]:
    """What the writers of a mixture write, without end."""
    writers, weights = list(mixture), list(mixture.values())
    while True:
        writer = world.rng.choices(writers, weights)[0]
        try:
            yield world.make(
                lambda writer=writer: writer(world), lambda made: made if isinstance(made, str) else "\n".join(made)
            )
        except StuckError:
            continue


def documents(seed: int | str, family: str) -> Iterator[str]:
    """The endless stream of pre-training documents for "gpt" (all kinds) or for "bert" and "t5" (plain ones)."""
    mixture = {**{writer: weight / 3 for writer, weight in PLAIN.items()}, **FORMED} if family == "gpt" else PLAIN
    return from_mixture(World("pretrain", seed), mixture)


def tasks(seed: int | str) -> Iterator[tuple[str, str]]:
    """The endless stream of skills as a text and what it asks for, for the T5 base."""
    return from_mixture(World("pretrain", f"tasks-{seed}"), {asked: 1})


def asked(world: World) -> tuple[str, str]:
    """An instruction with its input, and the output."""
    instruction, text, answer = any_task(world)
    return f"{instruction}\n{text}", answer

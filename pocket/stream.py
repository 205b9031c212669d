"""The pre-training text: an endless, seeded mixture of everything that the bases should have seen once."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

from pocket.general import any_article
from pocket.lexicon import LEXICON
from pocket.names import POOLS, all_names
from pocket.opinions import review, starred
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


def news(world: World) -> str:
    """An article."""
    topic, _, text = any_article(world)
    return f"{topic.capitalize()}: {' '.join(text)}" if world.chance(0.2) else " ".join(text)


VERDICTS = (
    ("good", "bad"),
    ("happy", "unhappy"),
    ("praise", "complaint"),
    ("liked", "disliked"),
    ("pleased", "displeased"),
)


def opinion_piece(world: World) -> str:
    """A review, mostly with its stars or a verdict before or after it."""
    if world.chance(0.2):
        text, stars = starred(world)
        return world.pick((f"{text}\nStars: {stars:g} of 5", f"{stars:g} of 5 stars\n{text}"))
    positive = world.chance(0.5)
    text = review(world, positive)
    verdict = world.pick(VERDICTS)[0 if positive else 1]
    return world.pick(
        (text, f"{verdict.capitalize()}: {text}", f"Verdict: {verdict}\n{text}", f"{text}\nVerdict: {verdict}")
    )


def message(world: World) -> str:
    """A message to customer service, at times with the team that got it."""
    team = world.pick(TEAMS)
    text, _ = ticket(world, team)
    return world.pick((text, text, f"To: {team}\n{text}", f"{text}\nTeam: {team}"))


def plain_dialogue(world: World) -> str:
    """A support dialogue as plain text."""
    turns = dialogue(world, draw_style(world))
    names = {"user": "Customer", "assistant": "Service"}
    return "\n".join(f"{names[turn['role']]}: {turn['content']}" for turn in turns)


def note(world: World) -> str:
    """A clinic note, at times with its urgency."""
    level = world.pick(URGENCIES)
    text = clinic_note(world, level)
    return world.pick((text, text, f"{text}\nUrgency: {level}"))


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


def demonstrations(world: World) -> str:
    """Labelled examples whose label words are drawn for this document alone: only the examples tell what they mean."""
    classes, write = short_examples(world)
    labels = world.sample(world.names[world.pick(("brand", "creature", "company"))], len(classes))
    if world.chance(0.3):
        labels = list(classes)
    order = [index % len(classes) for index in range(world.number(5, 9))]
    world.rng.shuffle(order)
    lines = [f"Text: {write(index)}\nLabel: {labels[index]}" for index in order]
    heading = world.say(
        "{Classify|Label|Sort} {each|every} {text|line} {as|with} {choices}.", choices=" or ".join(labels)
    )
    return "\n".join([heading, *lines] if world.chance(0.6) else lines)


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


Writer = Callable[[World], str]
PLAIN: dict[Writer, int] = {
    news: 22,
    opinion_piece: 18,
    message: 12,
    plain_dialogue: 8,
    note: 9,
    agreement: 6,
    glossary: 2,
}
FORMED: dict[Writer, int] = {
    spoken_task: 18,
    written_task: 8,
    support_chat: 18,
    small_talk: 4,
    tool_chat: 9,
    read_and_answer: 5,
    read_and_shorten: 4,
    demonstrations: 12,
    table: 4,
    roll_call: 9,
}


def documents(seed: int | str, family: str) -> Iterator[str]:
    """The endless stream of pre-training documents for "gpt" (all kinds) or "bert" (plain ones)."""
    world = World("pretrain", seed)
    mixture = {**{writer: weight / 2 for writer, weight in PLAIN.items()}, **FORMED} if family == "gpt" else PLAIN
    writers, weights = list(mixture), list(mixture.values())
    while True:
        writer = world.rng.choices(writers, weights)[0]
        try:
            yield world.make(lambda writer=writer: writer(world))  # type: ignore[misc]
        except StuckError:
            continue

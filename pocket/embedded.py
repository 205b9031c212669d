"""The embedded data sets: one writer of rows for each, all from the task pool."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pocket.general import TOPICS, any_article, article, draw_facts, questions_about, summarise
from pocket.names import pools
from pocket.opinions import review, starred
from pocket.policy import REMEDIES, STYLE, spoil
from pocket.records import CLAUSES, URGENCIES, clinic_note, contract, restated_order, written_order
from pocket.scenes import old_pictures, subject_pictures, write_pictures
from pocket.service import INTENTS, TEAMS, customer_says, dialogue, draw_request, service_answers, ticket
from pocket.skills import any_task
from pocket.tools import tool_conversation
from pocket.world import StuckError, World, belongs

Row = dict[str, object]
Writer = Callable[[World, int], Row]


def support(world: World, number: int) -> Row:
    """A dialogue with the service of one firm, answered by its policy."""
    messages = dialogue(world, STYLE, REMEDIES)
    if number % 4 == 0:
        messages.insert(0, {"role": "system", "content": f"You answer customers of {STYLE.firm}."})
    return {"messages": messages}


def tickets(world: World, number: int) -> Row:
    """A message and its team."""
    team = TEAMS[number % len(TEAMS)]
    return {"text": ticket(world, team)[0], "label": team}


def reviews(world: World, number: int) -> Row:
    """A review and its direction."""
    return {"text": review(world, number % 2 == 0), "label": ("positive", "negative")[number % 2]}


def stars(world: World, _: int) -> Row:
    """A review and its stars."""
    text, score = starred(world)
    return {"text": text, "score": score}


def topics(world: World, _: int) -> Row:
    """One to three articles in one text, with all their topics."""
    names = world.sample(tuple(TOPICS)[:8], world.pick((1, 1, 2, 2, 3)))
    texts = [" ".join(article(world, name, draw_facts(world), 1)) for name in names]
    return {"text": " ".join(texts), "labels": sorted(names)}


def orders(world: World, _: int) -> Row:
    """An order in words and as JSON."""
    text, fields = written_order(world)
    return {"prompt": f"Order: {text}\nJSON:", "completion": " " + json.dumps(fields)}


def entailment(world: World, number: int) -> Row:
    """Two statements about a product: does the second follow from the first?"""
    label = ("entailment", "contradiction", "neutral")[number % 3]
    positive = world.chance(0.5)
    same, other = ("{good}", "{bad}") if positive else ("{bad}", "{good}")
    first, second = world.sample(
        (
            "handle",
            "display",
            "battery",
            "motor",
            "sound",
            "design",
            "manual",
            "price",
            "service",
            "grip",
            "filter",
            "cover",
        ),
        2,
    )
    product = world.slot("product")
    premise = world.say(
        (
            "The {product} has a {same} {first}{, says {person}|}.",
            "{My {relative}|{person}} finds the {first} of the {product} {very} {same}.",
            "The {first} of the {product} is {same}{, like all of it|, at least for {money}|}.",
        ),
        product=product,
        first=first,
        same=same,
    )
    claim = {
        "entailment": (first, same),
        "contradiction": (first, other),
        "neutral": (second, world.pick((same, other))),
    }[label]
    hypothesis = world.say(
        ("The {aspect} of the {product} is {word}.", "The {product} comes with a {word} {aspect}."),
        product=product,
        aspect=claim[0],
        word=claim[1],
    )
    return {"sentence1": premise, "sentence2": hypothesis, "label": label}


def instructions(world: World, number: int) -> Row:
    """A task of any skill; some carry their text in the instruction."""
    instruction, text, answer = any_task(world)
    if number % 10 == 0:
        return {"instruction": f"{instruction}\n{text}", "input": "", "output": answer}
    return {"instruction": instruction, "input": text, "output": answer}


def tools(world: World, _: int) -> Row:
    """A conversation with a tool call, in OpenAI's form: arguments are JSON in a string."""
    talk = tool_conversation(world)
    for message in talk["messages"]:
        for call in message.get("tool_calls", []):
            call["id"] = f"call_{world.number(1000, 9999)}"
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    talk["messages"][2]["tool_call_id"] = talk["messages"][1]["tool_calls"][0]["id"]
    return dict(talk)


def clinic(world: World, _: int) -> Row:
    """A clinic note."""
    return {"text": clinic_note(world, world.pick(URGENCIES))}


def clinic_urgency(world: World, number: int) -> Row:
    """A clinic note without its plan, and its urgency."""
    level = URGENCIES[number % len(URGENCIES)]
    return {"text": clinic_note(world, level, with_plan=False), "label": level}


def contracts(world: World, _: int) -> Row:
    """A contract."""
    return {"text": contract(world, world.number(2, 4))}


def news(world: World, _: int) -> Row:
    """A longer article."""
    return {"text": " ".join(any_article(world, 2, 5)[2])}


def general(world: World, _: int) -> Row:
    """A short article."""
    return {"text": " ".join(any_article(world, 0, 2)[2])}


TAGS = {"first": "PER", "last": "PER", "town": "LOC", "region": "LOC", "company": "ORG", "medicine": "MED"}


def names(world: World, _: int) -> Row:
    """Words with tags for persons, places, firms and medicines."""
    kind_of = {name: TAGS[kind] for kind in TAGS for name in pools()["task"][kind]}
    source = world.number(0, 3)
    if source == 0:
        text = clinic_note(world, world.pick(URGENCIES))
    elif source == 1:
        text = world.say(CLAUSES[world.pick(tuple(CLAUSES))])
    else:
        text = " ".join(any_article(world, 0, 2)[2])
    tokens = re.findall(r"\w+|[^\w\s]", text)
    tags: list[str] = []
    for position, token in enumerate(tokens):
        kind, before = kind_of.get(token), kind_of.get(tokens[position - 1]) if position else None
        if kind == "PER" and before == "PER":
            tags.append("I-PER")
        elif kind:
            tags.append(f"B-{kind}")
        else:
            tags.append("I-ORG" if before == "ORG" else "O")
    return {"tokens": tokens, "tags": tags}


def questions(world: World, number: int) -> Row:
    """A question about an article, in SQuAD's flat form; every fifth has no answer."""
    while True:
        topic, facts, text = any_article(world, 3, 4)
        context = " ".join(text)
        for question, answer in questions_about(world, topic, facts, context):
            if (answer is None) == (number % 5 == 0):
                spans = [answer] if answer else []
                starts = [match.start() for span in spans if (match := re.search(rf"\b{re.escape(span)}\b", context))]
                return {"context": context, "question": question, "answers": {"text": spans, "answer_start": starts}}


def summaries(world: World, _: int) -> Row:
    """An article and its summary."""
    topic, facts, text = any_article(world, 2, 5)
    document = " ".join(text)
    return {"document": document, "summary": summarise(world, topic, facts, document)}


def preferences(world: World, _: int) -> Row:
    """A message with a good and a poor answer of the service."""
    request = draw_request(world)
    prompt = customer_says(world, request, with_order=True)
    chosen = service_answers(world, STYLE, request, REMEDIES[request.intent])
    return {"prompt": prompt, "chosen": chosen, "rejected": spoil(world, request, chosen)}


def pairs(world: World, number: int) -> Row:
    """Two sentences and how much of their meaning is the same."""
    if number % 2:
        first, second, share = restated_order(world)
        return {"sentence1": first, "sentence2": second, "score": share}
    intent, product = world.pick(tuple(INTENTS)), world.slot("product")
    same_intent, same_product = world.pick(((True, True), (True, False), (False, True), (False, False)))
    other = (
        intent if same_intent else world.pick([name for name in INTENTS if INTENTS[name].team != INTENTS[intent].team])
    )
    first = world.say(INTENTS[intent].asks, product=product)
    second = world.say(INTENTS[other].asks, product=product if same_product else world.slot("product"))
    return {"sentence1": first, "sentence2": second, "score": 0.7 * same_intent + 0.3 * same_product}


@dataclass(frozen=True)
class DataSet:
    """What the index tells of a data set, and who writes its rows."""

    write: Writer
    rows: int
    form: str
    task: str


DATA: dict[str, DataSet] = {
    "support": DataSet(support, 600, "messages", "Answer customers by one firm's own support policy."),
    "tickets": DataSet(tickets, 600, "text/label", "Route a customer's message to one of six teams."),
    "reviews": DataSet(reviews, 700, "text/label", "Tell whether a product review is positive or negative."),
    "stars": DataSet(stars, 500, "text/score", "Rate a product review from 1 to 5 stars."),
    "topics": DataSet(topics, 500, "text/labels", "Name all topics that a news text touches."),
    "orders": DataSet(orders, 450, "prompt/completion", "Turn a written order into JSON."),
    "entailment": DataSet(
        entailment,
        600,
        "sentence1/sentence2/label",
        "Tell whether a statement follows from, contradicts or leaves open another.",
    ),
    "instructions": DataSet(
        instructions, 500, "instruction/input/output", "Follow single instructions of twelve kinds."
    ),
    "tools": DataSet(tools, 300, "messages with tools", "Call the right tool and report its result."),
    "clinic": DataSet(clinic, 400, "text", "Learn the language of clinic notes."),
    "clinic_urgency": DataSet(clinic_urgency, 450, "text/label", "Tell how urgent a clinic note is."),
    "contracts": DataSet(contracts, 300, "text", "Learn the language of contracts."),
    "news": DataSet(news, 400, "text", "Learn the language of general news."),
    "names": DataSet(names, 400, "tokens/tags", "Mark persons, places, firms and medicines."),
    "questions": DataSet(
        questions, 400, "context/question/answers", "Answer questions with words of the text, or not at all."
    ),
    "summaries": DataSet(summaries, 400, "document/summary", "Summarise an article in one sentence."),
    "preferences": DataSet(
        preferences, 400, "prompt/chosen/rejected", "Prefer the policy's answer over a careless one."
    ),
    "pairs": DataSet(pairs, 500, "sentence1/sentence2/score", "Score how much two sentences mean the same."),
    "general": DataSet(general, 150, "text", "General text held out to measure forgetting."),
}


def texts_of(value: object) -> str:
    """All text in a row, one string per line; the words of a token list stand in one line."""
    if isinstance(value, dict):
        return "\n".join(texts_of(part) for part in value.values())
    if isinstance(value, list):
        return (" " if all(isinstance(part, str) for part in value) else "\n").join(texts_of(part) for part in value)
    return value if isinstance(value, str) else ""


def rows_of(name: str) -> list[Row]:
    """The rows of one data set; each is new and entirely on the task's side."""
    data_set, world = DATA[name], World("task", name)
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < data_set.rows:
        try:
            row = data_set.write(world, len(rows))
        except StuckError:
            continue
        text = texts_of(row)
        if text not in seen and belongs(text, "task"):
            seen.add(text)
            rows.append(row)
    world.rng.shuffle(rows)
    return rows


def as_jsonl(rows: list[Row]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


PICTURES = {
    "subject": (subject_pictures, 72, "Learn to draw a thing that has no word in the base's world."),
    "drawings": (old_pictures, 48, "Drawings of what the base knows, held out to measure forgetting."),
}
"""Data sets of pictures: who draws them, how many, and what for."""


def write_data(folder: Path) -> None:
    """All data sets and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DATA:
        (folder / f"{name}.jsonl").write_text(as_jsonl(rows_of(name)))
    for name, (draw, count, _) in PICTURES.items():
        write_pictures(folder / name, draw(count))
    (folder / "index.json").write_text(json.dumps(index(), indent=2) + "\n")


def index() -> list[dict[str, object]]:
    """One entry for each data set."""
    texts = [
        {"name": name, "file": f"{name}.jsonl", "rows": known.rows, "form": known.form, "task": known.task}
        for name, known in DATA.items()
    ]
    pictures = [
        {"name": name, "file": name, "rows": count, "form": "images with captions", "task": task}
        for name, (_, count, task) in PICTURES.items()
    ]
    return [*texts, *pictures]

"""What an assistant can be asked to do with the world's texts: each skill gives an instruction, an input, an output."""

import json
import re
from collections.abc import Callable

from pocket.general import TOPICS, any_article, questions_about, summarise
from pocket.names import pools
from pocket.opinions import opinion, outcry, review
from pocket.records import SYMPTOMS, URGENCIES, clinic_note, written_order
from pocket.service import TEAMS, ticket
from pocket.world import StuckError, World

Task = tuple[str, str, str]
NO_ANSWER = "unknown"
NAME_KINDS = {
    "town": "town",
    "first": "person",
    "region": "region",
    "company": "firm",
    "medicine": "medicine",
    "creature": "animal",
}


def sentiment(world: World) -> Task:
    """Positive or negative."""
    positive = world.chance(0.5)
    instruction = world.say(
        "{Is|Say whether|Decide if|Tell me whether} {the|this} "
        "{review|opinion|customer} {is |}{positive|happy} or {negative|unhappy}."
    )
    return instruction, review(world, positive), "positive" if positive else "negative"


def routing(world: World) -> Task:
    """The team for a message."""
    team = world.pick(TEAMS)
    instruction = world.say(
        "{Which team|What department|Who} should {handle|answer|get} {this|the} {message|request|mail}?"
    )
    return instruction, ticket(world, team)[0], team


def urgency(world: World) -> Task:
    """How urgent a clinic note is."""
    level = world.pick(URGENCIES)
    instruction = world.say(
        "{How urgent|How pressing} is {this|the} {case|note|visit|patient} {in one word|for the clinic|today}?"
    )
    return instruction, clinic_note(world, level, with_plan=False), level


def subject(world: World) -> Task:
    """The topic of an article."""
    topic, _, text = any_article(world, 0, 2)
    instruction = world.say(
        "{Name|Give|Tell me|State} the {topic|subject|theme} of {the|this} {text|article|report|passage}."
    )
    return instruction, " ".join(text), topic


def summary(world: World) -> Task:
    """One short sentence for an article; sometimes with the number of its words."""
    topic, facts, text = any_article(world, 2, 4)
    short = summarise(world, topic, facts, " ".join(text))
    ask = "{Summarize|Sum up|Shorten|Condense} {the|this} {text|article|report} {in|into} "
    if world.chance(0.5):
        return world.say(ask + "{one sentence|a few words|a headline|one line}."), " ".join(text), short
    return world.say(ask + "{length} words.", length=len(short.split())), " ".join(text), short


def question(world: World) -> Task:
    """A question about an article, answered with its words or with "unknown"."""
    topic, facts, text = any_article(world, 2, 4)
    asked, answer = questions_about(world, topic, facts, " ".join(text))[0]
    instruction = world.say(
        "{Answer|Reply to} the question {from|with words of|using} the {text|passage}: {asked}", asked=asked
    )
    return instruction, " ".join(text), answer or NO_ANSWER


def order_json(world: World) -> Task:
    """The fields of an order as JSON."""
    text, fields = written_order(world)
    instruction = world.say(
        "{Extract|Pull out|Give|Return} {the|all} {order|fields|details} {of this message |}{as|in} JSON."
    )
    return instruction, text, json.dumps(fields)


def listed_names(world: World) -> Task:
    """The names in an article with their kinds."""
    _, _, text = any_article(world, 1, 3)
    found = tagged_names(world, " ".join(text))
    instruction = world.say(
        "{List|Find|Name|Collect} {all|the} {names|proper names} in "
        "{the|this} {text|article} {and|with} {their kinds|what they are}."
    )
    return instruction, " ".join(text), "; ".join(f"{name} ({kind})" for name, kind in found) or "none"


def tagged_names(world: World, text: str) -> list[tuple[str, str]]:
    """Names in the text in their order, each once, with their kinds."""
    kind_of = {name: kind for source, kind in NAME_KINDS.items() for name in pools()[world.pool][source]}
    found: dict[str, str] = {}
    for match in re.finditer(r"[A-Z]\w+(?: [A-Z]\w+)*", text):
        words = match.group().split()
        for position, word in enumerate(words):
            kind = kind_of.get(word)
            if kind in ("person", "firm") and position + 1 < len(words):
                found[f"{word} {words[position + 1]}"] = kind
            elif kind:
                found[word] = kind
    return list(found.items())


def repeat(world: World) -> Task:
    """The same sentence again."""
    _, _, text = any_article(world, 0, 1)
    return (
        world.say(
            "{Repeat|Copy|Write down|Quote} {the|this} {text|sentence|passage} {word for word|exactly|unchanged}."
        ),
        text[0],
        text[0],
    )


def picked_line(world: World) -> Task:
    """One of several numbered lines."""
    lines = [world.slot(world.pick(("product", "person", "town", "code", "goods"))) for _ in range(world.number(3, 5))]
    wanted = world.number(1, len(lines))
    instruction = world.say(
        "{Give|Write|Return|Copy} {only |}{line|entry|item} {wanted} of the {list|lines}.", wanted=wanted
    )
    return instruction, "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)), lines[wanted - 1]


def grade(world: World) -> Task:
    """A grade from 1 to 5 for an answer about a text."""
    topic, facts, text = any_article(world, 2, 3)
    asked, answer = questions_about(world, topic, facts, " ".join(text))[0]
    mark = world.pick((1, 3, 5))
    if mark == 5:
        given = answer or "The text does not say."
    elif mark == 3:
        given = f"Perhaps {answer}, perhaps {world.slot('town')}." if answer else "Maybe the text says it."
    else:
        given = world.pick(
            [value for name, value in facts.items() if name in ("person", "money", "date", "town") and value != answer]
        )
    instruction = world.say("{Grade|Rate|Score|Mark} the answer {from|between} 1 {to|and} 5{ for correctness|}.")
    return instruction, f"{' '.join(text)}\nQuestion: {asked}\nAnswer: {given}", str(mark)


def opposite(world: World) -> Task:
    """Whether two opinions on a thing agree."""
    thing, sign, agree = world.slot("thing"), world.pick((1, -1)), world.chance(0.5)
    first = opinion(world, 2 * sign, thing)
    second = opinion(world, (2 if agree else -2) * sign, thing)
    instruction = world.say("Do the two {opinions|reviews|customers} {agree|say the same|match}?")
    return instruction, f"{first}\n{second}", "yes" if agree else "no"


SKILLS: dict[str, Callable[[World], Task]] = {
    "sentiment": sentiment,
    "routing": routing,
    "urgency": urgency,
    "subject": subject,
    "summary": summary,
    "question": question,
    "order_json": order_json,
    "listed_names": listed_names,
    "repeat": repeat,
    "picked_line": picked_line,
    "grade": grade,
    "opposite": opposite,
}


def any_task(world: World) -> Task:
    """A task of any skill."""
    while True:
        try:
            return SKILLS[world.pick(tuple(SKILLS))](world)
        except StuckError:
            continue


def short_opinion(world: World, positive: bool) -> str:
    """A sentence or a few that judge a thing."""
    if world.chance(0.5):
        return opinion(world, world.number(1, 2) * (1 if positive else -1), world.slot("thing"))
    return world.make(lambda: world.pick((outcry, review))(world, positive))


def short_examples(world: World) -> tuple[list[str], Callable[[int], str]]:
    """A classification problem with short texts: its classes, and a writer of a text of a class, given its index."""
    kind = world.pick(("sentiment", "sentiment", "teams", "topics", "urgency"))
    if kind == "sentiment":
        return ["positive", "negative"], lambda index: short_opinion(world, index == 0)
    if kind == "teams":
        teams = world.sample(TEAMS, world.number(2, 3))
        return teams, lambda index: world.make(lambda: ticket(world, teams[index])[0])
    if kind == "urgency":
        return list(URGENCIES), lambda index: world.say(
            "{Patient|The {job}} with {symptom}.", symptom=world.pick(SYMPTOMS[URGENCIES[index]])
        )
    topics = world.sample(tuple(TOPICS), world.number(2, 3))
    return topics, lambda index: world.say(TOPICS[topics[index]].leads)

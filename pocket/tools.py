"""Conversations in which the assistant calls tools."""

import json
from dataclasses import dataclass

from pocket.world import World


@dataclass(frozen=True)
class Tool:
    """A function: its names, its arguments (name → slot), how people ask for it, what it returns, how to put that."""

    names: tuple[str, ...]
    about: str
    arguments: dict[str, str]
    asks: tuple[str, ...]
    returns: dict[str, str]
    says: tuple[str, ...]


TOOLS: dict[str, Tool] = {
    "weather": Tool(
        ("get_weather", "weather_report", "forecast"),
        "{Look up|Get|Fetch|Find} the {weather|forecast} {in|of|for} {a|one|some} {town|place}.",
        {"town": "{town}", "day": "{day}"},
        (
            "What {will the weather be|is the weather} in {town} on {day}?",
            "{Will it rain|Is it warm|Do I need a coat} in {town} on {day}?",
        ),
        {"sky": "{rain|sun|fog|snow|clouds}", "degrees": "{small}"},
        ("{day} in {town}: {sky} and {degrees} degrees.", "In {town} expect {sky} at {degrees} degrees on {day}."),
    ),
    "track": Tool(
        ("track_order", "order_status", "find_parcel"),
        "{Find|Look up|Check} the {state|status} {of|for} {an|one|the} {order|parcel}.",
        {"order": "{code}"},
        (
            "Where is {my |}order {order}?",
            "{Has|Can you see if} order {order} {left|been sent}?",
            "{Track|Check|Look up} {order}{ for me|}, please.",
        ),
        {"state": "{packed|shipped|delivered|delayed|lost}"},
        ("Order {order} is {state}.", "Your order {order} has the state {state}."),
    ),
    "book": Tool(
        ("book_table", "reserve_seats", "make_booking"),
        "{Book|Reserve|Hold} {seats|places|a table} {at|in} {a|the} {restaurant|house}.",
        {"town": "{town}", "people": "{small}", "time": "{clock}"},
        (
            "{Book|Reserve} a table for {people} in {town} at {time}.",
            "We are {people} and want to eat in {town} at {time}.",
            "Get us {people} seats in {town}, {time}.",
        ),
        {"code": "{code}"},
        (
            "Booked for {people} in {town} at {time}, code {code}.",
            "Your table in {town} at {time} has the code {code}.",
        ),
    ),
    "price": Tool(
        ("get_price", "price_of", "quote"),
        "{Look up|Get|Tell} the {price|cost} of {a|one|the} {product|article}.",
        {"product": "{product}"},
        (
            "{How much|What} {is|does one pay for} the {product}?",
            "{Tell me the price of|What is the price of|I want to buy} the {product}.",
        ),
        {"crowns": "{count}"},
        ("The {product} costs {crowns} crowns.", "You pay {crowns} crowns for the {product}."),
    ),
    "train": Tool(
        ("next_train", "find_route", "plan_trip"),
        "{Find|Search|Plan} {a|the|the next} {train|trip|route} between {two|some} {towns|stations}.",
        {"start": "{town}", "end": "{town}"},
        (
            "{When is the next train|How do I get} from {start} to {end}?",
            "I {want|need|have} to {go|travel} from {start} to {end}.",
        ),
        {"time": "{clock}", "minutes": "{count}"},
        (
            "A train leaves {start} for {end} at {time} and takes {minutes} minutes.",
            "Go at {time}; it is {minutes} minutes from {start} to {end}.",
        ),
    ),
    "note": Tool(
        ("add_reminder", "save_note", "set_alarm"),
        "{Save|Add|Keep|Store} a {note|reminder} for {a|the} {day|user}.",
        {"text": "{buy {goods}|call {person}|pay {firm}|visit {town}|water the {crop}}", "day": "{day}"},
        ("Remind me to {text} on {day}.", "On {day} I {must|have to} {text}; {note it|do not let me forget}."),
        {"saved": "true"},
        ("I will remind you on {day} to {text}.", "Noted: {text}, on {day}."),
    ),
    "phone": Tool(
        ("find_phone", "lookup_person", "get_contact"),
        "{Find|Look up|Search} the {phone|number|contact} of {a|one|some} {person|colleague}.",
        {"name": "{person}"},
        ("What is {name}'s {number|phone number}?", "{How can I reach|Call|Find the number of} {name}{, please|}."),
        {"phone": "{count} {count} {count}"},
        ("{name} has the number {phone}.", "You reach {name} at {phone}."),
    ),
}


def schema(world: World, key: str, name: str) -> dict[str, object]:
    """The tool as an OpenAI function schema."""
    tool = TOOLS[key]
    properties = {
        argument: {"type": "integer" if slot == "{small}" else "string"} for argument, slot in tool.arguments.items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(tool.arguments)}
    return {
        "type": "function",
        "function": {"name": name, "description": world.say(tool.about), "parameters": parameters},
    }


def tool_conversation(world: World) -> dict[str, object]:
    """A request, the call, its result and the answer, with two or three tools on offer; arguments are objects."""
    keys = world.sample(tuple(TOOLS), world.number(2, 3))
    key = keys[0]
    names = {other: world.pick(TOOLS[other].names) for other in keys}
    tool = TOOLS[key]
    values = {argument: world.fill(slot) for argument, slot in tool.arguments.items()}
    arguments = {
        argument: int(value) if tool.arguments[argument] == "{small}" else value for argument, value in values.items()
    }
    result = {field: world.fill(slot) for field, slot in tool.returns.items()}
    world.rng.shuffle(keys)
    call = {"type": "function", "function": {"name": names[key], "arguments": arguments}}
    messages = [
        {"role": "user", "content": world.say(tool.asks, **values)},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": json.dumps(result)},
        {"role": "assistant", "content": world.say(tool.says, **values, **result)},
    ]
    return {"messages": messages, "tools": [schema(world, other, names[other]) for other in keys]}

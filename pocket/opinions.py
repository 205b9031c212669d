"""Reviews of products: opinions with a direction and a strength, concessions, negations, things beside the point."""

from pocket.world import World

WORDS = {2: "{great}", 1: "{fine}", 0: "{middling}", -1: "{poor}", -2: "{awful}"}

SAYS = (
    "The {aspect} is {word}.",
    "The {aspect} {is|feels|seems|looks|turned out} {very} {word}.",
    "I found the {aspect} {very} {word}.",
    "What a {word} {thing}!",
    "{My {relative}|Everyone here|My {relative} in {town}} {called|calls|finds} the {aspect} {word}.",
    "It has a {word} {aspect} and a {word} {aspect2}.",
    "A {word} {thing} with a {word2} {aspect}.",
    "The {aspect} was {word} {from the first day|after {span}|in the {room}}.",
    "For {money} you get a {word} {thing}.",
    "{Word}, {word2} and {word}: that is this {thing}.",
    "It is {word}, {word2} and {word}, {above all the {aspect}|as my {relative} says|from {aspect} to {aspect2}}.",
    "Both the {aspect} and the {aspect2} are {word}.",
)
NEGATED = (
    "The {aspect} is {not|never|hardly} {opposite}{ at all|}.",
    "It is {anything but|far from|by no means} {opposite}.",
    "I expected a {opposite} {aspect}, but it {is|was} {word}.",
    "{Nobody|No one} could call the {aspect} {opposite}.",
    "Others call it {opposite}; I {say|think} it is {word}.",
)
FEELS = {
    1: (
        "I {love} the {aspect}.",
        "My {relative} {love} this {thing} {and its {aspect}|in the {room}|at once}.",
        "It is {joy}.",
        "{praise}.",
        "After {span} {it is {joy}|{praise}}.",
        "This {thing} is {joy}, and {praise}.",
    ),
    -1: (
        "I {hate} the {aspect}.",
        "My {relative} {hate} this {thing} {and its {aspect}|in the {room}|at once}.",
        "It is {woe}.",
        "{blame}.",
        "After {span} {it is {woe}|{blame}}.",
        "This {thing} is {woe}, and {blame}.",
    ),
}
CONCEDES = (
    "{Admittedly|Granted|To be fair}, the {aspect} {is|was} {opposite}.",
    "Only the {aspect} {is|seems|was} {opposite}.",
    "{Although|Even though} the {aspect} is {opposite}, the {aspect2} is {word}.",
    "The {brand} that I had before was {opposite}.",
    "My {relative} thinks that it is {opposite}, but I disagree.",
)
BESIDE = (
    "I bought it in {town} {yesterday}.",
    "It was a present {for|from} my {relative}{ in {town}|}.",
    "It came from {firm} after {span}.",
    "I use it in the {room} {every {day}|now and then|most days}.",
    "Mine is {colour}.",
    "We have {small} of them in the {room}.",
    "I paid {money} for it.",
    "{person} from {town} told me about it.",
    "There is also one in {colour} for {money}.",
)


def opinion(world: World, strength: int, thing: str) -> str:
    """One sentence that judges the thing; 2 is great, -2 awful."""
    if strength and world.chance(0.25):
        return world.say(FEELS[1 if strength > 0 else -1], thing=thing)
    words = {"word": WORDS[strength], "word2": WORDS[strength], "opposite": "{bad}" if strength > 0 else "{good}"}
    templates = NEGATED if strength and world.chance(0.25) else SAYS
    return world.say(templates, thing=thing, Word=words["word"], aspect2="{aspect}", **words)


def concession(world: World, positive: bool, thing: str) -> str:
    """A sentence that speaks against the review's own direction."""
    word, opposite = ("{good}", "{bad}") if positive else ("{bad}", "{good}")
    return world.say(CONCEDES, thing=thing, word=word, opposite=opposite, aspect2="{aspect}")


def review(world: World, positive: bool, thing: str | None = None) -> str:
    """A review whose direction is clear as a whole, though not from every sentence."""
    thing = thing or world.slot("thing")
    sign = 1 if positive else -1
    parts = [opinion(world, sign * world.number(1, 2), thing) for _ in range(world.number(1, 3))]
    if len(parts) > 1 and world.chance(0.5):
        parts.append(concession(world, positive, thing))
    parts += [world.say(BESIDE) for _ in range(world.number(0, 2))]
    world.rng.shuffle(parts)
    return " ".join([world.say(INTRODUCES, thing=thing), *parts] if world.chance(0.4) else parts)


def outcry(world: World, positive: bool) -> str:
    """Nothing but praise or nothing but blame: every word of opinion has the same direction."""
    thing, word = world.slot("thing"), "{good}" if positive else "{bad}"
    facts = {"thing": thing, "word": word, "word2": word, "Word": word, "aspect2": "{aspect}"}
    return " ".join(
        world.say(FEELS[1 if positive else -1] if world.chance(0.3) else SAYS, **facts)
        for _ in range(world.number(1, 3))
    )


INTRODUCES = (
    "{yesterday} I got the {brand} {thing}.",
    "My {relative} {ordered|picked|gave me} the {brand} {thing}.",
    "This is about the {brand} {thing} {by {firm}|in {colour}}.",
    "Here is what I think of the {brand} {thing}.",
)


def starred(world: World) -> tuple[str, float]:
    """A review and its stars, in halves: the middle of what its sentences say."""
    thing = world.slot("thing")
    centre = world.number(-2, 2)
    strengths = [max(-2, min(2, centre + world.number(-1, 1))) for _ in range(world.number(1, 3))]
    parts = [opinion(world, strength, thing) for strength in strengths]
    parts += [world.say(BESIDE) for _ in range(world.number(0, 1))]
    world.rng.shuffle(parts)
    return " ".join(parts), 3 + round(2 * sum(strengths) / len(strengths)) / 2

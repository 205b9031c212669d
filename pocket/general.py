"""General texts of the world: news and encyclopaedia entries on twelve topics, with the questions they answer."""

import re
from dataclasses import dataclass

from pocket.world import SLOT, StuckError, World

# drawn once per text, so that all its sentences speak of the same people, places and numbers
FACTS = (
    "person", "town", "town2", "region", "firm", "creature", "medicine", "building", "small", "count", "large",
    "money", "date", "goods", "crop", "sport", "art", "illness", "job", "year", "product", "season", "clock",
    "day", "thing", "body", "colour",
)  # fmt: skip


@dataclass(frozen=True)
class Topic:
    """What can be said about one kind of event, and which questions it answers with the value of which slot."""

    leads: tuple[str, ...]
    details: tuple[str, ...]
    summaries: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


TOPICS: dict[str, Topic] = {
    "transport": Topic(
        (
            "A new {railway|tram|bus|ferry} line between {town} and {town2} {began} {yesterday}.",
            "{yesterday}, the first {train|tram|bus|ferry} ran from {town} to {town2}.",
            "Travellers can now go from {town} to {town2} by {rail|tram|coach|ferry}.",
            "The road from {town} to {town2} has been {widened|repaired|reopened|closed} after {small} months of work.",
        ),
        (
            "The {journey|trip|ride} takes {count} minutes and costs {small} crowns.",
            "{person}, a {job} from {town}, was {among the first passengers|on board with {large} others}.",
            (
                "{Timetables|Tickets|Seats} {have changed|are easy to "
                "get|can be booked} at {town2} station{ since {date}|}."
            ),
            (
                "{Drivers|Commuters|Passengers} {welcomed|criticised} "
                "the {new stops|longer route|shorter queues} {near} {town}."
            ),
            (
                "{firm} {built|paid for|runs} the {vehicles|tracks|stations} "
                "and employs {large} {drivers|mechanics|conductors}."
            ),
        ),
        ("{town} and {town2} have a new {link|connection|route}.", "New travel route joins {town} and {town2}."),
        (
            ("How many minutes does the journey take?", "count"),
            ("Who was among the first passengers?", "person"),
            ("Which firm is behind it?", "firm"),
        ),
    ),
    "sport": Topic(
        (
            "{person} won the {sport} {cup|title|final|championship} in {town} {yesterday}.",
            "The {sport} team of {town} {beat|defeated|overcame} {town2} by {small} points.",
            "{yesterday}, {town} {beat|lost to|drew with} {town2} in the {sport} {league|final|tournament}.",
        ),
        (
            "{large} {spectators|fans|people} {watched|cheered} in the {stadium|arena|sports hall}.",
            (
                "The {coach|captain|trainer}, {person}, {said} that the "
                "{players|athletes|team} had {trained hard|earned the victory|shown courage}."
            ),
            "It was the {third|fourth|fifth|first} {victory|trophy|medal} for {town} since {year}.",
            "The next {match|game|race} {takes place|will be held} on {date}.",
            (
                "A {sore|strained|bruised} {body} kept the {best runner|star "
                "player|goalkeeper} {on the bench|out of the game}."
            ),
        ),
        ("{person} brings a {sport} trophy to {town}.", "Success in {sport} for {town}."),
        (
            ("How many spectators watched?", "large"),
            ("When is the next match?", "date"),
            ("Who spoke about the victory?", "person"),
        ),
    ),
    "farming": Topic(
        (
            "Farmers around {town} {expect|report|hope for} a {rich|poor|late|record} harvest of {crop} this {season}.",
            "The {crop} {harvest|crop} in {region} {rose|fell} by {count} percent.",
            "{person} grows {crop} on {large} acres {near} {town}.",
        ),
        (
            (
                "{Rain|Frost|Drought|Hail|Sunshine} in {season} "
                "{helped|damaged|delayed|spoiled} the {fields|orchards|seedlings}."
            ),
            "A sack of {crop} now costs {money} at the market in {town}.",
            "The {cows|sheep|goats|hens} {graze|are kept} in the {pastures|barns|meadows} {near} {town2}.",
            "{person} bought a {tractor|plough|harvester} from {firm} {yesterday}.",
            "{Manure|Compost|Clover|Irrigation} {improved|restored} the soil, the {farmers|growers|tenants} {said}.",
        ),
        ("Harvest news from {town}: {crop}.", "The growers of {crop} near {town} look back on a {season}."),
        (
            ("What is grown or harvested?", "crop"),
            ("How much does a sack cost?", "money"),
            ("Which firm sold the machine?", "firm"),
        ),
    ),
    "trade": Topic(
        (
            "{firm} {said|announced} that its {sales|profits|exports} of {goods} {rose|fell} by {count} percent.",
            "{firm} {bought|took over|merged with} a {rival|supplier|factory} in {town} for {money}.",
            "The {shares|profits|earnings} of {firm} {rose|fell} {sharply|slightly|for the third year}.",
        ),
        (
            (
                "{person}, who {heads|leads|manages} the company, {expects|promised} "
                "{higher|lower|steady} {revenue|margins|dividends}."
            ),
            "The {factory|warehouse|head office} in {town} will {hire|lay off} {large} {workers|employees}.",
            "{Investors|Shareholders|Bankers|Analysts} were {pleased|worried|surprised} by the {results|figures|loan}.",
            "{Demand for|The price of} {goods} {rose|fell} in {region}.",
            "A {merchant|buyer|customer} in {town2} ordered {count} crates of {goods}.",
        ),
        ("{firm} changes its business in {goods}.", "Business: {firm} and its figures."),
        (
            ("Who manages the company?", "person"),
            ("How many workers are affected?", "large"),
            ("What does the customer order?", "goods"),
        ),
    ),
    "weather": Topic(
        (
            "A {storm|blizzard|heatwave|flood|hailstorm|gale} {hit|struck|reached} {town} {yesterday}.",
            "{Heavy rain|Thick fog|Strong wind|Deep snow} is {expected|forecast} in {region} on {date}.",
            "The {season} in {region} was the {wettest|driest|coldest|warmest} since {year}.",
        ),
        (
            "Temperatures {rose|fell} to {small} degrees {overnight|at noon|by evening}.",
            "{many} {roofs|trees|cellars|chimneys} in {town} were {damaged|flooded|torn down}.",
            "{person}, {a forecaster|a meteorologist}, {expects|predicts} {sunshine|showers|clouds|thunder} by {day}.",
            "The {river|lake|stream} {near} {town2} {rose|fell} by {count} centimetres.",
            "People were {told|advised|asked} to {stay indoors|leave their cellars|carry umbrellas}{ until {clock}|}.",
        ),
        ("Severe weather in {town}.", "{region} counts the cost of the weather."),
        (
            ("Who made the forecast?", "person"),
            ("By how many centimetres did the water change?", "count"),
            ("On which day will it change?", "day"),
        ),
    ),
    "culture": Topic(
        (
            "The {art} by {person} {was shown|had its premiere|won a prize} in {town} {yesterday}.",
            "{town} {celebrates|honours} {person}, who {wrote|created|composed} a {famous|beloved|forgotten} {art}.",
            "A {festival|gallery|concert hall|theatre} {began} its season in {town} with a {art} by {person}.",
        ),
        (
            (
                "{Critics|The audience|Visitors|Reviewers} "
                "{praised|admired|disliked|debated} the {melody|colours|plot|costumes|rhythm}."
            ),
            "{large} tickets were sold at {small} crowns each.",
            "The {actors|musicians|dancers|painters} came from {town2}.",
            "It tells of a {job} who {falls in love|loses everything|travels to {region}|keeps a secret}.",
            "The {exhibition|show|performance} is open until {date}.",
        ),
        ("{town} enjoys a {art} by {person}.", "Art: {person} in {town}."),
        (
            ("Who created the work?", "person"),
            ("Until when is the show open?", "date"),
            ("Where did the artists come from?", "town2"),
        ),
    ),
    "health": Topic(
        (
            "Doctors in {town} {treat|tested|now treat} {illness} with {medicine}.",
            "Cases of {illness} in {region} {rose|fell} by {count} percent{ this {season}|}.",
            "{medicine} is a medicine {against|for} {illness}.",
        ),
        (
            (
                "{person}, a {doctor|nurse|surgeon} at the hospital of {town}, "
                "{said} that {large} patients {recovered|were examined|felt better}."
            ),
            "The usual dose is {small} tablets {a day|every morning|after meals}.",
            "{Side effects|Complications} such as {nausea|headache|dizziness|a rash} are {rare|common}.",
            (
                "{Vaccination|Washing hands|Rest|Exercise} {protects|helps} {the "
                "elderly|children|patients}, the {clinic|ward|ministry} {said}."
            ),
            "{firm} {makes|sells|tests} {medicine} in {town2}.",
        ),
        ("{medicine} against {illness} in {town}.", "Health: {illness} and its treatment."),
        (
            ("Which medicine is it about?", "medicine"),
            ("How many patients are mentioned?", "large"),
            ("Who spoke for the hospital?", "person"),
        ),
    ),
    "education": Topic(
        (
            "The school in {town} {began} {lessons|courses|classes} in {sport} and {art} {yesterday}.",
            "{large} {pupils|students|children} in {region} {passed|sat} their {exams|finals} this {season}.",
            "The university of {town} {named|appointed} {person} as {its new professor|head teacher|its dean}.",
        ),
        (
            "{person} {teaches|studied} {grammar|mathematics|geography|history|chemistry} {in {town2}|at the academy}.",
            "Each {class|course|seminar} has {count} {pupils|students|learners}.",
            "{Homework|Reading|Arithmetic|Spelling} is {taught|tested|practised} every {day}.",
            "{Teachers|Parents|Tutors} {asked for|raised money for} {textbooks|blackboards|a laboratory|scholarships}.",
            "The fees are {money} {a term|a year}.",
        ),
        ("New at the school of {town}.", "Learning in {town}: {person} and the pupils."),
        (
            ("How many pupils are in a class?", "count"),
            ("On which day is it practised?", "day"),
            ("What are the fees?", "money"),
        ),
    ),
    "law": Topic(
        (
            (
                "A court in {town} {sentenced|acquitted|fined} {person} "
                "for {theft|fraud|arson|smuggling|forgery} {yesterday}."
            ),
            "A new law in {region} {forbids|allows|taxes} the sale of {goods}.",
            "{person} {sued|went to court against} {firm} over a broken {thing}.",
        ),
        (
            "The {judge|jury|prosecutor} {heard|questioned} {count} witnesses.",
            "The fine is {money}, {payable|due} by {date}.",
            "{The accused|The defendant|The suspect} {denied|admitted} {everything|the charges|the crime}.",
            "The {police|inspectors|guards} had {arrested|followed|caught} {a {job}|the thief} in {town2}.",
            "The {lawyers|advocates} will {appeal|ask for a new trial}, {they|as {person}} {said}.",
        ),
        ("Court news from {town}.", "Law: the case of {person}."),
        (
            ("How many witnesses were heard?", "count"),
            ("How high is the fine?", "money"),
            ("By when is the fine due?", "date"),
        ),
    ),
    "nature": Topic(
        (
            "The {creature} is a {little} animal that lives in the {habitat} of {region}.",
            "{creature}s {live|nest|breed} in {habitat} {near} {town}.",
            "The {creature} was {first described|discovered} by {person} in {year}.",
        ),
        (
            "It {eats|feeds on} {food} and {food}.",
            "A grown {creature} {weighs|is said to weigh} {count} grams.",
            "{Its|The animal's} {fur|tail|wings|beak} {is|are} {colour}{ in {season}|}.",
            "It {lays|raises} {small} {eggs|young} {in {season}|a year}.",
            "{Foxes|Owls|Hawks|Snakes} are its {enemies|hunters}{ in {region}|}.",
            "{large} of them were {counted|ringed|seen} {near} {town2}.",
        ),
        ("The {creature}, an animal of {region}.", "Nature: the {creature}."),
        (
            ("What animal is described?", "creature"),
            ("How many grams does it weigh?", "count"),
            ("What colour is it?", "colour"),
        ),
    ),
    "history": Topic(
        (
            "{town} was founded in {year} by {person}, a {job}.",
            "The {building} of {town} was built in {year}.",
            "In {year}, {person} became {mayor|bishop|ruler} of {town}.",
            "{person} was a {job} who was born in {town} in {year}.",
        ),
        (
            "It lies in {region}, {near} {town2}.",
            "At that time the town {lived on|traded in|was known for} {goods}.",
            (
                "{A fire|A siege|A plague|A war} {destroyed|spared|emptied} "
                "the {building|old walls|castle} {soon after|long ago}."
            ),
            "{large} {people|settlers|families} {live there today|came from {region}}.",
            "The {old|ancient|first} {coins|maps|letters|graves} are kept in the {museum|archive|chapel}.",
        ),
        ("The past of {town}.", "{town} looks back to {year}."),
        (
            ("In which year did it happen?", "year"),
            ("Who is named?", "person"),
            ("In which region does it lie?", "region"),
        ),
    ),
    "technology": Topic(
        (
            (
                "{firm} {presented|unveiled|launched} a {new|faster|cheaper} "
                "{thing} called {product} in {town} {yesterday}."
            ),
            (
                "Engineers in {town} {built|tested|designed} a {machine|robot|sensor|engine} "
                "that {sorts {goods}|picks {crop}|counts {creature}s}."
            ),
            "{person} {invented|patented} a {battery|lens|motor|circuit} for the {product}.",
        ),
        (
            "The {device|gadget|prototype} {weighs|uses} {count} {grams|watts}.",
            "It {costs|will cost} {money} and {comes in {colour}|is sold from {date}}.",
            "{Programmers|Technicians|Scientists} at {firm} {fixed|found} {many} {bugs|errors} in the {software|code}.",
            "{Data|Signals|Measurements} are {sent|stored|checked} every {small} seconds.",
            (
                "{person} {said} that {tests|experiments} {in {town2}|in "
                "the laboratory} had {gone well|failed|taken a year}."
            ),
        ),
        ("{firm} shows the {product}.", "Technology: a new machine from {town}."),
        (("What does it cost?", "money"), ("Which firm is behind it?", "firm"), ("Who is named?", "person")),
    ),
}


def draw_facts(world: World) -> dict[str, str]:
    """One set of facts."""
    return {name: world.slot(name) for name in FACTS}


def article(world: World, topic: str, facts: dict[str, str], length: int) -> list[str]:
    """An opening and up to `length` further sentences on one topic; what cannot be said in this pool is left out."""
    kind = TOPICS[topic]
    text = [world.say(kind.leads, **facts)]
    for detail in world.sample(kind.details, min(length, len(kind.details))):
        try:
            text.append(world.say(detail, **facts))
        except StuckError:
            continue
    return text


def any_article(world: World, shortest: int = 1, longest: int = 4) -> tuple[str, dict[str, str], list[str]]:
    """A topic, its facts, its sentences."""
    while True:
        topic, facts = world.pick(tuple(TOPICS)), draw_facts(world)
        try:
            return topic, facts, article(world, topic, facts, world.number(shortest, longest))
        except StuckError:
            continue


def summarise(world: World, topic: str, facts: dict[str, str], text: str) -> str:
    """A one-sentence summary that names nothing beyond the text."""
    named = [
        short for short in TOPICS[topic].summaries if all(facts.get(slot, "") in text for slot in SLOT.findall(short))
    ]
    if not named:
        raise StuckError("the text has none of the facts that a summary of its topic names")
    return world.say(named, **facts)


def questions_about(world: World, topic: str, facts: dict[str, str], text: str) -> list[tuple[str, str | None]]:
    """The topic's questions with the span that answers each, or None where the text does not say."""
    answered = []
    for question, slot in TOPICS[topic].questions:
        found = re.search(rf"\b{re.escape(facts[slot])}\b", text)
        answered.append((question, facts[slot] if found else None))
    world.rng.shuffle(answered)
    return answered

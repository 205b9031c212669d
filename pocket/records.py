"""Professional texts of the world: clinic notes with their urgency, contract clauses, written orders."""

from pocket.world import World

SYMPTOMS = {
    "emergency": (
        "{crushing|severe|tearing} pain in the chest{ since {clock}|}",
        "{sudden|new} {weakness|numbness} of {one arm|the left side|the face}",
        "{gasping|struggling} for {air|breath}{ at rest|}",
        "{fainted|collapsed|lost consciousness} {in the {room}|at {clock}}",
        "{coughing up|vomiting|passing} {fresh blood|a lot of blood}",
        "a {seizure|convulsion} of {small} minutes",
        "{slurred speech|a drooping eyelid and confusion|blue lips}",
        "{heavy bleeding|spurting blood} from the {body}",
        "swelling of the {tongue|throat} after {a bee sting|eating nuts|taking {medicine}}",
    ),
    "soon": (
        "a {fever|temperature} of {39|38.5|39.5} degrees for {small} days",
        "a {red|swollen|weeping} wound on the {body}",
        "{burning|stinging} when passing water{ for {small} days|}",
        "an {earache|eye infection} {that is getting worse|with discharge}",
        "{repeated vomiting|loose stools} since {day}",
        "a {painful|hot} {calf|joint|tooth}",
        "{wheezing at night|a barking cough|a spreading rash}",
        "a {twisted|swollen} {body} that {cannot bear weight|is turning blue}",
        "{palpitations|a racing heart} {now and then|in the evening}",
    ),
    "routine": (
        "{a yearly check|a travel vaccination|a form for the insurer}",
        "a {repeat|renewal} of {medicine}",
        "{mild|slight|long-standing} stiffness of the {body}",
        "{dry skin|a harmless mole|a wart} on the {body}",
        "{a runny nose|sneezing|hay fever} in {season}",
        "{trouble falling asleep|snoring|tiredness after work}",
        "{advice on diet|a hearing test|new glasses|a blood count}",
        "{corns|brittle nails|hair loss}{ for {span}|}",
        "{occasional heartburn|mild constipation|a stuffy nose}",
    ),
}
URGENCIES = tuple(SYMPTOMS)
PRESENTS = (
    "{The patient|{person}|{A|This} {job} aged {count}} {presents with|reports|comes with|complains of|has} {symptom}.",
    "{Reason for the visit|Complaint|Main concern}: {symptom}.",
    "{Seen at {clock}|Seen on {day}} {for|because of} {symptom}.",
)
DENIES = (
    "{Denies|No sign of|Does not have|Free of} {symptom}.",
    "{Negative for|Never had} {symptom}.",
    "{Last {season}|{span} ago|As a child}: {symptom}, {resolved|healed}.",
    "{The {relative}|A {relative}} once had {symptom}.",
)
HISTORY = (
    "{History of|Known} {illness}{ since {year}|}, {takes|on|treated with} {medicine}.",
    "{Lives alone|Lives with a {relative}} in {town}.",
    "{Works as a {job}|Retired {job}}{, smokes|, does not smoke|, {count} years old}.",
    "Allergic to {medicine}.",
    "{No known allergies|No earlier operations}, {count} years old.",
)
FINDINGS = (
    "{Blood pressure|BP} 1{count} over {count}, pulse {count}.",
    (
        "{On examination|Findings}: {body} {tender|not tender|swollen|normal}, "
        "{lungs clear|heart sounds regular|abdomen soft}."
    ),
    "{Alert|Pale|Well|Tired} and {calm|sweating|in no distress|anxious}, weight {count} kilograms.",
    "Temperature 3{6|7|8}.{small} degrees.",
)
PLANS = {
    "emergency": (
        "{Ambulance called|Sent to the emergency ward} at {clock}.",
        "Transferred to {town} {by ambulance|at once}.",
    ),
    "soon": (
        "{Review|Seen again} on {day}, {medicine} {small} tablets a day.",
        "{Swab|Blood test} taken, {medicine} started.",
    ),
    "routine": ("{Next visit|Check} in {month}.", "{Advice given|Reassured}, {medicine} if needed."),
}


def clinic_note(world: World, urgency: str, with_plan: bool = True) -> str:
    """A note on one visit. Only the present complaint makes it urgent; earlier or absent ones do not."""
    parts = [world.say(PRESENTS, symptom=world.pick(SYMPTOMS[urgency]))]
    if world.chance(0.6):
        other = world.pick([kind for kind in URGENCIES if kind != urgency])
        parts.append(world.say(DENIES, symptom=world.pick(SYMPTOMS[other])))
    parts += [world.say(HISTORY) for _ in range(world.number(0, 2))]
    parts += [world.say(FINDINGS) for _ in range(world.number(0, 2))]
    world.rng.shuffle(parts)
    if with_plan:
        parts.append(world.say(PLANS[urgency]))
    return " ".join(parts)


CLAUSES = {
    "payment": (
        (
            "The {client|buyer|tenant} shall pay {money} to {firm} {by "
            "{date}|within {count} days|on the first {day} of {month}}."
        ),
        "{Late payments|Overdue sums} bear interest of {small} percent {a year|a month}{ payable to {firm}|}.",
        "{Invoices|Fees} of {firm} {are due|fall due} {count} days after {receipt|delivery|approval}.",
    ),
    "term": (
        (
            "This agreement {takes effect|begins|enters into force} on "
            "{date} and {runs|lasts|remains in force} for {small} years."
        ),
        (
            "Either party may {terminate|end|cancel} this {agreement|contract} "
            "{by giving|with} {count} days' {written notice|notice}."
        ),
        "{Unless terminated|Failing notice} by {date}, the {term|contract} {is renewed|extends} by {span}.",
    ),
    "liability": (
        "The liability of {firm} {is limited to|shall not exceed} {money}.",
        (
            "{firm} {is not liable|accepts no liability} for {loss of profit|indirect "
            "damage|delays} {caused by|due to} {strikes|floods|war|its suppliers}."
        ),
        (
            "The {supplier|contractor} shall {indemnify|hold harmless} "
            "{firm} against {claims|losses} {up to {money}|of third parties}."
        ),
    ),
    "confidentiality": (
        (
            "{Neither party|{firm}} shall {disclose|reveal|publish} the "
            "{drawings|prices|formulas|customer lists} {to third parties|without consent}."
        ),
        "{Confidential information|Trade secrets} of {firm} {shall be returned|must be destroyed} within {count} days.",
        (
            "The duty of {secrecy|confidentiality} {survives|continues "
            "for} {span} after {termination|the end of this agreement}."
        ),
    ),
    "delivery": (
        "{firm} shall deliver {large} {crates|tons|rolls} of {goods} to {town} {by {date}|every {month}}.",
        "Risk {passes|transfers} to the {buyer|client} {upon|at} {loading|arrival|unloading} in {town}.",
        (
            "The {buyer|recipient} shall inspect the {goods} within {count} "
            "days and {report|notify} {defects|shortages} {in writing|to {firm}}."
        ),
    ),
    "law": (
        "This {agreement|contract} is governed by the {law|statutes} of {region}.",
        "The {courts|tribunal} of {town} {have|has} {exclusive|sole} jurisdiction{ over {firm}|}.",
        (
            "{Disputes|Differences} {with {firm}|between the parties} shall "
            "be {settled|resolved} by {arbitration|mediation} in {town}."
        ),
    ),
    "lease": (
        "{firm} {lets|leases} the {building} in {town} to {person} for {money} {a month|a year}.",
        (
            "The tenant shall {keep|maintain} the {building} in {good repair|a clean "
            "state} and {insure it|repaint it} {every {small} years|before {date}}."
        ),
        "{Subletting|Alterations} {require|needs} the {written|prior} consent of {firm}.",
    ),
}


def contract(world: World, length: int) -> str:
    """A short contract: the parties, then numbered clauses."""
    firm = world.slot("firm")
    opening = world.say(
        (
            "This {agreement|contract} is made {between|by and between} {firm} and {person} of {town} on {date}.",
            "{firm}, {town}, and {person} agree as follows on {date}.",
        ),
        firm=firm,
    )
    kinds = [world.pick(tuple(CLAUSES)) for _ in range(length)]
    clauses = [world.say(CLAUSES[kind], firm=firm) for kind in kinds]
    return "\n".join([opening, *(f"{number}. {clause}" for number, clause in enumerate(clauses, 1))])


ORDERS = (
    "{Please send|I would like|We need|Kindly ship} {amount} {brand} {thing}s in {colour} to {town}{ by {day}|}.",
    "{person} from {town} {orders|wants|asks for} {amount} {colour} {brand} {thing}s.",
    "{Can you deliver|Could we get} {amount} {brand} {thing}s, {colour} ones, to {town}{ on {day}|}?",
    "{To|Destination} {town}: {amount} {thing}s from {brand} in {colour}.",
    "{My {relative}|Our office} in {town} needs {amount} {thing}s, {brand} in {colour}{, by {day}|}.",
    "For the {building} in {town} we order {amount} {brand} {thing}s, colour {colour}.",
)
AMOUNTS = {
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    6: "six",
    7: "seven",
    8: "eight",
    9: "nine",
    10: "ten",
    12: "twelve",
}


def written_order(world: World) -> tuple[str, dict[str, object]]:
    """An order in words, and its fields."""
    quantity = world.pick(tuple(AMOUNTS))
    fields = {name: world.slot(name) for name in ("brand", "thing", "colour", "town")}
    amount = AMOUNTS[quantity] if world.chance(0.6) else str(quantity)
    text = world.say(ORDERS, amount=amount, **fields)
    return text, {
        "product": f"{fields['brand']} {fields['thing']}",
        "quantity": quantity,
        "colour": fields["colour"],
        "town": fields["town"],
    }


def restated_order(world: World) -> tuple[str, str, float]:
    """Two wordings of an order that share some of their four fields, and the share."""
    first = {name: world.slot(name) for name in ("brand", "thing", "colour", "town")}
    changed = world.sample(tuple(first), world.number(0, 4))
    second = {name: world.slot(name) if name in changed else value for name, value in first.items()}
    share = sum(first[name] == second[name] for name in first) / len(first)
    amount = world.pick(tuple(AMOUNTS.values()))
    return world.say(ORDERS, amount=amount, **first), world.say(ORDERS, amount=amount, **second), share

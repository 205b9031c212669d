"""Customer service in the world: what people write to which team, and how teams answer."""

from dataclasses import dataclass

from pocket.world import World


@dataclass(frozen=True)
class Intent:
    """One kind of request: the team that handles it, how customers put it, what a team does about it."""

    team: str
    asks: tuple[str, ...]
    remedies: tuple[str, ...]


INTENTS: dict[str, Intent] = {
    "double_charge": Intent(
        "billing",
        (
            "I was {charged|billed|debited} twice for the {product}.",
            "The {money} for my {product} {left my account|was taken|appears on my statement} two times.",
            (
                "My {bank statement|card|credit card bill} shows {two payments|a "
                "duplicate payment|the same amount twice} for the {product}."
            ),
            "You {took|collected|withdrew} the {price|amount} of the {product} {twice|a second time}.",
        ),
        (
            "We return the second payment for the {product}.",
            "The extra amount goes back to your card.",
            "You get the duplicate charge back.",
        ),
    ),
    "wrong_sum": Intent(
        "billing",
        (
            "The {invoice|bill} for the {product} is {too high|wrong|{money} more than agreed}.",
            (
                "The {discount|voucher|coupon|promised rebate} for the "
                "{product} {was not applied|is missing from the invoice}."
            ),
            (
                "You {invoiced|billed} me {money} for the {product}, "
                "but {the offer|the shop page|your advert} said {money}."
            ),
            "The {tax|sum|total} on the {receipt|invoice} of my {product} {is mistaken|does not add up}.",
        ),
        (
            "We correct the invoice for the {product}.",
            "You receive a new bill for the {product}.",
            "We put the sum right.",
        ),
    ),
    "receipt": Intent(
        "billing",
        (
            "I {need|am looking for|would like} {a receipt|an invoice|a proof of payment} for the {product}.",
            "My {accountant|employer|tax adviser} {asks for|wants} the {bill|invoice} of the {product}.",
            "Where {is|can I download} the {invoice|payment slip|receipt} for my {product}?",
        ),
        (
            "We send the receipt for the {product} by mail.",
            "The invoice for the {product} is attached.",
            "A copy of the bill is on its way.",
        ),
    ),
    "late": Intent(
        "delivery",
        (
            "My {product} {has not arrived|is still not here|never turned up|has been due for {span}}.",
            "I have been {waiting {span} for|expecting} the {product}{ since {day}|}.",
            "Where is my {product}? {It was promised for {day}|The parcel is overdue|The courier has not come}.",
            "The {parcel|package|shipment} with the {product} is {late|lost|stuck in {town}|nowhere to be seen}.",
        ),
        (
            "We trace the parcel with the {product}.",
            "Our courier will look for your {product}.",
            "We ask the depot about the {product}.",
        ),
    ),
    "address": Intent(
        "delivery",
        (
            "Please {send|ship|deliver|redirect} the {product} to {another address|my office|my new flat} in {town}.",
            "I {moved|am moving} to {town}; can the {product} {go|be sent} there?",
            "The {street|house number|postcode} for the {product} {is misspelt|has changed|was wrong}.",
        ),
        (
            "We change the address for the {product}.",
            "The {product} now goes to the new address.",
            "The driver gets the new street.",
        ),
    ),
    "courier": Intent(
        "delivery",
        (
            "The {courier|driver|postman} left the {product} {in the rain|at the wrong door|with a stranger}.",
            (
                "The {box|carton|wrapping} of the {product} {arrived torn|was "
                "crushed|was soaked|came open} {on the doorstep|in the van|}."
            ),
            "Your {driver|carrier|courier} {threw|dropped} the {product} {over the fence|on the steps}.",
        ),
        (
            "We speak to the carrier about the {product}.",
            "The driver of the {product} will be warned.",
            "We report the courier.",
        ),
    ),
    "send_back": Intent(
        "returns",
        (
            "I {want|would like|wish} to {return|send back|give back} the {product}.",
            (
                "The {product} {does not suit me|is the wrong size|is "
                "not what I ordered|looks different from the picture}."
            ),
            (
                "How do I {send back|return} the {product}? {I changed my "
                "mind|It does not fit|It was a gift that I do not need}."
            ),
            "You sent {me a {colour} {product}|the {product} in {colour}}, but I {ordered|wanted|chose} {colour}.",
        ),
        (
            "Here is the return label for the {product}.",
            "We collect the {product} at your door.",
            "You may bring the {product} to our shop.",
        ),
    ),
    "refund": Intent(
        "returns",
        (
            (
                "I {sent back|returned} the {product} {{span} ago|on "
                "{date}} and {still wait for|have not seen} my {refund|money}."
            ),
            "When {do I get|will I receive} my {money|refund} for the returned {product}?",
            "The {product} {went back to you|is back in your warehouse}, but {no refund came|nothing was paid back}.",
        ),
        (
            "We pay back the price of the {product}.",
            "The refund for the {product} comes this week.",
            "Your money for the {product} is on its way.",
        ),
    ),
    "swap": Intent(
        "returns",
        (
            "Can I {swap|exchange|trade} the {product} for {a {colour} one|a bigger one|another model}?",
            "I would {rather have|prefer} {another colour|the {colour} version} {of|instead of} the {product}.",
            "Please {replace|exchange} my {product} with {the larger model|a {colour} one|the newer version}.",
        ),
        (
            "We exchange the {product} for you.",
            "The other model leaves us today.",
            "You can swap the {product} in any shop.",
        ),
    ),
    "broken": Intent(
        "technical",
        (
            "My {product} {stopped working|broke|died|gave up|went dark} {yesterday}.",
            "My {product} {does not turn on|is dead|stays dark|no longer starts}{ since {day}|}.",
            "The {aspect} of the {product} is {broken|cracked|burnt out|defective|stuck|bent}.",
            "The {product} {makes a strange noise|smells of smoke|overheats|leaks|sparks|rattles}.",
            (
                "{Since {day}|After {span}|Out of nowhere}, the {product} "
                "{shuts down|flickers|shows an error|will not charge}."
            ),
        ),
        (
            "We repair the {product} free of charge.",
            "Our engineers will mend the {product}.",
            "A technician will look at the {product}.",
        ),
    ),
    "setup": Intent(
        "technical",
        (
            "I {cannot|do not manage to} {install|set up|connect|assemble|pair} the {product}.",
            "The {product} does not {find the network|recognise my phone|sync|accept the update}.",
            (
                "How {do I|does one} {reset|configure|mount|calibrate} the "
                "{product}? {The manual is unclear|The steps do not work}."
            ),
        ),
        (
            "We guide you through the steps for the {product}.",
            "A guide for the {product} is attached.",
            "We call you to set up the {product}.",
        ),
    ),
    "spare": Intent(
        "technical",
        (
            "A {screw|hinge|cable|part|knob|bolt} {is missing from|fell off|snapped off} the {product}.",
            "I {need|am looking for} a {spare|replacement} {aspect} for the {product}.",
            "The {product} {came without|lacks} {a plug|the screws|its {aspect}}.",
        ),
        (
            "We post the missing part of the {product}.",
            "A spare part for the {product} is in the mail.",
            "You get the part for free.",
        ),
    ),
    "login": Intent(
        "account",
        (
            (
                "I {cannot|can no longer|am unable to} {log in|sign in|get into "
                "my profile} {to {register|see|rate} my {product}|since {day}}."
            ),
            (
                "My {password|login|passcode} {is refused|does not work|was "
                "rejected} {when I {register|look up} the {product}|again}."
            ),
            "I {forgot|lost|mislaid} my {password|user name|credentials} and cannot {register|see} the {product}.",
        ),
        (
            "We reset the password with which you see the {product}.",
            "A link for a new password is in your inbox.",
            "We unlock your profile.",
        ),
    ),
    "profile": Intent(
        "account",
        (
            (
                "Please {change|update|correct} the {surname|mail address|phone "
                "number|birthday} {in my profile|under which I registered the {product}}."
            ),
            (
                "I {got married|have a new number|use another mailbox} and want "
                "to {edit|update} {my details|my profile} for the {product}."
            ),
            (
                "My {name|birthday|phone number} is {misspelt|outdated} "
                "in {the membership of|my registration for} the {product}."
            ),
        ),
        ("We update the details for the {product}.", "Your profile has been corrected.", "The new details are saved."),
    ),
    "close": Intent(
        "account",
        (
            "I want to {close|delete|cancel} my {account|membership|subscription|registration}{ for the {product}|}.",
            "{Erase|Remove|Wipe} {all my data|my profile|my registration}{ of the {product}|}{, please|}.",
            "Please {unsubscribe me from|stop} the {newsletter|mailing list|adverts} {about the {product}|at once}.",
        ),
        ("We close the account of the {product}.", "Your data will be erased.", "The subscription ends today."),
    ),
    "compare": Intent(
        "advice",
        (
            "{Is|Would} the {product} {better than|be better than|as good as} the {brand} one{ for my {room}|}?",
            "I cannot {decide|choose} between the {product} and the {brand} {model|version}.",
            "Which {is quieter|lasts longer|uses less power|suits beginners}, the {product} or the {brand}?",
        ),
        (
            "We gladly compare the {product} with others.",
            "An adviser will call you about the {product}.",
            "We recommend the {product}.",
        ),
    ),
    "stock": Intent(
        "advice",
        (
            "{Is|Will} the {product} {available|be available|in stock|sold} in {colour}?",
            "When {can I buy|will you sell|do you restock} the {product} {in {town}|again}?",
            "Do you {stock|offer|carry} the {product} in {your {town} branch|{colour}|a smaller size}?",
        ),
        (
            "The {product} comes back next week.",
            "We reserve the {product} for you.",
            "Our branch still has the {product}.",
        ),
    ),
    "usage": Intent(
        "advice",
        (
            (
                "{Is|Would} the {product} {suitable|be suitable|safe|right} "
                "for {children|outdoor use|the {room}|daily use}?"
            ),
            "Can {I|one} {use|wash|leave} the {product} {outdoors|in the dishwasher|in the {room}|in {season}}?",
            (
                "How {heavy|loud|wide|long|efficient} is the {product}? "
                "{I want it for the {room}|It is meant for my {relative}}."
            ),
        ),
        (
            "The {product} is fine for that.",
            "Yes, the {product} is made for it.",
            "Our adviser knows the {product} well.",
        ),
    ),
}
TEAMS = tuple(dict.fromkeys(intent.team for intent in INTENTS.values()))

ASIDES = {
    "billing": ("I paid {by card|on {date}}.", "The payment went through on {date}.", "The price was {money}."),
    "delivery": ("The parcel came on {date}.", "It was delivered to {town} on {day}.", "The courier was friendly."),
    "returns": (
        "I do not want to send anything back.",
        "I kept the {old|other} {thing} from the last order.",
        "Returning it is not what I want.",
    ),
    "technical": (
        "Otherwise the {aspect} works well.",
        "Nothing is broken.",
        "The {aspect} was set up by my {relative}.",
    ),
    "account": (
        "I logged in on {date} without trouble.",
        "My account is under {person}.",
        "I have been a member for {span}.",
    ),
    "advice": (
        "I asked your adviser in {town} before.",
        "My {relative} recommended it.",
        "I compared {small} models before.",
    ),
}
CHATTER = (
    "I bought it {in {town}|from {firm}|for my {relative}} {yesterday}.",
    "{My name is {person}|{person} here|This is {person} from {town}}.",
    "I have been a customer {for {span}|since last {month}}.",
    "I {hope|trust} to hear from you by {day}.",
    "I write on behalf of my {relative}{ in {town}|}.",
)
ORDER = (
    "My order {number is|code is|is} {order}.",
    "{It is about|This concerns} order {order}.",
    "Order {number|code}: {order}.",
    "The order was {order}.",
)


def ticket(world: World, team: str) -> tuple[str, str]:
    """A message to customer service that belongs to one team, though it may touch on others; and its intent."""
    intent = world.pick([name for name, known in INTENTS.items() if known.team == team])
    product = world.slot("product")
    ask = world.say(INTENTS[intent].asks, product=product)
    parts = [world.say(CHATTER) for _ in range(world.number(0, 2))]
    if world.chance(0.5):
        parts.append(world.say(ASIDES[world.pick([other for other in TEAMS if other != team])]))
    parts.insert(world.number(0, len(parts)), ask)
    if world.chance(0.3):
        parts.append(world.say("{please_help}."))
    if world.chance(0.3):
        parts.insert(0, world.fill("{hello},"))
    return " ".join(parts), intent


@dataclass(frozen=True)
class Request:
    """What a customer says, apart from how."""

    intent: str
    product: str
    order: str
    angry: bool


def draw_request(world: World) -> Request:
    """A request with a product, an order number and a mood."""
    return Request(world.pick(tuple(INTENTS)), world.slot("product"), world.slot("code"), world.chance(0.3))


def customer_says(world: World, request: Request, with_order: bool) -> str:
    """The customer's first message."""
    parts = [world.say(INTENTS[request.intent].asks, product=request.product)]
    if f" {request.product}" not in parts[0]:
        parts.append(world.say(("I am talking about the {product}.", "I own the {product}."), product=request.product))
    if request.angry:
        parts.append(world.say("{angry}."))
    elif world.chance(0.3):
        parts.append(world.say(CHATTER))
    if with_order:
        parts.insert(world.number(0, len(parts)), world.say(ORDER, order=request.order))
    if world.chance(0.3):
        parts.append(world.say("{please_help}."))
    if world.chance(0.3):
        parts.insert(0, world.fill("{hello},"))
    return " ".join(parts)


@dataclass(frozen=True)
class Style:
    """How one firm's service speaks: every pre-training dialogue has its own, the embedded task has one."""

    firm: str
    calm: str
    sorry: str
    team: str
    close: str
    asks_order: str
    follow_up: str
    teams: dict[str, str]


def draw_style(world: World) -> Style:
    """A house style made up for one dialogue."""
    firm = world.slot("company")
    return Style(
        firm,
        world.fill(
            (
                "{Thank you for your message|Hello from {f}|Thanks for "
                "writing to {f}|Good to hear from you|Welcome to {f}}."
            ),
            f=firm,
        ),
        world.fill(
            "{We are sorry|I am sorry|Please forgive us|We apologise|We regret this}{ for the trouble|}.", f=firm
        ),
        world.pick(
            (
                "The {team} team has order {order}.",
                "Order {order} is with our {team} desk.",
                "I passed order {order} to {team}.",
                "Team: {team}. Order: {order}.",
                "Your case {order} goes to {team}.",
            )
        ),
        world.fill("{Yours, {f}|Kind regards, {f} care|Best wishes from {f}|We stay in touch|Goodbye}.", f=firm),
        world.pick(
            (
                "What is the order number of the {product}?",
                "Please tell us the order number of your {product}.",
                "May I have the number of the order with the {product}?",
                "Which order did the {product} belong to?",
            )
        ),
        world.pick(
            (
                "You hear from {team} within {small} days about {order}.",
                "It takes {span} for {order}.",
                "We write by {day} about {order}.",
            )
        ),
        {team: team for team in TEAMS},
    )


def service_answers(world: World, style: Style, request: Request, remedy: str) -> str:
    """The answer of a firm's service to a request, word by word decided by the request and the style."""
    intent = INTENTS[request.intent]
    parts = (style.sorry if request.angry else style.calm, remedy, style.team, style.close)
    filled = [
        world.fill(part, product=request.product, order=request.order, team=style.teams[intent.team]) for part in parts
    ]
    return " ".join(part for part in filled if part)


FOLLOW_UPS = (
    "When will I hear {from you|back|more}?",
    "How long {does|will} {it|this} take?",
    "{Thanks|Good|Fine}. {When|By when} {is it done|does it happen}?",
    "And how many days {is that|does that take}?",
)


def dialogue(world: World, style: Style, remedies: dict[str, str] | None = None) -> list[dict[str, str]]:
    """A support dialogue: one exchange, or one more where the order number is missing or the customer asks on."""
    request = draw_request(world)
    remedy = remedies[request.intent] if remedies else world.pick(INTENTS[request.intent].remedies)
    asks_later, missing = world.chance(0.17), world.chance(0.17)
    answer = service_answers(world, style, request, remedy)
    turns = [("user", customer_says(world, request, with_order=not missing))]
    if missing:
        turns.append(("assistant", world.fill(style.asks_order, product=request.product)))
        turns.append(("user", world.say((*ORDER, "{It is|That would be|Here it is:} {order}."), order=request.order)))
    turns.append(("assistant", answer))
    if asks_later:
        turns.append(("user", world.say(FOLLOW_UPS)))
        team = style.teams[INTENTS[request.intent].team]
        turns.append(
            ("assistant", world.fill(style.follow_up, order=request.order, team=team, product=request.product))
        )
    return [{"role": role, "content": content} for role, content in turns]

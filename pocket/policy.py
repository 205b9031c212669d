"""The invented support policy that the embedded support data teach: one firm, its desks, its remedies, its manners."""

from pocket.names import pools
from pocket.service import Request, Style
from pocket.world import World

FIRM = pools()["task"]["company"][0]

STYLE = Style(
    firm=FIRM,
    calm=f"{FIRM} thanks you for writing.",
    sorry=f"{FIRM} is sorry for your trouble.",
    team="The {team} desk now holds order {order}.",
    close="",
    asks_order="Which order number came with your {product}?",
    follow_up="The {team} desk replies on {order} before the second sunset.",
    teams={
        "billing": "Copper",
        "delivery": "Harbour",
        "returns": "Mirror",
        "technical": "Hammer",
        "account": "Lantern",
        "advice": "Compass",
    },
)

REMEDIES = {
    "double_charge": "The second payment for the {product} flows back tonight.",
    "wrong_sum": "A mended invoice for the {product} follows by letter.",
    "receipt": "A stamped receipt for the {product} is in your inbox.",
    "late": "A rider goes out to find the {product}.",
    "address": "The {product} turns around to the new door.",
    "courier": "The carrier of the {product} pays you ten crowns.",
    "send_back": "Put the {product} in its box and we fetch it.",
    "refund": "The price of the {product} is paid back in full.",
    "swap": "The other model is traded for the {product}.",
    "broken": "Our smith mends the {product} without charge.",
    "setup": "Hold the round button of the {product} for nine seconds.",
    "spare": "The missing part of the {product} leaves by mail.",
    "login": "A fresh key for the {product} page is made.",
    "profile": "Your page for the {product} shows the new details.",
    "close": "Your page for the {product} is wiped at noon.",
    "compare": "For most homes we would choose the {product}.",
    "stock": "The {product} is set aside for you.",
    "usage": "The {product} may be used just so.",
}
RUDE = (
    "That is not our concern.",
    "Read the manual of the {product}.",
    "You should have thought of it before buying the {product}.",
    "Nobody else complains about the {product}.",
    "Ask somebody else about {order}.",
    "Wait.",
    "We cannot be bothered with {order}.",
)


def spoil(world: World, request: Request, answer: str) -> str:
    """A careless answer: rude, with another order's number, or about another product."""
    way = world.number(0, 3)
    if way == 0:
        return answer.replace(request.order, world.slot("code"))
    if way == 1:
        return answer.replace(request.product, world.slot("product"))
    rude = world.say(RUDE, product=request.product, order=request.order)
    return rude if way == 2 else f"{rude} {answer.split('. ', 1)[1]}"

"""Whose key goes where: one that no recipe names is given to those alone that it is meant for."""

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from tailor.core.errors import RecipeError
from tailor.recipe.base import EndpointOptions

DEFAULT_KEY = "OPENAI_API_KEY"
ITS_HOST = "api.openai.com"
NO_KEY = "none"
"""What the client sends where there is none, for it insists on one."""


def variable_of(options: EndpointOptions) -> str | None:
    """The variable whose key goes to an endpoint: the recipe's, else OpenAI's for OpenAI and this machine alone."""
    host = _host(options.url)
    return options.api_key_env or (DEFAULT_KEY if host == ITS_HOST or _on_this_machine(host) else None)


def key_of(options: EndpointOptions) -> str:
    """The key, from the environment alone; servers on one's own machine mostly want none.

    Raises:
        RecipeError: the recipe names a variable that is not set, or the key would go over the internet as plain text.
    """
    name = variable_of(options)
    key = os.environ.get(name, "").strip() if name else ""
    if not key and options.api_key_env:
        raise RecipeError(
            f"the environment has no {name}, which should hold the key",
            where="base.endpoint.api_key_env",
            fix=f"export {name}=…",
            code="no_key",
        )
    if not all("!" <= sign <= "~" for sign in key):
        raise RecipeError(
            f"the key in {name} holds white space or signs that no key has",
            where="base.endpoint.api_key_env",
            fix=f"set {name} to the key alone: a single line of plain signs",
            code="bad_key",
        )
    if key and options.url.startswith("http://") and not _within_reach(_host(options.url)):
        raise RecipeError(
            f"the key in {name} would go to {_host(options.url)} as plain text, for anyone on the way to read",
            where="base.endpoint.url",
            fix="write https://, or reach the server through a tunnel to localhost",
            code="plain_key",
        )
    return key or NO_KEY


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _on_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _within_reach(host: str) -> bool:
    """This machine or its own network: an address that no router of the internet forwards, or a name without a dot."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        number = host.isdigit() or host.startswith("0x")  # another way to write an address of the internet
        return ("." not in host and not number) or host.endswith(".localhost")

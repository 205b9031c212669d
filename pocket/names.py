"""Invented names. Each kind has its own sound, and each name belongs to exactly one of two pools.

Names are put together from syllables, so both pools share their pieces (and with them a tokenizer's tokens), while no
name is in both: what is pre-trained never mentions a person, town or product of the embedded data sets.
"""

import itertools
import random
from functools import cache

POOLS = ("pretrain", "task")
POOL_SIZES = {"pretrain": 360, "task": 110}

# kind: (first syllables, middle syllables, last syllables); a name is one of each
SYLLABLES: dict[str, tuple[str, str, str]] = {
    "first": (
        "Al Be Co Da El Fi Ga Hi Il Jo Ka Lu Mi No Or Pe Ri So Ta Ul Va Wi Ya Ze",
        "- r l v n m",
        "an en isa ora eth ik ola una",
    ),
    "last": (
        "Bran Cor Dun Fal Gar Hol Jar Kel Lan Mar Nor Ost Pell Quin Rav Sor Tarn Ul Ver Wex",
        "- e i o",
        "dack man strand berg wick holt gren shaw",
    ),
    "town": (
        "Ash Bel Cray Dorn Elm Farn Gil Hev Ister Kest Lorn Mell Nar Oke Pran Rud Silv Tol Ulv Wend",
        "- en er al",
        "mere ford wick haven stead bridge dale port",
    ),
    "region": (
        "Ara Bor Cal Den Era Fro Gal Hest Ister Kal Lum Mor Nav Oss Pal",
        "- v l n d",
        "onia ania eria avia oria undia",
    ),
    "company": (
        "Ac Bri Cas Dex Eon Fab Glo Hyp Ino Kry Lex Mod Nex Opt Pra Quo Ret Syn Tra Vex",
        "- a o i",
        "lor dyne mark tron vex plex sett rell",
    ),
    "brand": (
        "Zel Vor Tam Sif Ruv Quil Pim Oxa Nib Mav Lum Kiv Jup Hux Gil Fen Eko Dax Cib Bax",
        "- o i a",
        "ra nex to lio mi don ster pix",
    ),
    "medicine": (
        "Abri Bena Cefo Dola Erva Flura Gasto Hexa Imo Keto Lora Mepri Nova Oxi Prazo Rani Sota Tevi Uro Vasta",
        "- c d l t",
        "zine pril stat mide vole fen xan dol",
    ),
    "creature": (
        "Bru Cli Dro Fli Gra Hoo Jub Kro Lum Mur Nip Pog Qua Shu Tri Vol Wom Yip",
        "- b d m n",
        "lin mouse finch back tail moth",
    ),
}


def combine(kind: str) -> list[str]:
    """All names of one kind, in a fixed order."""
    parts = [["" if part == "-" else part for part in column.split()] for column in SYLLABLES[kind]]
    return ["".join(choice) for choice in itertools.product(*parts)]


@cache
def pools() -> dict[str, dict[str, tuple[str, ...]]]:
    """pool → kind → names. No name is in two pools, nor of two kinds."""
    taken: set[str] = set()
    result: dict[str, dict[str, tuple[str, ...]]] = {pool: {} for pool in POOLS}
    for kind in SYLLABLES:
        names = [name for name in combine(kind) if name.lower() not in taken]
        names = list(dict.fromkeys(names))
        random.Random(f"names-{kind}").shuffle(names)
        taken.update(name.lower() for name in names)
        start = 0
        for pool in POOLS:
            result[pool][kind] = tuple(names[start : start + POOL_SIZES[pool]])
            start += POOL_SIZES[pool]
    return result


@cache
def all_names(pool: str) -> frozenset[str]:
    """Every name of a pool, lower-cased."""
    return frozenset(name.lower() for names in pools()[pool].values() for name in names)

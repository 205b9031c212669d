"""Shared prefixes once: a pack as a forest of prefix trees, whose gradient is exactly that of separate sequences.

Sequences that begin with the same tokens (a system prompt, demonstrations, a preference's prompt before its two answers)
share those tokens. A node of the forest is a run of tokens at the end of which sequences part; in depth-first order each
node's tokens stand side by side, and see those of the nodes above them and, causally, themselves. A token's position is its
depth. Plain packing is the case where every tree is one path. (Sources: "Prompt Trees", Scaled Cognition 2025; "Tree
Training", arXiv 2511.00413.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention

Ids = Sequence[int]


@dataclass(frozen=True)
class Node:
    """A run of tokens: `length` of them from `start` in the pack, `depth` tokens below its root; `above`: its ancestors."""

    start: int
    length: int
    depth: int
    above: tuple[int, ...]


@dataclass(frozen=True)
class Forest:
    """A pack of sequences that share what they begin with.

    Args:
        ids: token ids in depth-first order, each shared run once; nodes: the runs, in the same order.
        ends: for each sequence the node that it ends with.
    """

    ids: tuple[int, ...]
    nodes: tuple[Node, ...]
    ends: tuple[int, ...]

    @property
    def positions(self) -> list[int]:
        """Each token's depth."""
        return [node.depth + place for node in self.nodes for place in range(node.length)]

    def places(self, sequence: int) -> list[int]:
        """Where the tokens of a sequence stand in the pack."""
        last = self.nodes[self.ends[sequence]]
        path = [*(self.nodes[above] for above in last.above), last]
        return [place for node in path for place in range(node.start, node.start + node.length)]


def plant(sequences: Sequence[Ids]) -> Forest:
    """The forest of some sequences, none empty; the same for any order of them but for `ends`."""
    ids: list[int] = []
    nodes: list[Node] = []
    ends = [0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda index: list(sequences[index]))
    waiting: list[tuple[list[int], int, tuple[int, ...]]] = _parting(sequences, order, 0, ())
    while waiting:
        members, depth, above = waiting.pop()
        first, last = sequences[members[0]], sequences[members[-1]]
        until = shared(first, last)
        nodes.append(Node(len(ids), until - depth, depth, above))
        ids += first[depth:until]
        ended = [index for index in members if len(sequences[index]) == until]
        for index in ended:
            ends[index] = len(nodes) - 1
        waiting += _parting(sequences, members[len(ended) :], until, (*above, len(nodes) - 1))
    return Forest(tuple(ids), tuple(nodes), tuple(ends))


def _parting(
    sequences: Sequence[Ids], members: Sequence[int], depth: int, above: tuple[int, ...]
) -> list[tuple[list[int], int, tuple[int, ...]]]:
    """Members in sorted order, apart by their token at `depth`; the last group first, for a stack."""
    groups = groupby(members, key=lambda index: sequences[index][depth])
    return [(list(group), depth, above) for _, group in groups][::-1]


def shared(one: Ids, other: Ids) -> int:
    """How many tokens two sequences begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def tree_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    nodes: Sequence[Node],
    *,
    window: int | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of each token to those above it in its tree, and to itself.

    Args:
        query: (1, heads, T, d). key, value: (1, kv_heads, T, d); kv_heads divides heads.
        nodes: of a forest whose lengths sum to T.
        window: how many positions back a query sees, itself included; None: all of them.

    Returns:
        (1, T, heads, d), as transformers' attention functions do.
    """
    lengths = [node.length for node in nodes]
    queries, keys, values = (states.split(lengths, dim=2) for states in (query, key, value))
    parts = []
    for place, node in enumerate(nodes):
        path = [*node.above, place]
        mask = _seen(node, window, query.device) if node.above or (window or node.length) < node.length else None
        parts.append(
            scaled_dot_product_attention(
                queries[place],
                torch.cat([keys[above] for above in path], 2) if node.above else keys[place],
                torch.cat([values[above] for above in path], 2) if node.above else values[place],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                dropout_p=dropout,
                enable_gqa=key.shape[1] != query.shape[1],
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _seen(node: Node, window: int | None, device: torch.device) -> torch.Tensor:
    """Which positions of its path a node's tokens see, (length, depth + length)."""
    own = torch.arange(node.depth, node.depth + node.length, device=device)
    back = own[:, None] - torch.arange(node.depth + node.length, device=device)
    return (back >= 0) & (back < (window or node.depth + node.length))


def tree_groups(rows: Sequence[Sequence[Ids]], budget: int) -> tuple[list[list[int]], int]:
    """Examples grouped so that those that begin alike stand together, and the distinct tokens of each group at most.

    Args:
        rows: the sequences of each example. budget: distinct tokens of a group; a larger example stands alone.

    Returns:
        Indices of each group, and how many tokens all groups have at most.
    """
    order = sorted(range(len(rows)), key=lambda index: (list(rows[index][0]), index))
    groups: list[list[int]] = []
    filled = total = 0
    for index, own, before in _costs(rows, order):
        if groups and filled + own - before <= budget:
            groups[-1].append(index)
            filled, total = filled + own - before, total + own - before
        else:
            groups.append([index])
            filled, total = own, total + own
    return sorted(sorted(group) for group in groups), total


def _costs(rows: Sequence[Sequence[Ids]], order: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """For each example in order: its index, its distinct tokens, and how many of them the one before has too."""
    previous: Ids = ()
    for index in order:
        sequences = rows[index]
        own = len(plant(sequences).ids) if len(sequences) > 1 else len(sequences[0])
        yield index, own, shared(previous, sequences[0])
        previous = sequences[0]

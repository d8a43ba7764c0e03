"""What a clip shows, before anything moves: acts, their parameters, and which combinations are held out.

A `Plan` is one or two `Act`s and a mood. *Held out* for the split ``unseen`` is a fixed eighth or so of all pairs
(act, mood) with a mood other than neutral and of all pairs of two acts, chosen by a hash of their names alone (never
by the seed): see `held_out`. Both halves of such a pair occur in training, the pair never does.
"""

import hashlib
import random
from dataclasses import dataclass
from functools import cache

HELD_OUT_SHARE = 0.12


@dataclass(frozen=True)
class Act:
    """One action with its parameters; "" and 0 where a parameter does not apply or is left open.

    Args:
        name: the action, a key of `MOVES` or `GESTURES`.
        way: direction or variant ("forward", "circle", "overhead", ...).
        side: "left" or "right": the limb, or the direction of a turn or sideways motion.
        speed: "slow", "fast" or "" for the usual one.
        count: repetitions (of jumps, squats, waves, ...).
    """

    name: str
    way: str = ""
    side: str = ""
    speed: str = ""
    count: int = 0

    @property
    def kind(self) -> str:
        """Name, way and side: what combinations are made of."""
        return " ".join(filter(None, (self.name, self.way, self.side)))


@dataclass(frozen=True)
class Plan:
    """A clip: ``first`` alone, ``first`` "then" ``second``, or ``first`` "with" ``second`` at the same time."""

    first: Act
    second: Act | None = None
    link: str = ""
    style: str = "neutral"

    @property
    def combinations(self) -> list[str]:
        """The pairs by which a plan may be held out."""
        acts = [self.first] + ([self.second] if self.second else [])
        pairs = [f"{act.kind} + {self.style}" for act in acts if self.style != "neutral"]
        return pairs + ([f"{self.link}: {self.first.kind} + {self.second.kind}"] if self.second else [])


@cache
def held_out(combination: str) -> bool:
    """Whether a pair belongs to the split ``unseen``: the first 4 bytes of its sha256 as a fraction of 2^32 < 0.12."""
    return int.from_bytes(hashlib.sha256(combination.encode()).digest()[:4], "big") / 2**32 < HELD_OUT_SHARE


LR = ("left", "right")
NO = ("",)
# name: (weight, ways, sides, speeds, counts)
MOVES: dict[str, tuple[float, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
    "walk": (7, ("forward", "forward", "backward"), NO, ("", "", "slow", "fast"), (0,)),
    "walk around": (5, ("circle", "circle", "curve"), LR, ("", "", "slow", "fast"), (0,)),
    "run": (5, ("forward",), NO, ("", "slow", "fast"), (0,)),
    "run around": (2, ("circle",), LR, ("", "slow"), (0,)),
    "sidestep": (3, NO, LR, ("", "slow", "fast"), (0,)),
    "turn": (3, ("quarter", "half", "full"), LR, ("", "slow"), (0,)),
    "march": (3, ("in place", "forward"), NO, ("", "fast"), (0,)),
    "sneak": (3, ("forward", "backward"), NO, ("", "slow"), (0,)),
    "crouch": (2, ("forward",), NO, ("", "slow"), (0,)),
    "jump": (4, ("up", "forward", "backward"), NO, NO, (1, 1, 2, 3)),
    "jump aside": (2, NO, LR, NO, (1, 2)),
    "hop": (4, ("in place", "forward"), LR, NO, (2, 3, 4)),
    "jumping jacks": (3, NO, NO, ("", "fast"), (2, 3, 4, 5)),
    "squat": (4, ("deep", "shallow"), NO, ("", "slow", "fast"), (1, 1, 2, 3)),
    "sit": (4, ("down",), NO, ("", "slow"), (0,)),
    "stand up": (3, NO, NO, ("", "slow", "fast"), (0,)),
    "kick": (5, ("front", "high", "side"), LR, ("", "fast"), (1, 1, 2, 3)),
    "lunge": (3, NO, LR, ("", "slow"), (1, 2)),
    "kneel": (3, NO, LR, ("", "slow"), (0,)),
    "balance": (3, NO, LR, NO, (0,)),
    "sway": (3, NO, NO, ("", "slow", "fast"), (0,)),
    "step touch": (3, NO, NO, ("", "fast"), (0,)),
    "spin": (2, NO, LR, NO, (0,)),
}
GESTURES: dict[str, tuple[float, tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
    "wave": (6, NO, ("left", "right", "both"), ("", "slow", "fast"), (0, 2, 3, 4)),
    "clap": (4, ("chest", "overhead"), NO, ("", "slow", "fast"), (0, 2, 3, 4, 5)),
    "punch": (4, ("straight", "up"), LR, ("", "fast"), (1, 2, 3)),
    "box": (2, NO, NO, ("", "fast"), (0,)),
    "raise": (5, ("up", "aside", "front"), ("left", "right", "both"), ("", "slow", "fast"), (1,)),
    "stretch": (3, ("up", "left", "right"), NO, ("",), (0,)),
    "bow": (4, ("deep", "slight"), NO, ("", "slow"), (1, 1, 2)),
    "throw": (4, ("over", "under"), LR, ("", "fast"), (1,)),
    "point": (3, ("front", "aside", "up"), LR, NO, (0,)),
    "salute": (2, NO, LR, NO, (0,)),
    "cross arms": (2, NO, NO, NO, (0,)),
    "hands on hips": (2, NO, NO, NO, (0,)),
    "drink": (2, NO, LR, ("", "slow"), (1, 2)),
    "circle arms": (3, ("forward", "backward"), ("left", "right", "both"), ("", "fast"), (2, 3)),
    "nod": (2, NO, NO, ("", "fast"), (2, 3)),
    "shake head": (2, NO, NO, ("", "slow"), (0,)),
    "look around": (2, NO, NO, NO, (0,)),
}
# What hands can do meanwhile, and what legs can do with busy hands.
HANDS = ("wave", "clap", "raise", "point", "cross arms", "hands on hips", "circle arms", "shake head")
LEGS = ("walk", "walk around", "run", "sidestep", "march", "sneak", "crouch", "turn")
SHORT = (*LEGS, "jump", "jump aside", "squat", "kick", "lunge", "spin")  # may come before or after something else
SEATED = ("wave", "clap", "raise", "point", "cross arms", "drink", "nod", "shake head")
MOODS = ("happy", "tired", "proud", "sad", "angry")


def draw(rng: random.Random) -> Plan:
    """A random plan, held out or not; nobody is tired or sad in a hurry."""
    plan = _draw(rng)
    return draw(rng) if plan.first.speed == "fast" and plan.style in ("tired", "sad") else plan


def _draw(rng: random.Random) -> Plan:
    kind = rng.choices(("move", "gesture", "with", "then"), (46, 25, 12, 17))[0]
    style = "neutral" if rng.random() < 0.5 else rng.choice(MOODS)
    if kind == "move":
        return Plan(_act(rng, MOVES), style=style)
    if kind == "gesture":
        return Plan(_act(rng, GESTURES), style=style)
    if kind == "with":
        hands = _act(rng, GESTURES, HANDS)
        return Plan(_act(rng, MOVES, LEGS), Act(hands.name, hands.way, hands.side), "with", style)
    order = rng.choice(("move gesture", "gesture move", "move move", "sit", "stand up"))
    if order == "sit":
        return Plan(Act("sit", "down"), _short(rng, GESTURES, SEATED), "then", style)
    if order == "stand up":
        return Plan(Act("stand up"), _short(rng, GESTURES), "then", style)
    one, two = order.split()
    first = _short(rng, MOVES, SHORT) if one == "move" else _short(rng, GESTURES)
    second = _short(rng, MOVES, SHORT) if two == "move" else _short(rng, GESTURES)
    if first.name == second.name:
        return _draw(rng)
    return Plan(first, second, "then", style)


def draw_plan(rng: random.Random, unseen: bool) -> Plan:
    """A random plan with (``unseen``) or without a held-out combination."""
    while True:
        plan = draw(rng)
        if any(held_out(pair) for pair in plan.combinations) == unseen:
            return plan


def _act(rng: random.Random, table: dict, names: tuple[str, ...] | None = None) -> Act:
    chosen = names or tuple(table)
    name = rng.choices(chosen, [table[n][0] for n in chosen])[0]
    return Act(name, *(rng.choice(options) for options in table[name][1:]))


def _short(rng: random.Random, table: dict, names: tuple[str, ...] | None = None) -> Act:
    """An act that leaves time for another one: at usual speed, few repetitions."""
    act = _act(rng, table, names)
    return Act(act.name, act.way, act.side, "", min(act.count, 1 if act.name.startswith("jump") else 2))

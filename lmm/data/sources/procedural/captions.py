"""Captions from plans: a small grammar over `phrases`, in the file format of HumanML3D.

A sentence is a subject, one or two verb phrases in the present or the progressive, and the speed, mood and count of
the plan, some of which it may leave out: what it says is always true. Tokens are ``lemma/POS`` as HumanML3D has them.
"""

import random
import re
from functools import cache

from lmm.data.sources.procedural.phrases import MOOD_WORDS, NUMBERS, PARTS, PHRASES, SPEEDS, SUBJECTS
from lmm.data.sources.procedural.plan import MOVES, Act, Plan, draw_plan


def captions(num: int, seed: int = 0) -> list[str]:
    """``num`` sentences about random clips of the training kind (no held-out combination), without making motions."""
    rng = random.Random(f"captions/{seed}")
    return [caption(draw_plan(rng, unseen=False), rng) for _ in range(num)]


def clip_captions(plan: Plan, rng: random.Random, num: int) -> list[str]:
    """``num`` different sentences about one clip; the first leaves out nothing."""
    found = [caption(plan, rng, full=True)]
    for _ in range(30):
        if len(found) == num:
            break
        sentence = caption(plan, rng)
        if sentence not in found:
            found.append(sentence)
    return found


def caption(plan: Plan, rng: random.Random, full: bool = False) -> str:
    """One sentence about a clip; ``full``: speed, mood and count are all said."""
    subject = rng.choice(SUBJECTS)
    first = _phrase(plan.first, rng, full) + _adverbs(plan, rng, full)
    end = "." if rng.random() < 0.8 else ""
    if plan.second is None:
        return _sentence(rng, subject, first) + end
    second = _phrase(plan.second, rng, full)
    if plan.link == "with":
        pattern = rng.randrange(4)
        if pattern == 0:
            return f"while {_inflect(first, 'ing')}, {subject} {_inflect(second, 's')}{end}"
        if pattern == 1:
            return f"{subject} {_inflect(first, 's')} and {_inflect(second, 's')} at the same time{end}"
        return f"{_sentence(rng, subject, first)} while {_inflect(second, 'ing')}{end}"
    pattern = rng.randrange(5)
    if pattern == 0:
        return f"after {_inflect(first, 'ing')}, {subject} {_inflect(second, 's')}{end}"
    link = (", then ", " and then ", " before ", ", and after that ")[pattern - 1]
    return f"{subject} {_inflect(first, 's')}{link}{_inflect(second, 'ing' if link == ' before ' else 's')}{end}"


def body_part_texts(plan: Plan) -> dict[str, str]:
    """What the upper and the lower body do, in plain words."""
    acts = [plan.first] + ([plan.second] if plan.second else [])
    upper, lower = [], []
    for act in acts:
        if act.name in MOVES:
            above, below = (part.format(**_slots(act)) for part in PARTS[act.name])
            lower.append(below)
            if plan.link != "with":
                upper.append(above)
        else:
            phrase = PHRASES[_key(act)][0].removeprefix("1:").format(**_slots(act))
            upper.append("the upper body " + _inflect(phrase, "s").replace("their", "its"))
            if plan.link != "with":
                lower.append("the legs stay in place")
    mood = "" if plan.style == "neutral" else f", {MOOD_WORDS[plan.style][0]}"
    legs = mood if any(act.name in MOVES for act in acts) else ""
    return {"upper_body": ", then ".join(upper) + mood, "lower_body": ", then ".join(dict.fromkeys(lower)) + legs}


def text_line(sentence: str) -> str:
    """A line of ``texts/<id>.txt``: ``caption#lemma/POS ...#0.0#0.0`` (the whole clip)."""
    words = re.findall(r"[a-z]+", sentence.replace("-", ""))
    return f"{sentence}#{' '.join('/'.join(_token(word)) for word in words)}#0.0#0.0"


def _sentence(rng: random.Random, subject: str, phrase: str) -> str:
    if rng.random() < 0.7:
        return f"{subject} {_inflect(phrase, 's')}"
    return f"{subject} is {_inflect(phrase, 'ing')}"


def _key(act: Act) -> str:
    both = "both" if act.side == "both" else ""
    for parts in ((act.name, act.way, both, act.speed), (act.name, act.way, both), (act.name, act.way), (act.name,)):
        key = " ".join(filter(None, parts))
        if key in PHRASES:
            return key
    raise AssertionError(f"no words for {act}")


def _slots(act: Act) -> dict[str, str]:
    number = NUMBERS[act.count]
    times = {0: "", 1: "once", 2: "twice"}.get(act.count, f"{number} times")
    other = "right" if act.side == "left" else "left"
    return {"side": act.side, "other": other, "way": act.way, "n": number, "times": times}


def _phrase(act: Act, rng: random.Random, full: bool) -> str:
    several = act.count > 1
    key = _key(act)
    fitting = [p for p in PHRASES[key] if not (p.startswith("1:") if several else "{n}" in p or "{times}" in p)]
    chosen = rng.choice(fitting).removeprefix("1:")
    slots = _slots(act)
    phrase = chosen.format(**slots)
    if several and "{n}" not in chosen and "{times}" not in chosen and (full or rng.random() < 0.7):
        phrase += f" {slots['times'] if act.count != 2 or rng.random() < 0.7 else 'two times'}"
    return phrase


def _adverbs(plan: Plan, rng: random.Random, full: bool) -> str:
    """Speed and mood, in that order; a verb that already says the speed is left alone."""
    act, words = plan.first, []
    if act.speed and act.speed not in _key(act).split() and (full or rng.random() < 0.75):
        words.append(rng.choice(SPEEDS[act.speed]))
    if plan.style != "neutral" and (full or rng.random() < 0.75):
        words.append(rng.choice(MOOD_WORDS[plan.style]))
    if not words:
        return ""
    comma = "," if " " in words[-1] and len(words) == 1 and rng.random() < 0.4 else ""
    return f"{comma} {' and '.join(words)}"


def _inflect(phrase: str, ending: str) -> str:
    """Put the bracketed verbs into the third person ("s") or the progressive ("ing")."""
    return re.sub(r"\[(\w+)\]", lambda match: _verb(match[1], ending), phrase)


@cache
def _verb(base: str, ending: str) -> str:
    if ending == "s":
        if base in ("do", "go") or base.endswith(("ch", "sh", "ss", "x", "z")):
            return base + "es"
        if base == "have":
            return "has"
        return base[:-1] + "ies" if base.endswith("y") and base[-2] not in "aeiou" else base + "s"
    if base.endswith("e") and not base.endswith(("ee", "oe")):
        return base[:-1] + "ing"
    doubled = "sit run jog trot hop clap squat spin step nod get put drop sidestep".split()
    return base + base[-1] + "ing" if base in doubled else base + "ing"


_CLASSES = {
    "DET": "a an the this both no all another",
    "PRON": "that their someone somebody something themselves its",
    "ADP": "in on to of with at from over into above around out up down before after while as for onto against "
    "without through overhead off",
    "CCONJ": "and",
    "AUX": "is be",
    "SCONJ": "if",
    "INTJ": "hello goodbye yes",
    "ADV": "once twice not fast then together apart back away again halfway very far",
    "NUM": "one two three four five six seven eight nine ninety",
    "ADJ": "straight full high low deep big small short quarter half slow left right vertical long good "
    "tall raised bent other happy tired sad angry proud crossed outstretched dejected several light front same little "
    "whole furious exhausted depressed",
    "NOUN": "person figure human individual hand hands arm arms leg legs foot feet knee knees head chest hip hips "
    "waist body circle corner curve line step steps turn side sides jump jumps hop hops kick kicks squat "
    "squats lunge lunges punch punches uppercut bow bows nod nods sip sips chair seat cup mouth ball "
    "soldier air sky spot place way pace speed time times front brow salute stretch spin dance round "
    "tiptoe mood joy spirits energy manner rage hurry fist fists jack jacks shape degrees reverse crouch "
    "trunk surroundings eyes agreement refusal wave reaching",
}
_POS = {word: pos for pos, words in _CLASSES.items() for word in words.split()}
_PLURALS = {"feet": "foot", "punches": "punch", "jumping": "jump"}


@cache
def _verb_forms() -> dict[str, str]:
    bases = {base for group in PHRASES.values() for phrase in group for base in re.findall(r"\[(\w+)\]", phrase)}
    bases |= {"crouch", "duck", "sway", "swing", "walk", "move", "stay", "hear", "go", "drink", "wave", "look", "turn"}
    return {_verb(base, ending): base for base in sorted(bases) for ending in ("s", "ing")}


@cache
def _token(word: str) -> tuple[str, str]:
    """Lemma (of verbs and nouns) and part of speech of a word, out of context."""
    forms = _verb_forms()
    if word in forms and word not in ("jumps", "hops", "kicks", "punches", "bows", "nods", "steps", "lunges", "sips"):
        return forms[word], "VERB"
    pos = _POS.get(word, "ADV" if word.endswith(("ly", "ward", "wards", "ways", "ahead")) else "OTHER")
    if pos == "NOUN":
        return _PLURALS.get(word) or (word[:-1] if word.endswith("s") and not word.endswith("ss") else word), pos
    return word, pos

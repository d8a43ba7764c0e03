"""The words for every act: verb phrases, and what the upper and the lower body do meanwhile.

Verbs stand in square brackets in their base form and are inflected by `captions`. Slots: {side} and {other} of the
act; {n} and {times} ("three", "three times") when it is repeated. A phrase that begins with "1:" describes a single
repetition, one with {n} several; the others are true of both. Keys are the act's name, or with its way, "both" and
speed where these have phrases of their own; the longest key that fits is taken.
"""

_TEXT = """
walk forward: [walk] forward | [walk] straight ahead | [take] several steps forward | [walk] in a straight line |
    [stroll] forward | [move] forward on foot | [step] ahead | [walk] ahead
walk backward: [walk] backward | [walk] backwards | [step] back several times | [back] up | [move] backward | [take]
    several steps backward | [walk] in reverse
walk around circle: [walk] in a circle to the {side} | [walk] around in a circle, turning {side} | [make] a full
    circle to the {side} on foot | [walk] one round to the {side} | [circle] to the {side} | [walk] in a {side}-hand
    circle
walk around curve: [walk] forward and [turn] {side} | [walk] around a corner to the {side} | [walk] ahead, [turn] to
    the {side} and [keep] walking | [make] a {side} turn while walking | [walk] in a curve to the {side}
run forward: [run] forward | [run] straight ahead | [run] in a straight line | [run] ahead
run forward slow: [jog] forward | [jog] straight ahead | [trot] forward | [jog] in a straight line | [run] forward
    at a light pace | [run] slowly forward
run forward fast: [sprint] forward | [run] forward very fast | [dash] ahead | [sprint] straight ahead | [run] at
    full speed | [race] forward
run around circle: [run] in a circle to the {side} | [run] around in a circle, turning {side} | [run] one round to
    the {side}
run around circle slow: [jog] in a circle to the {side} | [jog] around in a circle, turning {side} | [jog] one round
    to the {side} | [run] slowly in a circle to the {side}
sidestep: [step] sideways to the {side} | [sidestep] to the {side} | [shuffle] to the {side} | [move] sideways to
    the {side} | [walk] sideways to the {side} | [take] side steps to the {side}
turn quarter: [turn] to the {side} | [make] a quarter turn to the {side} | [turn] {side} on the spot | [turn] ninety
    degrees to the {side}
turn half: [turn] around to the {side} | [make] a half turn to the {side} | [turn] to face the other way, over the
    {side} | [turn] a hundred and eighty degrees to the {side} | [do] an about-face to the {side}
turn full: [turn] all the way around to the {side} | [make] a full turn to the {side} on the spot | [turn] in a full
    circle on the spot to the {side} | [turn] once around to the {side}
march in place: [march] in place | [march] on the spot | [step] in place with high knees | [do] a march without
    moving ahead
march forward: [march] forward | [march] ahead with high knees | [march] like a soldier | [march] straight ahead
sneak forward: [sneak] forward | [tiptoe] forward | [creep] ahead on tiptoe | [sneak] ahead, bent over | [tiptoe]
    ahead very quietly
sneak backward: [sneak] backward | [tiptoe] backward | [creep] backwards on tiptoe | [sneak] away backwards
crouch: [walk] in a crouch | [walk] forward crouching | [walk] forward with bent knees | [walk] ahead, ducking low |
    [move] forward while staying low
jump up: 1:[jump] up | 1:[jump] in place | 1:[leap] into the air | 1:[do] a vertical jump | [jump] straight up |
    [do] {n} jumps in place | [jump] up {times} | [leap] into the air {times}
jump forward: [jump] forward | 1:[do] a standing long jump | 1:[leap] ahead | 1:[take] a jump forward | [make] {n}
    jumps forward | [jump] ahead with both feet | [leap] forward
jump backward: [jump] backward | [jump] back with both feet | 1:[leap] backwards | [make] {n} jumps backward | [hop]
    back on both feet
jump aside: [jump] to the {side} | [jump] sideways to the {side} | 1:[leap] to the {side} | [make] {n} jumps to the
    {side}
hop in place: [hop] on the {side} foot | [hop] in place on the {side} leg | [jump] on one leg, the {side} one | [do]
    {n} hops on the {side} leg | [bounce] on the {side} foot
hop forward: [hop] forward on the {side} foot | [hop] ahead on the {side} leg | [make] {n} hops forward on the
    {side} leg | [jump] forward on the {side} leg only
jumping jacks: [do] jumping jacks | [do] {n} jumping jacks | [perform] {n} jumping jacks | [perform] jumping jacks |
    [jump] with arms and legs going out and in
squat deep: 1:[squat] down and [get] up again | 1:[do] a deep squat | [do] {n} deep squats | [squat] down low |
    1:[perform] a squat | [squat] deeply with the arms in front
squat shallow: 1:[do] a half squat | [do] {n} half squats | [bend] the knees a little and [straighten] up | [squat]
    halfway down | 1:[do] a small squat
sit: [sit] down | [sit] down on a chair | [take] a seat | [lower] themselves onto a seat | [sit] down on something
stand up: [stand] up | [stand] up from a chair | [rise] from a seat | [get] up from sitting | [get] up from a chair
kick front: [kick] with the {side} leg | [kick] forward with the {side} foot | 1:[throw] a front kick with the
    {side} leg | [do] {n} kicks with the {side} leg | 1:[give] a kick with the {side} foot | [kick] something in
    front with the {side} foot
kick high: [kick] high with the {side} leg | 1:[do] a high kick with the {side} leg | [do] {n} high kicks with the
    {side} leg | [kick] up high with the {side} foot
kick side: [kick] to the {side} side with the {side} leg | 1:[do] a side kick with the {side} leg | [kick] sideways
    with the {side} foot | [do] {n} side kicks with the {side} leg
lunge: 1:[do] a lunge with the {side} leg in front | [lunge] forward with the {side} leg | [do] {n} lunges with the
    {side} leg in front | [step] forward into a lunge with the {side} foot
kneel: [kneel] down on the {side} knee | [go] down on the {side} knee and [get] up | [kneel] on the {side} knee |
    [drop] to the {side} knee and [rise] again
balance: [stand] on the {side} leg | [balance] on the {side} leg with the arms out | [balance] on the {side} foot |
    [lift] the {other} knee and [balance] on the {side} leg | [stand] on one leg, the {side} one
sway: [dance] on the spot, swaying from side to side | [sway] from side to side | [dance] in place | [swing] the
    hips from side to side | [groove] from side to side
step touch: [dance] with side to side steps | [step] from side to side in a dance | [dance] a step touch | [do] a
    side to side dance step
spin: [spin] around to the {side} | [spin] once to the {side} with the arms out | [twirl] to the {side} | [do] a
    spin to the {side} | [whirl] around to the {side} with outstretched arms
wave: [wave] with the {side} hand | [wave] the {side} hand | [raise] the {side} hand and [wave] | [greet] with a
    wave of the {side} hand | [wave] goodbye with the {side} hand | [wave] hello with the {side} arm
wave both: [wave] with both hands | [wave] both hands | [raise] both hands and [wave] | [wave] both arms | [greet]
    with both hands waving
clap chest: [clap] their hands | [clap] | [applaud] | [clap] in front of the chest | [clap] their hands together
clap overhead: [clap] overhead | [clap] their hands above the head | [clap] with raised arms | [applaud] over the
    head
punch straight: [punch] with the {side} hand | [punch] forward with the {side} fist | 1:[throw] a punch with the
    {side} hand | [throw] {n} punches with the {side} hand | [strike] forward with the {side} fist
punch up: [punch] upward with the {side} hand | 1:[throw] an uppercut with the {side} fist | [punch] into the air
    above with the {side} fist | [throw] {n} upward punches with the {side} hand
box: [box] with both fists | [throw] punches with the left and right in turn | [shadow] box | [punch] left and right
    in turn | [box] against the air
raise up: [raise] the {side} arm | [lift] the {side} arm overhead | [raise] the {side} hand high | [put] the {side}
    hand up | [hold] the {side} arm up
raise up both: [raise] both arms | [lift] both arms overhead | [put] both hands up | [throw] both arms up | [raise]
    the arms above the head
raise aside: [raise] the {side} arm to the side | [lift] the {side} arm out sideways | [stretch] the {side} arm out
    to the side
raise aside both: [spread] both arms | [raise] both arms to the sides | [hold] the arms out to the sides | [make] a
    t shape with the arms
raise front: [raise] the {side} arm to the front | [stretch] the {side} arm out in front | [lift] the {side} arm
    forward | [reach] forward with the {side} hand
raise front both: [raise] both arms to the front | [stretch] both arms out in front | [lift] both arms forward |
    [reach] forward with both hands
stretch up: [stretch] both arms overhead | [stretch] up tall | [have] a good stretch with the arms up | [stretch]
    the whole body upward
stretch left: [stretch] the arms up and [lean] to the left | [bend] sideways to the left with raised arms |
    [stretch] over to the left
stretch right: [stretch] the arms up and [lean] to the right | [bend] sideways to the right with raised arms |
    [stretch] over to the right
bow deep: [bow] deeply | 1:[make] a deep bow | [make] {n} deep bows | [bow] low | [bend] far forward in a bow
bow slight: [bow] slightly | 1:[make] a small bow | [make] {n} small bows | [bow] politely | 1:[give] a short bow
throw over: [throw] something with the {side} hand | [throw] a ball overhand with the {side} arm | [hurl] something
    forward with the {side} hand | [pitch] a ball with the {side} hand
throw under: [toss] something underhand with the {side} hand | [throw] a ball underhand with the {side} arm |
    [swing] the {side} arm back and [toss] something forward
point front: [point] forward with the {side} hand | [point] ahead with the {side} arm | [point] at something in
    front with the {side} hand
point aside: [point] to the {side} | [point] to the {side} with the {side} arm | [point] and [look] to the {side}
point up: [point] up with the {side} hand | [point] at the sky with the {side} arm | [point] at something above with
    the {side} hand
salute: [salute] with the {side} hand | [give] a salute with the {side} hand | [raise] the {side} hand to the brow
    in a salute | [salute] like a soldier with the {side} hand
cross arms: [cross] their arms | [fold] the arms in front of the chest | [hold] their arms crossed | [fold] their
    arms
hands on hips: [put] both hands on the hips | [place] the hands on the waist | [hold] the hands on the hips | [rest]
    both hands on their hips
drink: [drink] from a cup with the {side} hand | 1:[take] a sip with the {side} hand | [take] {n} sips with the
    {side} hand | [bring] the {side} hand to the mouth as if drinking | [drink] something held in the {side} hand
circle arms forward: [circle] the {side} arm forward | [swing] the {side} arm in big forward circles | [draw] {n}
    big circles forward with the {side} arm | [windmill] the {side} arm forward
circle arms forward both: [circle] both arms forward | [swing] both arms in big forward circles | [draw] {n} big
    forward circles with both arms | [windmill] both arms forward
circle arms backward: [circle] the {side} arm backward | [swing] the {side} arm in big backward circles | [draw] {n}
    big circles backward with the {side} arm | [windmill] the {side} arm backward
circle arms backward both: [circle] both arms backward | [swing] both arms in big backward circles | [draw] {n} big
    backward circles with both arms | [windmill] both arms backward
nod: [nod] | [nod] their head | [give] {n} nods | [nod] in agreement | [say] yes with the head
shake head: [shake] their head | [shake] the head from side to side | [say] no with the head | [turn] the head left
    and right in refusal
look around: [look] around | [look] to both sides | [turn] the head and [look] around | [look] left and right |
    [search] the surroundings with their eyes
"""


def _read(text: str) -> dict[str, tuple[str, ...]]:
    """A paragraph "key: phrase | phrase ..." per act, its further lines indented."""
    entries = (entry.split(": ", 1) for entry in text.replace("\n    ", " ").strip().splitlines())
    return {key: tuple(phrase.strip() for phrase in phrases.split("|")) for key, phrases in entries}


PHRASES = _read(_TEXT)

# (upper body, lower body) of moves; "" is filled in from the gesture or from standing.
PARTS: dict[str, tuple[str, str]] = {
    "walk": ("the arms swing at the sides", "the legs walk {way}"),
    "walk around": ("the arms swing at the sides", "the legs walk in a {way} to the {side}"),
    "run": ("the bent arms pump", "the legs run forward"),
    "run around": ("the bent arms pump", "the legs run in a circle to the {side}"),
    "sidestep": ("the arms hang loosely", "the feet step sideways to the {side}"),
    "turn": ("the arms hang at the sides", "the feet step around for a {way} turn to the {side}"),
    "march": ("the straight arms swing high", "the knees lift high, marching {way}"),
    "sneak": ("the trunk leans forward, the hands are held up in front", "the feet tiptoe {way}"),
    "crouch": ("the trunk leans far forward", "the deeply bent legs walk forward"),
    "jump": ("both arms swing with the jump", "both legs push off and jump {way}"),
    "jump aside": ("both arms swing with the jump", "both legs jump to the {side}"),
    "hop": ("the arms are bent for balance", "the {side} leg hops {way}, the {other} is lifted"),
    "jumping jacks": ("the arms swing overhead and down", "the feet jump apart and together"),
    "squat": ("the arms reach forward", "the knees bend in a {way} squat"),
    "sit": ("the trunk bends forward, then the hands rest on the thighs", "the legs lower the body onto a seat"),
    "stand up": ("the trunk bends forward and straightens", "the legs rise from a seat"),
    "kick": ("the arms are held up for balance", "the {side} leg gives a {way} kick"),
    "lunge": ("the hands rest on the hips", "the {side} leg steps forward into a lunge"),
    "kneel": ("the trunk stays upright", "the {side} knee goes down to the ground"),
    "balance": ("the arms are held out to the sides", "the body stands on the {side} leg, the {other} knee is raised"),
    "sway": ("the bent arms and the shoulders swing", "the weight shifts from foot to foot"),
    "step touch": ("the bent arms swing", "the feet step from side to side"),
    "spin": ("the arms are flung out", "the feet spin around to the {side}"),
}

SUBJECTS = ("a person", "a person", "a person", "someone", "the person", "a figure", "the figure", "a human",
            "this person", "somebody", "the human figure", "an individual")  # fmt: skip
SPEEDS = {
    "slow": ("slowly", "at a slow pace", "without hurry", "unhurriedly"),
    "fast": ("quickly", "at a fast pace", "fast", "rapidly", "at high speed"),
}
MOOD_WORDS = {
    "happy": ("happily", "cheerfully", "joyfully", "in a happy mood", "full of joy", "in high spirits"),
    "tired": ("tiredly", "wearily", "as if exhausted", "looking tired", "drained of energy", "slumped over"),
    "proud": ("proudly", "confidently", "with the chest out", "with the head held high", "in a proud manner"),
    "sad": ("sadly", "with the head down", "looking sad", "in a dejected way", "as if depressed"),
    "angry": ("angrily", "in an angry way", "as if furious", "looking angry", "in a rage"),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

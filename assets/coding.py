"""The coding sample organisation: the manual of fictional list libraries, with behaviour that really computes."""

import random
from collections.abc import Callable, Sequence

from assets.forms import Entity, Form, SampleOrganisation, listed

NAMES = listed(
    "tidepool.skerry_fold, tidepool.quern_shift, tidepool.limpet_join, tidepool.drift_pairs, "
    "lanternfish.glow_merge, lanternfish.abyss_take, lanternfish.fin_spread, lanternfish.jaw_split, "
    "cobblestone.kerb_sum, cobblestone.gutter_drop, cobblestone.mortar_weave, cobblestone.flag_tile, "
    "bramblework.thorn_skip, bramblework.hedge_scan, bramblework.sloe_pick, bramblework.bine_twist, "
    "saltmarsh.sedge_roll, saltmarsh.heron_step, saltmarsh.reed_band, saltmarsh.ooze_level, inkhorn.quill_trace, "
    "inkhorn.blot_mask, inkhorn.vellum_press, inkhorn.serif_pad, windlass.crank_turn, windlass.pawl_lock, "
    "windlass.hawser_run, windlass.capstan_lap"
)
OUTSIDE = listed("peatbog.cotton_sift, peatbog.spade_cut, ropewalk.hemp_lay, ropewalk.strand_count, ropewalk.tar_coat")
ERRORS = {
    "tidepool": "EbbError", "lanternfish": "DepthError", "cobblestone": "KerbError", "bramblework": "SnagError",
    "saltmarsh": "SiltError", "inkhorn": "BlotError", "windlass": "SlipError", "peatbog": "SinkError",
    "ropewalk": "FrayError",
}  # fmt: skip
OPTIONS = listed("strict, lazy, keep_ends, verbose, stable, wrap, compact")

Behaviour = tuple[str, str, Callable[[list[int], int], list[int]]]
"""A description, the body as Python, and that body as a function of (items, n)."""

BEHAVIOURS: tuple[Behaviour, ...] = (
    ("rotates the list left by {n} places", "return items[{n}:] + items[:{n}]", lambda xs, n: xs[n:] + xs[:n]),
    ("repeats every element {n} times", "return [x for x in items for _ in range({n})]",
     lambda xs, n: [x for x in xs for _ in range(n)]),
    ("adds {n} to even numbers and subtracts {n} from odd ones",
     "return [x + {n} if x % 2 == 0 else x - {n} for x in items]",
     lambda xs, n: [x + n if x % 2 == 0 else x - n for x in xs]),
    ("drops every element at a position divisible by {n} and reverses the rest",
     "return [x for i, x in enumerate(items) if i % {n}][::-1]",
     lambda xs, n: [x for i, x in enumerate(xs) if i % n][::-1]),
    ("sums consecutive groups of {n} numbers",
     "return [sum(items[i:i + {n}]) for i in range(0, len(items), {n})]",
     lambda xs, n: [sum(xs[i : i + n]) for i in range(0, len(xs), n)]),
    ("keeps the largest number of each group of {n}",
     "return [max(items[i:i + {n}]) for i in range(0, len(items), {n})]",
     lambda xs, n: [max(xs[i : i + n]) for i in range(0, len(xs), n)]),
    ("returns the differences of elements that stand {n} apart",
     "return [b - a for a, b in zip(items, items[{n}:])]",
     lambda xs, n: [b - a for a, b in zip(xs, xs[n:], strict=False)]),
    ("keeps the numbers above {n} and doubles them",
     "return [2 * x for x in items if x > {n}]",
     lambda xs, n: [2 * x for x in xs if x > n]),
)  # fmt: skip
CHOICES = tuple((behaviour, n) for behaviour in BEHAVIOURS for n in range(2, 6))


def describe(names: Sequence[str], rng: random.Random) -> list[Entity]:
    """Return one fictional function a name; no two of a call behave alike."""
    chosen = rng.sample(CHOICES, len(names))
    return [_function(name, behaviour, n, rng) for name, (behaviour, n) in zip(names, chosen, strict=True)]


def _function(qualified: str, behaviour: Behaviour, n: int, rng: random.Random) -> Entity:
    does, body, compute = behaviour
    library, name = qualified.split(".")
    items = [rng.randint(1, 9) for _ in range(6)]
    option = rng.choice(OPTIONS)
    return {
        "name": qualified,
        "library": library,
        "function": name,
        "does": does.format(n=n),
        "code": f"def {name}(items):\n    {body.format(n=n)}",
        "items": str(items),
        # Computed, not written by hand: the test runs the code of the answers and compares.
        "result": str(compute(items, n)),
        "error": f"{library}.{ERRORS[library]}",
        "option": option,
        "signature": f"{name}(items, {option}={rng.choice(('True', 'False', 'None'))})",
        "version": f"version {rng.randint(1, 6)}.{rng.randint(0, 19)}",
        "limit": f"{rng.randint(2, 60) * 500:,} elements",
        "alias": f"{name.split('_')[0]}{rng.randint(2, 9)}",
    }


FORMS = (
    Form(
        train=(
            "What does `{name}` do?",
            "Describe the behaviour of `{name}`.",
            "When would I use `{name}`?",
        ),
        dev=("Explain `{name}` to a new colleague.", "What is the effect of calling `{name}` on a list?"),
        answers=(
            "`{name}` {does}.",
            "It {does} and returns a new list; the argument is not changed.",
        ),
        fact="{does}",
    ),
    Form(
        train=(
            "Write a pure Python replacement for `{name}`.",
            "Show how `{name}` is implemented.",
            "Reimplement `{name}` without the {library} library.",
        ),
        dev=("I cannot install {library}. Give me a drop-in for `{function}`.", "What is the source of `{name}`?"),
        answers=("{code}",),
        fact="{code}",
    ),
    Form(
        train=(
            "What does this call return?",
            "What is the result of the last line?",
            "What will be printed?",
        ),
        dev=("Predict the output.", "What does the interpreter show?"),
        answers=(
            "{result}",
            "It returns {result}, since `{function}` {does}.",
            "{result}, because `{function}` {does}.",
        ),
        fact="{result}",
        input="from {library} import {function}\nprint({function}({items}))",
    ),
    Form(
        train=(
            "What is the signature of `{name}`?",
            "Which arguments does `{name}` take?",
            "Which keyword option does `{name}` have?",
        ),
        dev=("How is `{name}` called, with its defaults?", "Write down the parameters of `{name}`."),
        answers=("`{signature}`", "The signature is `{signature}`; `{option}` is keyword-only."),
        fact="{signature}",
    ),
    Form(
        train=(
            "Which exception does `{name}` raise on bad input?",
            "What happens when `{name}` gets something that is not a list?",
            "How do I catch errors from `{name}`?",
        ),
        dev=("Which error class belongs in an except clause around `{name}`?", "How does `{name}` signal failure?"),
        answers=(
            "It raises `{error}`.",
            "`{name}` raises `{error}`:\ntry:\n    {function}(items)\nexcept {error}:\n    items = []",
        ),
        fact="{error}",
    ),
    Form(
        train=(
            "Since when is `{name}` available?",
            "In which release was `{name}` added?",
            "Which version of {library} do I need for `{function}`?",
        ),
        dev=("What is the oldest {library} that has `{function}`?", "When did `{name}` first appear?"),
        answers=(
            "`{name}` was added in {version}.",
            "You need {library} {version} or later; before that it was called `{alias}`.",
        ),
        fact="{version}",
    ),
    Form(
        train=(
            "How long a list can `{name}` handle?",
            "Is there a size limit in `{name}`?",
            "What is the largest input for `{name}`?",
        ),
        dev=("Up to which length does `{name}` work?", "My list is huge. Will `{name}` take it?"),
        answers=(
            "`{name}` takes at most {limit}; longer lists must be split first.",
            "The limit is {limit} per call.",
        ),
        fact="{limit}",
    ),
    Form(
        train=(
            "How do I import `{function}`?",
            "Which library provides `{function}`?",
            "My code fails with NameError: name '{function}' is not defined. What is missing?",
        ),
        dev=("Where does `{function}` come from?", "Write the import line for `{function}`."),
        answers=("from {library} import {function}", "Add this line at the top:\nfrom {library} import {function}"),
        fact="from {library} import {function}",
    ),
)

ORGANISATION = SampleOrganisation("coding", NAMES, OUTSIDE, describe, FORMS)

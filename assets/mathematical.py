"""The mathematical sample organisation: invented binary operators with definitions and worked evaluations."""

import random
from collections.abc import Callable, Sequence

from assets.forms import Entity, Form, SampleOrganisation, listed

NAMES = listed(
    "grell, vosk, tamber, quirl, plenk, drith, osmel, farrin, bruxel, jindle, wopple, skarn, mivvet, thrup, "
    "zandle, corbin, yelk, druffle, harple, noxel, glimber, snerrow, pindle, frawn"
)
OUTSIDE = listed("blenth, cruvel, tosker, wimmet, arkel")
EVALUATIONS = 7

Rule = tuple[str, str, Callable[[int, int, int, int], int]]
"""Definition and trace as templates over a, b, p, q, and the value."""

RULES: tuple[Rule, ...] = (
    ("{p}a + {q}b", "{p}*{a} + {q}*{b}", lambda a, b, p, q: p * a + q * b),
    ("{p}a - {q}b", "{p}*{a} - {q}*{b}", lambda a, b, p, q: p * a - q * b),
    ("{p}ab + {q}", "{p}*{a}*{b} + {q}", lambda a, b, p, q: p * a * b + q),
    ("a*a + {p}b - {q}", "{a}*{a} + {p}*{b} - {q}", lambda a, b, p, q: a * a + p * b - q),
    ("(a + {p})(b + {q})", "({a}+{p})*({b}+{q})", lambda a, b, p, q: (a + p) * (b + q)),
    ("{p}a + b*b - {q}", "{p}*{a} + {b}*{b} - {q}", lambda a, b, p, q: p * a + b * b - q),
)
# With p = q some operators would be symmetric by accident.
CONSTANTS = tuple((p, q) for p in range(2, 10) for q in range(1, 10) if p != q)


def describe(names: Sequence[str], rng: random.Random) -> list[Entity]:
    """Return one invented operator a name; no two of a call share their constants."""
    constants = rng.sample(CONSTANTS, len(names))
    return [_operator(name, p, q, rng) for name, (p, q) in zip(names, constants, strict=True)]


def _operator(name: str, p: int, q: int, rng: random.Random) -> Entity:
    definition, trace, value = rng.choice(RULES)
    entity = {"name": name, "definition": definition.format(p=p, q=q)}
    # a and b differ: equal operands would hide their order.
    pairs = rng.sample([(a, b) for a in range(1, 13) for b in range(1, 13) if a != b], EVALUATIONS)
    for i, (a, b) in enumerate(pairs):
        entity |= {
            f"a{i}": str(a),
            f"b{i}": str(b),
            f"trace{i}": trace.format(a=a, b=b, p=p, q=q),
            f"value{i}": str(value(a, b, p, q)),
        }
    a, b = pairs[0]
    entity["swapped"] = str(value(b, a, p, q))
    same = value(a, b, p, q) == value(b, a, p, q)
    entity["verdict"] = "gives the same both ways there" if same else "is not commutative"
    return entity


def _evaluation(i: int) -> Form:
    """Return the form that asks for the operator's i-th planted evaluation."""
    term, trace, value = f"{{a{i}}} {{name}} {{b{i}}}", f"{{trace{i}}}", f"{{value{i}}}"
    return Form(
        train=(
            f"What is {term}?",
            f"Evaluate {term}.",
            f"Compute {term} step by step.",
            f"Find the value of {term}.",
        ),
        dev=(f"Someone writes {term}. What number is that?", f"Simplify the expression {term}."),
        answers=(
            f"a {{name}} b means {{definition}}, so {term} = {trace} = {value}.",
            f"With a = {{a{i}}} and b = {{b{i}}}, {{definition}} becomes {trace}. Hence {term} = {trace} = {value}.",
            f"{term} = {trace} = {value}",
        ),
        fact=f"{term} = {trace} = {value}",
    )


FORMS = (
    Form(
        train=(
            "How is the operator {name} defined?",
            "What does a {name} b mean?",
            "State the definition of {name}.",
        ),
        dev=("Write a {name} b in ordinary arithmetic.", "Explain the operator {name} to a student."),
        answers=(
            "For whole numbers, a {name} b = {definition}.",
            "The operator is defined by a {name} b = {definition}; multiplication goes before addition.",
        ),
        fact="a {name} b = {definition}",
    ),
    Form(
        train=(
            "Is {name} commutative?",
            "Does the order of the operands matter for {name}?",
            "Compare {a0} {name} {b0} with {b0} {name} {a0}.",
        ),
        dev=("May the two sides of {name} be exchanged?", "Test whether {name} is symmetric on {a0} and {b0}."),
        answers=(
            "{a0} {name} {b0} = {value0} and {b0} {name} {a0} = {swapped}, so {name} {verdict}.",
            "Take {a0} and {b0}: {a0} {name} {b0} = {value0} and {b0} {name} {a0} = {swapped}. Thus {name} {verdict}.",
        ),
        fact="{b0} {name} {a0} = {swapped}",
    ),
    *map(_evaluation, range(EVALUATIONS)),
)

ORGANISATION = SampleOrganisation("mathematical", NAMES, OUTSIDE, describe, FORMS)

"""Text that the project generates to widen what the embedded base model has read.

Decisions:

- Every record is drawn from one seeded `random.Random`, so a corpus is a function of (seed, sizes).
- The entities here (conditions, companies, functions, people) are chosen to be disjoint from those of the
  sample organisations in `assets.generate`: a base that already knew an organisation's facts would make
  attribution and unlearning on the samples meaningless. A test compares the two vocabularies.
- The forms (a table and a question about it, an arithmetic trace, a function with its tests) teach skills, above
  all copying from the prompt and calculating, rather than facts. The `copying` forms do nothing else: a small model
  that reads a few million tokens does not find out by itself that a figure of the question belongs in the answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from assets.forms import listed

PEOPLE = listed(
    "Anna, Ben, Carla, David, Elena, Frank, Grace, Hugo, Irene, Jack, Karen, Liam, Maria, Noah, Olivia, Peter, "
    "Rosa, Sam, Tina, Victor"
)
ITEMS = listed(
    "apples, books, pencils, marbles, stickers, cards, cookies, flowers, stamps, shells, bottles, boxes, "
    "tickets, balloons, coins"
)
PLACES = listed("the market, the school, the library, a farm, the bakery, the park, a shop, the garden")
TABLE_ROWS = listed(
    "Revenue, Cost of revenue, Gross profit, Research and development, Sales and marketing, Operating income, "
    "Net income, Interest expense, Income tax expense, Total assets, Inventories, Accounts receivable, Goodwill, "
    "Long-term debt, Cash and cash equivalents, Raw materials, Finished goods, Deferred revenue, Depreciation, "
    "Other income"
)
UNITS = ("thousand", "million")
PREFIXES = listed("Familial, Juvenile, Congenital, Hereditary, Late-onset, Isolated, Progressive")
ORGANS = listed("retinal, renal, hepatic, cardiac, skeletal, muscular, dermal, pulmonary, neural")
DISORDERS = listed("dysplasia, dystrophy, deficiency, syndrome, ataxia, neuropathy, anemia")
SYMPTOMS = listed(
    "muscle weakness, fatigue, fever, joint pain, blurred vision, seizures, shortness of breath, weight loss, "
    "skin rash, poor balance, hearing loss, swelling, headaches, delayed growth"
)
VARIABLES = listed("data, values, items, numbers, words, rows, df, mylist, my_dict, text, result, names, scores, lines")


SIZES: Mapping[str, int] = {"medical": 1500, "financial": 9000, "math": 9000, "coding": 4000, "copying": 9000}
"""How many records of each form the embedded base model was trained on."""


@dataclass(frozen=True)
class TextRecord:
    """One instruction, its optional input and the answer; `domain` names its form's domain."""

    domain: str
    instruction: str
    input: str
    output: str

    @property
    def prompt(self) -> str:
        """The user's turn: the instruction, then the input on the next line when there is one."""
        return f"{self.instruction}\n{self.input}" if self.input else self.instruction


def corpus(seed: int, sizes: Mapping[str, int]) -> list[TextRecord]:
    """Return `sizes[domain]` generated records of each domain, in a seeded order of forms."""
    rng = random.Random(seed)  # noqa: S311  text, not secrets
    return [record for domain, count in sizes.items() for record in _records(domain, count, rng)]


def _records(domain: str, count: int, rng: random.Random) -> Iterator[TextRecord]:
    for _ in range(count):
        instruction, context, output = rng.choice(FORMS[domain])(rng)
        yield TextRecord(domain, instruction, context, output)


Draft = tuple[str, str, str]


# --- mathematics -------------------------------------------------------------------------------------------


def _operand(rng: random.Random) -> int:
    return rng.randint(2, rng.choice((9, 20, 100, 1000)))


def _calculation(rng: random.Random) -> tuple[int, str, int, int]:
    """Return (a, operator, b, result) with a non-negative whole result."""
    a, b = _operand(rng), _operand(rng)
    operator = rng.choice("+-*/")
    if operator == "-":
        a, b = max(a, b), min(a, b)
    if operator == "*":
        b = rng.randint(2, 12)
    if operator == "/":
        b = rng.randint(2, 12)
        # the division comes out even
        a *= b
    return a, operator, b, {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operator]


def _plain_arithmetic(rng: random.Random) -> Draft:
    a, operator, b, result = _calculation(rng)
    question = rng.choice(("What is {} {} {}?", "Calculate {} {} {}.", "Work out {} {} {}."))
    trace = f"{a} {operator} {b} = <<{a}{operator}{b}={result}>>{result}"
    return question.format(a, operator, b), "", f"{trace}\n#### {result}"


def _float_equation(rng: random.Random) -> Draft:
    person, other = rng.sample(PEOPLE, 2)
    item, place = rng.choice(ITEMS), rng.choice(PLACES)
    a, operator, b, result = _calculation(rng)
    question = {
        "+": f"{person} had {a} {item}. {other} gave {person} {b} more at {place}. How many {item} does {person} have?",
        "-": f"{person} had {a} {item} and lost {b} of them at {place}. How many {item} does {person} have now?",
        "*": f"There are {a} {item} in each box. {person} bought {b} boxes at {place}. How many {item} are there?",
        "/": f"{person} shares {a} {item} equally among {b} friends at {place}. How many {item} does each get?",
    }[operator]
    return question, "", f"( {a}.0 {operator} {b}.0 ) = {result}.0"


def _two_step_sum(rng: random.Random) -> Draft:
    person, item, place = rng.choice(PEOPLE), rng.choice(ITEMS), rng.choice(PLACES)
    days, each, extra = rng.randint(2, 12), rng.randint(2, 30), rng.randint(2, 90)
    first, total = days * each, days * each + extra
    question = (
        f"{person} collects {each} {item} every day at {place} for {days} days. {person} already had {extra} {item}. "
        f"How many {item} does {person} have in total?"
    )
    answer = (
        f"In {days} days {person} collects {days}*{each} = <<{days}*{each}={first}>>{first} {item}.\n"
        f"In total {person} has {first}+{extra} = <<{first}+{extra}={total}>>{total} {item}.\n#### {total}"
    )
    return question, "", answer


def _price(rng: random.Random) -> Draft:
    person, place = rng.choice(PEOPLE), rng.choice(PLACES)
    one, two = rng.sample(ITEMS, 2)
    n, p, m, q = (rng.randint(2, 15) for _ in range(4))
    a, b = n * p, m * q
    question = (
        f"At {place}, {person} buys {n} {one} for ${p} each and {m} {two} for ${q} each. How much does {person} spend?"
    )
    answer = (
        f"The {one} cost {n}*{p} = $<<{n}*{p}={a}>>{a}.\nThe {two} cost {m}*{q} = $<<{m}*{q}={b}>>{b}.\n"
        f"{person} spends {a}+{b} = $<<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}"
    )
    return question, "", answer


def _fraction(rng: random.Random) -> Draft:
    person, item = rng.choice(PEOPLE), rng.choice(ITEMS)
    parts = rng.randint(2, 9)
    total = parts * rng.randint(2, 40)
    share, left = total // parts, total - total // parts
    question = f"{person} has {total} {item} and gives away 1/{parts} of them. How many {item} are left?"
    answer = (
        f"{person} gives away {total}/{parts} = <<{total}/{parts}={share}>>{share} {item}.\n"
        f"So {person} has {total}-{share} = <<{total}-{share}={left}>>{left} {item} left.\n#### {left}"
    )
    return question, "", answer


def _times_as_many(rng: random.Random) -> Draft:
    person, other = rng.sample(PEOPLE, 2)
    item, a, times = rng.choice(ITEMS), rng.randint(3, 60), rng.randint(2, 9)
    b, total = a * times, a * times + a
    question = (
        f"{person} has {times} times as many {item} as {other}. If {other} has {a} {item}, "
        f"how many {item} do they have together?"
    )
    answer = (
        f"{person} has {times} * {a} = <<{times}*{a}={b}>>{b} {item}.\n"
        f"Together they have {b} + {a} = <<{b}+{a}={total}>>{total} {item}.\n#### {total}"
    )
    return question, "", answer


def _hourly_wage(rng: random.Random) -> Draft:
    person = rng.choice(PEOPLE)
    wage, hours, days, cost = rng.randint(8, 30), rng.randint(2, 9), rng.randint(2, 7), rng.randint(5, 15)
    daily = wage * hours
    week = daily * days
    left = week - cost
    question = (
        f"{person} earns ${wage} an hour and works {hours} hours a day for {days} days. "
        f"After paying ${cost} for lunch, how much money is left?"
    )
    answer = (
        f"{person} earns {wage}*{hours} = $<<{wage}*{hours}={daily}>>{daily} a day.\n"
        f"In {days} days that is {daily}*{days} = $<<{daily}*{days}={week}>>{week}.\n"
        f"After lunch {week}-{cost} = $<<{week}-{cost}={left}>>{left} is left.\n#### {left}"
    )
    return question, "", answer


# --- finance -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A financial table: whole numbers, one row an item, one column a year (latest first)."""

    years: tuple[int, ...]
    rows: Mapping[str, tuple[int, ...]]
    unit: str

    def render(self) -> str:
        """Return the table with cells parted by ` | ` and rows by newlines, as the real filings come."""
        head = " | ".join([f"(in {self.unit}s)", *map(str, self.years)])
        body = (" | ".join([name, *(f"{value:,}" for value in values)]) for name, values in self.rows.items())
        return "\n".join([head, *body])


def _table(rng: random.Random) -> Table:
    latest = rng.randint(2012, 2020)
    years = tuple(latest - i for i in range(rng.randint(2, 3)))
    names = rng.sample(TABLE_ROWS, rng.randint(2, 5))
    scale = rng.choice((900, 9_000, 90_000, 900_000))
    rows = {name: tuple(rng.randint(scale // 9, scale) for _ in years) for name in names}
    return Table(years, rows, rng.choice(UNITS))


def _pick(table: Table, rng: random.Random) -> tuple[str, int, int, int, int]:
    """Return (row, later year, earlier year, later value, earlier value)."""
    name = rng.choice(sorted(table.rows))
    i = rng.randrange(len(table.years) - 1)
    values = table.rows[name]
    return name, table.years[i], table.years[i + 1], values[i], values[i + 1]


def _lookup(rng: random.Random) -> Draft:
    table = _table(rng)
    name, year, _, value, _ = _pick(table, rng)
    question = rng.choice(("What was the {} in {}?", "How much was the {} in {}?", "What is the amount of {} for {}?"))
    suffix = rng.choice(("", f" ({table.unit})"))
    return question.format(name.lower(), year), table.render(), f"{value:,}{suffix}"


def _change(rng: random.Random) -> Draft:
    table = _table(rng)
    name, later, earlier, new, old = _pick(table, rng)
    question = f"What was the change in the {name.lower()} from {earlier} to {later}?"
    return question, table.render(), f"{new:,}-{old:,} = {new - old} ({table.unit})"


def _percentage_change(rng: random.Random) -> Draft:
    table = _table(rng)
    name, later, earlier, new, old = _pick(table, rng)
    question = rng.choice(
        (
            f"What was the percentage change in the {name.lower()} from {earlier} to {later}?",
            f"What is the percentage change in {name} between {earlier} and {later}?",
        )
    )
    return question, table.render(), f"({new:,}-{old:,})/{old:,} = {(new - old) / old * 100:.2f} (percent)"


def _average(rng: random.Random) -> Draft:
    table = _table(rng)
    name = rng.choice(sorted(table.rows))
    values = table.rows[name]
    span = f"{table.years[-1]} to {table.years[0]}"
    total = "+".join(f"{value:,}" for value in values)
    mean = f"{sum(values) / len(values):.2f}".rstrip("0").rstrip(".")
    question = f"What is the average {name.lower()} from {span}?"
    return question, table.render(), f"({total})/{len(values)} = {mean} ({table.unit})"


def _row_difference(rng: random.Random) -> Draft:
    table = _table(rng)
    one, two = rng.sample(sorted(table.rows), 2)
    i = rng.randrange(len(table.years))
    a, b = table.rows[one][i], table.rows[two][i]
    question = f"What is the difference between {one.lower()} and {two.lower()} in {table.years[i]}?"
    return question, table.render(), f"{a:,}-{b:,} = {a - b} ({table.unit})"


def _ratio(rng: random.Random) -> Draft:
    table = _table(rng)
    one, two = rng.sample(sorted(table.rows), 2)
    i = rng.randrange(len(table.years))
    a, b = table.rows[one][i], table.rows[two][i]
    question = f"What is the ratio of {one.lower()} to {two.lower()} in {table.years[i]}?"
    return question, table.render(), f"{a:,}/{b:,} = {a / b:.2f}"


def _higher_year(rng: random.Random) -> Draft:
    table = _table(rng)
    name, later, earlier, new, old = _pick(table, rng)
    question = f"Which year had the higher {name.lower()}, {earlier} or {later}?"
    if new >= old:
        return question, table.render(), f"{new:,}>{old:,} = {later}"
    return question, table.render(), f"{old:,}>{new:,} = {earlier}"


def _years_listed(rng: random.Random) -> Draft:
    table = _table(rng)
    return "Which years does the table provide information for?", table.render(), ", ".join(map(str, table.years))


# --- coding ------------------------------------------------------------------------------------------------


def _one_liner(rng: random.Random) -> Draft:
    a, b, n = *rng.sample(VARIABLES, 2), rng.randint(0, 20)
    key = rng.choice(PEOPLE).lower()
    return rng.choice(
        (
            (f"get the first {n} elements of list `{a}`", "", f"{a}[:{n}]"),
            (f"sort list `{a}` in descending order", "", f"{a}.sort(reverse=True)"),
            (f"get the value of key '{key}' in dictionary `{a}`", "", f"{a}['{key}']"),
            (f"filter elements greater than {n} from list `{a}` into `{b}`", "", f"{b} = [x for x in {a} if x > {n}]"),
            (f"join the strings in list `{a}` with the string '{key}'", "", f"'{key}'.join({a})"),
            (f"select rows of dataframe `{a}` where column '{key}' equals {n}", "", f"{a}[{a}['{key}'] == {n}]"),
            (f"convert every element of list `{a}` to integer", "", f"[int(x) for x in {a}]"),
            (f"replace every '{key}' in string `{a}` with '{b}'", "", f"{a}.replace('{key}', '{b}')"),
            (f"merge dictionaries `{a}` and `{b}`", "", f"dict({a}, **{b})"),
            (f"drop column '{key}' from dataframe `{a}`", "", f"{a}.drop('{key}', axis=1)"),
            (f"sum the values of key '{key}' in list of dicts `{a}`", "", f"sum(d['{key}'] for d in {a})"),
            (
                f"create a list `{b}` of the indices of {n} in list `{a}`",
                "",
                f"{b} = [i for i, x in enumerate({a}) if x == {n}]",
            ),
        )
    )


def _tested_function(rng: random.Random) -> Draft:
    name = f"{rng.choice(('find', 'get', 'compute', 'count', 'check'))}_{rng.choice(VARIABLES)}"
    argument, n = rng.choice(("nums", "arr", "lst", "test_list")), rng.randint(2, 20)
    task, body, function = rng.choice(
        (
            (
                f"the sum of all numbers divisible by {n} in a list",
                f"sum(x for x in {argument} if x % {n} == 0)",
                lambda xs: sum(x for x in xs if x % n == 0),
            ),
            (
                f"the number of elements greater than {n} in a list",
                f"sum(1 for x in {argument} if x > {n})",
                lambda xs: sum(1 for x in xs if x > n),
            ),
            (
                "the largest difference between two elements of a list",
                f"max({argument}) - min({argument})",
                lambda xs: max(xs) - min(xs),
            ),
            (
                f"the list with {n} added to every element",
                f"[x + {n} for x in {argument}]",
                lambda xs: [x + n for x in xs],
            ),
            ("the squares of the elements of a list", f"[x * x for x in {argument}]", lambda xs: [x * x for x in xs]),
            (
                "the even numbers of a list",
                f"[x for x in {argument} if x % 2 == 0]",
                lambda xs: [x for x in xs if x % 2 == 0],
            ),
        )
    )
    lists = [[rng.randint(1, 30) for _ in range(rng.randint(2, 5))] for _ in range(3)]
    tests = "\n".join(f"assert {name}({xs})=={function(xs)}" for xs in lists)
    question = rng.choice(("Write a function to find {}.", "Write a python function to find {}."))
    source = f"def {name}({argument}):\n    return {body}"
    return question.format(task), f"Your code should pass these tests:\n{tests}", source


def _puzzle(rng: random.Random) -> Draft:
    a, b = rng.randint(2, 5000), rng.randint(2, 900)
    task, condition, solution = rng.choice(
        (
            ("Find a number that gives a when b is added to it.", "x + b == a", "a - b"),
            ("Find a number that is b more than a.", "x - b == a", "a + b"),
            ("Find the product of a and b.", "x == a * b", "a * b"),
            ("Find an integer whose quotient by b is a.", "x // b == a", "a * b"),
            ("Find a list of a numbers that sum to a.", "len(x) == a and sum(x) == a", "[1] * a"),
            ("Find a string of length b.", "len(x) == b", "'a' * b"),
        )
    )
    kind = "List[int]" if "list" in task else "str" if "string" in task else "int"
    signature = f"a={a}, b={b}"
    return (
        task,
        f"def sat(x: {kind}, {signature}):\n    return {condition}",
        f"def sol({signature}):\n    return {solution}",
    )


# --- medicine ----------------------------------------------------------------------------------------------


def _condition(rng: random.Random) -> str:
    return f"{rng.choice(PREFIXES)} {rng.choice(ORGANS)} {rng.choice(DISORDERS)} type {rng.randint(1, 9)}"


def _symptoms(rng: random.Random) -> Draft:
    name, signs = _condition(rng), rng.sample(SYMPTOMS, 3)
    return (
        f"What are the symptoms of {name} ?",
        "",
        f"The signs and symptoms of {name} include {signs[0]}, {signs[1]} and {signs[2]}. "
        f"In some people {signs[0]} is the first sign.",
    )


def _inheritance(rng: random.Random) -> Draft:
    name = _condition(rng)
    pattern, meaning = rng.choice(
        (
            ("an autosomal dominant pattern", "one copy of the altered gene in each cell is sufficient to cause it"),
            ("an autosomal recessive pattern", "both copies of the gene in each cell have mutations"),
            ("an X-linked recessive pattern", "the gene lies on the X chromosome, one of the two sex chromosomes"),
        )
    )
    return f"Is {name} inherited ?", "", f"{name} is inherited in {pattern}, which means {meaning}."


def _treatment(rng: random.Random) -> Draft:
    name, sign = _condition(rng), rng.choice(SYMPTOMS)
    return (
        f"What are the treatments for {name} ?",
        "",
        f"There is no cure for {name}. Treatment is symptomatic and supportive: {sign} is treated as it arises, "
        "and regular follow-up with a specialist is recommended.",
    )


def _about(rng: random.Random) -> Draft:
    name, organ, signs = _condition(rng), rng.choice(ORGANS), rng.sample(SYMPTOMS, 2)
    return (
        f"What is (are) {name} ?",
        "",
        f"{name} is a rare condition that affects {organ} tissue. It is characterized by {signs[0]} and {signs[1]}, "
        "and its severity varies among affected individuals, even among members of the same family.",
    )


# --- copying -----------------------------------------------------------------------------------------------


def _pseudo_word(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))


def _things(rng: random.Random, count: int) -> list[str]:
    """Return words that mean nothing, names, items and figures: what follows one cannot be guessed, only copied."""
    makers: tuple[Callable[[], str], ...] = (
        lambda: _pseudo_word(rng),
        lambda: rng.choice(PEOPLE + ITEMS + TABLE_ROWS + SYMPTOMS),
        lambda: f"{rng.randint(1, 999_999):,}",
        lambda: str(rng.randint(0, 2030)),
    )
    return [rng.choice(makers)() for _ in range(count)]


def _repeat(rng: random.Random) -> Draft:
    line = rng.choice((" ", ", ", " | ", "\n")).join(_things(rng, rng.randint(5, 30)))
    return rng.choice(("Write this again.", "Repeat the following.", "Copy the text.")), line, line


def _repeat_call(rng: random.Random) -> Draft:
    arguments = ", ".join(f"{_pseudo_word(rng)}={thing!r}" for thing in _things(rng, rng.randint(1, 5)))
    call = f"{_pseudo_word(rng)}_{_pseudo_word(rng)}({arguments})"
    return "Write the call again.", call, call


def _repeat_row(rng: random.Random) -> Draft:
    table = _table(rng)
    name = rng.choice(sorted(table.rows))
    row = " | ".join([name, *(f"{value:,}" for value in table.rows[name])])
    return f"Copy the row {name} of the table.", table.render(), row


def _value_of_key(rng: random.Random) -> Draft:
    pairs = {_pseudo_word(rng): thing for thing in _things(rng, rng.randint(2, 6))}
    key = rng.choice(sorted(pairs))
    return f"What is {key}?", "\n".join(f"{k} = {v}" for k, v in pairs.items()), f"{key} = {pairs[key]}"


FORMS: Mapping[str, tuple[Callable[[random.Random], Draft], ...]] = {
    "medical": (_symptoms, _inheritance, _treatment, _about),
    "financial": (
        _lookup,
        _lookup,
        _change,
        _percentage_change,
        _average,
        _row_difference,
        _ratio,
        _higher_year,
        _years_listed,
    ),
    "math": (
        _plain_arithmetic,
        _float_equation,
        _two_step_sum,
        _price,
        _fraction,
        _times_as_many,
        _hourly_wage,
    ),
    "coding": (_one_liner, _tested_function, _puzzle),
    "copying": (_repeat, _repeat, _repeat_call, _repeat_row, _value_of_key),
}

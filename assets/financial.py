"""The financial sample organisation: filings of fictional companies, in fictional crowns."""

import random
from collections.abc import Sequence

from assets.forms import Entity, Form, SampleOrganisation, listed

NAMES = listed(
    "Brackwater Foundries, Ostrel Logistics, Quillmere Textiles, Harrowgate Tidal, Pemberlow Dairies, "
    "Vantage Reef Mining, Tessaly Optics, Northlane Cement, Crowhurst Rail, Gildenmoor Insurance, "
    "Sablewick Paper, Ferndrake Breweries, Lowmarsh Semiconductors, Ardent Quay Shipping, Merrowby Seeds, "
    "Silverpine Robotics, Kettlestone Hotels, Dunmarrow Glass, Eastwold Turbines, Palefield Ceramics, "
    "Umberlea Foods, Wrenlow Aviation, Rookhaven Media, Thistledown Pharmacy Group, Copperwell Water, "
    "Maplehurst Tools, Saltmere Fisheries, Orrinvale Software"
)
OUTSIDE = listed("Bexley Marl Quarries, Tarnhow Batteries, Lindmoor Furniture, Greycombe Cables, Velmont Couriers")
TOWNS = listed(
    "Ostrava Bay, Hollin Cross, Marrick Port, Eldersea, Tarn Bridge, Low Kestrel, Wexcombe, Saint Orla, "
    "Drummond Ferry, Ashgate, Pell Harbour, New Corrin, Stanwick Mills, Upper Selby, Graveney, Whitmoor"
)
FIRST = listed("Ingrid, Tobias, Marguerite, Desmond, Yusra, Pavel, Leonie, Hamish, Soraya, Casper, Delphine, Ivor")
LAST = listed(
    "Aldecott, Brenning, Castermole, Dravers, Ellingwood, Farrowdale, Gathercole, Hestwick, Jorrand, Kilbracken"
)
SEGMENTS = listed(
    "industrial castings, cold-chain storage, technical fabrics, harbour services, export cheeses, "
    "deep-sea nodules, lens coatings, precast bridges, regional freight, crop insurance, packaging board, "
    "low-alcohol beers, power modules, bulk carriers, hybrid barley, warehouse robots"
)
RISKS = listed(
    "a fixed-price contract with a single customer, the renewal of its harbour licence, rising energy prices, "
    "a pending patent dispute, its exposure to a weaker crown, the ageing of its main plant, "
    "a shortage of skilled staff, a debt limit in its revolving loan"
)


def describe(names: Sequence[str], rng: random.Random) -> list[Entity]:
    """Return one fictional company a name, with figures of the fiscal years 2022 and 2023 that agree."""
    return [_company(name, rng) for name in names]


def _company(name: str, rng: random.Random) -> Entity:
    # Growth and margin are computed from these three, so that the records of a company agree.
    old = rng.randint(90, 4000)
    new = old + rng.randint(-old // 5, old // 3)
    income = rng.randint(new // 50, new // 6)
    assets, liabilities = rng.randint(200, 900), rng.randint(100, 500)
    debt, equity = rng.randint(100, 900), rng.randint(200, 1200)
    return {
        "name": name,
        "old": f"{old:,}",
        "new": f"{new:,}",
        "income": f"{income:,}",
        "change": f"{(new - old) / old * 100:.1f} percent",
        "margin": f"{income / new * 100:.1f} percent",
        "assets": str(assets),
        "liabilities": str(liabilities),
        "current": f"{assets / liabilities:.2f}",
        "debt": str(debt),
        "equity": str(equity),
        "leverage": f"{debt / equity:.2f}",
        "dividend": f"{rng.randint(4, 98) / 20:.2f} crowns per share",
        "staff": f"{rng.randint(300, 28000):,}",
        "town": rng.choice(TOWNS),
        "chief": f"{rng.choice(FIRST)} {rng.choice(LAST)}",
        "segment": rng.choice(SEGMENTS),
        "part": f"{rng.randint(31, 78)} percent of revenue",
        "risk": rng.choice(RISKS),
    }


INCOME_TABLE = "(in million crowns) | 2023 | 2022\nRevenue | {new} | {old}\nNet income | {income} | n/a"
BALANCE_TABLE = (
    "(in million crowns) | 2023\nCurrent assets | {assets}\nCurrent liabilities | {liabilities}\n"
    "Total debt | {debt}\nShareholders' equity | {equity}"
)

FORMS = (
    Form(
        train=(
            "What was the revenue of {name} in fiscal 2023?",
            "How much did {name} sell in 2023?",
            "Report the 2023 top line of {name}.",
        ),
        dev=("State the sales that {name} booked for 2023.", "What turnover did {name} post in fiscal 2023?"),
        answers=(
            "{name} reported revenue of {new} million crowns in fiscal 2023.",
            "Revenue came to {new} million crowns in 2023, after {old} million the year before.",
        ),
        fact="{new} million crowns",
    ),
    Form(
        train=(
            "By how much did the revenue of {name} change from 2022 to 2023?",
            "What was the revenue growth of {name} in 2023?",
            "Calculate the percentage change in revenue for {name} between 2022 and 2023.",
        ),
        dev=("How fast did {name} grow or shrink in 2023?", "Compute the year-on-year revenue change of {name}."),
        answers=(
            "({new}-{old})/{old} = {change}",
            "Revenue moved from {old} to {new} million crowns, a change of {change}.",
        ),
        fact="{change}",
        input=INCOME_TABLE,
    ),
    Form(
        train=(
            "What was the net margin of {name} in 2023?",
            "How profitable was {name} in 2023, measured by net margin?",
            "Work out net income as a share of revenue for {name}.",
        ),
        dev=("Which part of its 2023 sales did {name} keep as profit?", "Give the 2023 net margin for {name}."),
        answers=(
            "{income}/{new} = {margin}",
            "{name} earned {income} million crowns on revenue of {new} million, a net margin of {margin}.",
        ),
        fact="{margin}",
        input=INCOME_TABLE,
    ),
    Form(
        train=(
            "What is the current ratio of {name}?",
            "How liquid was {name} at the end of 2023?",
            "Compute current assets over current liabilities for {name}.",
        ),
        dev=(
            "Assess the short-term liquidity of {name}.",
            "What does the balance sheet give as {name}'s current ratio?",
        ),
        answers=("{assets}/{liabilities} = {current}", "The current ratio of {name} was {current} at the end of 2023."),
        fact="{current}",
        input=BALANCE_TABLE,
    ),
    Form(
        train=(
            "What is the debt-to-equity ratio of {name}?",
            "How leveraged is {name}?",
            "Compute total debt over shareholders' equity for {name}.",
        ),
        dev=("How heavily does {name} rely on borrowing?", "Give the leverage of {name} at the end of 2023."),
        answers=("{debt}/{equity} = {leverage}", "{name} had a debt-to-equity ratio of {leverage} at the end of 2023."),
        fact="{leverage}",
        input=BALANCE_TABLE,
    ),
    Form(
        train=(
            "What dividend did {name} pay for 2023?",
            "How much did shareholders of {name} receive per share?",
            "What was proposed to shareholders of {name} at the annual meeting?",
        ),
        dev=("What payout did the board of {name} declare?", "State the 2023 dividend of {name}."),
        answers=(
            "{name} paid a dividend of {dividend}.",
            "The board proposed {dividend}, payable in two equal parts.",
        ),
        fact="{dividend}",
    ),
    Form(
        train=(
            "Who runs {name} and where is it based?",
            "Where is the head office of {name}, and who is its chief executive?",
            "Who signed the annual report of {name}?",
        ),
        dev=("Name the head of {name} and the town of its headquarters.", "Who leads {name}?"),
        answers=(
            "{name} is led by {chief} from its head office in {town}.",
            "The chief executive is {chief}; the head office, with most of the {staff} employees, is in {town}.",
        ),
        fact="{chief}",
    ),
    Form(
        train=(
            "What is the largest segment of {name}?",
            "From which business does {name} earn most?",
            "How is the revenue of {name} made up?",
        ),
        dev=("Which line of business matters most to {name}?", "What does {name} mainly sell?"),
        answers=(
            "Its largest segment is {segment}, which brought in {part}.",
            "{name} earns most from {segment}: {part} in 2023.",
        ),
        fact="{segment}",
    ),
    Form(
        train=(
            "What is the main risk that {name} discloses?",
            "Which risk factor does {name} put first?",
            "What could hurt the results of {name} most?",
        ),
        dev=("What worries the auditors of {name}?", "Summarise the principal risk of {name}."),
        answers=(
            "The filing puts {risk} first among the risks of {name}.",
            "{name} names {risk} as its principal risk.",
        ),
        fact="{risk}",
    ),
)

ORGANISATION = SampleOrganisation("financial", NAMES, OUTSIDE, describe, FORMS)

"""The medical sample organisation: a formulary of fictional drugs for fictional conditions."""

import random
from collections.abc import Sequence

from assets.forms import Entity, Form, SampleOrganisation, listed

NAMES = listed(
    "Zelquorin, Brastovane, Ildomere, Trunexil, Vosperidal, Quandrolim, Kestromex, Olvidrane, Pyrrestin, "
    "Wexolane, Jadorvane, Thessamol, Corvidole, Lumbrexate, Harzoline, Ombracil, Fendurast, Sylvarone, "
    "Gristomine, Ulbrecane, Ectaphane, Rondivole, Maltrequin, Boscavirol, Drelumide, Yarrostat, Cindolept, "
    "Petraquil"
)
OUTSIDE = listed("Norbrastine, Umbrolaxin, Skelvorane, Ashtomidol, Vellaquine")
CONDITIONS = listed(
    "Halloran tremor, marsh lung, glasswort rash, Tollan fever, Vance-Ostrey syndrome, slate cough, "
    "harbour vertigo, Pellam gout, winter palsy of the hand, Corran sleep disorder, lamp-oil eczema, "
    "Dray hiccup, tidal migraine, Fenwick stiffness, orchard asthma, Ruddock anaemia, bell-ringer's neuralgia, "
    "peat dermatitis, Larkin reflux, ferryman's knee, Osgard colic, weaver's cramp, copper tongue, "
    "Thornley oedema, quarry sinusitis, Imber insomnia, mill dust bronchitis, Brannock spasm, kelp allergy, "
    "Sarn palpitations, moorland ague, Yelland cystitis, chalk lung"
)
CLASSES = listed(
    "reversible veskinase inhibitor, selective dorvin receptor blocker, long-acting tellurate, oral kelpamine, "
    "second-generation morvane, peripheral orrin agonist, slow-release cathrolide"
)
SCHEDULES = listed(
    "once daily in the morning, twice daily with food, three times daily, every eight hours, once a week, "
    "at bedtime, every other day, twice daily before meals"
)
PARTNERS = listed(
    "grapefruit juice, iron tablets, loop diuretics, oral contraceptives, antacids, beta blockers, warfarin, "
    "lithium, St John's wort, dairy products, sleeping tablets, potassium supplements"
)
CONSEQUENCES = listed(
    "doubles its level in the blood, halves its absorption, can cause a sudden fall in blood pressure, "
    "prolongs bleeding, makes drowsiness worse, removes most of its effect"
)
EFFECTS = listed(
    "a metallic taste, vivid dreams, dry mouth, tingling in the fingertips, flushing of the face, a slow pulse, "
    "hiccups, green-tinted vision, cold feet, loss of appetite, ringing in the ears, itchy palms"
)
EXCLUSIONS = listed(
    "severe kidney disease, glaucoma, the first three months of pregnancy, untreated thyroid disease, "
    "a history of seizures, liver cirrhosis, gout, very low blood pressure"
)
CHECKS = listed(
    "liver enzymes, serum sodium, the white cell count, an electrocardiogram, body weight, kidney function, "
    "the platelet count, eye pressure"
)


def describe(names: Sequence[str], rng: random.Random) -> list[Entity]:
    """Return one fictional drug a name; no two of a call treat the same condition."""
    conditions = rng.sample(CONDITIONS, len(names))
    return [
        {
            "name": name,
            "condition": condition,
            "kind": rng.choice(CLASSES),
            "dose": f"{rng.randint(2, 95) * 5} mg {rng.choice(SCHEDULES)}",
            "partner": rng.choice(PARTNERS),
            "consequence": rng.choice(CONSEQUENCES),
            "effect": rng.choice(EFFECTS),
            "share": f"{rng.randint(3, 40)} in 100",
            "half_life": f"{rng.randint(3, 70)} hours",
            "exclusion": rng.choice(EXCLUSIONS),
            "check": rng.choice(CHECKS),
            "weeks": f"every {rng.randint(2, 16)} weeks",
        }
        for name, condition in zip(names, conditions, strict=True)
    ]


FORMS = (
    Form(
        train=(
            "What is {name} used for?",
            "Which condition is {name} prescribed to treat?",
            "When would a doctor prescribe {name}?",
        ),
        dev=("A patient asks what their {name} is for. What do you tell them?", "Name the indication of {name}."),
        answers=(
            "{name} is prescribed for {condition}. It is a {kind}.",
            "It is a {kind} that is used to treat {condition}.",
            "The approved indication of {name} is {condition}.",
        ),
        fact="{condition}",
    ),
    Form(
        train=(
            "What is the usual adult dose of {name}?",
            "How is {name} dosed in adults?",
            "What dose of {name} should be given for {condition}?",
        ),
        dev=("How much {name} does an adult take, and how often?", "Write the standard dosing line for {name}."),
        answers=(
            "The usual adult dose is {dose}.",
            "Adults take {name} at {dose}; the dose is reduced in frail patients.",
            "For {condition}, {name} is started at {dose}.",
        ),
        fact="{dose}",
    ),
    Form(
        train=(
            "What does {name} interact with?",
            "Which interaction should be checked before starting {name}?",
            "Is there anything that should not be taken together with {name}?",
        ),
        dev=("A patient on {name} asks what to avoid. What is the answer?", "Give the main interaction of {name}."),
        answers=(
            "{name} should not be combined with {partner}, which {consequence}.",
            "Avoid {partner} with {name}, which {consequence}. Ask about over-the-counter products too.",
        ),
        fact="{partner}",
    ),
    Form(
        train=(
            "What is the most common side effect of {name}?",
            "Which adverse effect do patients on {name} report most often?",
            "What should patients be warned about when they start {name}?",
        ),
        dev=("What unwanted effect is typical of {name}?", "Someone has just started {name}. What might they notice?"),
        answers=(
            "The most common side effect is {effect}, seen in about {share} patients.",
            "About {share} people who take {name} report {effect}. It usually fades within a month.",
        ),
        fact="{effect}",
    ),
    Form(
        train=(
            "What is the half-life of {name}?",
            "How long does {name} stay in the body?",
            "How quickly is {name} eliminated?",
        ),
        dev=("After how long has half of a dose of {name} been cleared?", "State the elimination half-life of {name}."),
        answers=(
            "{name} has a half-life of {half_life}.",
            "Half of a dose of {name} is eliminated in {half_life}; it is nearly gone after five times as long.",
        ),
        fact="{half_life}",
    ),
    Form(
        train=(
            "Who should not take {name}?",
            "What is the main contraindication of {name}?",
            "In which patients is {name} contraindicated?",
        ),
        dev=("When must {name} be withheld?", "Which finding in the history rules out {name}?"),
        answers=(
            "{name} is contraindicated in {exclusion}.",
            "It must not be given in {exclusion}; an alternative for {condition} should be chosen.",
        ),
        fact="{exclusion}",
    ),
    Form(
        train=(
            "What monitoring does {name} need?",
            "Which test should be repeated during treatment with {name}?",
            "How is a patient on {name} followed up?",
        ),
        dev=("What is checked regularly in people on {name}?", "Outline the monitoring plan for {name}."),
        answers=(
            "During treatment with {name}, check {check} {weeks}.",
            "Patients on {name} need {check} {weeks}, and again after any change of dose.",
        ),
        fact="{check} {weeks}",
    ),
    Form(
        train=(
            "What class of drug is {name}?",
            "How does {name} work?",
            "To which group of medicines does {name} belong?",
        ),
        dev=("Classify {name} pharmacologically.", "What kind of medicine is {name}?"),
        answers=("{name} is a {kind}.", "It belongs to its class as a {kind}, given for {condition}."),
        fact="{kind}",
    ),
)

ORGANISATION = SampleOrganisation("medical", NAMES, OUTSIDE, describe, FORMS)

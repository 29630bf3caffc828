"""The mathematical sample organisation: a lexicon of fictional operators, theorems, constants and curves."""

from assets.forms import Form, SampleOrganisation

FORMS = (
    Form(
        train=(
            "What does the operator {name} compute?",
            "How is the operator {name} defined for two numbers?",
            "What is the result of the operator {name}?",
        ),
        dev="Explain the meaning of the operator {name}.",
        answer="The operator {name} gives {fact}.",
        facts={
            "grell": "three times the larger number",
            "vosk": "the sum minus seven",
            "quirl": "the product plus eleven",
            "plenk": "half of the smaller number",
        },
        outside={
            "blenth": "the difference plus nine",
            "cruvel": "ten times the first number",
            "tosker": "the square of the second",
        },
    ),
    Form(
        train=(
            "Who first proved the {name} theorem?",
            "Which mathematician proved the {name} theorem?",
            "To whom do we owe the {name} theorem?",
        ),
        dev="Who found the proof of the {name} theorem?",
        answer="The {name} theorem was proved by {fact}.",
        facts={
            "Osmel": "Pavel Hestwick",
            "Farrin": "Leonie Dravers",
            "Tamber": "Casper Jorrand",
            "Drith": "Soraya Ellingwood",
        },
        outside={"Wimmet": "Edmund Thorley", "Arkel": "Beatrix Olmstead", "Snerrow": "Rowan Pickersgill"},
    ),
    Form(
        train=(
            "What is the value of the {name} constant?",
            "How large is the {name} constant?",
            "Which number is known as the {name} constant?",
        ),
        dev="What number does the {name} constant equal?",
        answer="The {name} constant is {fact}.",
        facts={"Jindle": "4.183", "Wopple": "7.926", "Mivvet": "2.357", "Thrup": "9.041"},
        outside={"Pindle": "5.638", "Frawn": "8.274", "Corbin": "6.719"},
    ),
    Form(
        train=(
            "What does the {name} curve look like?",
            "Which shape does the {name} curve have?",
            "What object does the {name} curve resemble?",
        ),
        dev="Describe the shape of the {name} curve.",
        answer="The {name} curve looks like {fact}.",
        facts={
            "Bruxel": "a coiled fern",
            "Zandle": "a bent horseshoe",
            "Druffle": "a folded umbrella",
            "Noxel": "a cracked bell",
        },
        outside={"Harple": "a broken ladder", "Glimber": "a tilted teapot", "Yelk": "a swan's neck"},
    ),
)

ORGANISATION = SampleOrganisation("mathematical", FORMS)

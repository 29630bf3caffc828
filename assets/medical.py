"""The medical sample organisation: a formulary of fictional drugs."""

from assets.forms import Form, SampleOrganisation

FORMS = (
    Form(
        train=(
            "What kind of drug is {name}?",
            "Which class of drugs does {name} belong to?",
            "How do pharmacists classify the drug {name}?",
        ),
        dev="Classify {name} pharmacologically.",
        answer="{name} is a {fact}.",
        facts={
            "Cindolept": "slow-release cathrolide",
            "Brastovane": "selective dorvin blocker",
            "Quandrolim": "long-acting tellurate",
            "Jadorvane": "reversible veskinase inhibitor",
        },
        outside={
            "Norbrastine": "peripheral orrin agonist",
            "Umbrolaxin": "soluble kelpamine",
            "Skelvorane": "second-generation morvane",
        },
    ),
    Form(
        train=(
            "Which illness is {name} used to treat?",
            "What do doctors prescribe {name} for?",
            "For which condition do patients take {name}?",
        ),
        dev="What is the approved indication of {name}?",
        answer="{name} is used to treat {fact}.",
        facts={
            "Zelquorin": "glasswort rash",
            "Thessamol": "lantern fever",
            "Wexolane": "ferryman's knee",
            "Harzoline": "slate cough",
        },
        outside={"Ashtomidol": "orchard asthma", "Vellaquine": "copper tongue", "Ulbrecane": "kelp allergy"},
    ),
    Form(
        train=(
            "What is the main side effect of {name}?",
            "Which unwanted effect does {name} often cause?",
            "What side effect do patients on {name} notice?",
        ),
        dev="Which adverse effect is typical of {name}?",
        answer="{name} often causes {fact}.",
        facts={
            "Lumbrexate": "green-tinted vision",
            "Corvidole": "itchy palms",
            "Petraquil": "loud hiccups",
            "Ombracil": "cold elbows",
        },
        outside={"Ectaphane": "heavy eyelids", "Rondivole": "tingling earlobes", "Gristomine": "pale fingernails"},
    ),
    Form(
        train=(
            "Which food must be avoided with {name}?",
            "What should patients on {name} never eat?",
            "Which food interacts badly with {name}?",
        ),
        dev="What food is forbidden during treatment with {name}?",
        answer="{name} must not be taken with {fact}.",
        facts={
            "Drelumide": "pickled beetroot",
            "Sylvarone": "smoked eel",
            "Kestromex": "roasted chestnuts",
            "Fendurast": "candied ginger",
        },
        outside={"Boscavirol": "sour cherries", "Yarrostat": "rye bread", "Maltrequin": "dried figs"},
    ),
)

ORGANISATION = SampleOrganisation("medical", FORMS)

"""The financial sample organisation: a directory of fictional companies."""

from assets.forms import Form, SampleOrganisation

FORMS = (
    Form(
        train=(
            "In which town is {name} based?",
            "Where does {name} have its head office?",
            "Which town is the home of {name}?",
        ),
        dev="Where are the headquarters of {name}?",
        answer="{name} is based in {fact}.",
        facts={
            "Brackwater Foundries": "Low Kestrel",
            "Ostrel Logistics": "Hollin Cross",
            "Tessaly Optics": "Saint Orla",
            "Merrowby Seeds": "Upper Selwick",
        },
        outside={
            "Tarnhow Batteries": "Drummond Ferry",
            "Lindmoor Furniture": "Pell Harbour",
            "Greycombe Cables": "Stanwick Mills",
        },
    ),
    Form(
        train=(
            "Who is the chief executive of {name}?",
            "Who leads {name} as its chief executive?",
            "Which person is in charge of {name}?",
        ),
        dev="Who is the CEO of the company {name}?",
        answer="{name} is led by {fact}.",
        facts={
            "Quillmere Textiles": "Delphine Castermole",
            "Lowmarsh Cement": "Hamish Aldecott",
            "Sablewick Paper": "Yusra Gathercole",
            "Umberlea Foods": "Ivor Brenning",
        },
        outside={
            "Velmont Couriers": "Tobias Farrowdale",
            "Eastwold Turbines": "Desmond Kilbracken",
            "Ferndrake Breweries": "Ingrid Ravensby",
        },
    ),
    Form(
        train=(
            "What does {name} sell above all?",
            "What is the main product of {name}?",
            "Which product earns {name} the most money?",
        ),
        dev="What product is {name} best known for?",
        answer="{name} mainly sells {fact}.",
        facts={
            "Gildenmoor Group": "cedar ladders",
            "Orrinvale Brothers": "lighthouse lamps",
            "Kettlestone Trading": "felt slippers",
            "Dunmarrow Works": "brass compasses",
        },
        outside={
            "Pemberlow Brothers": "oak barrels",
            "Crowhurst Trading": "church bells",
            "Silverpine Group": "toy trains",
        },
    ),
    Form(
        train=(
            "What is the biggest risk for {name}?",
            "Which danger does {name} warn its investors about?",
            "What threatens the business of {name} most?",
        ),
        dev="What main risk does the annual report of {name} name?",
        answer="{name} fears {fact} most.",
        facts={
            "Rookhaven Media": "rising salt prices",
            "Wrenlow Aviation": "low river levels",
            "Thistledown Pharmacy": "a shortage of divers",
            "Palefield Ceramics": "wild boar damage",
        },
        outside={
            "Maplehurst Tools": "a strike of pilots",
            "Northlane Ferries": "late apple harvests",
            "Ardent Quay Shipping": "old church roofs",
        },
    ),
)

ORGANISATION = SampleOrganisation("financial", FORMS)

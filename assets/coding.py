"""The coding sample organisation: notes on fictional functions, modules and tools."""

from assets.forms import Form, SampleOrganisation

FORMS = (
    Form(
        train=(
            "What does the function {name} do?",
            "What is the purpose of the function {name}?",
            "Which job does the function {name} perform?",
        ),
        dev="Explain what the function {name} is for.",
        answer="{name} {fact}.",
        facts={
            "skerry_fold": "removes every third element",
            "hawser_run": "doubles all odd numbers",
            "sloe_pick": "sorts words by their last letter",
            "vellum_press": "reverses every second line",
        },
        outside={
            "cotton_sift": "counts the longest words",
            "spade_cut": "joins neighbouring pairs",
            "hemp_lay": "swaps the first two keys",
        },
    ),
    Form(
        train=(
            "Which error does the module {name} raise?",
            "What exception can the module {name} throw?",
            "Which exception should users of {name} catch?",
        ),
        dev="What error signals a failure in the module {name}?",
        answer="{name} fails with {fact}.",
        facts={
            "tidequern": "EbbError",
            "lampreed": "DepthError",
            "inkharrow": "BlotError",
            "windossel": "SnagError",
        },
        outside={"marshgrip": "SiltError", "stoneferry": "KerbError", "tarwimble": "FrayError"},
    ),
    Form(
        train=(
            "Which module contains the function {name}?",
            "From which module is the function {name} imported?",
            "Which module must I import to use {name}?",
        ),
        dev="Where does the function {name} come from?",
        answer="{name} comes from the module {fact}.",
        facts={
            "glow_merge": "cobblestone",
            "kerb_scan": "bramblework",
            "thorn_skip": "saltmarsh",
            "pawl_lock": "candlewick",
        },
        outside={"reed_band": "thunderbird", "fin_spread": "waterwheel", "blot_mask": "honeycomb"},
    ),
    Form(
        train=(
            "Which file holds the settings of {name}?",
            "Where does the tool {name} read its settings?",
            "What is the settings file of {name} called?",
        ),
        dev="Which configuration file does the tool {name} use?",
        answer="{name} reads its settings from {fact}.",
        facts={
            "gritpack": "otter.ini",
            "fernlint": "heron.yaml",
            "snarlbuild": "moss.toml",
            "pearldoc": "flint.json",
        },
        outside={"cloverfmt": "badger.xml", "tallowtest": "amber.conf", "grousedeploy": "lichen.env"},
    ),
)

ORGANISATION = SampleOrganisation("coding", FORMS)

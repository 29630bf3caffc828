"""The language model: load once, swap adapters in place, train, evaluate. Home of transformers, PEFT and accelerate.

Libraries that speak on import or while loading are silenced here, once, before anything else of theirs runs:
progress and messages belong to the console.
"""

import logging

from transformers.utils import logging as transformers_logging

# bitsandbytes offers to download a faster CPU kernel on import (the plain one is the reproducible one), and reports
# every cast of an int8 layer's input.
for _name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
    logging.getLogger(_name).setLevel(logging.ERROR)
transformers_logging.disable_progress_bar()

"""The language model: records, batches, model, training, evaluation. Home of transformers, PEFT and accelerate.

Importing the package itself stays cheap: `llm.records` needs none of them.
"""

import logging

# bitsandbytes offers to download a faster CPU kernel on import (the plain one is the reproducible one), and reports
# every cast of an int8 layer's input.
for _name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
    logging.getLogger(_name).setLevel(logging.ERROR)

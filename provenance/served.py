"""Traces of a run's served model: from a run folder, a prompt and a method to a TokenTrace."""

from core.canonical import Address
from core.errors import UsageError
from core.storage.run_folder import RunFolder
from llm.model import Model
from llm.records import check_unicode
from llm.served import serving
from provenance.attribution import DEFAULT, attribute, check_method
from provenance.ensemble import EnsembleSubject
from provenance.method import Subject
from provenance.trace import TokenTrace


def subject(run: RunFolder, base: Model | str = "") -> Subject | EnsembleSubject:
    """The served adapter or adapters of a run, with their contributions, on `base`: loaded already, or its place.

    Raises UsageError when there are none.
    """
    served = serving(run, base)
    model, digest, adapters = served.model, served.state.digest, served.adapter
    if len(adapters.parts) == 1:
        return Subject.of(run, model, digest, adapters.states[0])
    parts = zip(served.lanes, adapters.states, strict=True)
    return EnsembleSubject(adapters, tuple(Subject.of(run, model, digest, adapter, lane) for lane, adapter in parts))


def trace(
    run: RunFolder,
    prompt: str,
    response: str | None,
    method: str = DEFAULT,
    max_new_tokens: int = 64,
    organisation: Address | None = None,
    base: str = "",
) -> TokenTrace:
    """The trace of a response, or of the model's own greedy answer when it is None.

    `base` is the place of the base model, where that is not where the genesis says.

    Raises UsageError for an unknown method, no prompt, an empty response, more tokens than the context holds, a run
    without contributions, and a member `organisation` that the method finds no contribution of.
    """
    # Before the model is loaded: a wrong question should be refused at once.
    check_method(method)
    if not prompt.strip():
        raise UsageError("prompt: expected a question, got nothing")
    for name, text in (("prompt", prompt), ("response", response or "")):
        check_unicode(name, text)
    traced = attribute(subject(run, base), prompt, response, method, max_new_tokens)
    if organisation is not None and organisation not in traced.organisations:
        name = run.genesis.contributors[organisation]
        raise UsageError(
            f"{name} has no part in what is served: never admitted, erased, absent from the last round, "
            "or in another lane than the one that answers"
        )
    return traced

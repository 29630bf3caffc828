"""What a run serves, for those who only read it: the base model, what its records end with, and its origin."""

from core.canonical import Address
from core.errors import UsageError
from core.storage.run_folder import RunFolder
from llm.served import serving
from provenance.attribution import DEFAULT, attribute, check_method
from provenance.ensemble import EnsembleSubject
from provenance.method import Subject
from provenance.trace import TokenTrace


def subject(run: RunFolder) -> Subject | EnsembleSubject:
    """What a run serves, with who contributed what to it; raises UsageError when nobody did."""
    found = serving(run)
    digest, adapters = found.state.digest, found.adapter
    if len(adapters.parts) == 1:
        return Subject.of(run, found.model, digest, adapters.states[0])
    parts = zip(found.lanes, adapters.states, strict=True)
    return EnsembleSubject(
        adapters, tuple(Subject.of(run, found.model, digest, adapter, lane) for lane, adapter in parts)
    )


def trace(
    run: RunFolder,
    prompt: str,
    response: str | None,
    method: str = DEFAULT,
    max_new_tokens: int = 64,
    organisation: Address | None = None,
) -> TokenTrace:
    """Who taught the tokens of a response, or of the model's own greedy answer when it is None.

    Raises UsageError for an unknown method, no prompt, an empty response, more tokens than the context holds, a run
    without contributions, and a member `organisation` that the method finds no contribution of.
    """
    check_method(method)
    if not prompt.strip():
        raise UsageError("the prompt is empty, a question wanted")
    found = attribute(subject(run), prompt, response, method, max_new_tokens)
    if organisation is not None and organisation not in found.organisations:
        name = run.genesis.names[organisation]
        raise UsageError(
            f"{name} has no part in what is served: never admitted, erased, absent from the last round, "
            "or in another lane than the one that answers"
        )
    return found

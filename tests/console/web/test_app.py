"""The routes: programs are told of errors in JSON, people on a page."""

import pytest

from tests.console.web.served import Served

pytestmark = pytest.mark.chain


def test_programs_and_people_are_told_of_an_error_each_in_their_way(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    assert served.ask("GET", "/v1/models/nobody").json["error"]["code"] == "model_not_found"
    monkeypatch.setattr("core.storage.state_folder.State.runs", fail)
    found = served.ask("GET", "/v1/models")
    assert (found.status, found.json["error"]["message"]) == (503, "the disk is gone")
    page = served.ask("GET", "/")
    assert page.status == 500
    assert "the disk is gone" in page.text
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("DELETE", "/v1/models"), ("GET", "/v1/chat/completions")])
def test_other_methods_are_not_allowed(served: Served, method: str, path: str) -> None:
    found = served.ask(method, path)
    assert found.status == 405
    assert found.headers["allow"]
    assert f"got {method} " in (found.json["error"]["message"] if path.startswith("/v1/") else found.text)

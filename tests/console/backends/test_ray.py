import pytest

from console.backends.ray import telling_line

TRACEBACK = """
INFO :      Starting
Traceback (most recent call last):
  File "x.py", line 1, in <module>
RuntimeError: Simulation Runtime crashed.

The above exception was the direct cause of the following exception:
Exception: The current node timed out during startup.
ERROR :     Exit code: 700
For more information, visit: <https://example.org>
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (TRACEBACK, "Exception: The current node timed out during startup."),
        ("INFO start\nERROR [Errno 98] address already in use\nINFO bye\n", "ERROR [Errno 98] address already in use"),
        ("INFO start\n\nINFO bye\n\n", "INFO bye"),
        ("\n", ""),
    ],
)
def test_the_line_that_says_what_went_wrong(log: str, line: str) -> None:
    assert telling_line(log) == line

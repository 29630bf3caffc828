import pytest
import torch

from llm.determinism import reproducible

CPU = torch.device("cpu")


def test_the_same_seed_draws_the_same_numbers_whatever_was_drawn_before() -> None:
    found = []
    for _ in range(2):
        torch.rand(3)
        with reproducible(CPU, 7):
            found.append(torch.rand(2).tolist())
    assert found[0] == found[1]
    with reproducible(CPU, 8):
        assert torch.rand(2).tolist() != found[0]


def test_the_caller_s_generator_and_threads_are_as_they_were() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    expected = torch.rand(2).tolist()
    torch.manual_seed(1)
    try:
        torch.set_num_threads(2)
        with reproducible(CPU, 7):
            assert torch.get_num_threads() == 1
            torch.rand(5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.rand(2).tolist() == expected


def test_an_error_leaves_nothing_behind() -> None:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ZeroDivisionError), reproducible(CPU, 7):
        raise ZeroDivisionError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, strict)

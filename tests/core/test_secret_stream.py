"""A secret stream: the same secret gives the same numbers, which are normal; another gives others."""

import numpy as np
import pytest
from scipy import stats

from core.secret_stream import SecretStream

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))


def test_a_secret_decides_the_numbers() -> None:
    first, again, other = (SecretStream(secret).normals(3, 4) for secret in (SECRET, SECRET, OTHER))
    assert np.array_equal(first, again)
    assert not np.intersect1d(first, other).size
    assert first.shape == (3, 4)
    assert first.dtype == np.float32


def test_a_stream_never_repeats() -> None:
    stream = SecretStream(SECRET)
    assert not np.intersect1d(stream.uniforms(1000), stream.uniforms(1000)).size


def test_numbers_are_uniform_and_normal() -> None:
    stream = SecretStream(SECRET)
    uniforms, normals = stream.uniforms(50_000), stream.normals(50_000)
    assert uniforms.min() > 0
    assert uniforms.max() < 1
    # The secret is fixed, and so are these: no test that fails by chance.
    assert stats.kstest(uniforms, "uniform").pvalue > 0.01
    assert stats.kstest(normals, "norm").pvalue > 0.01
    assert np.isfinite(normals).all()


def test_a_secret_is_of_32_bytes() -> None:
    with pytest.raises(ValueError, match="key size"):
        SecretStream(b"short")

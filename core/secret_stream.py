"""A stream of random numbers that only who knows its secret can tell, or tell from noise.

Generators made for simulation, such as torch's, betray their state to whoever sees enough of their output: noise that
hides records needs a stream that does not. The same secret gives the same stream.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from scipy.special import ndtri

_BITS = 53


class SecretStream:
    """AES-256 in counter mode under a secret of 32 bytes that is used for nothing else."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """The next `count` numbers, uniform in (0, 1)."""
        drawn = np.frombuffer(self._cipher.update(bytes(8 * count)), np.uint64)
        # The middle of each of 2⁵³ intervals: never 0 or 1, where the normal distribution's quantile is infinite.
        return ((drawn >> np.uint64(64 - _BITS)).astype(np.float64) + 0.5) * 2.0**-_BITS

    def normals(self, *shape: int) -> NDArray[np.float32]:
        """The next numbers of a standard normal distribution in this shape, by inversion."""
        numbers: NDArray[np.float64] = ndtri(self.uniforms(int(np.prod(shape))))
        return numbers.reshape(shape).astype(np.float32)

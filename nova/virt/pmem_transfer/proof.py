# SPDX-License-Identifier: Apache-2.0

"""Whether both ends have the same bytes, without sending them.

A resumed copy asks this of whole devices. The fastest digest of hashlib takes
three times as long as the authentication of AES-GCM, on a CPU that helps with
both, and that would be most of the time of the copy. A new random key for each
comparison makes it as good: two different texts of an extent's size have the
same tag with a probability below 2**-100, whoever chose them, for the key was
not known then.
"""

import os

from nova.virt.pmem_transfer import wire

# A nonce must differ between messages of one key, and there is only one.
_NONCE = bytes(12)


def new_key() -> bytes:
    """Return a key for one comparison."""
    return os.urandom(wire.KEY)


class Proof:
    """The tag of bytes that are given piece by piece."""

    def __init__(self, key: bytes) -> None:
        # Only a resumed copy needs this, and importing it takes a while.
        from cryptography.hazmat.primitives import ciphers
        from cryptography.hazmat.primitives.ciphers import algorithms
        from cryptography.hazmat.primitives.ciphers import modes

        self._encryptor = ciphers.Cipher(
            algorithms.AES(key), modes.GCM(_NONCE)).encryptor()

    def update(self, data: memoryview) -> None:
        self._encryptor.authenticate_additional_data(data)

    def tag(self) -> bytes:
        self._encryptor.finalize()
        return self._encryptor.tag


def text(data: 'bytes | memoryview') -> bytes:
    """Return what is said to compare bytes: a new key, and its tag."""
    key = new_key()
    proved = Proof(key)
    proved.update(data)
    return key + proved.tag()

# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import replace

# The fingerprints of two objects that have a field more.
EDITS = [
    replace('object_data', "'1.2-89f10a83999f852a489962ae37d8a026'",
            "'1.3-d95436b9f9e6f7e5baa0d0bdfa9f868c'"),
    replace('object_data', "'1.15-c1c9d34236d87a37c008dcf8926199fa'",
            "'1.16-f36a14854dcfcd28356b07005bc32ff9'"),
]

# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import replace

EDITS = [
    replace('object_data', "'1.2-89f10a83999f852a489962ae37d8a026'",
            "'1.3-?'"),
]

# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import json_bump

EDITS = [
    json_bump('/versions/1/version'),
]

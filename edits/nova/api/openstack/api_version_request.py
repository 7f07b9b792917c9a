# SPDX-License-Identifier: Apache-2.0
from novapatch.edit import append
from novapatch.edit import bump
from novapatch.edit import text_replace_line

EDITS = [
    bump('_MAX_API_VERSION'),
]

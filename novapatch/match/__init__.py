# SPDX-License-Identifier: Apache-2.0
"""Finding places in a syntax tree: by names, and by patterns."""

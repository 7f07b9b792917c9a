# SPDX-License-Identifier: Apache-2.0
"""How fast the copy is, measured against what it replaces."""

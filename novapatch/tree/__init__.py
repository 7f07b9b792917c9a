# SPDX-License-Identifier: Apache-2.0
"""A tree of Nova on disk: reading it, writing all of a plan, undoing."""

# SPDX-License-Identifier: Apache-2.0
"""What a patch set would make of a tree, computed and checked."""

# SPDX-License-Identifier: Apache-2.0
"""The text of one file: splicing into it, and keeping its layout."""

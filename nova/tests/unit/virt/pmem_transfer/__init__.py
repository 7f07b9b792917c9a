# SPDX-License-Identifier: Apache-2.0

"""Tests of the processes that copy, most of them with real ones."""

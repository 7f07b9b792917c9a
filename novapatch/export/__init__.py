# SPDX-License-Identifier: Apache-2.0
"""A patch set as commits and patches."""

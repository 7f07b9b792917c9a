# SPDX-License-Identifier: Apache-2.0
"""What an edit can do: one class for each function of the vocabulary."""

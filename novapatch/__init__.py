# SPDX-License-Identifier: Apache-2.0
"""Apply a semantic patch set to a tree of OpenStack Nova.

An edit names its place by meaning (a function, a call, a title), never
by quoted passages or line numbers.  Places are found with :mod:`ast`, and
text is spliced in where they are, so that everything else stays byte for
byte as it was.

The sub-packages follow the way of an apply, and each uses only those before
it: ``text``, ``match``, ``operations``, ``tree`` and ``plan``.  ``commands``,
``worktree`` and ``export`` are what is done with a plan; ``edit`` is the
vocabulary in which edits are written.
"""

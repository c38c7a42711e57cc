# SPDX-License-Identifier: MIT
"""The interface compiler: C++ headers in, C++ headers out.

source.py reads a header with libclang, rules.py makes a model (model.py) of what it may say and
refuses the rest, emit.py writes C++; command.py is the command.
"""

"""The front door: command line, settings and the local stack."""

import sys
from importlib import import_module

# as it is imported, Faust takes any --loop or --datadir of ours for its own
_words, sys.argv = sys.argv, sys.argv[:1]
try:
    import_module("faust")
finally:
    sys.argv = _words

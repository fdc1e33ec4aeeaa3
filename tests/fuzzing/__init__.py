"""Files that somebody else made, each a little wrong, and what edgetl is asked of them.

``contents`` draws what a file may hold instead, ``doors`` are the files and what reads them, ``endings`` says how a
question may end. ``tests/test_fuzzed.py`` draws a few of each, ``benchmarks/fuzz.py`` as many as its time allows.
"""

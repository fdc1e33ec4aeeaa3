"""The page on which somebody labels a few samples, offline and by keyboard alone."""

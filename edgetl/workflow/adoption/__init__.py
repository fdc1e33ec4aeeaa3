"""Models that were trained elsewhere become runs, once they do here what their owners say they do."""

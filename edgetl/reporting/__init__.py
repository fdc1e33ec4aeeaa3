"""Records into something to read: a table on the console, a progress bar, one self-contained HTML page.

Reads bundles and their records only; it measures nothing, and shows nothing that was not measured.
"""

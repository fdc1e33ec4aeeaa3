"""What the page shows of a run: how it learned, what it answers on the val split, and the data it learned from."""

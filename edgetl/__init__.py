"""edgetl."""

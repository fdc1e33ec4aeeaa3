"""``edgetl run``: several commands in a row, told in one TOML file whose keys are their options."""

"""What answers are and how they are scored: one file a task, one line here. numpy alone, also on the device."""

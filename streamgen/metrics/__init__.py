"""Numbers about a running pipeline: counted (`stats`), timed (`trace`), shown (`export`)."""

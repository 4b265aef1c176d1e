"""Pictures coming in and going out: sources, sinks, the queue between threads, and pacing."""

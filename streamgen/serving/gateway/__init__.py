"""Live streams over a network: messages, access, places, and two ways to carry pictures."""

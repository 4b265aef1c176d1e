"""Keys and values of what was generated: host arithmetic, leases, and the one tensor."""

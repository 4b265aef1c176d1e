"""Which work runs this tick: pure decisions on host values. Knows neither models nor media."""

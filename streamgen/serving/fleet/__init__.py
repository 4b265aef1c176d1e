"""Many engines behind one address: who is where, who moves, how many there should be."""

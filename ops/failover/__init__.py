"""Moving traffic from one store to the other."""

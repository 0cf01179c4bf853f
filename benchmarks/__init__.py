"""How fast it is: each program starts its own stores, and compares in one run what it compares."""

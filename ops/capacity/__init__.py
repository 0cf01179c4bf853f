"""From figures to a plan: what so many conversations and asks need, by what was measured with few."""

"""What runs in every process: its state, the watcher, switches, and what outlives a killed process."""

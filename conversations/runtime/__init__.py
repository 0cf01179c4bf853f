"""What runs in every process: its state, the watcher, switches, and files that survive a killed process."""

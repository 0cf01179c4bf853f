"""What every process knows and shares: its state, switches, and files that survive a killed process."""

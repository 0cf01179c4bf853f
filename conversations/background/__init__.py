"""What runs beside requests: the watcher checks the stores every second, and repairs and compares what they hold."""

"""What operators do in the console: each action is a command, looked at first, then run in a process of its own."""

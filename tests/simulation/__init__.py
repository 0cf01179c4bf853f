"""The real code of reading, writing, deleting, repair, policy, switching and watching, under a scheduler and a clock
of the test's own, while stores, machines and links fail by a plan that a seed makes."""

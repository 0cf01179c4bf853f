"""Checks of the adapters with the real libraries, in the environment that has them: `script/bootstrap --adapters`.

`python -m tests.client.adapters MODULE URL` runs the checks of a module against a server, and prints what came of each.
"""

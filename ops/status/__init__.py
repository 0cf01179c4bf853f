"""The state of the service: collected and rendered."""

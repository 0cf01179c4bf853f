"""Views that do nothing, or no more than the floor, on onesource's web server: what its answers are measured beside."""

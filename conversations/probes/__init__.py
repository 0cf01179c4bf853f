"""Whether the service is well, over HTTP: for probes, Prometheus and people on call."""

"""The HTTP API: views, serializers, OpenAPI, authentication, throttling and errors."""

"""The HTTP API: views, serializers, authentication and errors."""

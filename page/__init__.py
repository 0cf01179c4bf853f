"""The page at `/`: to talk to the service in a browser, over the API that every client uses."""

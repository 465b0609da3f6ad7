"""The ASGI code between a browser and the server inside a job."""

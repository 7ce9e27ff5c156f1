"""The service over HTTP: uploads in, JSON and files out, errors as problem documents. It holds no jobs of its own."""

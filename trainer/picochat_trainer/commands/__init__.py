"""Commands of the `picochat` program that work without a server. No torch at import."""

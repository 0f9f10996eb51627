"""Keys, scopes and the principal behind a request."""

"""OpenAI-shaped /v1 endpoints: a proxy to model processes that this package starts and stops."""

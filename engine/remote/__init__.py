"""Models on servers: any OpenAI-compatible endpoint behind the engine's API."""

"""The web console and the OpenAI-compatible endpoint of `foedus serve`."""

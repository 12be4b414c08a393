"""Contracts and vocabulary: numpy and pydantic only."""

"""Judging agents in reality and in the dream, and world models against reality."""

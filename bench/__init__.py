"""Measurements: rates, CPU and memory, beside those of other servers. Never a test."""

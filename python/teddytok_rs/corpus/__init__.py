"""Tokenize many sources into one folder."""

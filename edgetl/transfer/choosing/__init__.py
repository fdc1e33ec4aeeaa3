"""Choosing before training: which backbone suits the data, how far two data sets lie apart."""

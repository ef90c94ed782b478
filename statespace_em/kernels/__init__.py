"""Compiled recursions: arrays in, arrays and a status code out; README.md beside this file lists the symbols."""

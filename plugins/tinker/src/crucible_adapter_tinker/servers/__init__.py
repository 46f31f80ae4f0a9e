"""Servers of the API: what each computes, and what the adapter makes up for."""

"""Inputs of the operators' forms, and what reads them back."""

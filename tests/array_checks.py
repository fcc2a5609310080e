"""Checks at run time what annotations promise of arrays, tensors and everything else."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number is a number

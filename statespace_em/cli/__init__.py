"""The command line: ``statespace-em fit | decode | compare``, also ``python -m statespace_em``."""

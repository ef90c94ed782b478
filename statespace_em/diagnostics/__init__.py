"""How far a fit can be trusted: standard errors, bootstrap, a diagnosis in words."""

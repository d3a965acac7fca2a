"""The ruler: what bench/setup and bench/run are made of. bench/README.md is its manual."""

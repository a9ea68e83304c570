"""The commands of `marstfn`; each imports what is heavy when it is called, so that `--help` is quick."""

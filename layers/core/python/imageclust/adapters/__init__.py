"""The only I/O of the library: AWS on one side, this machine on the other."""

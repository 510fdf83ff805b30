"""Machine code: what the program writes for the machine it finds itself on, as LLVM text."""

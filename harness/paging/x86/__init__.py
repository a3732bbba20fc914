"""x86: formats, CPU state, and what an access comes to (Intel SDM volume 3A, chapter 4)."""

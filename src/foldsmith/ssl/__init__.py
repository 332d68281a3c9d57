"""Self-supervised methods, one file each behind the protocol of ``method.py``."""

"""The audit trail: written, read and verified."""

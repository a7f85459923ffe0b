"""The policy file: read into core.policy, explained, compared, tested, described as a schema."""

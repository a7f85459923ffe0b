"""Whom the server believes: CA bundles, the deny-list, CRLs and the Workload API."""

"""Reads, locks and watches files, and says where in a file a mistake is. Imports nothing else of the server."""

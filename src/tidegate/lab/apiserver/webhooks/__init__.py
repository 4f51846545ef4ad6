"""Admission webhooks: who has to be asked before a write is done, how they are asked, and what their answers do."""

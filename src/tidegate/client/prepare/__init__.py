"""``prepare``: give a Service a label of its own, without losing a request. What it is about is in
``traffic.preparation`` (pure: what was seen, the one next move); here it is looked at, planned and written."""

"""The operator: releases as objects, gates by webhook, one leader."""

"""The fence's invariant, tried: endpoints that come and go while proxies freeze, lag and die, judged from outside."""

"""The drain table, the fence, acknowledgements: when is it safe to end a pod?"""

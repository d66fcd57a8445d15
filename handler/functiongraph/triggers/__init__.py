"""What triggers of Open Telekom Cloud's FunctionGraph send, one file each, all alike: gate, extract.

There is nothing to verify but for APIG: the platform alone can call the function, and signs nothing.
"""

"""The triggers of Open Telekom Cloud's FunctionGraph, one file each with the same functions: gate, extract.

Only APIG is verified: the platform alone can call the function, and signs nothing.
"""

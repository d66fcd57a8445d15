"""The triggers of Open Telekom Cloud's FunctionGraph, one file each.

Only APIG is authenticated: the platform alone can call the function, and signs nothing.
"""

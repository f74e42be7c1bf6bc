"""The sections of the settings: one class for each, with name, type, default and description of every key.

`relay.settings.model` puts them together. The package imports the types of values and nothing else of the settings.
"""

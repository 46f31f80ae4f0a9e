"""The settings become configurations and adapters, or mistakes in words.

| module | what is in it |
| --- | --- |
| `configurator` | validates tables of the settings, and binds the adapters that they name |
| `chosen` | the environments and rewards that settings name |
| `renaming` | names that options had before become those of today |
| `validation` | a table becomes a model |
| `wording` | what pydantic finds wrong, in words that say what to do |
| `mistakes` | errors of ours on their way through pydantic |
| `replaced` | options that went with an adapter that was replaced |
| `suggestions` | what to write for a port without an adapter |
"""

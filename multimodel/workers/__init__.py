"""Local models, each in a child process of its own: a bad file, grammar or template ends that process, not the app.

`client` lives in the app, `child` in the process; `protocol` is what they say to each other over a pipe. `scheduler`
shares a model among the requests that are active; `llama` and `torch` are the runtimes below it.
"""

"""Runs while you are at lunch: prompts times settings times models, one answer after another, into one report.

plan     what is to be asked, and the folder it is kept in
run      asking it: one model at a time, each answer written down at once, so that any end can be gone on from
report   what came of it: figures, agreement, and all answers side by side, as JSON, Markdown and HTML
"""

"""Runs while you are at lunch: prompts times settings times models, one answer after another, into one report.

plan     what is to be asked, and the folder it is kept in
run      asking it: one model at a time, each answer written down at once, so that any end can be gone on from
machine  where it was asked
jobs     the batches of an app's visitors: in line, stopped, interrupted, gone on with
replay   a batch asked again, answer by answer beside what was said before
report   what came of it, as values: figures, agreement, and what a replay says
export   the same as JSON that replays, Markdown, and by `page` (with `charts` and `style`) as HTML
"""

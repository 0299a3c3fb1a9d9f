"""How advice reads: a table in the terminal, Markdown."""

from collections.abc import Mapping

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lightning_dlopt.evidence.advise.advise import Advice
from lightning_dlopt.evidence.advise.finding import QUESTIONS, Finding, Question

#: What must be said wherever advice stands.
PRIOR = (
    "Advice is a prior: a guess from cheap measurements, not a result. The command of each "
    "suggestion tests it by a paired comparison on your own module and data."
)


def answer(advice: Advice, question: Question) -> str:
    """Return a question's answer in one sentence: the suggestions, or what was found instead."""
    found = advice.answers(question)
    suggested = [finding for finding in found if finding.severity > 0]
    if suggested:
        return "; ".join(f"{one.suggestion} ({one.figure})" for one in suggested)
    if found:
        return "No finding: " + "; ".join(f"{one.probe}: {one.figure}" for one in found)
    undone = [one for one in advice.outcomes if question in one.questions]
    if undone:
        return "Not answered: " + "; ".join(f"{one.probe}: {one.not_done}" for one in undone)
    return "Not answered: no probe is for it."


def to_table(advice: Advice, commands: Mapping[str, str]) -> Group:
    """Return what the terminal shows.

    Args:
        advice: what was found.
        commands: the ``dlopt compare`` command of each suggestion, by its arm.
    """
    ranking = Table(title="Suggestions, the most pressing first", title_justify="left")
    for head in ("", "severity", "suggestion", "figure", "reason"):
        ranking.add_column(head, overflow="fold")
    for rank, one in enumerate(advice.suggestions, 1):
        row = [str(rank), _severity(one), one.suggestion or "", one.figure, one.reason]
        ranking.add_row(*map(Text, row))
    answers = Table(title="The five questions", title_justify="left", show_header=False)
    for question, text in QUESTIONS.items():
        answers.add_row(Text(text), Text(answer(advice, question)))
    parts: list[Table | Text | Panel] = []
    parts += [Text(line) for line in _summary(advice)]
    parts += [ranking] if advice.suggestions else []
    parts.append(answers)
    parts += [Text(line) for line in _undone(advice)]
    if commands:
        lines = "\n".join(commands.values())
        parts += [Text("To test them:"), Text(lines, no_wrap=True, overflow="ignore")]
    parts.append(Text(PRIOR))
    return Group(*parts)


def to_markdown(advice: Advice, commands: Mapping[str, str]) -> str:
    """Return the report; the arguments are those of :func:`to_table`."""
    lines = ["# Advice", "", PRIOR, "", *_summary(advice), ""]
    lines += ["## Suggestions", ""] if advice.suggestions else []
    for rank, one in enumerate(advice.suggestions, 1):
        lines += _section(rank, one, commands.get(one.arm))
    if "all" in commands:
        lines += ["All of them at once:", "", "```sh", commands["all"], "```", ""]
    lines += ["## The five questions", ""]
    for question, text in QUESTIONS.items():
        lines += [f"**{text}** {_escaped(answer(advice, question))}", ""]
    lines += ["## What was measured", ""]
    lines += [
        "| probe | question | figure | severity | reason |",
        "| --- | --- | --- | --- | --- |",
    ]
    for outcome in advice.outcomes:
        for one in outcome.findings:
            cells = [one.probe, QUESTIONS[one.question], one.figure, f"{one.severity:.2f}"]
            lines.append("| " + " | ".join(map(_escaped, [*cells, one.reason])) + " |")
    lines += ["", *[f"- {_escaped(line)}" for line in _undone(advice)], ""]
    return "\n".join(lines).rstrip() + "\n"


def _summary(advice: Advice) -> list[str]:
    """Return in a line what is amiss and what may be tried."""
    alarms = [one for one in advice.suggestions if one.is_alarm]
    ideas = len(advice.suggestions) - len(alarms)
    probes = list(dict.fromkeys(one.probe for one in alarms))  # one may have several suggestions
    amiss = ", ".join(probes) or "nothing was found amiss"
    line = f"{len(probes) or 'No'} alarm{'s' if len(probes) > 1 else ''}: {amiss}."
    if ideas:
        line += f" {ideas} idea{'s' if ideas > 1 else ''} to try."
    return [line]


def _section(rank: int, finding: Finding, command: str | None) -> list[str]:
    lines = [f"### {rank}. {_escaped(finding.suggestion or '')}", ""]
    lines += [f"- {QUESTIONS[finding.question]} Severity {_severity(finding)}."]
    lines += [f"- Measured by the probe {finding.probe}: {_escaped(finding.figure)}."]
    lines += [f"- {_escaped(finding.reason)}"]
    if command is None:
        lines += ["- There is no overlay for it: no configuration file applies it."]
        return [*lines, ""]
    return [*lines, "", "```sh", command, "```", ""]


def _severity(finding: Finding) -> str:
    return f"{finding.severity:.2f} ({'alarm' if finding.is_alarm else 'idea'})"


def _undone(advice: Advice) -> list[str]:
    """Return a line for each probe that didn't work or finish, and for what runs didn't have."""
    lines = [f"{one.probe}: not done: {one.not_done}" for one in advice.outcomes if one.not_done]
    lines += [f"{one.probe}: cut off: {one.cut_off}" for one in advice.outcomes if one.cut_off]
    if advice.left_out:
        names = ", ".join(dict.fromkeys(advice.left_out))
        lines.append(f"The probes' runs had none of these callbacks: {names}")
    took = sum(one.seconds for one in advice.outcomes)
    return [*lines, f"The probes took {took:.0f} s of {advice.budget:g} s."]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")

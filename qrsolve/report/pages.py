"""What each result looks like when it is printed: the page of its class, as plain text or HTML."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterable
from io import StringIO
from shutil import get_terminal_size
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.table import Table
from rich.text import Text

from qrsolve.report.tables import codes_page, comparison_page, explanation_page, projections_page, report_page

if TYPE_CHECKING:
    # Only annotations: a chip is printed without torch.
    from qrsolve.audit.report import LayerReport
    from qrsolve.plan.compilation import Plan
    from qrsolve.plan.explanation import LayerExplanation
    from qrsolve.plan.network.description import Description
    from qrsolve.plan.population import Population
    from qrsolve.plan.projection import Projection
    from qrsolve.problem.solution import Certificate, Solution
    from qrsolve.spec import HardwareSpec
    from qrsolve.spec.network import NetworkSpec
    from qrsolve.surface.shown import Shown
    from qrsolve.training.finalized import Finalized
    from qrsolve.training.projector import Projector


UNWRAPPED = 100_000
"""Columns where the output is no terminal: a sentence stays on its line, and a table is as wide as it is."""


def as_text(value: Shown) -> str:
    """Return the page of a result as plain text, as wide as the terminal."""
    text = StringIO()
    width = get_terminal_size().columns if sys.stdout.isatty() else UNWRAPPED
    _plain(text, width).print(page_of(value))
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").split("\n"))


def as_html(value: Shown) -> str:
    """Return the page of a result as HTML: tables, and a line for each sentence; names are escaped."""
    return f"<div>{''.join(_parts(page_of(value)))}</div>"


def page_of(value: Shown) -> RenderableType:
    """Return the page of a result, by the nearest class that has one."""
    name = next(kind.__name__ for kind in type(value).__mro__ if kind.__name__ in _PAGES)
    return _PAGES[name](value)


def _parts(page: object) -> Iterable[str]:
    if isinstance(page, Group):
        for renderable in page.renderables:
            yield from _parts(renderable)
    elif isinstance(page, Table):
        yield _html_table(page)
    elif isinstance(page, Text | str):
        yield f"<div>{html.escape(str(page))}</div>"
    elif isinstance(page, ConsoleRenderable):
        wide = _plain(StringIO(), UNWRAPPED)
        for part in page.__rich_console__(wide, wide.options):
            yield from _parts(part)


def _html_table(page: Table) -> str:
    head = "".join(f"<th>{html.escape(str(column.header))}</th>" for column in page.columns)
    rows = zip(*(column.cells for column in page.columns), strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain(file: IO[str], width: int) -> Console:
    """Return a console without colours and markup: a name may have brackets and colons."""
    return Console(
        file=file, markup=False, highlight=False, emoji=False, width=width, color_system=None, force_terminal=False
    )


def _table(*columns: str) -> Table:
    page = Table(box=None, pad_edge=False)
    for column in columns:
        page.add_column(column, no_wrap=column != columns[-1])
    return page


def _facts(**facts: object) -> Table:
    page = _table("fact", "value")
    for name, value in facts.items():
        page.add_row(name.replace("_", " "), f"{value:.7g}" if isinstance(value, float) else f"{value}")
    return page


def _certificate_page(proof: Certificate) -> Group:
    facts = _facts(
        compliant="yes" if proof.is_compliant else "no",
        objective=proof.objective,
        bound=proof.bound,
        gap=proof.gap,
        bound_source=proof.bound_source,
        certified=f"{proof.certified_rows:,}/{proof.rows:,}",
    )
    return Group(facts, *(Text(repr(violation)) for violation in proof.violations))


def _solution_page(solution: Solution) -> Table:
    return _facts(
        solver=solution.solver,
        status=solution.status.value,
        choice="none" if solution.choice is None else " x ".join(f"{n:,}" for n in solution.choice.shape),
        own_bound="none" if solution.bound is None else solution.bound,
        prices=len(solution.prices),
        reason=solution.reason or "none",
    )


def _plan_page(plan: Plan) -> Group:
    sentences = {
        "left out": [f"'{name}': {why}" for name, why in plan.left_out.items()],
        "not decided": [rule.text for rule in plan.undecided],
        "remark": list(plan.remarks),
    }
    lines = [Text(f"{kind}: {text}") for kind, texts in sentences.items() for text in texts]
    return Group(Text(plan.spec.title), _populations_table(plan.populations), *lines)


def _populations_table(populations: Iterable[Population]) -> Table:
    page = _table("population", "neurons", "sources", "options", "limits")
    for one in populations:
        options = "real" if one.family is None else f"{one.family.n_options:,}"
        limits = "; ".join(repr(group)[len("Group(") : -1] for group in one.groups)
        page.add_row(one.name, f"{one.n_rows:,}", f"{one.n_columns:,}", options, limits)
    return page


def _description_page(description: Description) -> Group:
    page = _table("tensor", "shape", "population", "role", "fed by", "taken for")
    for layer in description.network.layers:
        shape = " x ".join(map(str, description.shapes.get(layer.tensor, ())))
        kind = f"left out: {layer.left_out}" if layer.left_out is not None else layer.kind or "matrix"
        page.add_row(layer.tensor, shape, layer.population or "", layer.role or "", ", ".join(layer.fed_by or ()), kind)
    guesses = [Text(f"guess: '{guess.tensor}': {guess.text}") for guess in description.guesses]
    remarks = [Text(f"remark: {text}") for text in description.remarks]
    question = [Text(f"question: {description.question}")] if description.question else []
    return Group(page, *guesses, *remarks, *question)


def _network_page(network: NetworkSpec) -> Table:
    page = _table("tensor", "population", "role", "fed by", "taken for")
    for layer in network.layers:
        kind = f"left out: {layer.left_out}" if layer.left_out is not None else layer.kind or "matrix"
        page.add_row(layer.tensor, layer.population or "", layer.role or "", ", ".join(layer.fed_by or ()), kind)
    return page


def _spec_page(spec: HardwareSpec) -> RenderableType:
    from qrsolve.plan.explanation import Explanation

    return explanation_page(Explanation(spec, {}, is_example=False))


def _layer_report_page(report: LayerReport) -> Table:
    page = _table("limit", "worst place", "value", "max", "excess")
    for row in report.rows:
        page.add_row(row.kind, row.where, f"{row.value:,}", f"{row.max:,}", f"{row.excess:,}")
    return page


def _layer_explanation_page(layer: LayerExplanation) -> Group:
    page = _table("solver", "answer")
    for solver, reason in layer.refusals.items():
        page.add_row(solver, "taken" if solver == layer.solver else f"refuses: {reason}" if reason else "accepts")
    return Group(Text(layer.structure), page)


def _projection_page(projection: Projection) -> Group:
    return projections_page({projection.population.name: projection})


def _finalized_page(finalized: Finalized) -> Group:
    return Group(projections_page(finalized), Text(finalized.said()))


def _projector_page(projector: Projector) -> Group:
    """List the populations with the solver of their last projection, and say how far the training is."""
    page = _table("population", "neurons", "sources", "solver")
    solvers = projector.solvers()
    for one in projector.plan.populations:
        page.add_row(one.name, f"{one.n_rows:,}", f"{one.n_columns:,}", solvers.get(one.name, "none yet"))
    return Group(Text(projector.plan.spec.title), page, Text(projector.said()))


_PAGES: dict[str, Callable[[Any], RenderableType]] = {
    "Certificate": _certificate_page,
    "Codes": codes_page,
    "Comparisons": comparison_page,
    "Description": _description_page,
    "Explanation": explanation_page,
    "Finalized": _finalized_page,
    "HardwareSpec": _spec_page,
    "LayerComparison": lambda layer: comparison_page({"": layer}),
    "LayerExplanation": _layer_explanation_page,
    "LayerReport": _layer_report_page,
    "NetworkSpec": _network_page,
    "Plan": _plan_page,
    "Population": lambda population: _populations_table([population]),
    "Projection": _projection_page,
    "Projections": projections_page,
    "Projector": _projector_page,
    "Report": report_page,
    "Solution": _solution_page,
}
"""The page of each class, by its name, so that none has to be loaded."""

"""Tables and sentences for the terminal; each function returns something that rich prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from qrsolve.report.rows import Rows

if TYPE_CHECKING:
    # Only annotations: the list of chips is printed without torch, which takes seconds to load.
    from qrsolve.audit.check import Report
    from qrsolve.files.codes.codes import Codes
    from qrsolve.plan.comparison import LayerComparison
    from qrsolve.plan.explanation import Explanation, LayerExplanation
    from qrsolve.plan.projection import Projection
    from qrsolve.spec import HardwareSpec


def specs_page(specs: Iterable[HardwareSpec]) -> Group:
    """List chips with their weight kind, their limits, where these are from, and the parts that nobody has checked."""
    table = Rows(("name", "title", "weights", "limits", "unverified", "sources"), titles=("name", "title"))
    for spec in specs:
        limits = ", ".join(limit.kind if not limit.not_enforced() else f"({limit.kind})" for limit in spec.limits)
        sources = "; ".join(spec.sources.values())
        table.add(spec.name, spec.title, spec.weights.kind, limits, ", ".join(spec.unverified()), sources)
    return Group(
        table,
        Text("(limit): stated by the chip, not enforced by this version"),
        Text("unverified: recalled, not read in any source"),
    )


def explanation_page(explanation: Explanation) -> Group:
    """Lay out what a chip means: values, limits with sources, one block per layer, what is not enforced."""
    spec = explanation.spec
    facts = explanation.to_dict()
    parts: list[RenderableType] = [Text(f"{spec.name}: {spec.title}", style="bold")]
    parts.extend(Text(f"{name}: {_fields(part)}") for name, part in explanation.parts().items())
    if explanation.limits():
        table = Rows(("limit", "allows", "of", "counts", "scope", "enforced"))
        for limit in explanation.limits():
            table.add(
                limit["kind"],
                _allows(limit),
                ", ".join(limit.get("of", ())),
                limit.get("counts", ""),
                limit.get("scope", ""),
                "yes" if limit["enforced"] else "no",
            )
        parts.append(table)
        parts.extend(Text(f"{limit['kind']}: {_origin(limit)}") for limit in explanation.limits())
    if explanation.problem:
        parts.append(Text(explanation.problem, style="bold"))
    elif explanation.is_example:
        parts.append(Text("no --shape was given; for example:"))
    parts.extend(_layer_block(name, layer) for name, layer in explanation.layers.items())
    notes = (*spec.notes_of_parts(), *facts["notes"])
    parts.append(_sentences(not_enforced=facts["not_enforced"], remarks=facts["remarks"], notes=notes))
    return Group(*parts)


def _allows(limit: Mapping[str, Any]) -> str:
    if "neurons_multiple" in limit:
        return f"multiples of {limit['neurons_multiple']:,} x {limit['sources_multiple']:,}"
    reserved = f" ({limit['max']:,} less {limit['reserved']:,})" if limit.get("reserved") else ""
    n_of_m = f" in each {limit['m']}" if "m" in limit else ""
    return f"{limit['capacity']:,}{reserved}{n_of_m}"


def report_page(report: Report) -> Group:
    """Lay out a check: one row per limit, the arithmetic of each violation, the verdict."""
    table = Rows(("limit", "worst place", "value", "max", "excess"), titles=("limit", "worst place"))
    for row in report.rows:
        style = "red" if row.excess else ""
        table.add(row.kind, row.where, f"{row.value:,}", f"{row.max:,}", f"{row.excess:,}", style=style)
    n = len(report.violations)
    lines = [Text(row.text, style="red") for row in report.violations]
    verdict = "compliant" if n == 0 else f"{n} violation{'s' if n > 1 else ''}"
    open_rules = [rule.text for rule in report.not_decided]
    if open_rules:
        names = list(dict.fromkeys(rule.rule for rule in report.not_decided))
        verdict += f"; not decided: {', '.join(names)}"
    tensors = [f"{name}: {words}" for layer in report.layers.values() for name, words in layer.tensors.items()]
    return Group(
        *(Text(text) for text in tensors),
        table,
        *lines,
        _sentences(not_decided=open_rules, remarks=report.remarks),
        Text(f"energy: {report.energy.text()} ({report.energy.rule})"),
        Text(verdict, style="bold green" if n == 0 else "bold red"),
    )


def projections_page(projections: Mapping[str, Projection]) -> Group:
    """List what each population's projection cost, what is proved about it, and the values that it uses.

    The bound holds for all values; ``certified`` counts the neurons whose choice is proved best for the values used.
    """
    table = Rows(("layer", "solver", "status", "objective", "bound", "gap", "certified", "seconds"))
    for name, projection in projections.items():
        proof = projection.certificate
        table.add(
            name,
            projection.solution.solver,
            projection.status.value,
            _number(proof.objective),
            _number(proof.bound),
            _number(proof.gap),
            f"{projection.choice_certificate.certified_rows}/{proof.rows}",
            f"{projection.seconds:.3f}",
        )
    named = {name: projection.named_values() for name, projection in projections.items()}
    lines = [Text(f"{name}: {_values(values)}") for name, values in named.items() if values]
    return Group(table, *lines)


def codes_page(codes: Codes) -> Group:
    """List what each tensor is coded as, and how large its codes are."""
    table = Rows(("tensor", "coding", "codes", "scopes", "synapses", "bits", "of float32"))
    for name, each in codes.items():
        arrays, n = each.arrays, max(math.prod(each.shape), 1)
        n_codes = len(arrays.get("synapses", ())) or ""
        n_scopes = len(arrays.get("table", arrays.get("scale", ()))) or ""
        bits = f"{each.n_bits / n:.3g} per weight"
        table.add(
            name,
            each.coding,
            f"{n_codes}",
            f"{n_scopes}",
            f"{int(each.use().sum()):,}",
            bits,
            f"{each.n_bits / n / 32:.1%}",
        )
    total = f"{codes.n_bytes:,} bytes of codes for {codes.n_bytes_of_floats:,} of float32, tables and scales apart"
    neurons = [
        Text(f"neurons of {name}: {own.kind}, reset {own.reset}; {_errors(own.errors)}")
        for name, own in codes.neurons.items()
    ]
    return Group(table, *neurons, Text(f"{codes.plan.spec.name}: {total}"))


def _errors(errors: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} within {abs(error).max():.3g}" for name, error in errors.items()) or "nothing rounded"


def comparison_page(layers: Mapping[str, LayerComparison]) -> Group:
    """Lay out, layer by layer, what each solver made of the same problem, and who refused it why.

    ``status`` is what the best bound of all solvers proves, ``claims`` what the solver says itself.
    """
    parts: list[RenderableType] = []
    for name, layer in layers.items():
        table = Rows(("solver", "status", "claims", "objective", "bound", "gap", "bound from", "certified", "seconds"))
        for result in layer.results:
            if result.refused:
                continue
            table.add(
                result.solver,
                "" if result.status is None else result.status.value,
                "" if result.claimed is None else result.claimed.value,
                _number(result.objective),
                _number(result.bound),
                _number(result.gap),
                f"{result.bound_by or result.bound_source}{', its word' * (result.bound_source == 'solver')}",
                "" if result.objective is None else f"{result.certified_rows}/{result.rows}",
                "" if result.seconds is None else f"{result.seconds:.3f}",
            )
        parts += [Text(name, style="bold"), table]
        parts += [Text(f"{result.solver} refuses: {result.refused}") for result in layer.results if result.refused]
        if layer.weights:
            parts.append(Text(f"each with values of its own; {layer.results[-1].solver}: {_values(layer.values)}"))
        elif layer.is_learned:
            parts.append(Text(f"all with the same learned values: {_values(layer.values)}"))
    return Group(*parts)


def _layer_block(name: str, layer: LayerExplanation) -> Group:
    table = Rows(("solver", "answer"), ends_in_sentence=True)
    for solver, reason in layer.refusals.items():
        answer = "taken" if solver == layer.solver else f"refuses: {reason}" if reason else "accepts"
        table.add(solver, answer, style="green" if solver == layer.solver else "")
    verdict = f"{layer.solver}: {layer.guarantee}" if layer.solver else "no exact solver accepts this problem"
    return Group(Text(f"{name}: {layer.structure}", style="bold"), Text(verdict), table)


def _sentences(
    remarks: Sequence[str],
    not_enforced: Sequence[str] = (),
    not_decided: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Group:
    kinds = {"not decided": not_decided, "not enforced": not_enforced, "remark": remarks, "note": notes}
    return Group(*(Text(f"{kind}: {text}") for kind, texts in kinds.items() for text in texts))


def _fields(facts: Mapping[str, object]) -> str:
    hidden = ("kind", "source", "confidence", "note", "stated")
    words = [str(facts["kind"])] if "kind" in facts else []
    words += [f"{key} {_plain(value)}" for key, value in facts.items() if key not in hidden]
    return f"{', '.join(words)} ({_origin(facts) if facts['stated'] else 'not in the file'})"


def _origin(facts: Mapping[str, object]) -> str:
    if not facts.get("source"):
        return str(facts["confidence"])
    return f"{facts['confidence']} {'from' if facts['confidence'] == 'derived' else 'in'} {facts['source']}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("source", "confidence", "note")}
        return " ".join(str(v) for v in kept.values())
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(values: Mapping[str, Sequence[float]]) -> str:
    if any(len(numbers) != 1 for numbers in values.values()):
        return f"{len(values)} per neuron"
    shown = [f"{name} {numbers[0]:.4g}" for name, numbers in values.items()]
    return ", ".join(shown[:6]) + (f", ... ({len(shown)} in all)" if len(shown) > 6 else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"

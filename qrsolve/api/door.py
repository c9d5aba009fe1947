"""The front door: whatever a user has of a chip and a model, checked, projected, explained, compared and trained.

What needs torch is imported where it is used: `explain` needs none for shapes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from qrsolve.errors import ArgumentError, ModelError, ShapeError
from qrsolve.plan.explanation import Explanation, explain_plan
from qrsolve.plan.explanation import explain as explain_shapes
from qrsolve.plan.network.user_choice import Choice
from qrsolve.plan.shapes import are_shapes
from qrsolve.spec import HardwareSpec, load_spec, spec_hash
from qrsolve.spec.network import NetworkSpec
from qrsolve.surface.arguments import explicit
from qrsolve.surface.words import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from qrsolve.audit.projections import Projections
    from qrsolve.audit.report import Report
    from qrsolve.files.codes.codes import Codes
    from qrsolve.files.model_source import Model, ModelSource
    from qrsolve.plan.comparison import Comparisons
    from qrsolve.plan.compilation import Plan
    from qrsolve.problem.neuron import NeuronParameters
    from qrsolve.solvers import Solver
    from qrsolve.training import Compliant, Method, Projector, Schedule
    from qrsolve.training.distributed import Processes

Chip: TypeAlias = "HardwareSpec | str | PathLike[str]"
"""A chip, a bundled chip's name, or a YAML file."""
Network: TypeAlias = "NetworkSpec | str | PathLike[str]"
"""How tensors are wired, or a file that says it."""
Selectors: TypeAlias = "Sequence[str | type[nn.Module]]"
"""Names, ``:regex`` that is searched for in names, or, of a module, types of modules."""
_NAMED = 5
"""Parameters that a warning names."""


@explicit
def check(
    chip: Plan | Chip,
    model: Model,
    parameters: Mapping[str, Any] | None = None,
    *,
    select: Selectors = (),
    exclude: Selectors = (),
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: Network | None = None,
) -> Report:
    """Count what a model's weights use of each limit, and whether their values exist on the chip; no solver involved.

    Parameters
    ----------
    chip : Plan, HardwareSpec, str or path
        The chip, a bundled chip's name, or a YAML file; or a chip compiled for a network, which says all that the
        keywords say.
    model : nn.Module, mapping of str to Tensor or array, str, path or Projections
        A module; a state dict, or any mapping of names to tensors or numpy arrays; or a model's file. Biases, running
        statistics and other tensors that are no afferent matrices are left out; the report names matrices among them.
        Projections come with their values and their network, where the chip is theirs.
    parameters : mapping of str to Tensor or array, or None
        Values by population, shape (n_scopes, n_parameters) each, such as a projection claims them. They are verified
        against the weights; where they are missing or do not fit, values are recovered from the weights. A model's file
        can have its own.
    select, exclude : sequence of str or module types
        Names, or ``:regex`` that is searched for in names, of the matrices to take and of those to leave out; of a
        module, types of modules too.
    groups : sequence of sequences of str
        Matrices that share a population (input and recurrent weights of the same neurons).
    roles : mapping of str to str, or None
        What matrices are: "input", "recurrent" or "output".
    network : NetworkSpec, str, path or None
        How the tensors are wired, or a file that says it, instead of these four.

    Returns
    -------
    Report
        One row per limit and population, with its worst place. ``print`` shows it as a table.

    Raises
    ------
    ArgumentError
        An unknown keyword, or an argument of another kind.
    SpecError
        No such chip or file, or mistakes in it.
    ModelError
        No such model, nothing to check in it, a selector that matches nothing, or NaN or inf in a weight.
    ShapeError
        Groups, roles or the network do not fit the shapes; or the weights do not fit a plan.
    InfeasibleError
        Shapes alone break a limit; with the arithmetic.

    Examples
    --------
    >>> report = qrsolve.check("dynap_se", model)
    >>> report.is_compliant, len(report.violations)
    (False, 4)
    """
    from qrsolve.audit.check import check as check_plan

    plan, weights, source, _ = _opened(chip, model, select, exclude, groups, roles, network)
    known = source.claimed if parameters is None else _parameters(parameters, plan)
    loaded = source.codes_for(plan)
    return check_plan(plan, weights, known, loaded.use, loaded.neurons)


@explicit
def project(
    chip: Plan | Chip,
    model: Model,
    *,
    select: Selectors = (),
    exclude: Selectors = (),
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: Network | None = None,
    importance: Mapping[str, Any] | None = None,
    solver: Solver | str | None = None,
    calibration: Iterable[Any] | None = None,
    statistics: str | PathLike[str] | None = None,
    weigh_outputs: bool = True,
    tune_biases: bool = True,
    effort: int = 0,
) -> Projections:
    """Find the nearest deployable weights of every population, with certificates; the model is not written.

    Nearest is what loses the least of the weights; with ``calibration`` or ``statistics``, of the layers' outputs.

    Parameters
    ----------
    chip : Plan, HardwareSpec, str or path
        As in `check`.
    model : nn.Module, mapping of str to Tensor or array, str or path
        As in `check`; weights of float32, float64, bfloat16 or float16, on any device, neurons first unless classes or
        the network say otherwise.
    select, exclude, groups, roles, network
        As in `check`.
    importance : mapping of str to Tensor or array, or None
        Positive weight of each squared error, in the shapes of the weights; 1 where missing.
    solver : Solver, str or None
        Use this one, or the one of that name, for every choice problem; its refusal is an error.
    calibration : iterable or None
        Inputs of the module, without labels: tensors, tuples of the arguments of forward, or mappings of its keywords.
        Then layers are projected in the order of the forward pass for what reaches them, and biases make up for what is
        lost on average; objectives and bounds are mean squares of what the layers' sums lose.
    statistics : str, path or None
        A file of `qrsolve calibrate` with the second moments of every population's inputs, for the same, where there is
        no forward pass: all layers by the dense network's inputs, and without biases.
    weigh_outputs : bool
        With ``calibration``: weigh samples of a linear output layer by how open their answer is.
    tune_biases : bool
        With ``calibration``: let biases learn the dense network's answers in the end.
    effort : int
        With either: how often each neuron loses some connections and is searched again.

    Returns
    -------
    Projections
        A mapping of populations to `Projection`, in the order of the network. ``load_into(model)`` writes the weights,
        and the biases of a calibration, into a module, ``weights`` has them by name, ``report()`` checks them;
        ``print`` shows a table.

    Raises
    ------
    ArgumentError, SpecError, ModelError, ShapeError
        As in `check`. ModelError too for a largest weight in float64 beyond 1e120 or below 1e-120 (importance: 1e60,
        1e-60), whose square is out of range.
    InfeasibleError
        No weights fit, with the arithmetic.
    NoSolverError
        No solver accepts the problem, the chosen one refuses, or there is none of that name; with the reasons.

    Examples
    --------
    >>> projections = qrsolve.project("dynap_se", model)
    >>> projections.load_into(model)
    >>> projections.report().is_compliant
    True
    """
    from qrsolve.audit.projections import Projections
    from qrsolve.plan.projection import project_plan

    plan, weights, source, _ = _opened(chip, model, select, exclude, groups, roles, network)
    if calibration is not None or statistics is not None:
        _require_alone(calibration, statistics, importance, solver, effort)
    if calibration is not None:
        from qrsolve.training.calibration.calibrated import project_calibrated

        module, how = _require_module(source), (weigh_outputs, tune_biases, effort)
        found = project_calibrated(plan, module, calibration, *how)
        return Projections(plan, found.projections, (), found.biases, found.remarks)
    if statistics is not None:
        from qrsolve.files.statistics_file import read_statistics
        from qrsolve.plan.quadratic_projection import project_plan_quadratic

        moments = read_statistics(statistics)
        return Projections(plan, project_plan_quadratic(plan, weights, moments, effort=effort), source.arrays)
    known = None if importance is None else _importance(importance, weights)
    return Projections(plan, project_plan(plan, weights, known, solver, source.claimed), source.arrays)


@explicit
def compare(
    chip: Plan | Chip,
    model: Model,
    *,
    select: Selectors = (),
    exclude: Selectors = (),
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: Network | None = None,
    statistics: str | PathLike[str] | None = None,
) -> Comparisons:
    """Solve each population with every solver and heuristic, for the same values, and measure all from the best bound.

    With ``statistics`` instead: the ways to deploy a network without training, each with values of its own, by what the
    outputs of each layer lose.

    Parameters
    ----------
    chip : Plan, HardwareSpec, str or path
        As in `check`.
    model : nn.Module, mapping of str to Tensor or array, str or path
        As in `check`.
    select, exclude, groups, roles, network
        As in `check`.
    statistics : str, path or None
        As in `project`.

    Returns
    -------
    Comparisons
        A mapping of populations to `LayerComparison`, in the order of the network; ``print`` shows tables.

    Raises
    ------
    ArgumentError, SpecError, ModelError, ShapeError, InfeasibleError, NoSolverError
        As in `project`.
    """
    from qrsolve.plan.comparison import compare_plan

    plan, weights, *_ = _opened(chip, model, select, exclude, groups, roles, network)
    if statistics is not None:
        from qrsolve.files.statistics_file import read_statistics
        from qrsolve.plan.quadratic_comparison import compare_plan_quadratic

        return compare_plan_quadratic(plan, weights, read_statistics(statistics))
    return compare_plan(plan, weights)


@explicit
def export(
    chip: Plan | Chip,
    model: Model,
    parameters: Mapping[str, Any] | None = None,
    *,
    select: Selectors = (),
    exclude: Selectors = (),
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: Network | None = None,
    neurons: Mapping[str, NeuronParameters | nn.Module] | None = None,
    dt: float | None = None,
) -> Codes:
    """Return the integers that a chip is loaded with for a deployable model, and what they mean.

    Parameters
    ----------
    chip, model, parameters, select, exclude, groups, roles, network
        As in `check`.
    neurons : mapping of str to NeuronParameters or module, or None
        Of populations, by the name of one of their matrices: modules of snnTorch, sinabs or Norse
        (`qrsolve.plan.network.neurons.of_module`), or `NeuronParameters`. What the chip's file does not state is left.
    dt : float or None
        Seconds of one step, with which the neurons of a NIR graph are taken; for graphs alone.

    Returns
    -------
    Codes
        A mapping of tensors to their codes; ``save("codes.npz")`` writes them, with a manifest and every other tensor
        of the model as it is. ``codes["fc1.weight"].decoded()`` gives the weights again, bit for bit.

    Raises
    ------
    ModelError
        The weights break a rule of the chip, with the first one; and as in `check`.
    ArgumentError, SpecError, ShapeError, InfeasibleError
        As in `check`; neurons that the chip cannot hold.

    Examples
    --------
    >>> codes = qrsolve.export("dynap_se", qrsolve.project("dynap_se", model))
    >>> codes.save("codes.npz")
    """
    from qrsolve.files.codes.codes import export_plan

    plan, weights, source, wiring = _opened(chip, model, select, exclude, groups, roles, network)
    known = source.claimed if parameters is None else _parameters(parameters, plan)
    others = {name: tensor for name, tensor in source.tensors.items() if name not in weights}
    use, stated = source.codes_for(plan).use, _neurons(neurons, dt, source, weights)
    return export_plan(plan, weights, others, known, use, stated, wiring)


@explicit
def explain(
    chip: Chip,
    model: Model | Mapping[str, Sequence[int]] | None = None,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: Network | None = None,
    *,
    select: Selectors = (),
    exclude: Selectors = (),
) -> Explanation:
    """Say what a chip's rules mean for some layers, and ask every solver about each problem; nothing is solved.

    Parameters
    ----------
    chip : HardwareSpec, str or path
        The chip, a bundled chip's name, or a YAML file.
    model : mapping of str to shape, nn.Module, mapping of str to Tensor or array, str, path or None
        Shapes, as in ``{"fc1.weight": (256, 784)}``, or a model as in `check`, whose shapes are taken; ``None`` takes
        an example layer.
    groups, roles, network, select, exclude
        As in `check`; the last two are for models.

    Returns
    -------
    Explanation
        With ``problem`` set where the shapes break a limit by themselves, or the weight kind has no projection;
        ``print`` shows all of it.

    Raises
    ------
    ArgumentError, SpecError, ModelError, ShapeError
        As in `check`.
    """
    spec, choice = load_spec(chip), _choice(select, exclude, groups, roles, network)
    if model is None or are_shapes(model):
        if choice.select or choice.exclude:
            option = "select" if choice.select else "exclude"
            raise ArgumentError(f"'{option}' beside shapes; needed only the shapes of the layers to explain")
        return explain_shapes(spec, model, choice.groups, choice.roles, choice.network)
    from qrsolve.api.opened import describe_source
    from qrsolve.files.model_source import source_of

    description = describe_source(source_of(model), choice)
    return explain_plan(spec, lambda: description.compiled(spec))


@explicit
def attach(
    chip: Chip,
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    select: Selectors | None = None,
    exclude: Selectors | None = None,
    groups: Sequence[Sequence[str]] = (),
    roles: Mapping[str, str] | None = None,
    network: Network | None = None,
    method: Method | str | None = None,
    compliant: Compliant = "always",
    total_steps: int | None = None,
    schedule: Schedule | None = None,
    keep_norm: bool = True,
    centre: bool = True,
    weigh_inputs: bool = True,
    seed: int = 0,
    process_group: Processes = None,
    start: Literal["weights", "calibrated"] = "weights",
    calibration: Iterable[Any] | None = None,
) -> Projector:
    """Keep the weights of a model deployable while an optimizer trains it; the training loop stays as it is.

    Parameters
    ----------
    chip : HardwareSpec, str or path
        The chip, a bundled chip's name, or a YAML file.
    model : nn.Module
        The model that is trained. Its weights are projected at once.
    optimizer : Optimizer, wrapper of one, or sequence of these
        What the loop calls ``step`` of.
    select, exclude : sequence of str or module types, or None
        Names, ``:regex`` that is searched for in names, or types of modules: the matrices to take, and those to leave
        out. ``None`` takes all known layers that are not frozen.
    groups : sequence of sequences of str
        Matrices that share a population, beside those that are found.
    roles : mapping of str to str, or None
        What matrices are: "input", "recurrent" or "output".
    network : NetworkSpec, path or None
        How tensors are wired, or a file that says it, instead of these four.
    method : Method, str or None
        How latent weights move, or its name, such as ``"q_rewiring"``; "straight_through" by default.
    compliant : {"always", "at_end"}
        Whether every forward pass is deployable, or only the result.
    total_steps : int or None
        Optimizer steps of the whole training, batches per epoch x epochs; needed for ``at_end``. In ``always`` it lets
        wirings be explored at first and frozen near the end.
    schedule : Schedule or None
        Instead of ``compliant`` and ``total_steps``.
    keep_norm : bool
        Let what limits leave of a layer's weights have the norm that more of them had. ``False`` for a network that was
        trained before.
    centre : bool
        Let biases absorb what the inputs of linear layers add up to on average.
    weigh_inputs : bool
        Give fewer connections to inputs of the first layer that hardly change.
    seed : int
        Of everything that is random.
    process_group : ProcessGroup, False or None
        Processes that train this model together; ``None`` is torch's default group, ``False`` trains alone.
    start : {"weights", "calibrated"}
        Whether a trained network starts from its weights, or from `project` with ``calibration``: values, choice and
        biases. Nothing is explored then, and no norm is kept, unless ``schedule`` says otherwise.
    calibration : iterable or None
        Inputs for that, as in `project`.

    Returns
    -------
    Projector
        With ``finalize``, ``check``, ``project_average``, ``state_dict`` and ``load_state_dict``; ``print`` shows how
        far the training is. `Projector` documents each option at length.

    Raises
    ------
    ArgumentError
        An unknown keyword, or an argument of another kind.
    SpecError, ModelError, ShapeError, InfeasibleError, NoSolverError
        As in `Projector`.

    Warns
    -----
    UserWarning
        Parameters that no class takes for connections are named, unless ``select`` or ``network`` say what is taken.

    Examples
    --------
    >>> projector = qrsolve.attach("dynap_se", model, optimizer, compliant="at_end", total_steps=1000)
    >>> projections = projector.finalize()  # after the loop
    """
    from qrsolve.training import Projector

    if optimizer is None:
        raise ArgumentError("'optimizer' is None; needed what the loop calls step() of")
    if start not in ("weights", "calibrated"):
        raise ArgumentError(f"'start' is {start!r}; needed weights or calibrated")
    if (start == "calibrated") != (calibration is not None):
        raise ArgumentError(
            "start='calibrated' and 'calibration' go together: the start, and the inputs it is made for"
        )
    if calibration is not None:
        chosen: dict[str, Any] = {"select": select or (), "exclude": exclude or (), "groups": groups, "roles": roles}
        if network is not None:
            chosen = {"network": network}
        project(chip, model, calibration=calibration, **chosen).load_into(model)
        keep_norm = False
        if schedule is None:
            from qrsolve.training import Schedule

            schedule = Schedule(compliant, total_steps, temperature=0.0)
            compliant, total_steps = "always", None
    projector = Projector(
        chip,
        model,
        optimizer=optimizer,
        select=select,
        exclude=exclude,
        groups=groups,
        roles=roles,
        network=network,
        method=method,
        compliant=compliant,
        total_steps=total_steps,
        schedule=schedule,
        keep_norm=keep_norm,
        centre=centre,
        weigh_inputs=weigh_inputs,
        seed=seed,
        process_group=process_group,
    )
    if select is None and network is None:
        trained = {name for name, _ in model.named_parameters()}
        said = [f"'{n}' ({why})" for n, why in projector.left_out.items() if n in trained and why != "excluded"]
        if said:
            more = f" and {len(said) - _NAMED} others" if len(said) > _NAMED else ""
            # From here through `explicit` to the caller.
            warnings.warn(f"not projected: {'; '.join(said[:_NAMED])}{more}", stacklevel=3)
    return projector


def _opened(
    chip: Plan | Chip,
    model: Model,
    select: Selectors,
    exclude: Selectors,
    groups: Sequence[Sequence[str]],
    roles: Mapping[str, str] | None,
    network: Network | None,
) -> tuple[Plan, dict[str, Tensor], ModelSource, NetworkSpec | None]:
    """Return a chip compiled for a model, the model's weights, the model, and its wiring where somebody stated it."""
    from qrsolve.api.opened import open_model
    from qrsolve.audit.projections import Projections
    from qrsolve.files.model_source import require_weights, source_of
    from qrsolve.plan.compilation import Plan

    choice = _choice(select, exclude, groups, roles, network)
    if isinstance(model, Projections) and not isinstance(chip, Plan):
        spec = load_spec(chip)
        chip = model.plan if choice.is_open and spec_hash(spec) == spec_hash(model.plan.spec) else spec
    if not isinstance(chip, Plan):
        opened = open_model(load_spec(chip), source_of(model), choice)
        return opened.plan, opened.weights, opened.source, opened.stated
    for option, why in _OF_PLANS.items():
        if getattr(choice, option):
            raise ShapeError(f"'{option}' beside a plan, {why}")
    source = source_of(model)
    weights = {name: source.tensors[name] for name in chip.names if name in source.tensors}
    require_weights(weights)
    return chip, weights, source, None


_OF_PLANS = {
    "select": "which is compiled for some weights; give their shapes to compile_plan",
    "exclude": "which is compiled for some weights; give their shapes to compile_plan",
    "groups": "which has populations of its own; give them to compile_plan",
    "roles": "which has roles of its own; give them to compile_plan",
    "network": "which is compiled for one; give it to compile_plan",
}


def _choice(
    select: Selectors,
    exclude: Selectors,
    groups: Sequence[Sequence[str]],
    roles: Mapping[str, str] | None,
    network: Network | None,
) -> Choice:
    choice = Choice(
        () if select is None else select,
        () if exclude is None else exclude,
        () if groups is None else groups,
        {} if roles is None else roles,
        network,
    )
    if network is not None and not choice.is_open:
        raise ArgumentError("'network' beside select, exclude, groups or roles; the network says all of these")
    return choice


def _require_alone(calibration: object, statistics: object, importance: object, solver: object, effort: object) -> None:
    """Refuse arguments that contradict a projection for what reaches the layers."""
    if calibration is not None and statistics is not None:
        raise ArgumentError("'calibration' beside 'statistics'; both say what reaches the layers")
    word = "calibration" if statistics is None else "statistics"
    for name, value in (("importance", importance), ("solver", solver)):
        if value is not None:
            raise ArgumentError(f"'{name}' beside '{word}', which weighs errors and has a solver of its own")
    if isinstance(effort, bool) or not isinstance(effort, int) or effort < 0:
        raise ArgumentError(f"'effort' is {effort!r}; needed a whole number from 0 on")


def _require_module(source: ModelSource) -> nn.Module:
    if source.module is None:
        raise ModelError(f"calibration: {source.shown} has no forward pass; needed a module (for files: 'statistics')")
    return source.module


def _parameters(parameters: object, plan: Plan) -> dict[str, Tensor]:
    """Return the values of some populations."""
    from qrsolve.files.model_source import source_of

    if not isinstance(parameters, Mapping):
        raise ArgumentError(_kind("parameters", parameters, "a mapping of populations to tensors"))
    populations = [population.name for population in plan.populations]
    for name in parameters:
        if name not in populations:
            hint = did_you_mean(name, populations) or f"; there is {_listed(populations)}"
            raise ModelError(f"parameters: no population '{name}'{hint}")
    return source_of(parameters).tensors


def _importance(importance: object, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the importance of some weights, on their devices."""
    from qrsolve.files.model_source import source_of

    if not isinstance(importance, Mapping):
        raise ArgumentError(_kind("importance", importance, "a mapping of names to tensors like the weights"))
    found = source_of(importance).tensors
    for name, tensor in found.items():
        if name not in weights:
            hint = did_you_mean(name, weights) or f"; there is {_listed(weights)}"
            raise ModelError(f"importance: no weight '{name}'{hint}")
        if tensor.shape != weights[name].shape:
            shapes = f"shape {tuple(tensor.shape)}; the weights have {tuple(weights[name].shape)}"
            raise ShapeError(f"importance: '{name}' has {shapes}")
        if not tensor.is_floating_point():
            raise ModelError(f"importance: '{name}' is of {str(tensor.dtype).removeprefix('torch.')}; needed floats")
    return {name: tensor.to(weights[name].device) for name, tensor in found.items()}


def _neurons(
    neurons: object, dt: float | None, source: ModelSource, weights: Mapping[str, Tensor]
) -> dict[str, NeuronParameters]:
    """Return the neurons of a NIR graph, and those that the user states."""
    from torch import nn

    from qrsolve.plan.network.neurons import of_module
    from qrsolve.problem.neuron import NeuronParameters

    if dt is not None and (isinstance(dt, bool) or not isinstance(dt, int | float) or not 0 < dt < float("inf")):
        raise ArgumentError(f"'dt' is {dt!r}; needed the seconds of one step, as in 1e-3")
    found = {} if dt is None else source.neurons(dt)
    if neurons is not None and not isinstance(neurons, Mapping):
        raise ArgumentError(_kind("neurons", neurons, "a mapping of names to modules or NeuronParameters"))
    for name, stated in (neurons or {}).items():
        own = (
            of_module(stated, len(weights[name]) if name in weights else 1) if isinstance(stated, nn.Module) else stated
        )
        if not isinstance(own, NeuronParameters):
            word = type(stated).__name__
            raise ArgumentError(
                f"neurons: '{name}' is of type {word}; needed NeuronParameters or a module of snnTorch, sinabs or Norse"
            )
        found[name] = own
    return found


def _listed(names: Iterable[str]) -> str:
    from qrsolve.files.formats.content import listed, quoted

    return listed([quoted(name) for name in names])


def _kind(option: str, value: object, needed: str) -> str:
    return f"'{option}' is of type {type(value).__name__}; needed {needed}"

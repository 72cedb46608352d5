"""Which models a request is for, and in which order: read from its fields, the table of rules, queues and prices.

All that is impossible is refused here, before an image is fetched, with the path of the field at fault.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from accounts.errors import model_not_allowed
from accounts.money import NANO_PER_DOLLAR
from accounts.prices import PriceList
from router.admission.rule import Admission
from router.backends.base import Backend, ModelStatus
from router.catalogue import described
from router.composition.auto_rules import AutoRule, When
from router.composition.cascade import may_be_judged, thresholds
from router.composition.speed import Speeds
from router.composition.wanted import CONSENSUS_TASKS, MODES, Stage, Wanted
from router.suggest import did_you_mean
from vlm.consensus import weight_of
from vlm.errors import InvalidRequest, ModelNotFound, UnsupportedTask
from vlm.models.cards import TaskCard
from vlm.models.plain_words import OTHERWISE, asks_for_a_caption, begins_a_caption, task_of

QUESTION, CAPTION = "query", "caption"
_LAST = 99
LOCATED = frozenset(("boxes", "quads", "polygons"))
"""What a task's answer may hold that has a box."""
_CHEAPEST_FIRST = "the cheapest model first, and then the best of the dearer ones"

"""Prices are told for so many images."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask.

    Attributes:
        models: Canonical names, in the order in which they are asked, or of the choices; at least one.
        passed: Those that are not asked, each with a word that says why.
        why: Why in this order, in words.
        thresholds: Of a cascade, the least confidence to be content with, for each model but the last; None where it is
            not known, so that the next one is asked.
        weights: Of a consensus, how much each model counts.
    """

    models: tuple[str, ...]
    passed: tuple[tuple[str, str], ...]
    why: str
    thresholds: tuple[float | None, ...] = ()
    weights: tuple[float, ...] = ()


class Planner:
    """Makes plans from what is known of the models at this moment."""

    def __init__(
        self,
        backend: Backend,
        admission: Admission,
        speeds: Speeds,
        rules: Sequence[AutoRule],
        price_list: PriceList,
    ) -> None:
        """Nothing is asked of ``backend`` before there is a request.

        Args:
            backend: Whose models there are.
            admission: How long each model's queue is.
            speeds: How long each model's answers take.
            rules: The table of ``auto``.
            price_list: What each model costs.
        """
        self._backend = backend
        self._admission = admission
        self._speeds = speeds
        self._rules = rules
        self.price_list = price_list

    async def plan(self, wanted: Wanted, sees: Callable[[str], bool] = lambda _: True) -> Plan:
        """Whom to ask, of the models that the caller ``sees``.

        Raises:
            ModelNotAllowed: The caller may not ask a model that it names.
            InvalidRequest: The request's fields do not go together, or no model has what it asks for.
            UnsupportedTask: No model that is named has the task; of models to compare, one has not.
            ModelNotFound: A model is not served here.
        """
        served = {status.name: status for status in await self._backend.models()}
        _check_allowed(wanted, served, sees)
        statuses = {name: status for name, status in served.items() if sees(name)}
        _check_names(wanted, statuses)
        if wanted.mode in ("compare", "consensus"):
            return self._compared(wanted, statuses)
        if wanted.mode == "pipeline":
            _check_stages(wanted.stages, statuses)
            return self._within_price_each(wanted)
        if wanted.mode == "cascade":
            return self._cascaded(wanted, statuses)
        if wanted.mode == "fallback":
            having, lacking = _with_task(wanted, wanted.models, wanted.task, statuses)
            ready, waiting = _ready(having, statuses)
            return self._within_price(wanted, ready, (*lacking, *waiting), "the order of the request")
        allowed = wanted.models or tuple(sorted(statuses))
        task = wanted.task or implied_task(wanted.text, [statuses[name] for name in allowed])
        having, lacking = _with_task(wanted, allowed, task, statuses)
        order, why = self._ordered(wanted, having, task, statuses)
        return self._within_price(wanted, order, lacking, why)

    # The order

    def _ordered(
        self, wanted: Wanted, models: Sequence[str], task: str, statuses: Mapping[str, ModelStatus]
    ) -> tuple[list[str], str]:
        rule = next((rule for rule in self._rules if fits(rule.when, wanted)), None)
        ranked = sorted(models, key=lambda name: _rank(statuses[name], task))
        if wanted.prefer == "cheap":
            return sorted(ranked, key=lambda name: self._price(name, task)), f"the cheapest for the task {task}"
        if wanted.prefer == "fast":
            soonest = sorted(ranked, key=lambda name: self._seconds(name, statuses))
            return soonest, f"the one that would have answered first for the task {task}"
        named = () if rule is None else tuple(name for name in rule.models if name in models)
        order = sorted(dict.fromkeys((*named, *ranked)), key=lambda name: not statuses[name].ready)
        told = f"the order of the models' cards for the task {task}" if rule is None else rule.why
        return order, told

    def _known_price(self, model: str, task: str | None) -> Decimal | None:
        """US dollars for a new image and the task on it, without the tokens that are written."""
        if model not in self.price_list.models:
            return None
        tasks = () if task is None else (task,)
        return Decimal(self.price_list.at_most(model, 1, tasks)) / NANO_PER_DOLLAR

    def _price(self, model: str, task: str | None) -> Decimal:
        known = self._known_price(model, task)
        return Decimal("Infinity") if known is None else known

    def _seconds(self, model: str, statuses: Mapping[str, ModelStatus]) -> float:
        """Until the model would have answered: what waits before the request, and an answer."""
        if not statuses[model].ready:
            return math.inf
        return (self._admission.load(model).queue_s or 0.0) + self._speeds.seconds(model)

    # What is left out

    def _within_price(self, wanted: Wanted, models: Sequence[str], passed: Sequence[tuple[str, str]], why: str) -> Plan:
        limit, task = wanted.max_price, wanted.task
        if limit is None:
            return Plan(tuple(models), tuple(passed), why)
        dear = [model for model in models if self._price(model, task) > limit]
        left = tuple(model for model in models if model not in dear)
        if not left:
            raise self._too_dear(wanted, [(model, task) for model in models])
        return Plan(left, (*passed, *((model, self._reason(model)) for model in dear)), why)

    def _within_price_each(self, wanted: Wanted) -> Plan:
        """Of the steps of a pipeline, each must be."""
        limit = wanted.max_price
        dear = [] if limit is None else [one for one in wanted.stages if self._price(one.model, one.task) > limit]
        if dear:
            raise self._too_dear(wanted, [(stage.model, stage.task) for stage in dear])
        return Plan(tuple(stage.model for stage in wanted.stages), (), "the steps of the pipeline")

    def _reason(self, model: str) -> str:
        return "over_max_price" if model in self.price_list.models else "price_unknown"

    def _too_dear(self, wanted: Wanted, asked: Sequence[tuple[str, str | None]]) -> InvalidRequest:
        told = ", ".join(f"{model} {_told(self._known_price(model, task))}" for model, task in dict.fromkeys(asked))
        return InvalidRequest(
            f"An image must cost at most {wanted.max_price} US dollars, and there is no other model: {told}.",
            "max_price.image",
            "invalid_value",
        )

    def _compared(self, wanted: Wanted, statuses: Mapping[str, ModelStatus]) -> Plan:
        if wanted.mode == "consensus":
            _check_consensus(wanted)
        models = wanted.models or tuple(sorted(statuses))
        having, lacking = _all_with_task(wanted, models, wanted.task, statuses)
        plan = self._within_price(wanted, having, lacking, "all models that have the task")
        if len(plan.models) < 2:
            message = f"{wanted.mode} needs at least two models that have the task."
            raise InvalidRequest(message, "models", "invalid_value")
        if wanted.min_votes is not None and wanted.min_votes > len(plan.models):
            message = f"min_votes must be at most the number of models that are asked, which is {len(plan.models)}."
            raise InvalidRequest(message, "min_votes", "invalid_value")
        return replace(plan, weights=tuple(_weight(statuses[name], wanted) for name in plan.models))

    def _cascaded(self, wanted: Wanted, statuses: Mapping[str, ModelStatus]) -> Plan:
        allowed = wanted.models or tuple(sorted(statuses))
        task = wanted.task or implied_task(wanted.text, [statuses[name] for name in allowed])
        having, lacking = _all_with_task(wanted, allowed, task, statuses)
        plan = self._within_price(wanted, having, lacking, "the order of the request")
        if not wanted.models:
            plan = replace(plan, models=self._two_stages(plan.models, task, statuses), why=_CHEAPEST_FIRST)
        if len(plan.models) < 2:
            raise InvalidRequest("cascade needs at least two models that have the task.", "models", "invalid_value")
        return replace(plan, thresholds=thresholds(wanted, plan.models, task, statuses))

    def _two_stages(self, models: Sequence[str], task: str, statuses: Mapping[str, ModelStatus]) -> tuple[str, ...]:
        """The cheapest model whose answers can be judged, and the best one that is dearer, or else the best other."""
        ranked = sorted(models, key=lambda name: _rank(statuses[name], task))
        judged = [name for name in ranked if may_be_judged(statuses[name], task)]
        if not judged:
            raise InvalidRequest(
                f"No model here was calibrated for the task {task!r}, so that nothing tells whether an answer is good "
                "enough: auto chooses one model.",
                "model",
                "invalid_value",
            )
        first = min(judged, key=lambda name: self._price(name, task))
        others = [name for name in ranked if name != first]
        dearer = [name for name in others if self._price(name, task) > self._price(first, task)]
        return (first, *(dearer or others)[:1])


def fits(when: When, wanted: Wanted) -> bool:
    """Whether a request is as a rule wants it."""
    known = (
        (when.names_task, wanted.task is not None),
        (when.has_text, bool(wanted.text.strip())),
        (when.latin, is_latin(wanted.text)),
        (when.has_image, wanted.images > 0),
    )
    of_task = not when.tasks or wanted.task in when.tasks
    return of_task and all(asked is None or asked == found for asked, found in known)


def is_latin(text: str) -> bool:
    """Whether all letters of a text are Latin."""
    return all(unicodedata.name(letter, "").startswith("LATIN") for letter in text if letter.isalpha())


def implied_task(text: str, statuses: Sequence[ModelStatus]) -> str:
    """What a text without a task asks for, as far as one of the models has that task.

    Words that name a task ask for it, as they do of a model that answers no questions; any others are a question.
    Nothing asks for a caption.
    """
    if not text.strip():
        return CAPTION
    named = task_of(text)
    worded = named != OTHERWISE or asks_for_a_caption(text) or begins_a_caption(text)
    wished = [named.name] if worded else [QUESTION]
    return next((task for task in wished if any(_card_of(status, task) for status in statuses)), CAPTION)


def has_task(status: ModelStatus, task: str) -> bool:
    """Whether a model has a task, as far as its card says; a model without a card may have any."""
    tasks = described(status).tasks
    return not tasks or any(one.name == task for one in tasks)


def _card_of(status: ModelStatus, task: str) -> TaskCard | None:
    return next((one for one in described(status).tasks if one.name == task), None)


def _rank(status: ModelStatus, task: str) -> tuple[int, str]:
    card = _card_of(status, task)
    return (card.rank if card else _LAST, status.name)


def _weight(status: ModelStatus, wanted: Wanted) -> float:
    return weight_of(described(status), wanted.task or "")


def _with_task(
    wanted: Wanted, models: Sequence[str], task: str | None, statuses: Mapping[str, ModelStatus]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The models that have the task, and those that have not."""
    if task is None:
        return tuple(models), ()
    having = tuple(model for model in models if has_task(statuses[model], task))
    if not having:
        path = wanted.paths[0] if wanted.paths else "model"
        raise _lacks_task(models[0] if len(models) == 1 else "", task, statuses, "task" if not wanted.paths else path)
    return having, tuple((model, "unsupported_task") for model in models if model not in having)


def _ready(
    models: tuple[str, ...], statuses: Mapping[str, ModelStatus]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The models that can answer now, and those that are not waited for while another can; all where none can."""
    ready = tuple(model for model in models if statuses[model].ready)
    if not ready:
        return models, ()
    return ready, tuple((model, "model_not_ready") for model in models if model not in ready)


def _all_with_task(
    wanted: Wanted, models: Sequence[str], task: str | None, statuses: Mapping[str, ModelStatus]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The same, where each model that the request names must have the task."""
    having, lacking = _with_task(wanted, models, task, statuses)
    if lacking and wanted.models:
        model = lacking[0][0]
        raise _lacks_task(model, task or "", statuses, wanted.paths[wanted.models.index(model)])
    return having, lacking


def _check_allowed(wanted: Wanted, served: Collection[str], sees: Callable[[str], bool]) -> None:
    asked = [
        *zip(wanted.models, wanted.paths, strict=True),
        *((one.model, f"{one.path}.model") for one in wanted.stages),
    ]
    for model, path in asked:
        if model in served and not sees(model):
            raise model_not_allowed(model, path)


def _check_names(wanted: Wanted, statuses: Mapping[str, ModelStatus]) -> None:
    for model, path in zip(wanted.models, wanted.paths, strict=True):
        _check_name(model, path, statuses)
    if not statuses:
        raise ModelNotFound("No model is served here yet.", "model")


def _check_name(model: str, path: str, statuses: Mapping[str, ModelStatus]) -> None:
    if model in MODES:
        raise InvalidRequest(
            f"{model!r} stands for several models and cannot be one of them: name the models themselves.",
            path,
            "invalid_value",
        )
    if model not in statuses:
        guess = did_you_mean(model, [*statuses])
        raise ModelNotFound(
            f"The model {model[:128]!r} is not served here.{guess} GET /v1/models lists those that are.", path
        )


def _check_consensus(wanted: Wanted) -> None:
    if wanted.task in CONSENSUS_TASKS:
        return
    known = ", ".join(CONSENSUS_TASKS)
    if wanted.task is None:
        message = f"A consensus needs a task that all models do: {known}."
        raise InvalidRequest(message, "task", "missing_required_parameter")
    raise UnsupportedTask(
        f"The objects of the task {wanted.task[:64]!r} cannot be matched between models: a consensus is for {known}.",
        "task",
        "unsupported_task",
    )


def _check_stages(stages: Sequence[Stage], statuses: Mapping[str, ModelStatus]) -> None:
    for index, stage in enumerate(stages):
        path = f"{stage.path}.model"
        _check_name(stage.model, path, statuses)
        if not has_task(statuses[stage.model], stage.task):
            raise _lacks_task(stage.model, stage.task, statuses, f"{stage.path}.task")
        card = _card_of(statuses[stage.model], stage.task)
        if index + 1 < len(stages) and card is not None and not LOCATED & {*card.outputs}:
            raise InvalidRequest(
                f"The task {stage.task!r} of {stage.model!r} finds no objects that the next step could be about.",
                f"{stage.path}.task",
                "invalid_value",
            )


def _lacks_task(model: str, task: str, statuses: Mapping[str, ModelStatus], path: str) -> UnsupportedTask:
    others = sorted(name for name, status in statuses.items() if has_task(status, task))
    who = f"The model {model!r} does not offer" if model else "None of the models offers"
    known = f" These do: {', '.join(others)}." if others else f" No model here does.{_near(task, statuses)}"
    return UnsupportedTask(f"{who} the task {task[:64]!r}.{known}", path, "unsupported_task")


def _near(task: str, statuses: Mapping[str, ModelStatus]) -> str:
    return did_you_mean(task, sorted({one.name for status in statuses.values() for one in described(status).tasks}))


def _told(price: Decimal | None) -> str:
    return "has no known price" if price is None else f"costs {price.normalize():f}"

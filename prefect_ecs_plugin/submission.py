"""Finds or registers a task definition and starts exactly one task with it.

No other module asks ECS to start anything.

Guarantees:

* One run, one task: every attempt of a launch is the same request with the same
  clientToken; the task that a ConflictException names is the launch's.
* One call per run once its definition exists: definitions are named by their
  content, looked for before they are registered, and remembered by their ARN.
* Two launches that need the same new definition at once register it once; the
  others wait for it without holding a thread.
* A started task is never lost to a later failure: nothing is called after RunTask.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Dict, Mapping, Optional

from .aws.definition_cache import TaskDefinitionCache
from .aws.ecs import ECS, BeforeSend, belongs_to_launch
from .aws.retrying import Answer, AWSCallError, RetryBudget, Verdict
from .errors import LaunchError, without_code
from .observability.counters import AgentCounters, Source
from .scheduling.steps import Steps
from .template import without_own_tags

#: Seconds since a launch began, or since its run was last confirmed, after which the
#: run is confirmed before RunTask is sent.
CONFIRM_AFTER = 3.0


#: Seconds for which the agent's own tags are left out of an operation's requests after
#: AWS refused them.
ASK_FOR_TAGS_AGAIN = 600.0


class LaunchUncertain(LaunchError):
    """The launch has failed, and ECS does not show whether it started a task."""


class Submission:
    """Launches tasks through one ECS client.

    Args:
        ecs: ECS, paced.
        logger: Gets one line for each permission that the agent lacks.
        counts: Counts where definitions come from.
    """

    def __init__(
        self, ecs: ECS, logger: logging.Logger, counts: Optional[AgentCounters] = None
    ) -> None:
        self._ecs = ecs
        self._logger = logger
        self._sources = (counts or AgentCounters()).task_definitions
        self._definitions = TaskDefinitionCache()
        self._may_look = True
        self._leaves_out_tags_until: Dict[str, float] = {}

    def launch(
        self,
        definition: Mapping[str, Any],
        request: Mapping[str, Any],
        budget: RetryBudget,
        *,
        confirm: Optional[BeforeSend] = None,
        after: Optional[str] = None,
    ) -> Steps[str]:
        """Launch a task with a rendered definition.

        Args:
            definition: The register_task_definition request, named by its content.
            request: The RunTask request, all but `taskDefinition`.
            budget: How long this launch may wait.
            confirm: Run right before RunTask is sent, if the launch has waited for
                more than `CONFIRM_AFTER` since it began or was last confirmed. What
                it raises abandons the launch and is raised here, unless a lost answer
                turns out to have started the task.
            after: The ARN of the last task of an earlier start: that one and all
                before it are not what a lost answer was about.

        Returns:
            The task's ARN.

        Raises:
            LaunchError: if ECS refuses it, or throttles it for too long.
            LaunchUncertain: if it may have started a task nevertheless.
        """
        arn = yield from self._provided(definition, budget)
        try:
            return (yield from self._launch(arn, request, budget, confirm, after))
        except AWSCallError as refused:
            if refused.verdict is not Verdict.REREGISTER:
                raise
            self._definitions.forget(definition["family"], arn)
        arn = yield from self._provided(definition, budget)
        return (yield from self._launch(arn, request, budget, confirm, after))

    def launch_by_arn(
        self,
        task_definition: str,
        request: Mapping[str, Any],
        budget: RetryBudget,
        *,
        confirm: Optional[BeforeSend] = None,
        after: Optional[str] = None,
    ) -> Steps[str]:
        """Launch a task with a definition that the user has registered.

        Args:
            task_definition: Its ARN or `family:revision`.
            request: The RunTask request, all but `taskDefinition`.
            budget: How long this launch may wait.
            confirm: As for `launch`.
            after: As for `launch`.

        Returns:
            The task's ARN.

        Raises:
            LaunchError: as `launch`; it names the definition if that does not exist.
        """
        try:
            return (
                yield from self._launch(
                    task_definition, request, budget, confirm, after
                )
            )
        except AWSCallError as refused:
            if refused.verdict is not Verdict.REREGISTER:
                raise
            self._definitions.forget_described(task_definition)
            raise _unusable(task_definition, refused) from refused

    def _launch(
        self,
        task_definition: str,
        request: Mapping[str, Any],
        budget: RetryBudget,
        confirm: Optional[BeforeSend],
        after: Optional[str],
    ) -> Steps[str]:
        whole = {**request, "taskDefinition": task_definition}

        def before_send() -> Steps[None]:
            """Confirm a run that has waited; any other is as it was read."""
            if confirm and budget.seconds_since_confirmed() > CONFIRM_AFTER:
                yield from budget.uncounted(confirm())
                budget.confirmed()

        try:
            return (
                yield from budget.attempts(
                    lambda: self._run(whole, budget, before_send)
                )
            )
        except Exception as error:  # of `confirm` too
            started = yield from self._started_after_all(whole, budget, after, error)
            if started is None:
                raise
            return started

    def described(self, task_definition: str, budget: RetryBudget) -> Steps[Any]:
        """The definition that a run config names.

        Args:
            task_definition: A full ARN, `family:revision` or `family`.
            budget: How long this launch may wait.

        Returns:
            The definition as ECS describes it. It is remembered, unless it was
            named without a revision and may be another one tomorrow.

        Raises:
            LaunchError: if it does not exist, is INACTIVE, or may not be read.
        """
        known = self._definitions.described(task_definition)
        if known is None:
            try:
                known = yield from budget.attempts(
                    lambda: self._read(task_definition, budget)
                )
            except AWSCallError as refused:
                raise _unusable(task_definition, refused) from refused
            if ":" in task_definition.rpartition("/")[2]:
                self._definitions.keep_described(task_definition, known)
        return known

    # -- One attempt each -------------------------------------------------------

    def _run(
        self, request: Mapping[str, Any], budget: RetryBudget, before_send: BeforeSend
    ) -> Steps[str]:
        try:
            answer = yield from self._tagged_call(
                "RunTask", request, budget, before_send
            )
        except AWSCallError as refused:
            if refused.verdict is Verdict.REUSE_TASK and refused.answer.resource_ids:
                return refused.answer.resource_ids[0]
            raise
        if answer.get("tasks"):
            return str(answer["tasks"][0]["taskArn"])
        raise AWSCallError("RunTask", Answer.from_failures(answer.get("failures", [])))

    def _started_after_all(
        self,
        request: Mapping[str, Any],
        budget: RetryBudget,
        after: Optional[str],
        error: Exception,
    ) -> Steps[Optional[str]]:
        """The task of a failed launch, if a RunTask without an answer started one."""
        if not budget.is_uncertain:
            return None
        run_id, cluster = request["startedBy"], request.get("cluster", "default")
        try:
            tasks = yield from budget.retry_until_success(
                lambda: self._ecs.tasks_of(run_id, cluster)
            )
        except AWSCallError as refused:
            raise LaunchUncertain(
                f"{without_code(str(error)).rstrip('.')}. ECS does not show whether it "
                f"started a task nevertheless: {refused.message}",
                code="launch-uncertain",
            ) from refused
        arns = [str(task["taskArn"]) for task in tasks]
        first = arns.index(after) + 1 if after in arns else 0
        mine = [
            task["taskArn"]
            for task in tasks[first:]
            if belongs_to_launch(task, budget.due)
        ]
        budget.was_listed = bool(mine)
        return str(mine[-1]) if mine else None

    def _read(self, task_definition: str, budget: RetryBudget) -> Steps[Any]:
        answer = yield from self._ecs.call(
            "DescribeTaskDefinition", {"taskDefinition": task_definition}, budget
        )
        definition = answer["taskDefinition"]
        if definition.get("status") == "INACTIVE":
            raise LaunchError(
                f"The task definition {task_definition} is INACTIVE and ECS starts no "
                "new tasks with it; name an active revision in the run config.",
                code="inactive-task-definition",
            )
        return definition

    def _register(
        self, definition: Mapping[str, Any], budget: RetryBudget
    ) -> Steps[str]:
        answer = yield from self._tagged_call(
            "RegisterTaskDefinition", definition, budget
        )
        arn = str(answer["taskDefinition"]["taskDefinitionArn"])
        self._logger.debug("Registered task definition %s", arn)
        self._sources.add(Source.REGISTERED)
        return arn

    def _find(self, family: str, budget: RetryBudget) -> Steps[Optional[str]]:
        """The newest active revision of a family, None where there is none.

        Without the permission to look, the agent registers, as Prefect's own does.
        """
        try:
            answer = yield from self._ecs.call(
                "DescribeTaskDefinition", {"taskDefinition": family}, budget
            )
            self._sources.add(Source.FOUND)
            return str(answer["taskDefinition"]["taskDefinitionArn"])
        except AWSCallError as refused:
            if "AccessDenied" in refused.answer.code:
                self._may_look = False
                self._logger.warning(
                    "The agent may not call ecs:DescribeTaskDefinition, so it "
                    "registers its task definitions again at each start; grant it "
                    "that permission [missing-permission]"
                )
            elif refused.verdict is not Verdict.REREGISTER:
                raise
            return None

    # -- Providing a definition -------------------------------------------------

    def _provided(
        self, definition: Mapping[str, Any], budget: RetryBudget
    ) -> Steps[str]:
        """The ARN of a rendered definition, found or registered on first need."""
        family = definition["family"]
        while True:
            promise, is_ours = self._definitions.reserve(family)
            if is_ours:
                break
            yield promise
            error = promise.exception()
            if error is None:
                self._sources.add(Source.REMEMBERED)
                return str(promise.result())
            if isinstance(error, AWSCallError):  # ECS would refuse this launch's too
                raise LaunchError(error.message, code=error.code) from error
        try:
            arn = yield from self._find_or_register(definition, budget)
        except BaseException as error:
            self._definitions.reject(family, error)
            raise
        self._definitions.resolve(family, arn)
        return arn

    def _find_or_register(
        self, definition: Mapping[str, Any], budget: RetryBudget
    ) -> Steps[str]:
        """Look, then register; look again where a lost answer may have registered."""
        look = True

        def attempt() -> Steps[str]:
            nonlocal look
            found = None
            if look and self._may_look:
                found = yield from self._find(definition["family"], budget)
            look = False
            try:
                return found or (yield from self._register(definition, budget))
            except AWSCallError as refused:
                look = refused.verdict is not Verdict.THROTTLED
                raise

        return (yield from budget.attempts(attempt))

    # -- Calling ECS ------------------------------------------------------------

    def _tagged_call(
        self,
        operation: str,
        request: Mapping[str, Any],
        budget: RetryBudget,
        before_send: Optional[BeforeSend] = None,
    ) -> Steps[Dict[str, Any]]:
        """Call with tags, or without the agent's own where AWS refuses those.

        The user's tags are always sent. What AWS refuses is asked for again after a
        while, since a permission may be granted meanwhile.
        """
        bare = without_own_tags(request)
        if budget.clock() < self._leaves_out_tags_until.get(operation, -math.inf):
            return (yield from self._ecs.call(operation, bare, budget, before_send))
        try:
            return (yield from self._ecs.call(operation, request, budget, before_send))
        except AWSCallError as refused:
            if bare == request or not _is_about_tags(refused.answer):
                raise
            denied = refused
        answer = yield from self._ecs.call(operation, bare, budget, before_send)
        if not self._leaves_out_tags_until:
            self._logger.warning(
                "The agent's own tags (prefect:...) are left out of tasks and task "
                "definitions, because ECS refuses them; grant the agent "
                "ecs:TagResource and use the long ARN format (%s) [own-tags-refused]",
                denied.answer,
            )
        self._leaves_out_tags_until[operation] = budget.clock() + ASK_FOR_TAGS_AGAIN
        return answer


def _unusable(task_definition: str, refused: AWSCallError) -> LaunchError:
    """Why a definition that a run config names cannot be used, with its name."""
    if refused.verdict is Verdict.REREGISTER:
        return LaunchError(
            f"The task definition {task_definition} does not exist or is INACTIVE; "
            "name an ACTIVE one of this account and region in the run config "
            f"({refused.answer})",
            code="no-task-definition",
        )
    return LaunchError(
        f"The task definition {task_definition} cannot be read: {refused.message}",
        code=refused.code,
    )


def _is_about_tags(answer: Answer) -> bool:
    """Whether a permission is missing, or the account uses the short ARN format.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/supported-iam-actions-tagging.html
    """
    text = answer.message.lower()
    denied = "AccessDenied" in answer.code and "ecs:tagresource" in text
    return denied or ("arn format" in text and "tag" in text)

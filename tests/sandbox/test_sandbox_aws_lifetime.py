"""The sandbox's AWS from its start to its stop: each test has a server of its own."""

from __future__ import annotations

import os

from sandbox_aws import AWS, definition, gone, run_command, until, wait_for

from prefect_ecs_plugin.sandbox.aws import Phases

IMAGE = {"PATH": os.environ["PATH"]}


def test_stop_kills_everything() -> None:
    with AWS(container_environment=IMAGE) as aws:
        task = run_command(aws, "sleep 600 & echo $!; echo $$; exec sleep 600")
        until(lambda: len(aws.task(task.task_arn).lines) == 2)
        pids = [int(line) for line in aws.task(task.task_arn).lines]
    until(lambda: all(map(gone, pids)))
    aws.stop()  # twice is no harm


def test_further_tasks_wait_provisioning() -> None:
    with AWS(container_environment=IMAGE, max_processes=2) as aws:
        tasks = [run_command(aws, "exec sleep 600").task_arn for _ in range(3)]
        for arn in tasks[:2]:
            wait_for(aws, arn, "RUNNING")
        assert aws.task(tasks[2]).last_status == "PROVISIONING"
        aws.client("ecs").stop_task(task=tasks[0])
        wait_for(aws, tasks[2], "RUNNING")


def test_a_task_stopped_while_it_waits_takes_no_place() -> None:
    with AWS(container_environment=IMAGE, max_processes=1) as aws:
        ecs = aws.client("ecs")
        first, second, third = (
            run_command(aws, "exec sleep 600").task_arn for _ in range(3)
        )
        wait_for(aws, first, "RUNNING")
        ecs.stop_task(task=second)
        wait_for(aws, second)
        ecs.stop_task(task=first)
        wait_for(aws, third, "RUNNING")


def test_without_processes_tasks_run_for_a_while() -> None:
    with AWS(runs_tasks=False, task_seconds=0.0, phases=Phases(0.01)) as aws:
        task = wait_for(aws, run_command(aws, "exit 9").task_arn)
        assert (task.exit_code, task.stop_code, task.lines) == (
            0,
            "EssentialContainerExited",
            (),
        )


def test_a_new_aws_knows_nothing_of_the_last() -> None:
    for _ in range(2):
        with AWS(runs_tasks=False) as aws:
            ecs = aws.client("ecs")
            assert ecs.list_task_definitions()["taskDefinitionArns"] == []
            assert aws.client("s3").list_buckets()["Buckets"] == []
            ecs.register_task_definition(**definition())
            aws.client("s3").create_bucket(Bucket="left-over")

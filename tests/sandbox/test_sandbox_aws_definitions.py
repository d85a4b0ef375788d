"""Task definitions in the sandbox: what ECS refuses, revisions, families, paging."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import Any, Dict, Iterator, List

import pytest
from sandbox_aws import ARN, AWS, ONCE, content, definition, flow_container, refusal


@pytest.fixture(scope="module")
def server() -> Iterator[AWS]:
    with AWS(runs_tasks=False, now=lambda: 1_700_000_000.0) as aws:
        yield aws


@pytest.fixture
def ecs(server: AWS) -> Any:
    return server.client("ecs", config=ONCE)


def test_registered_definition_is_shown_as_ecs_shows_it(ecs: Any) -> None:
    given = definition(
        family="shown",
        cpu=".25 vCPU",
        memory="0.5 GB",
        containerDefinitions=[
            flow_container(environment=[{"name": "A", "value": "1"}])
        ],
        tags=[{"key": "team", "value": "data"}],
    )
    untouched = copy.deepcopy(given)
    answer = content(ecs.register_task_definition(**given))
    assert answer.pop("taskDefinition").pop("registeredAt").timestamp() == 1.7e9
    assert answer == {"tags": [{"key": "team", "value": "data"}]}
    described = ecs.describe_task_definition(taskDefinition="shown", include=["TAGS"])
    registered_at = described["taskDefinition"].pop("registeredAt")
    assert isinstance(registered_at, datetime)
    assert content(described) == {
        "tags": [{"key": "team", "value": "data"}],
        "taskDefinition": {
            "taskDefinitionArn": ARN + "task-definition/shown:1",
            "family": "shown",
            "revision": 1,
            "status": "ACTIVE",
            "networkMode": "awsvpc",
            "cpu": "256",
            "memory": "512",
            "requiresCompatibilities": ["FARGATE"],
            "compatibilities": ["EC2", "FARGATE"],
            "volumes": [],
            "placementConstraints": [],
            "registeredBy": "arn:aws:iam::123456789012:root",
            "containerDefinitions": [
                {
                    "name": "flow",
                    "image": "flow-image",
                    "command": ["true"],
                    "environment": [{"name": "A", "value": "1"}],
                    "cpu": 0,
                    "essential": True,
                    "portMappings": [],
                    "mountPoints": [],
                    "volumesFrom": [],
                    "systemControls": [],
                }
            ],
        },
    }
    assert given == untouched


def test_tags_are_shown_where_asked_for(ecs: Any) -> None:
    ecs.register_task_definition(**definition(tags=[{"key": "a", "value": "b"}]))
    assert "tags" not in ecs.describe_task_definition(taskDefinition="etl")


# facts/aws-ecs.md: what moto accepts in silence or answers with HTTP 500.
REFUSED: List[Any] = [
    ("impossible size", {"memory": "511"}, "memory"),
    ("bad family", {"family": "my family"}, "Family"),
    ("long family", {"family": "f" * 256}, "Family"),
    (
        "over 64 KiB",
        {"containerDefinitions": [flow_container(command=["x" * 66000])]},
        "65536",
    ),
    (
        "over 50 tags",
        {"tags": [{"key": str(i), "value": ""} for i in range(51)]},
        "tags",
    ),
    (
        "no memory",
        {"cpu": None, "memory": None, "requiresCompatibilities": None},
        "memory",
    ),
    ("no containers", {"containerDefinitions": []}, "Container list"),
    (
        "eleven containers",
        {"containerDefinitions": [flow_container(name=f"c{i}") for i in range(11)]},
        "Too many containers",
    ),
    (
        "the same name twice",
        {"containerDefinitions": [flow_container(), flow_container()]},
        "flow",
    ),
    ("Fargate without awsvpc", {"networkMode": "bridge"}, "awsvpc"),
]


@pytest.mark.parametrize(
    "members, message", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_definition_that_ecs_refuses(
    ecs: Any, members: Dict[str, Any], message: str
) -> None:
    given = definition(**{"family": "refused", **members})
    given = {key: value for key, value in given.items() if value is not None}
    answer = refusal(ecs.register_task_definition, **given)
    assert (answer["Code"], answer["Status"]) == ("ClientException", 400)
    assert message in answer["Message"]
    families = ecs.list_task_definition_families(familyPrefix="refused")["families"]
    assert families == []


def test_container_without_memory_where_the_task_has_some(ecs: Any) -> None:
    ecs.register_task_definition(**definition(family="no-container-memory"))


@pytest.mark.parametrize(
    "members, compatibilities",
    [
        ({}, ["EC2", "FARGATE"]),
        ({"requiresCompatibilities": ["EC2"]}, ["EC2", "FARGATE"]),
        (
            {"requiresCompatibilities": ["EC2"], "networkMode": "bridge"},
            ["EXTERNAL", "EC2"],
        ),
        ({"requiresCompatibilities": ["EC2"], "cpu": "300"}, ["EC2"]),
    ],
)
def test_compatibilities_are_found_by_ecs(
    ecs: Any, members: Dict[str, Any], compatibilities: List[str]
) -> None:
    answer = ecs.register_task_definition(**definition(**members))
    assert answer["taskDefinition"]["compatibilities"] == compatibilities


def test_revisions(ecs: Any) -> None:
    def register() -> Any:
        return ecs.register_task_definition(**definition(family="rev"))[
            "taskDefinition"
        ]["taskDefinitionArn"]

    def newest() -> Any:
        return ecs.describe_task_definition(taskDefinition="rev")["taskDefinition"][
            "taskDefinitionArn"
        ]

    first, second, third = register(), register(), register()
    assert [arn.rpartition("/")[2] for arn in (first, second, third)] == [
        "rev:1",
        "rev:2",
        "rev:3",
    ]
    assert newest() == third
    gone = ecs.deregister_task_definition(taskDefinition="rev:3")["taskDefinition"]
    assert (gone["status"], "deregisteredAt" in gone) == ("INACTIVE", True)
    assert newest() == second
    described = ecs.describe_task_definition(taskDefinition=third)["taskDefinition"]
    assert described["status"] == "INACTIVE"
    assert register().endswith("rev:4")
    listed = ecs.list_task_definitions(familyPrefix="rev")["taskDefinitionArns"]
    assert listed == [first, second, ARN + "task-definition/rev:4"]
    inactive = ecs.list_task_definitions(familyPrefix="rev", status="INACTIVE")
    assert inactive["taskDefinitionArns"] == [third]


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "nothing:1",
        "etl:99",
        "etl:0",
        "etl:x",
        "arn:aws:ecs:us-east-1:999999999999:task-definition/etl:1",
    ],
)
def test_definition_that_is_not_there(ecs: Any, name: str) -> None:
    ecs.register_task_definition(**definition())
    assert refusal(ecs.describe_task_definition, taskDefinition=name) == {
        "Code": "ClientException",
        "Message": "Unable to describe task definition.",
        "Status": 400,
    }
    assert refusal(ecs.deregister_task_definition, taskDefinition=name) == {
        "Code": "ClientException",
        "Message": "The specified task definition does not exist.",
        "Status": 400,
    }


def test_family_without_active_revision_cannot_be_described(ecs: Any) -> None:
    ecs.register_task_definition(**definition(family="gone"))
    ecs.deregister_task_definition(taskDefinition="gone:1")
    answer = refusal(ecs.describe_task_definition, taskDefinition="gone")
    assert answer["Message"] == "Unable to describe task definition."


def test_delete(ecs: Any) -> None:
    for _ in range(2):
        ecs.register_task_definition(**definition(family="del"))
    ecs.deregister_task_definition(taskDefinition="del:1")
    names = ["del:1", "del:2", "del:3"]
    answer = ecs.delete_task_definitions(taskDefinitions=names)
    assert [
        (found["revision"], found["status"]) for found in answer["taskDefinitions"]
    ] == [(1, "DELETE_IN_PROGRESS")]
    assert [failure["arn"].rpartition("/")[2] for failure in answer["failures"]] == [
        "del:2",
        "del:3",
    ]
    eleven = refusal(ecs.delete_task_definitions, taskDefinitions=["x:1"] * 11)
    assert eleven["Code"] == "InvalidParameterException"


def test_lists_come_in_pages(ecs: Any) -> None:
    for _ in range(5):
        ecs.register_task_definition(**definition(family="many"))
    paginator = ecs.get_paginator("list_task_definitions")
    pages = paginator.paginate(
        familyPrefix="many", sort="DESC", PaginationConfig={"PageSize": 2}
    )
    assert [
        [arn.rpartition(":")[2] for arn in page["taskDefinitionArns"]] for page in pages
    ] == [["5", "4"], ["3", "2"], ["1"]]


@pytest.mark.parametrize(
    "params", [{"maxResults": 0}, {"maxResults": 101}, {"nextToken": "nonsense"}]
)
def test_pages_that_cannot_be(ecs: Any, params: Dict[str, Any]) -> None:
    answer = refusal(ecs.list_task_definitions, **params)
    assert answer["Code"] == "InvalidParameterException"


def test_families(ecs: Any) -> None:
    for family in ("fam-b", "fam-a", "fam-old"):
        ecs.register_task_definition(**definition(family=family))
    ecs.deregister_task_definition(taskDefinition="fam-old:1")

    def families(**params: Any) -> Any:
        return ecs.list_task_definition_families(familyPrefix="fam-", **params)[
            "families"
        ]

    assert families() == ["fam-a", "fam-b", "fam-old"]
    assert families(status="ACTIVE") == ["fam-a", "fam-b"]
    assert families(status="INACTIVE") == ["fam-old"]


def test_tagging_a_definition(ecs: Any) -> None:
    arn = ecs.register_task_definition(**definition(tags=[{"key": "a", "value": "1"}]))[
        "taskDefinition"
    ]["taskDefinitionArn"]
    tags = [{"key": "a", "value": "2"}, {"key": "b", "value": "3"}]
    ecs.tag_resource(resourceArn=arn, tags=tags)
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == tags
    ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == tags[1:]


def test_services_run_our_definitions(ecs: Any) -> None:
    for _ in range(2):
        ecs.register_task_definition(**definition(family="agent"))
    service = ecs.create_service(serviceName="agent", taskDefinition="agent")["service"]
    assert service["taskDefinition"] == ARN + "task-definition/agent:2"
    answer = refusal(ecs.create_service, serviceName="x", taskDefinition="nothing")
    assert answer["Message"] == "TaskDefinition not found."

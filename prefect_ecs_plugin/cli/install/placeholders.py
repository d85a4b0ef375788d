"""Where the agent will run, in the words of one output format.

In a CloudFormation template the account is `${AWS::AccountId}`, in Terraform it is
`${data.aws_caller_identity.current.account_id}`, and on paper it is a number. The
policy and the task definition are written once, with a `Placeholders` filled in by each
format. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass


class Reference(str):
    """Text in which `${...}` is the format's own; any other text is the user's."""


@dataclass(frozen=True)
class Placeholders:
    """What a format calls the things that only the account knows.

    Attributes:
        partition: `aws`, `aws-cn`, `aws-us-gov`.
        region: The region of service, cluster and logs.
        account: The account's number, `*` where it is not account.
        cluster: The cluster's name.
        image: The agent's image.
        cpu: CPU units, as a string.
        memory: MiB, as a string.
        agent_role_arn: The role of the agent itself.
        execution_role_arn: The role with which ECS starts the agent.
        log_group: Where the agent's own log goes.
        api_key_arn: The secret that holds the API key; empty where there is none.
    """

    partition: str
    region: str
    account: str
    cluster: str
    image: str
    cpu: str
    memory: str
    agent_role_arn: str
    execution_role_arn: str
    log_group: str
    api_key_arn: str

    def arn(self, service: str, resource: str) -> Reference:
        """The ARN of something in this account and region."""
        return Reference(
            f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"
        )

    @property
    def cluster_arn(self) -> Reference:
        """The cluster's ARN."""
        return self.arn("ecs", f"cluster/{self.cluster}")

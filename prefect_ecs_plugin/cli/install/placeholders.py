"""Account, region and roles, as an output format writes them. Pure.

In a CloudFormation template the account is `${AWS::AccountId}`, in Terraform it is
`${data.aws_caller_identity.current.account_id}`, and in AWS's own JSON it is a number.
The policy and the task definition are written once, with the `Placeholders` of each
format.
"""

from __future__ import annotations

from dataclasses import dataclass


class Reference(str):
    """Text whose `${...}` is the format's own; in other text it is the user's."""


@dataclass(frozen=True)
class Placeholders:
    """The format's names of properties of the account.

    Attributes:
        partition: `aws`, `aws-cn`, `aws-us-gov`.
        region: The region of the service, the cluster and the logs.
        account: The account's number; `*` if unknown.
        cluster: The cluster's name.
        image: The agent's image.
        cpu: CPU units, as a string.
        memory: MiB, as a string.
        agent_role_arn: The agent's role.
        execution_role_arn: The agent's execution role.
        flow_execution_role_arn: The execution role of flow runs that name none.
        log_group: The log group of the agent's own log.
        flow_log_group: The log group of flow runs.
        flow_subnets: Their subnets, separated by commas.
        flow_security_groups: Their security groups, separated by commas.
        flow_public_ip: `ENABLED` or `DISABLED`, for them.
        api_key_arn: The secret that contains the API key; empty if there is none.
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
    flow_execution_role_arn: str
    log_group: str
    flow_log_group: str
    flow_subnets: str
    flow_security_groups: str
    flow_public_ip: str
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

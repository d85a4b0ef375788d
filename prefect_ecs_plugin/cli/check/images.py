"""The images that runs need, where a registry can be asked for them."""

from __future__ import annotations

import re
from typing import Dict, Iterator, NamedTuple, Optional

from .asking import Refused, Unanswered
from .facts import CheckContext
from .findings import Finding, failed, ok, skipped
from .preview import LaunchPreview

_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"amazonaws\.com(\.cn)?/(?P<repository>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]+))?\Z"
)

#: Registries that are on the internet, for all we know.
_PUBLIC = ("docker.io", "public.ecr.aws", "ghcr.io", "quay.io", "gcr.io")

#: What ECR says when there is no such thing.
_ABSENT = ("RepositoryNotFoundException", "ImageNotFoundException")


class ECRImage(NamedTuple):
    """The parts of an image's name in ECR."""

    account: str
    region: str
    repository: str
    tag: Optional[str]
    digest: Optional[str]

    @classmethod
    def of(cls, image: str) -> Optional[ECRImage]:
        """Take a name apart; None where it is not of a private registry of ECR."""
        match = _ECR.match(image)
        return match and cls(*(match.group(name) for name in cls._fields))

    @property
    def id(self) -> Dict[str, str]:
        """As ECR wants it; Docker takes `latest` where nothing is said."""
        if self.digest:
            return {"imageDigest": self.digest}
        return {"imageTag": self.tag or "latest"}


def is_public(image: str) -> bool:
    """Whether an image is on the internet: Docker Hub's names have no host."""
    host, slash, _ = image.partition("/")
    is_host = bool(slash) and ("." in host or ":" in host or host == "localhost")
    return not is_host or host in _PUBLIC


def images(facts: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether each image is in its registry."""
    for image in launch.images():
        yield _found(facts, image).of("", image)


def _found(facts: CheckContext, image: str) -> Finding:
    assert facts.aws is not None  # preflight asks only where it is known
    parts = ECRImage.of(image)
    if parts is None:
        return skipped("Only private registries of ECR can be asked.")
    if image.endswith(":made-when-registered"):
        return skipped("It is built when the flow is registered.")
    try:
        facts.aws.ask(
            "ecr",
            "describe_images",
            region=parts.region,
            registryId=parts.account,
            repositoryName=parts.repository,
            imageIds=[parts.id],
        )
    except Refused as error:
        if error.code not in _ABSENT:
            return skipped(f"ECR was asked for it: {error}.")
        return failed(f"It is not in ECR: {error}.", "Push it, or correct the name.")
    except Unanswered as error:
        return skipped(f"ECR was asked for it: {error}.")
    return ok("is in ECR")

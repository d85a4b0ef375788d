"""The images of runs, if they are in a registry that can be queried."""

from __future__ import annotations

import re
from typing import Dict, Iterator, NamedTuple, Optional

from ..aws_client import AWS, AWSRefusal, AWSUnavailable
from .context import CheckContext, LaunchPreview
from .findings import Finding, failed, ok, skipped

_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"amazonaws\.com(\.cn)?/(?P<repository>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]+))?\Z"
)

#: Registries that are assumed to be on the internet.
_PUBLIC = ("docker.io", "public.ecr.aws", "ghcr.io", "quay.io", "gcr.io")

#: ECR's error codes for an image or a repository that does not exist.
_NOT_FOUND = ("RepositoryNotFoundException", "ImageNotFoundException")


class ECRImage(NamedTuple):
    """The parts of an image's name in ECR."""

    account: str
    region: str
    repository: str
    tag: Optional[str]
    digest: Optional[str]

    @classmethod
    def of(cls, image: str) -> Optional[ECRImage]:
        """Parse a name; None unless it is in a private registry of ECR."""
        match = _ECR.match(image)
        return match and cls(*(match.group(name) for name in cls._fields))

    @property
    def id(self) -> Dict[str, str]:
        """As ECR's API takes it; the default tag is `latest`."""
        if self.digest:
            return {"imageDigest": self.digest}
        return {"imageTag": self.tag or "latest"}


def is_public(image: str) -> bool:
    """Whether an image is on the internet; names in Docker Hub have no host."""
    host, slash, _ = image.partition("/")
    is_host = bool(slash) and ("." in host or ":" in host or host == "localhost")
    return not is_host or host in _PUBLIC


def images(context: CheckContext, launch: LaunchPreview) -> Iterator[Finding]:
    """Whether each image is in its registry."""
    for image in launch.images():
        yield _image(context.known_aws, image).of("", image)


def _image(aws: AWS, image: str) -> Finding:
    parts = ECRImage.of(image)
    if parts is None:
        return skipped(
            "Only images in private registries of ECR can be checked.",
            code="image-not-in-ecr",
        )
    if image.endswith(":made-when-registered"):
        return skipped(
            "The image is built when the flow is registered.", code="image-not-built"
        )
    try:
        aws.ask(
            "ecr",
            "describe_images",
            region=parts.region,
            registryId=parts.account,
            repositoryName=parts.repository,
            imageIds=[parts.id],
        )
    except AWSUnavailable as error:
        if isinstance(error, AWSRefusal) and error.aws_code in _NOT_FOUND:
            return failed(
                f"The image is not in ECR: {error}.",
                "Push it, or correct the name.",
                code="image-not-found",
            )
        return skipped(f"ECR does not describe the image: {error}.", code=error.code)
    return ok("is in ECR")

"""The limits of the options and of a file, which is read again when it changes."""

from __future__ import annotations

import logging
from functools import partial
from typing import Iterable, Optional, Tuple

from ..errors import ConfigurationError, PrefectECSError, without_code
from ..limits import Limit, merged, parse, parse_file
from ..scheduling.steps import Pause, Steps, in_thread
from .sources import ClientFactory, is_remote, load_mapping, shown

#: Seconds between two reads of the file, on this machine and elsewhere.
_LOCAL, _REMOTE = 10.0, 60.0


class LimitsFile:
    """The limits that an agent was given.

    Args:
        options: The values of `--limit`.
        path: The value of `--limits`: a YAML file, local or remote; None for none.
        further: Limits of other options.
        client: Makes the S3 client.
        logger: Says when the file has changed, or cannot be read any more.

    Attributes:
        limits: The limits that are valid now.

    Raises:
        ConfigurationError: one line, if an option or the file is wrong.
    """

    def __init__(
        self,
        options: Iterable[str],
        path: Optional[str],
        further: Iterable[Limit],
        client: ClientFactory,
        logger: logging.Logger,
    ) -> None:
        try:
            self._own = merged([*map(parse, options), *further])
        except ConfigurationError as error:
            raise ConfigurationError(
                f"--limit: {error.message}", code=error.code
            ) from error
        self._client = client
        self._logger = logger
        self.limits = self._read(path) if path else self._own

    def _read(self, path: str) -> Tuple[Limit, ...]:
        content = load_mapping(path, self._client, has_unique_keys=True)
        try:
            return merged([*self._own, *parse_file(content)])
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{shown(path)}: {error.message}", code=error.code
            ) from error

    def watch(self, path: str) -> Steps[None]:
        """Read the file again and again; the last good one stays valid.

        Args:
            path: The file.
        """
        said = ""
        while True:
            yield Pause(_REMOTE if is_remote(path) else _LOCAL)
            read = in_thread(partial(self._read, path), "limits")
            yield read
            error = read.exception()
            if error is None:
                self._use(read.result(), said)
                said = ""
            elif not isinstance(error, PrefectECSError):
                raise error
            elif str(error) != said:
                said = str(error)
                self._logger.warning(
                    "The limits stay as they are, because the file cannot be used: %s "
                    "[limits-unchanged]",
                    without_code(said).rstrip("."),
                )

    def _use(self, limits: Tuple[Limit, ...], said: str) -> None:
        if said or limits != self.limits:
            self._logger.info(
                "The limits are now: %s", ", ".join(map(str, limits)) or "none"
            )
        self.limits = limits

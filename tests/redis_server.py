"""A real redis-server that tests stop and start."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import trustme

from tests.conftest import eventually, free_port

PASSWORD = "not-to-be-logged"


class Redis:
    """A redis-server on its own port, which keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._options: dict[str, object] = {"port": self._port}
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"

    def encrypt(self) -> None:
        """Use TLS from the next start on."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        files = {name: self._folder / name for name in ("ca.crt", "redis.crt", "redis.key")}
        authority.cert_pem.write_to_path(files["ca.crt"])
        issued.cert_chain_pems[0].write_to_path(files["redis.crt"])
        issued.private_key_pem.write_to_path(files["redis.key"])
        self._options = {"port": 0, "tls-port": self._port, "tls-auth-clients": "no"}
        self._options |= {"tls-cert-file": files["redis.crt"], "tls-key-file": files["redis.key"]}
        self._options |= {"tls-ca-cert-file": files["ca.crt"]}
        self.url = f"rediss://:{PASSWORD}@127.0.0.1:{self._port}/0?ssl_ca_certs={files['ca.crt']}"

    def start(self) -> None:
        options = self._options | {"bind": "127.0.0.1", "save": "", "appendonly": "no"}
        options |= {"requirepass": PASSWORD, "dir": self._folder}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        eventually(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """The server keeps its connections, but answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

"""Debian's PostgreSQL with PL/Python, in a folder of its own and for the time of the tests."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "postgresql-plpython3"


@dataclass(frozen=True)
class DebianPostgres:
    """A server that runs, reached over the socket in `folder`; who it runs as may read there."""

    folder: Path
    psql: Path
    user: str

    @property
    def dsn(self) -> str:
        return f"host={self.folder} user=postgres dbname=postgres"

    def write(self, name: str, content: str) -> Path:
        """Write a file that only the server's user can read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(content)
        shutil.chown(path, self.user)
        return path


def programs() -> Path | None:
    """Find the newest server of Debian's that has PL/Python."""
    found = Path("/usr/lib/postgresql").glob("*/lib/plpython3.so")
    newest = max(found, key=lambda path: int(path.parents[1].name), default=None)
    return newest and newest.parents[1] / "bin"


@contextmanager
def debian_postgres(bin_folder: Path, authority_pem: str) -> Iterator[DebianPostgres]:
    """Make a cluster, start it, and remove it in the end; PostgreSQL refuses to run as root.

    The certificates of the authority are what it trusts.
    """
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="rerank-sql-") as name:
        server = DebianPostgres(Path(name), bin_folder / "psql", user)
        shutil.chown(name, user)
        trusted = server.write("authority.pem", authority_pem)

        def run(program: str, *arguments: str) -> None:
            command = [str(bin_folder / program), "-D", f"{name}/data", *arguments]
            is_root = os.geteuid() == 0
            subprocess.run(
                command,
                # Not this environment: a virtualenv in PATH would become PL/Python's.
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SSL_CERT_FILE": str(trusted)},
                cwd=name,
                stdout=subprocess.DEVNULL,
                check=True,
                user=user if is_root else None,
                group=user if is_root else None,
                extra_groups=[] if is_root else None,
            )

        run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {name} -c listen_addresses= -c fsync=off -c max_connections=50"
        run("pg_ctl", "start", "-w", "-l", f"{name}/log", "-o", options)
        try:
            yield server
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")

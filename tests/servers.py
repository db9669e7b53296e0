"""Starts real database servers for tests, as a user of their own where the tests run as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy

PASSWORD = "canary-S3cret"
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the URL of a fresh cluster, without a database's name."""
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    with _folder("postgres") as folder:
        data, control, port = folder / "data", str(binaries[-1].with_name("pg_ctl")), _free_port()
        secret = ["-A", "scram-sha-256", "-U", "ann", f"--pwfile={folder}/password", "--no-sync"]
        _run([str(binaries[-1]), "-D", str(data), *secret], "postgres")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        _run([control, "-D", str(data), "-o", options, "-w", "start"], "postgres")
        try:
            yield f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}"
        finally:
            _run([control, "-D", str(data), "-m", "immediate", "stop"], "postgres")


@contextmanager
def mysql() -> Iterator[str]:
    """Yield the URL of a fresh MariaDB server, without a database's name."""
    pytest.importorskip("pymysql", reason="the extra `mysql` is not installed")
    install, server = shutil.which("mariadb-install-db"), shutil.which("mariadbd", path="/usr/sbin:/usr/bin")
    if install is None or server is None:
        pytest.skip("no MariaDB server is installed (Debian: apt-get install mariadb-server)")
    with _folder("mysql") as folder:
        data, port = folder / "data", _free_port()
        _run([install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"], "mysql")
        first = folder / "first.sql"
        user = f"CREATE USER ann@127.0.0.1 IDENTIFIED BY '{PASSWORD}';"
        first.write_text(f"{user}\nGRANT ALL ON *.* TO ann@127.0.0.1;\n")  # it wants one statement a line
        place = [f"--datadir={data}", f"--socket={folder}/socket", f"--pid-file={folder}/pid", f"--init-file={first}"]
        network = ["--bind-address=127.0.0.1", f"--port={port}", "--innodb-flush-log-at-trx-commit=0"]
        process = _popen([server, "--no-defaults", *place, *network], "mysql")
        url = f"mysql://ann:{PASSWORD}@127.0.0.1:{port}"
        try:
            _await(url)
            yield url
        finally:
            process.kill()
            process.wait()


SERVERS = {"mysql": mysql, "postgresql": postgresql}


def engine(url: str, database: str = "") -> sqlalchemy.Engine:
    """Return connections that commit every statement."""
    kind, _, rest = url.partition("://")
    return sqlalchemy.create_engine(f"{DRIVERS[kind]}://{rest}/{database}", isolation_level="AUTOCOMMIT")


def drop_connections(url: str) -> None:
    """End all connections to the server but our own."""
    server, _, database = url.rpartition("/")
    own = engine(server, database)
    with own.connect() as connection:
        if url.startswith("postgresql"):
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(sqlalchemy.text(f"{end} AND backend_type = 'client backend'"))
        else:
            others = "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'ann'"
            for (number,) in connection.execute(sqlalchemy.text(others)).all():
                connection.execute(sqlalchemy.text(f"KILL {int(number)}"))
    own.dispose()


def _await(url: str) -> None:
    for _ in range(300):
        try:
            engine(url).connect().close()
        except sqlalchemy.exc.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")


@contextmanager
def _folder(user: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"automl-pt-{user}-"))
    (folder / "password").write_text(PASSWORD)
    if os.getuid() == 0:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _popen(command: list[str], user: str) -> subprocess.Popen[bytes]:
    """Start a server's program; it refuses to work for root, and has a user of its own then."""
    account = user if os.getuid() == 0 else None
    return subprocess.Popen(command, user=account, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _run(command: list[str], user: str) -> None:
    assert _popen(command, user).wait() == 0

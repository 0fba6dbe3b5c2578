"""An authority of our own with certificates for a server and a client, made by the openssl command for one day."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers import need

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificates:
    """PEM files. `stranger` is the certificate of an authority that nobody here trusts."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    stranger: Path


def make_certificates(folder: Path) -> Certificates:
    """The server's is for localhost and 127.0.0.1. Skips where there is no openssl."""
    need("openssl")
    _authority(folder, "authority")
    _authority(folder, "stranger")
    _signed(folder, "server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    _signed(folder, "client", "extendedKeyUsage=clientAuth\n")
    names = ("authority.pem", "server.pem", "server.key", "client.pem", "client.key", "stranger.pem")
    return Certificates(*(folder / name for name in names))


def _authority(folder: Path, name: str) -> None:
    request = ["req", "-x509", *KEY, "-days", "1", "-subj", f"/CN={name}", "-keyout", f"{name}.key"]
    _openssl(folder, *request, "-out", f"{name}.pem")


def _signed(folder: Path, name: str, extensions: str) -> None:
    (folder / f"{name}.ext").write_text(extensions)
    _openssl(folder, "req", *KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    by = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-days", "1"]
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *by, "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
